"""The optimisers, and which rate each of a model's parameters has."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from .recipe import TrainSection

Groups = list[dict[str, Any]]


class OptimizerKind(NamedTuple):
    """An optimiser that `train.optimizer` can name.

    Attributes:
        about: what it is.
        make: makes it from parameter groups, which have their rates, and the settings.
    """

    about: str
    make: "Callable[[Groups, TrainSection], Optimizer]"


def _adam(groups: Groups, settings: "TrainSection") -> "Optimizer":
    from torch.optim import Adam

    return Adam(groups, weight_decay=settings.weight_decay)


def _adamw(groups: Groups, settings: "TrainSection") -> "Optimizer":
    from torch.optim import AdamW

    return AdamW(groups, weight_decay=settings.weight_decay)


def _sgd(groups: Groups, settings: "TrainSection") -> "Optimizer":
    from torch.optim import SGD

    return SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)


OPTIMIZERS = {
    "adam": OptimizerKind("Adam; weight decay is added to the gradient (an L2 penalty)", _adam),
    "adamw": OptimizerKind("Adam with decoupled weight decay (Loshchilov & Hutter 2019)", _adamw),
    "sgd": OptimizerKind("stochastic gradient descent, with `momentum`; weight decay is added to the gradient", _sgd),
}


def make_optimizer(model: "nn.Module", settings: "TrainSection") -> "Optimizer":
    """The optimiser of a model; strides and aliasing have their own learning rates and no weight decay.

    Example:
        >>> from torch import nn
        >>> from audiostride.training.recipe import TrainSection
        >>> settings = TrainSection(optimizer="sgd", learning_rate=0.1, momentum=0.9)
        >>> [group["lr"] for group in make_optimizer(nn.Linear(1, 1), settings).param_groups]
        [0.1]
    """
    from ..layers.strides import parameter_groups

    rates = settings.learning_rate, settings.stride_learning_rate, settings.aliasing_learning_rate
    return OPTIMIZERS[settings.optimizer].make(parameter_groups(model, *rates), settings)
