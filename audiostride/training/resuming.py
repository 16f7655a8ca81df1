"""The state of a training run, and how it is saved in a checkpoint and restored bit-exactly.

The random choices of the data are pure functions of (seed, epoch, clip), so the sampler's state is
a position. Learning rates are a pure function of the step.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import ModelFileError
from ..models.classifier import AudioClassifier
from .checkpoints import Checkpoint, checkpoint_name
from .processes import gather, process_count, process_index

Totals = dict[str, dict[str, float]]
"""For each task the sums of loss and correct predictions over the epoch so far, and the number of clips."""

_POSITION = ("epoch", "batch", "step", "best", "best_checkpoint", "epochs_since_best", "finished")


@dataclass
class RunState:
    """All that changes during a run, except the generators, which are global.

    Attributes:
        model: the classifier.
        average: moving average of its weights, if wanted.
        optimizer: of the model's parameters.
        epoch: epochs that are over and logged.
        batch: batches of the present epoch that are done.
        step: optimiser steps that are done.
        best: mean validation accuracy of the best epoch, and minus its loss.
        best_checkpoint: name of the checkpoint of the epoch that is kept, the best or the last one;
            "" before there is one.
        epochs_since_best: for early stopping.
        finished: there is nothing left to train.
        totals: training scores of the present epoch, of this process' clips.
        log_bytes: length of each log file at the last checkpoint.
        log_sha256: digest of that much of each.
        identity: of the run, see `conditions.identity`; it keeps that of its beginning.
    """

    model: AudioClassifier
    average: AudioClassifier | None
    optimizer: Optimizer
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: tuple[float, float] = (-1.0, 0.0)
    best_checkpoint: str = ""
    epochs_since_best: int = 0
    finished: bool = False
    totals: Totals = field(default_factory=dict)
    log_bytes: dict[str, int] = field(default_factory=dict)
    log_sha256: dict[str, str] = field(default_factory=dict)
    identity: str = ""

    @property
    def judged(self) -> AudioClassifier:
        """What is validated and kept: the average where there is one, else the model."""
        return self.model if self.average is None else self.average

    @property
    def name(self) -> str:
        """Name of a checkpoint of this moment."""
        return checkpoint_name(self.epoch, self.step)

    def end_epoch(self, reached: tuple[float, float] | None, keep: str = "best") -> None:
        """Count an epoch that is over and logged, and note it as the one to keep if it is.

        Args:
            reached: its mean validation accuracy, and minus its loss; None if it was not scored.
            keep: "best", or "last" for any epoch.
        """
        self.epoch, self.batch, self.totals = self.epoch + 1, 0, {}
        self.epochs_since_best += 1
        if reached is not None and reached > self.best:
            self.best, self.epochs_since_best = reached, 0
        if self.epochs_since_best == 0 or keep == "last":
            self.best_checkpoint = self.name

    def checkpoint(self, conditions: Mapping[str, Any]) -> Checkpoint:
        """This moment as a checkpoint; every process of the job takes part.

        Args:
            conditions: what the result depends on, see `conditions.check_conditions`.
        """
        state = {
            "position": {name: getattr(self, name) for name in _POSITION},
            "processes": gather({"totals": self.totals, "generators": generator_states()}),
            "log_bytes": self.log_bytes,
            "log_sha256": self.log_sha256,
            "run": self.identity,
            "conditions": dict(conditions),
        }
        tensors = {"model": self.model.state_dict(), "optimizer": _optimizer_tensors(self.optimizer)}
        if self.average is not None:
            tensors["average"] = self.average.state_dict()
        return Checkpoint(self.name, state, tensors)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the moment of a checkpoint, the generators of this process included.

        Raises:
            ModelFileError: if the checkpoint lacks something or is of another model.
        """
        state, tensors = checkpoint.state, checkpoint.tensors
        try:
            self.model.load_state_dict(tensors["model"])
            if self.average is not None:
                self.average.load_state_dict(tensors["average"])
            _load_optimizer_tensors(self.optimizer, tensors["optimizer"])
            for name in _POSITION:
                value, kind = state["position"][name], type(getattr(self, name))
                if not isinstance(value, list if kind is tuple else kind):
                    raise TypeError(f"its {name} is {value!r}")
                setattr(self, name, value)
            self.best = (float(self.best[0]), float(self.best[1]))
            self.log_bytes = {name: int(length) for name, length in state["log_bytes"].items()}
            self.log_sha256 = {name: str(digest) for name, digest in state["log_sha256"].items()}
            self.identity = str(state["run"])
            if len(state["processes"]) == process_count():
                own = state["processes"][process_index()]
                self.totals = own["totals"]
                set_generator_states(own["generators"])
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else str(error).strip()
            raise ModelFileError(f"checkpoint {checkpoint.name}: does not fit this run: {reason}") from error


def generator_states() -> dict[str, Any]:
    """States of Python's, numpy's and torch's global generators, as JSON can hold them.

    Example:
        >>> states = generator_states()
        >>> first = torch.rand(1), random.random(), np.random.rand()
        >>> set_generator_states(states)
        >>> first == (torch.rand(1), random.random(), np.random.rand())
        True
    """
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state().tolist(),
        "cuda": [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }


def set_generator_states(states: Mapping[str, Any]) -> None:
    """Set all generators to what `generator_states` returned.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: if the states are not what it returns.
    """
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
    if torch.cuda.is_available() and states["cuda"]:
        torch.cuda.set_rng_state_all([torch.tensor(state, dtype=torch.uint8) for state in states["cuda"]])


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors under NUMBER.NAME, by the number of their parameter."""
    states = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": value
        for number, state in states.items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def _load_optimizer_tensors(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        states.setdefault(int(number), {})[name] = value
    # Learning rates and the like come from the recipe, anew at every step.
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
