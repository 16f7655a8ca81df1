"""Knowledge distillation: a student learns from a trained teacher's outputs on the windows that both are given.

How sure it is of a class it learns from the teacher, too; what its scores mean is for calibration to set right.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import RecipeError
from ..layers.strides import freeze_strides
from ..models.classifier import AudioClassifier
from ..models.custom import source_digest


class Teacher:
    """A trained classifier whose outputs a student learns from, in addition to the labels.

    A copy of the classifier is kept in eval mode, without gradients and with frozen strides. It is given exactly
    the windows the student is given, after augmentation of the waveform and mixup, each through its own frontend. What
    `augment.spec_augment` and `augment.equalize_db` do to the student's log-mel is not done to the teacher's: the
    student is to infer from a part of a window, or a coloured one, what the teacher knows from all of it, and the
    teacher's log-mel may have other frames and mel bands.

    Args:
        model: the teacher.
        weight: share w of the teacher in the loss, in (0, 1]:
            ``(1 - w) * (loss by the labels) + w * T^2 * (distillation loss at temperature T)``.
        temperature: T, above 0; higher ones tell more of the classes that the teacher thinks unlikely.
        name: what errors call it, such as its run directory.

    Attributes:
        model: the copy; move it to the student's device.
        weight: as above.
        temperature: as above.
        name: as above.

    Raises:
        ValueError: if the weight or the temperature is out of range.

    Source:
        Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015.

    Example:
        >>> from audiostride import AudioCNN, LogMel
        >>> trunk = AudioCNN(channels=(8,), strides=((2, 2),))
        >>> teacher = Teacher(AudioClassifier(LogMel(), trunk, {"animal": ["cat", "dog"]}), 0.5, 2.0)
        >>> teacher.match_classes({"animal": ["dog", "cat"]})
        >>> teacher.model.labels, teacher.logits(torch.zeros(3, 16000), ["animal"])["animal"].shape
        ({'animal': ['dog', 'cat']}, torch.Size([3, 2]))
    """

    def __init__(self, model: AudioClassifier, weight: float, temperature: float, name: str = "the teacher"):
        if not 0 < weight <= 1 or not 0 < temperature < float("inf"):
            raise ValueError(f"weight must be in (0, 1] and temperature above 0, got {weight} and {temperature}")
        self.weight, self.temperature, self.name = weight, temperature, name
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        freeze_strides(self.model)

    def check_tasks(self, kinds: Mapping[str, str]) -> None:
        """Check that the teacher has every task of the student.

        Args:
            kinds: "multiclass", "binary" or "multilabel" for each task of the student.

        Raises:
            RecipeError: names the first task that the teacher lacks, or has with classes that exclude each other where
                the student's do not, or the other way round.
        """
        for task, kind in kinds.items():
            if task not in self.model.labels:
                raise RecipeError(
                    f"train.teacher: {self.name} has no task {task!r}, only {', '.join(map(repr, self.model.labels))}; "
                    "name the recipe's tasks like the teacher's, or choose a teacher that has them all"
                )
            theirs = self.model.kinds[task]
            if (kind == "multilabel") != (theirs == "multilabel"):
                raise RecipeError(
                    f"train.teacher: task {task!r} of {self.name} is {theirs}, but tasks.{task}.kind is {kind}; "
                    "choose a teacher of that kind"
                )

    def match_classes(self, labels: Mapping[str, Sequence[str]]) -> None:
        """Put the teacher's classes into the student's order, by their names.

        Args:
            labels: the student's class labels of each task, in order.

        Raises:
            RecipeError: if a task has other classes in the teacher; names the task and the classes.
        """
        for task, classes in labels.items():
            theirs = self.model.labels[task]
            if set(theirs) != set(classes):
                raise RecipeError(
                    f"train.teacher: task {task!r} of {self.name} has different classes; "
                    f"only in the data: {_listed(set(classes) - set(theirs))}; "
                    f"only in the teacher: {_listed(set(theirs) - set(classes))}; choose one with the same classes"
                )
            order = [theirs.index(label) for label in classes]
            for values in self.model.heads[task].parameters():
                values.copy_(values[order])
            self.model.labels[task] = list(classes)

    @torch.no_grad()
    def logits(self, waveform: Tensor, tasks: Iterable[str]) -> dict[str, Tensor]:
        """The teacher's logits ``(batch, n_classes)`` of each of the tasks, from windows ``(batch, samples)``."""
        return self.model(waveform, tasks)

    def digest(self) -> str:
        """SHA-256 of all that its outputs depend on: settings, classes, weights and the code of custom classes."""
        config = self.model.config()
        code = [source_digest(part.source) for part in (self.model.frontend, self.model.trunk) if part.source]
        settings = [config["frontend"], config["model"], self.model.labels, code]
        weights = {name: values.cpu().contiguous() for name, values in self.model.state_dict().items()}
        return hashlib.sha256(
            json.dumps(settings, sort_keys=True).encode() + safetensors.torch.save(weights)
        ).hexdigest()


def distillation_loss(logits: Tensor, taught: Tensor, kind: str, temperature: float) -> Tensor:
    """Distance of a student's probabilities from its teacher's at temperature T, times T^2 as gradients fall by that.

    For multiclass and binary tasks ``T^2 * KL(softmax(taught / T) || softmax(logits / T))``. For a multilabel task T^2
    times the binary cross-entropy of ``sigmoid(logits / T)`` against ``sigmoid(taught / T)``, averaged over classes.
    (The two-class divergence is the binary cross-entropy but for the teacher's own entropy, which has no gradient.)

    Args:
        logits: the student's ``(n, n_classes)``.
        taught: the teacher's, of the same shape.
        kind: "multiclass", "binary" or "multilabel".
        temperature: T, above 0.

    Returns:
        Mean over clips, a scalar in at least float32.

    Source:
        Hinton, Vinyals & Dean 2015, section 2.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, -1.0]])
        >>> [round(distillation_loss(own, logits, "multiclass", 2.0).item(), 4) for own in (logits, 0 * logits)]
        [0.0, 0.7706]
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    own, target = logits.to(dtype) / temperature, taught.to(dtype) / temperature
    if kind == "multilabel":
        return temperature**2 * F.binary_cross_entropy_with_logits(own, target.sigmoid())
    divergence = F.kl_div(own.log_softmax(1), target.log_softmax(1), reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def _listed(names: set[str], most: int = 20) -> str:
    shown = ", ".join(sorted(names)[:most]) or "none"
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
