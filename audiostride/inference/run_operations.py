"""What a list of operations computes, by torch: the check of a page or C file where it cannot be run itself."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .operations import Add, Affine, Average, Convolution, Head, Join, Matrix, Operation, Pick, Reduce, Reshape


@torch.no_grad()
def run_operations(steps: Sequence[Operation], features: Tensor) -> list[Tensor]:
    """Logits of each task.

    Args:
        steps: from `operations.operations`.
        features: log-mel ``(batch, 1, time, mel)``, or what a `RawWaveform` makes.

    Returns:
        For each task ``(batch, n_classes)``, in the order of the heads.

    Example:
        >>> from audiostride import create_model
        >>> from audiostride.inference.operations import operations
        >>> model = create_model("audio_resnet_pico_strided", heads={"word": 3}).eval()
        >>> features = model.frontend(torch.randn(2, 16000))
        >>> (logits,) = run_operations(operations(model), features)
        >>> torch.allclose(logits, model.heads["word"](model.trunk(features)), atol=1e-4)
        True
    """
    made = [features if features.dim() == 4 else features.reshape(len(features), 1, -1, 1)]
    for step in steps:
        made.append(_run(step, [made[source] for source in step.sources]))
        if getattr(step, "relu", False):
            made[-1] = made[-1].relu()
    return [values for step, values in zip(steps, made[1:], strict=True) if isinstance(step, Head)]


def _run(step: Operation, inputs: list[Tensor]) -> Tensor:
    x = inputs[0]
    if isinstance(step, Convolution):
        weight, bias = torch.from_numpy(step.weight), torch.from_numpy(step.bias)
        return F.conv2d(x, weight, bias, step.stride, step.padding, groups=step.groups)
    if isinstance(step, Affine):
        return x * torch.from_numpy(step.scale)[:, None, None] + torch.from_numpy(step.shift)[:, None, None]
    if isinstance(step, Matrix):
        groups = x.unflatten(1, (len(step.matrix), -1))
        rule = "gmn,bgcnw->bgcmw" if step.axis == "time" else "gmn,bgctn->bgctm"
        return torch.einsum(rule, torch.from_numpy(step.matrix), groups).flatten(1, 2)
    if isinstance(step, Add):
        return x + inputs[1]
    if isinstance(step, Average):
        return F.avg_pool2d(x, step.size, ceil_mode=True)
    if isinstance(step, Pick):
        return x[:, :, :: step.step[0], :: step.step[1]]
    if isinstance(step, Reshape):
        return x.transpose(2, 3).flatten(1, 2).unsqueeze(3)
    if isinstance(step, Reduce):
        return x.mean((2, 3)) if step.kind == "mean" else x.amax((2, 3))
    if isinstance(step, Join):
        return torch.cat(inputs, 1)
    if isinstance(step, Head):
        return F.linear(x, torch.from_numpy(step.weight), torch.from_numpy(step.bias))
    return x.relu()
