"""The optimisers, and which rate each of a model's parameters has."""

from typing import TYPE_CHECKING, NamedTuple

from torch import nn, optim

from ..layers.strides import parameter_groups

if TYPE_CHECKING:
    from .recipe import TrainSection


class OptimizerKind(NamedTuple):
    """An optimiser that `train.optimizer` can name.

    Attributes:
        about: what it is.
        kind: its class, made with parameter groups, which have their rates.
        settings: what else it takes of the training's settings.
    """

    about: str
    kind: type[optim.Optimizer]
    settings: tuple[str, ...] = ("weight_decay",)


OPTIMIZERS = {
    "adam": OptimizerKind("Adam; weight decay is added to the gradient (an L2 penalty)", optim.Adam),
    "adamw": OptimizerKind("Adam with decoupled weight decay (Loshchilov & Hutter 2019)", optim.AdamW),
    "sgd": OptimizerKind(
        "stochastic gradient descent, with `momentum`; weight decay is added to the gradient",
        optim.SGD,
        ("weight_decay", "momentum"),
    ),
}


def make_optimizer(model: nn.Module, settings: "TrainSection") -> optim.Optimizer:
    """The optimiser of a model; strides and aliasing have their own learning rates and no weight decay.

    Example:
        >>> from audiostride.training.recipe import TrainSection
        >>> settings = TrainSection(optimizer="sgd", learning_rate=0.1, momentum=0.9)
        >>> [group["lr"] for group in make_optimizer(nn.Linear(1, 1), settings).param_groups]
        [0.1]
    """
    groups = parameter_groups(
        model, settings.learning_rate, settings.stride_learning_rate, settings.aliasing_learning_rate
    )
    _, kind, names = OPTIMIZERS[settings.optimizer]
    return kind(groups, **{name: getattr(settings, name) for name in names})
