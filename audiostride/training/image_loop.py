"""Training an image classifier: SGD with a stepped learning rate, as for residual nets.

The accuracy that counts is that of the last epoch, as in the paper: no epoch is chosen by looking at the test.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.images import Progress, Views
from ..errors import TrainingError
from ..files import JsonLines
from ..layers.strides import clamp_strides_, parameter_groups
from ..models.converted import ConvertedTrunk
from ..models.resnet import ResNet


class ImageClassifier(nn.Module):
    """Images in, logits out: normalises the colours, then a trunk and a linear head.

    Args:
        trunk: a network with three input channels.
        classes: name of each class.
        mean: mean of each colour over the training images, 0 to 1.
        std: standard deviation of each colour.

    Example:
        >>> model = ImageClassifier(ResNet(channels=(4, 8), blocks=(1, 1), strides=(2,), in_channels=3), ["cat", "dog"])
        >>> model(torch.zeros(5, 32, 32, 3, dtype=torch.uint8)).shape
        torch.Size([5, 2])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: ResNet | ConvertedTrunk,
        classes: Sequence[str],
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ):
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.num_features, len(classes))
        self.classes = list(classes)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images ``(batch, height, width, 3)`` to logits ``(batch, n_classes)``."""
        x = images.permute(0, 3, 1, 2).float() / 255
        return self.head(self.trunk((x - self.mean) / self.std))


def train_images(
    model: ImageClassifier,
    train: Views,
    test: Views,
    out: Path,
    *,
    epochs: int = 400,
    batch_size: int = 256,
    learning_rate: float = 0.1,
    stride_learning_rate: float = 0.1,
    aliasing_learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-3,
    highest_stride: float | None = None,
    drop_epochs: Sequence[int] = (200, 300),
    mixup: float = 0.0,
    precision: str = "float32",
    seed: int = 0,
    progress: Progress | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train an image classifier by SGD; a line of `metrics.jsonl` in `out` per epoch.

    Args:
        model: the classifier, on its device.
        train: training images.
        test: test images, scored after each epoch.
        out: run directory, which exists.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: SGD's rate of the weights, `stride_learning_rate` of the strides, and
            `aliasing_learning_rate` of the aliasing; all are divided by ten after each of the epochs in
            `drop_epochs`.
        momentum: SGD's momentum.
        weight_decay: SGD's L2 penalty on the weights, never on strides.
        highest_stride: what learned strides are held to besides half their map; None: no such limit.
        drop_epochs: epochs after which the rates fall.
        mixup: parameter of the Beta distribution that mixes pairs of images (Zhang et al. 2018); 0: off.
        precision: "float32"; or "bfloat16": convolutions and matrix products of the training steps in half
            precision (autocast). Weights, masks, batch norm, losses and scoring stay in float32.
        seed: decides order, views and mixing.
        progress: progress callback.
        on_epoch: called with each line of `metrics.jsonl`.

    Returns:
        The last line of `metrics.jsonl`.

    Raises:
        TrainingError: if the loss is not finite.
        DataError: if an image cannot be decoded.
        WriteError: if the disk is full.
    """
    device, n = model.mean.device, len(train.images.labels)
    groups = parameter_groups(model, learning_rate, stride_learning_rate, aliasing_learning_rate)
    optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    peak_rates = [group["lr"] for group in optimizer.param_groups]
    record: dict[str, Any] = {}
    with JsonLines(out / "metrics.jsonl") as metrics:
        for epoch in range(epochs):
            model.train()
            for group, rate in zip(optimizer.param_groups, peak_rates, strict=True):
                group["lr"] = rate / 10 ** sum(epoch >= drop for drop in drop_epochs)
            began, total, seen = time.perf_counter(), 0.0, 0
            mixing = np.random.default_rng([seed, 3, epoch])
            for images, labels in train.batches(batch_size, (seed, epoch)):
                images, labels = images.to(device), labels.to(device)
                share = float(mixing.beta(mixup, mixup)) if mixup else 1.0
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    logits = model(_mix(images, share) if mixup else images).float()
                loss = F.cross_entropy(logits, labels)
                if mixup:
                    loss = share * loss + (1 - share) * F.cross_entropy(logits, labels.flip(0))
                if not torch.isfinite(loss):
                    raise TrainingError(f"the loss became {loss.item()} in epoch {epoch + 1}; lower learning_rate")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                clamp_strides_(model, highest_stride or float("inf"))
                total, seen = total + loss.item() * len(labels), seen + len(labels)
                if progress:
                    progress(f"epoch {epoch + 1}/{epochs}", seen, n)
            images_per_s = seen / (time.perf_counter() - began)
            record = {
                "epoch": epoch + 1,
                "train_loss": total / seen,
                "test_accuracy": share_correct(image_logits(model, test, batch_size), test),
                "strides": model.trunk.strides(),
                **({"aliasing": aliasing} if (aliasing := model.trunk.aliasing()) else {}),
                "lr": optimizer.param_groups[0]["lr"],
                "images_per_s": images_per_s,
            }
            metrics.append(record)
            if on_epoch:
                on_epoch(record)
    return record


@torch.inference_mode()
def image_logits(model: ImageClassifier, images: Views, batch_size: int = 256) -> Tensor:
    """Logits ``(n, n_classes)`` of the test view of every image, in their order."""
    model.eval()
    return torch.cat([model(batch.to(model.mean.device)).cpu() for batch, _ in images.batches(batch_size)])


def share_correct(logits: Tensor, images: Views) -> float:
    """Share of images whose likeliest class is correct, 0 to 1."""
    return float((logits.argmax(1).numpy() == images.images.labels).mean())


def _mix(images: Tensor, share: float) -> Tensor:
    """Each image mixed with the one that mirrors its place in the batch."""
    return share * images.float() + (1 - share) * images.flip(0).float()
