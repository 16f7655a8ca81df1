"""The processes of one training job, as torchrun starts them; one process alone is a job of one.

Only what several modules need lives here: who am I, exchange a value, share rows out and gather them.
accelerate sets the processes up, wraps the model and averages the gradients.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed, nn

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others before it gives up (they may be decoding a large data set)."""


def start(find_unused_parameters: bool = False) -> "Accelerator":
    """Join the other processes, if torchrun or `accelerate launch` started several, and choose a device.

    The first CUDA device of this process if there is one, else the CPU. May be called again.

    Args:
        find_unused_parameters: steps may leave some parameters without a gradient.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    return Accelerator(
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=TIMEOUT),
            DistributedDataParallelKwargs(find_unused_parameters=find_unused_parameters),
        ],
    )


def process_count() -> int:
    """Processes of this job, over all machines."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_index() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this is process 0, the only one that writes files."""
    return process_index() == 0


def broadcast(value: T) -> T:
    """The value that process 0 passes, in every process."""
    values = [value]
    if process_count() > 1:
        distributed.broadcast_object_list(values, src=0)
    return values[0]


def gather(value: T) -> list[T]:
    """The values of all processes, in every process and in the order of their numbers.

    Example:
        >>> gather("mine")
        ['mine']
    """
    values: list[Any] = [value]
    if process_count() > 1:
        values = [None] * process_count()
        distributed.all_gather_object(values, value)
    return values


def gather_numbers(numbers: list[float], device: torch.device) -> list[list[float]]:
    """As `gather`, for a few float64 numbers, without pickling: cheap enough for every step.

    Example:
        >>> gather_numbers([1.0, 0.5], torch.device("cpu"))
        [[1.0, 0.5]]
    """
    if process_count() == 1:
        return [numbers]
    mine = torch.tensor(numbers, dtype=torch.float64, device=device)
    everyone = [torch.empty_like(mine) for _ in range(process_count())]
    distributed.all_gather(everyone, mine)
    return torch.stack(everyone).tolist()


def share_of(rows: Any) -> Any:
    """The rows that this process works on: every `process_count()`-th, so that no row is anyone else's.

    Example:
        >>> share_of([3, 1, 4])
        [3, 1, 4]
    """
    return rows[process_index() :: process_count()]


def gather_rows(values: Mapping[str, Tensor], n_rows: int) -> dict[str, Tensor]:
    """Put together again what each process made of its `share_of` the rows: every row once, in order.

    Args:
        values: tensors on the CPU with a row for each row of this process; may be empty if it has none.
        n_rows: rows of all processes.

    Example:
        >>> gather_rows({"word": torch.ones(3, 2)}, 3)["word"].shape
        torch.Size([3, 2])
    """
    if process_count() == 1:
        return dict(values)
    parts = gather(dict(values))
    whole = {}
    for name, first in parts[0].items():
        whole[name] = first.new_empty(n_rows, *first.shape[1:])
        for index, part in enumerate(parts):
            if name in part:
                whole[name][index :: process_count()] = part[name]
    return whole


def broadcast_buffers_(model: nn.Module) -> None:
    """Give every process the buffers (statistics of batch norm) of process 0, in place."""
    if process_count() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, src=0)
