"""The processes of one training job, as torchrun starts them; one process alone is a job of one.

Only what several modules need is here: which process this is, exchanging a value, sharing rows and gathering them.
"""

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UsageError

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others before it gives up (they may be decoding a large data set)."""

_NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT")
"""What torchrun (and `accelerate launch`) tells each process through its environment, in addition to MASTER_ADDR."""


def start() -> torch.device:
    """Join the other processes, if torchrun started several, and choose a device. May be called again.

    Returns:
        The CUDA device of this process if there is one, else the CPU.

    Raises:
        UsageError: if the environment describes only a part of a job; names the variables.
    """
    several = (os.environ.get("WORLD_SIZE") or "1") != "1"
    if several and not distributed.is_initialized():
        wrong = [name for name in _NUMBERS if not re.fullmatch(r"[0-9]{1,5}", os.environ.get(name, ""))]
        wrong += [] if os.environ.get("MASTER_ADDR") else ["MASTER_ADDR"]
        if not wrong and int(os.environ["RANK"]) >= int(os.environ["WORLD_SIZE"]):
            wrong = ["RANK"]
        if wrong:
            raise UsageError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']!r}, but not set as torchrun does: {', '.join(wrong)}; "
                "start several processes with torchrun, or unset WORLD_SIZE to train in one"
            )
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) if several else 0)
    torch.cuda.set_device(device)
    return device


def parallel(model: nn.Module, find_unused_parameters: bool) -> nn.Module:
    """The model as each process runs it: backward passes average the gradients over all processes.

    Args:
        model: on the device of this process.
        find_unused_parameters: steps may leave some parameters without a gradient.
    """
    if process_count() == 1:
        return model
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else None
    return DistributedDataParallel(model, device_ids=devices, find_unused_parameters=find_unused_parameters)


def without_exchange(model: nn.Module) -> AbstractContextManager[None]:
    """Within this block gradients of a `parallel` model are added up in each process and not exchanged."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


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
    """Reassemble what each process computed for its `share_of` the rows: every row once, in order.

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
