"""What a network is like at given strides: its cut-offs, striding factor and cost, for every epoch of a run."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch

from .cost import cost_per_second
from .cutoffs import AXES, trunk_cutoffs
from .network import AudioNetwork, spectrogram_cnn


def state_at(model: AudioNetwork, strides: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Cut-offs, striding factor and cost that a model has at given strides.

    Args:
        model: decides everything but the trunk's learned strides; it is not changed. An `AdaptiveLogMel` is at its
            present resolution.
        strides: (time, mel) stride of each block.

    Returns:
        "strides"; "cutoffs": cumulative (time, mel) cut-off of each block, f/(2S) or the lowest so
        far; "total_stride": product of the strides of each axis; "shrinkage": input length over the
        last map's, which is smaller, as maps keep R bins more; "macs_per_second".

    Example:
        >>> from audiostride import AudioCNN, LogMel
        >>> trunk = AudioCNN(channels=(4, 4), strides=((2, 2), (2, 2)), smoothness=1)
        >>> state = state_at(AudioNetwork(LogMel(), trunk, {"rate": 2}), [[2.0, 2.0], [4.0, 1.0]])
        >>> state["total_stride"], state["cutoffs"][0]
        ([8.0, 2.0], [25.0, 0.25])
    """
    frontend, trunk = spectrogram_cnn(model, "the cut-offs over training")
    trunk = copy.deepcopy(trunk).cpu()
    with torch.no_grad():
        for block, stride in zip(trunk.blocks, strides, strict=True):
            if block.pool and block.pool.learns_strides:
                own = [stride[axis] for axis in block.pooled_axes]
                block.pool.stride.copy_(torch.tensor(own[: len(block.pool.stride)]))
    n_frames = model.window_length // frontend.hop_length
    rows = trunk_cutoffs(trunk, n_frames, frontend.n_mels, frontend.frame_rate, frontend.first_pool)
    by_axis = [[row.cumulative.continuous for row in rows if row.axis == axis and row.layer] for axis in AXES]
    size = frontend.map_size(model.window_length)
    last = trunk.map_sizes(*size)[-1]
    return {
        "strides": [list(stride) for stride in strides],
        "cutoffs": [list(pair) for pair in zip(*by_axis, strict=True)],
        "total_stride": [math.prod(stride[axis] for stride in strides) for axis in (0, 1)],
        "shrinkage": [n / m for n, m in zip(size, last, strict=True)],
        "macs_per_second": cost_per_second(model, trunk).macs,
    }
