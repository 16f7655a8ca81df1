"""What a model costs at its current strides: multiply-accumulates, activations, parameters."""

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..layers.strides import diffstride_layers, freeze_strides
from .network import AudioNetwork


class Cost(NamedTuple):
    """Cost of one forward pass of one clip.

    Attributes:
        macs: multiply-accumulates of convolutions and pooling matrices.
        activations: numbers in the outputs of all convolutions and pooling layers.
        parameters: trainable parameters, strides included.
    """

    macs: int
    activations: int
    parameters: int


def count_parameters(module: nn.Module) -> int:
    """Trainable parameters of a module.

    Example:
        >>> count_parameters(nn.Linear(3, 2))
        8
    """
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def stride_cost(model: nn.Module) -> Tensor:
    """Regulariser that trades accuracy for cost: the sum over DiffStride layers of 1 / (S_t * S_f).

    Differentiable in the strides; 0 for a model without learned strides.

    Source:
        Riad et al., ICLR 2022, Eq. 6.

    Example:
        >>> from audiostride.layers.downsampling import DiffStride
        >>> stride_cost(nn.Sequential(DiffStride((2.0, 2.0)), DiffStride((1.0, 4.0)))).item()
        0.5
    """
    total = torch.zeros(())
    for layer in diffstride_layers(model):
        total = total.to(layer.stride) + layer.stride.expand(layer.n_axes).prod().reciprocal()
    return total


@torch.no_grad()
def model_cost(model: nn.Module, example: Tensor) -> Cost:
    """Cost of any model on one input at its current strides, counted while it runs.

    Every convolution, matrix product and Fourier transform that PyTorch is asked for counts, on a copy whose learned
    strides are frozen: a pooling matrix of M x N costs M N for each column, and making it (once a batch) is left out,
    as are biases, ReLU and batch norm. A transform of N samples counts (5/4) N log2 N if real, twice that if complex.

    Args:
        model: any module.
        example: one input, with a batch dimension of 1; moved to the model's device.

    Example:
        >>> from audiostride.layers.downsampling import SpectralPool
        >>> net = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), SpectralPool(2))
        >>> model_cost(net, torch.zeros(1, 1, 10))
        Cost(macs=160, activations=30, parameters=8)
        >>> from audiostride import AudioCNN
        >>> spectrogram = torch.zeros(1, 1, 100, 64)
        >>> trunks = AudioCNN("strided"), AudioCNN("diffstride", smoothness=1)
        >>> [round(model_cost(trunk, spectrogram).macs / 1e6) for trunk in trunks]
        [428, 693]
    """
    frozen = copy.deepcopy(model).eval()
    freeze_strides(frozen)
    device = next((p.device for p in model.parameters()), example.device)
    example = example.to(device)
    frozen(example)  # makes the constant matrices
    with _Counter() as counter:
        frozen(example)
    return Cost(counter.macs, counter.activations, count_parameters(model))


class _Counter(TorchDispatchMode):
    """Counts the multiply-accumulates and the results of what PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.activations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket
        if name in flop_registry:
            self.macs += flop_registry[name](*args, **(kwargs or {}), out_val=out) // 2
            self.activations += out.numel()
        elif str(name).startswith("aten._fft_"):
            real = args[0] if "r2c" in str(name) else out  # the complex side of a real transform is half as long
            length = math.prod(real.shape[dim] for dim in args[1])
            share = 2.5 if "c2c" in str(name) else 1.25
            self.macs += round(share * real.numel() * math.log2(length))
            self.activations += out.numel()
        return out


def cost_per_second(model: AudioNetwork, trunk: nn.Module | None = None) -> Cost:
    """Cost of a classifier's trunk, and of a frontend's pooling, for each second of audio or one image, at its strides.

    This is the cost of one window, divided by its length. A pooling matrix grows with the square of what it pools,
    so a second costs more in a longer window.

    Args:
        model: the classifier.
        trunk: count this one on the model's windows; None: the model's own.

    Example:
        >>> from audiostride import AudioCNN, LogMel
        >>> model = AudioNetwork(LogMel(), AudioCNN("strided"), {"word": 2})
        >>> round(cost_per_second(model).macs / 1e6)
        428
    """
    frontend = model.frontend
    cost = model_cost(model.trunk if trunk is None else trunk, frontend(model.silence()))
    if frontend.first_pool:
        pooling = model_cost(frontend.first_pool, frontend.before_pool(model.silence()))
        cost = Cost(*(one + other for one, other in zip(cost, pooling, strict=True)))
    return cost._replace(macs=round(cost.macs / model.window_s), activations=round(cost.activations / model.window_s))
