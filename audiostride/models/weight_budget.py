"""A limit on the size of what is made from settings that have not been checked yet."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_MAKERS = (torch.empty, torch.zeros, torch.ones)  # with which torch.nn makes weights and statistics


class WeightBudget(TorchFunctionMode):
    """Inside its `with` block modules may take no more than so many weights in all.

    A file can ask for a layer of a billion channels. The limit is checked before memory is taken.

    Args:
        limit: number of weights, running statistics included.

    Raises:
        ValueError: when a module asks for more.

    Example:
        >>> with WeightBudget(1_000_000):
        ...     layer = torch.nn.Linear(100, 100)
        ...     layer = torch.nn.Linear(10**9, 10**9)
        Traceback (most recent call last):
            ...
        ValueError: more than the 1,000,000 weights it may have
    """

    def __init__(self, limit: int):
        super().__init__()
        self.limit, self.taken = limit, 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _MAKERS and args:
            shape = args[0] if isinstance(args[0], Sequence) else args
            self.taken += math.prod(shape)
            if self.taken > self.limit:
                raise ValueError(f"more than the {self.limit:,} weights it may have")
        return func(*args, **(kwargs or {}))
