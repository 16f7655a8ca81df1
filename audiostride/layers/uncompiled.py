"""What `torch.compile` leaves out of its graphs; imported only while it traces, as its import takes a while."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


@torch.compiler.disable
def run_uncompiled(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """``function(*args)``, run eagerly by a compiled model, too.

    Example:
        >>> run_uncompiled(torch.sub, torch.tensor(3), torch.tensor(1))
        tensor(2)
    """
    return function(*args)
