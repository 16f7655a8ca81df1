"""One training step up to the update: losses and gradients of its batches, and what the processes exchange."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..data.augment import LogMelTransform, augmented
from ..data.batches import TrainingBatch
from ..errors import TrainingError
from ..models.classifier import AudioClassifier
from ..models.cost import stride_cost
from .distillation import Teacher, distillation_loss
from .evaluation import none_loss, share_correct, task_loss
from .processes import gather, gather_numbers, process_count, without_exchange
from .recipe import TrainSection
from .resuming import Totals

NONE_WEIGHT = 0.5
"""Weight of the loss of background relative to that of clips, as in Hendrycks et al. 2019."""


@dataclass
class Objective:
    """What a step minimises: the weighted sum of the tasks' losses (by labels, a teacher and background), and the cost
    of strides.

    Attributes:
        settings: of the training loop.
        task_weights: weight of each task's loss, 1 where missing.
        class_weights: for a task the weight of each of its classes, on the model's device.
        log_mel_transforms: augmentation of the frontend's output.
        teacher: whose outputs are learned in addition to the labels; training scores are by the labels alone.
    """

    settings: TrainSection
    task_weights: Mapping[str, float] = field(default_factory=dict)
    class_weights: Mapping[str, Tensor] = field(default_factory=dict)
    log_mel_transforms: Sequence[LogMelTransform] = ()
    teacher: Teacher | None = None

    def gradients(
        self, parallel: nn.Module, model: AudioClassifier, group: Sequence[TrainingBatch], totals: Totals
    ) -> float:
        """Add up the gradients of a step's batches, averaged over them; the processes exchange them once.

        Args:
            parallel: the model as `processes.parallel` returns it.
            model: the model itself.
            group: the batches of this step.
            totals: the epoch's training scores, which are counted on in place.

        Returns:
            The mean loss of this process.
        """
        own_loss = 0.0
        for i, batch in enumerate(group):
            # Processes exchange gradients once a step, after its last batch.
            with without_exchange(parallel) if i + 1 < len(group) else nullcontext():
                loss = self._loss(parallel, model, batch, totals) / len(group)
                loss.backward()
            own_loss += float(loss.detach())
        return own_loss

    def _loss(self, parallel: nn.Module, model: AudioClassifier, batch: TrainingBatch, totals: Totals) -> Tensor:
        device = model.device
        labels = {task: numbers.to(device) for task, numbers in batch.labels.items()}
        with (
            augmented(model.frontend, self.log_mel_transforms, batch.seeds),
            torch.autocast(device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"),
        ):
            waveform = batch.waveform.to(device)
            logits = parallel(waveform, tuple(labels))
            taught = self.teacher.logits(waveform, tuple(labels)) if self.teacher else {}
        none = {task: none_loss(logits[task][rows], model.kinds[task]) for task, rows in batch.none.items()}
        logits = {task: answers[batch.rows[task]] for task, answers in logits.items()}
        taught = {task: answers[batch.rows[task]] for task, answers in taught.items()}
        losses = {
            task: task_loss(
                logits[task], numbers, model.kinds[task], self.class_weights.get(task), self.settings.label_smoothing
            )
            for task, numbers in labels.items()
        }
        # The exchange averages over processes, whose shares of the clips may differ.
        shares = {
            task: process_count() * share_of_mean(numbers, batch.shares[task], self.class_weights.get(task))
            for task, numbers in labels.items()
        }
        for task, value in losses.items():
            if batch.shares[task]:
                right = share_correct(logits[task].detach(), labels[task], model.kinds[task]).nan_to_num()
                # A clip counts by its weight in the batch, so that the sums over several processes are those of one.
                n_whole = len(right) / batch.shares[task]
                _count(totals, task, value.item() * n_whole * shares[task] / process_count(), right)
        loss = torch.stack([self.task_weights.get(t, 1.0) * x * shares[t] for t, x in losses.items()]).sum()
        if self.teacher:
            distances = {  # by share of the clips: classes have no weights here
                task: process_count()
                * batch.shares[task]
                * distillation_loss(logits[task], theirs, model.kinds[task], self.teacher.temperature)
                for task, theirs in taught.items()
            }
            distance = torch.stack([self.task_weights.get(t, 1.0) * x for t, x in distances.items()]).sum()
            loss = (1 - self.teacher.weight) * loss + self.teacher.weight * distance
        for task, value in none.items():
            weight = NONE_WEIGHT * self.task_weights.get(task, 1.0)
            loss = loss + weight * process_count() * batch.shares[task] * value
        price = self.settings.stride_cost
        return loss + price * stride_cost(model) if price else loss


def exchange(own_loss: float, own_signal: int, model: AudioClassifier, step: int) -> tuple[float, int]:
    """Mean loss and latest signal over all processes; their strides must agree, or their maps would differ in size.

    Raises:
        TrainingError: if the strides of two processes differ.
    """
    strides = [value for block in model.trunk.strides() for value in block]
    everyone = gather_numbers([own_loss, own_signal, *strides], model.device)
    for index, (_, _, *others) in enumerate(everyone):
        if others != everyone[0][2:]:
            raise TrainingError(f"strides of process {index} differ from those of process 0 at step {step}: {others}")
    return sum(numbers[0] for numbers in everyone) / len(everyone), int(max(numbers[1] for numbers in everyone))


def stride_gradient_norm(optimizer: torch.optim.Optimizer) -> float:
    """Norm of the gradients of all that is learned except the weights: no map fits a stride that is NaN.

    Example:
        >>> from audiostride import DiffStride, parameter_groups
        >>> pool = DiffStride(2.0, smoothness=1)
        >>> optimizer = torch.optim.Adam(parameter_groups(pool, lr=1e-3, stride_lr=0.06))
        >>> pool(torch.full((1, 1, 20), float("inf"))).sum().backward()
        >>> stride_gradient_norm(optimizer)
        nan
    """
    groups = [group for group in optimizer.param_groups if group["name"] != "weights"]
    norms = [p.grad.norm() for group in groups for p in group["params"] if p.grad is not None]
    return float(torch.stack(norms).sum()) if norms else 0.0


def check_finite(loss: float, norm: float, step: int, group: Sequence[TrainingBatch]) -> None:
    """Stop before an update by a non-finite gradient.

    Args:
        loss: mean over all processes.
        norm: of the gradient of all parameters, or where it is not clipped of the strides.
        step: that is about to be made.
        group: its batches in this process.

    Raises:
        TrainingError: names the step and the clips of all processes.

    Example:
        >>> check_finite(loss=0.5, norm=2.0, step=10, group=[])
        >>> check_finite(loss=float("nan"), norm=0.0, step=10, group=[])
        Traceback (most recent call last):
            ...
        audiostride.errors.TrainingError: the loss became nan at step 10, before the update; ...
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = f"gradient became {norm}" if math.isfinite(loss) else f"loss became {loss}"
    names = [name for own in gather([n for batch in group for n in batch.names]) for name in own]
    raise TrainingError(
        f"the {what} at step {step}, before the update; lower train.learning_rate or look at "
        f"this batch's files: {', '.join(names)}"
    )


@torch.no_grad()
def update_average_(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move an exponential average of a model's parameters, strides included, by one step, in place.

    The decay is at most (1 + step) / (10 + step), so that the first weights are soon forgotten.
    Buffers are copied.

    Args:
        average: a copy of the model.
        model: the model after the step.
        decay: share of the average that stays, below 1.
        step: from 0.

    Example:
        >>> average, model = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> for _ in range(100):
        ...     update_average_(average, model, decay=0.5, step=100)
        >>> torch.equal(average.weight, model.weight)
        True
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, weight)
    for mean_buffer, buffer in zip(average.buffers(), model.buffers(), strict=True):
        mean_buffer.copy_(buffer)


def share_of_mean(labels: Tensor, share: float, class_weights: Tensor | None = None) -> float:
    """Share of this process' loss in the mean loss over a batch that several processes have split among them.

    A weighted cross-entropy of class numbers is a mean by weight, so its share is that of the
    weights, which the processes tell each other; every other loss is a mean over clips.

    Args:
        labels: class numbers ``(n,)`` of this process' clips, or shares of the classes ``(n, n_classes)``.
        share: of the clips, from 0 to 1.
        class_weights: weight of each class ``(n_classes,)``.

    Example:
        >>> share_of_mean(torch.tensor([0, 1]), 1.0, torch.tensor([0.5, 2.0]))
        1.0
    """
    if class_weights is None or labels.dim() > 1 or process_count() == 1:
        return share
    own = class_weights[labels].double().sum().item() if share else 0.0
    return own / sum(numbers[0] for numbers in gather_numbers([own], labels.device))


def mean_scores(parts: Sequence[Totals]) -> Totals:
    """Mean loss and accuracy of each task from the sums of all processes.

    Example:
        >>> first, second = ({"loss": loss, "accuracy": 1.0, "n": 2.0} for loss in (3.0, 1.0))
        >>> mean_scores([{"word": first}, {"word": second}])
        {'word': {'loss': 1.0, 'accuracy': 0.5}}
    """
    n = {task: sum(part[task]["n"] for part in parts if task in part) for part in parts for task in part}
    return {
        task: {key: sum(part[task][key] for part in parts if task in part) / n[task] for key in ("loss", "accuracy")}
        for task in n
    }


def _count(totals: Totals, task: str, loss: float, right: Tensor) -> None:
    total = totals.setdefault(task, {"loss": 0.0, "accuracy": 0.0, "n": 0.0})
    total["loss"] += loss
    total["accuracy"] += right.sum().item()
    total["n"] += len(right)
