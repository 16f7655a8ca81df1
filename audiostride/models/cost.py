"""What a trunk costs at its current strides: multiply-accumulates, activations, parameters."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..layers.conv_form import conv_macs, pools_first
from ..layers.downsampling import DiffStride, SpectralPool
from ..layers.strides import diffstride_layers
from .audio_cnn import AudioCNN
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


def trunk_cost(trunk: AudioCNN, time: int, mel: int, full_resolution: bool = False) -> Cost:
    """Cost of an `AudioCNN` on one spectrogram of `time` frames and `mel` bands, at its current strides.

    A convolution before a pooling layer runs at the resolution `pools_first` chooses; a pooling
    matrix of M x N costs M * N a column, and a spectral pooling that keeps the length costs nothing.
    Biases, ReLU, batch norm and the making of the matrices (once a batch) are not counted. Large
    batches cost a CPU less a clip, see `convolves_in_spectrum`.

    Args:
        trunk: the trunk.
        time: input length in frames.
        mel: number of mel bands.
        full_resolution: count every convolution before a pooling layer at the resolution of its
            input, as an implementation by FFT has to run it.

    Example:
        >>> round(trunk_cost(AudioCNN("strided"), 100, 64).macs / 1e6)
        428
        >>> trunks = [AudioCNN("diffstride", smoothness=r) for r in (1, 4)]
        >>> [round(trunk_cost(trunk, 100, 64, full_resolution=True).macs / 1e6) for trunk in trunks]
        [885, 2367]
        >>> [round(trunk_cost(trunk, 100, 64).macs / 1e6) for trunk in trunks]
        [693, 2344]
    """
    macs = activations = 0
    n_time, n_mel = time, mel
    for block in trunk.separable_blocks:
        m_time, m_mel = block.output_lengths(n_time, n_mel)
        for axis, conv, n, m, others in (
            (0, block.time_conv.conv, n_time, m_time, n_mel),
            (1, block.mel_conv.conv, n_mel, m_mel, m_time),
        ):
            taps, c_in, c_out = conv.kernel_size[axis], conv.in_channels, conv.out_channels
            crop = None if block.pool is None else block.pool.axis_crop(n, axis)
            if block.pool is None or crop is None or block.pool.is_identity(crop):
                macs += others * taps * c_in * c_out * m
            elif not full_resolution and pools_first(c_in, c_out, taps, crop):
                macs += others * conv_macs(c_in, c_out, taps, crop)[1]
                activations += others * taps * c_in * m
            else:
                macs += others * conv_macs(c_in, c_out, taps, crop)[0]
                activations += others * c_out * n
            activations += others * c_out * m
        n_time, n_mel = m_time, m_mel
    return Cost(macs, activations, count_parameters(trunk))


def count_parameters(module: nn.Module) -> int:
    """Trainable parameters of a module.

    Example:
        >>> count_parameters(AudioCNN("strided"))
        3537216
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
    """Cost of any model on one input, counted while it runs: convolutions, linear and pooling layers.

    A pooling matrix of M x N counts M * N a column, as in `trunk_cost`; where `DiffStride` and
    `SpectralPool` choose an FFT the true count is lower. Other modules are not counted.

    Args:
        model: any module that calls its pooling layers as modules, such as `ResNet` or `WaveCNN`.
        example: one input, with a batch dimension of 1; moved to the model's device.

    Example:
        >>> from audiostride.layers.downsampling import SpectralPool
        >>> net = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), SpectralPool(2))
        >>> model_cost(net, torch.zeros(1, 1, 10))
        Cost(macs=160, activations=30, parameters=8)
    """
    macs = activations = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal macs, activations
        if isinstance(module, (DiffStride, SpectralPool)):
            sizes = list(inputs[0].shape)
            for dim in range(out.dim() - module.n_axes, out.dim()):
                macs += math.prod(sizes) * out.shape[dim]
                sizes[dim] = out.shape[dim]
        else:
            weight: Tensor = module.weight  # type: ignore[assignment]
            macs += out.numel() * weight[0].numel()
        activations += out.numel()

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, DiffStride, SpectralPool)
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, kinds)]
    was_training = model.training
    device = next((p.device for p in model.parameters()), example.device)
    try:
        model.eval()(example.to(device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return Cost(macs, activations, count_parameters(model))


def cost_per_second(model: AudioNetwork) -> Cost:
    """Cost of a classifier's trunk on one second of audio, or on one image, at its current strides.

    Example:
        >>> from audiostride.models.log_mel import LogMel
        >>> model = AudioNetwork(LogMel(), AudioCNN("strided"), {"word": 2})
        >>> round(cost_per_second(model).macs / 1e6)
        428
    """
    second = model.frontend(model.silence())
    if isinstance(model.trunk, AudioCNN):
        return trunk_cost(model.trunk, *second.shape[-2:])
    return model_cost(model.trunk, second)
