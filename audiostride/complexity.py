"""What a trunk costs at its current strides: multiply-accumulates, activations, parameters."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .cnn import AudioCNN
from .downsampling import diffstride_layers


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


def trunk_cost(trunk: AudioCNN, time: int, mel: int) -> Cost:
    """Cost of an `AudioCNN` on one spectrogram of `time` frames and `mel` bands, at its current strides.

    A convolution before a pooling layer is counted at the resolution of its input; a pooling matrix
    of M x N costs M * N a column. Biases, ReLU and batch norm are not counted.

    Example:
        >>> round(trunk_cost(AudioCNN("strided"), 100, 64).macs / 1e6)
        428
        >>> [round(trunk_cost(AudioCNN("diffstride", smoothness=r), 100, 64).macs / 1e6) for r in (1, 4)]
        [885, 2367]
    """
    macs = activations = 0
    sizes = trunk.map_sizes(time, mel)
    for block, (n_time, n_mel), (m_time, m_mel) in zip(trunk.separable_blocks, sizes, sizes[1:], strict=False):
        c_in, c_out = block.time_conv.conv.in_channels, block.time_conv.conv.out_channels
        pooled = block.pool is not None
        conv_time, conv_mel = (n_time, n_mel) if pooled else (m_time, m_mel)
        macs += 3 * c_in * c_out * conv_time * n_mel + 3 * c_out * c_out * m_time * conv_mel
        activations += c_out * (conv_time * n_mel + m_time * conv_mel)
        if pooled:
            macs += c_out * (m_time * n_time * n_mel + m_time * n_mel * m_mel)
            activations += c_out * (m_time * n_mel + m_time * m_mel)
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
        >>> from audiostride.downsampling import DiffStride
        >>> stride_cost(nn.Sequential(DiffStride((2.0, 2.0)), DiffStride((1.0, 4.0)))).item()
        0.5
    """
    total = torch.zeros(())
    for layer in diffstride_layers(model):
        total = total.to(layer.stride) + layer.stride.expand(layer.n_axes).prod().reciprocal()
    return total
