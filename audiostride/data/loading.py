"""Worker processes that prepare batches: no more than there are CPUs, ended once no more of them are wanted."""

import atexit
import multiprocessing.util  # noqa: F401, its exit function joins all workers: ours must be registered after it
import os
import signal
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import AudiostrideError, resource_error

_loading: "weakref.WeakSet[Any]" = weakref.WeakSet()


def usable_cpus() -> int:
    """CPUs that this process may use, which a container or `taskset` may have limited.

    Example:
        >>> 1 <= usable_cpus() <= os.cpu_count()
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load(dataset: Dataset, workers: int) -> Iterator:
    """The items of a data set of whole batches, in order, prepared ahead by worker processes.

    The processes end when the generator does, when it is closed, at the end of a `workers_ended` block,
    and when Python exits, whatever was raised.

    Args:
        dataset: each of its items is a batch; nothing is collated.
        workers: processes; never more than there are items or CPUs that may be used. 0: this process.

    Raises:
        AudiostrideError: what an item raised, without a worker's traceback.
        ResourceError: if a worker died or memory ran out.

    Example:
        >>> from contextlib import closing
        >>> with closing(load([2, 3], workers=0)) as items:
        ...     next(items)
        2
    """
    workers = min(workers, len(dataset), usable_cpus())  # type: ignore[arg-type]
    items = iter(
        DataLoader(
            _Safely(dataset),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # its own: the global one must not depend on when loading began
            worker_init_fn=_leave_signals_to_parent,
        )
    )
    if workers:
        _loading.add(items)
    try:
        for item in items:
            if isinstance(item, AudiostrideError):
                raise item
            yield item
    finally:
        _end_workers(items)


@contextmanager
def workers_ended() -> Iterator[None]:
    """End, whatever is raised, the workers of all loading that began in this block."""
    before = set(_loading)
    try:
        yield
    finally:
        for items in set(_loading) - before:
            _end_workers(items)


class _Safely(Dataset):
    """Hands our own errors back as values: a worker process would bury them in its own traceback."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, job):
        try:
            return self.dataset[job]
        except AudiostrideError as error:
            return error
        except (MemoryError, RuntimeError) as error:
            named = resource_error(error)
            if named is None:
                raise
            return named


def _leave_signals_to_parent(worker: int) -> None:
    # Ctrl-C and a scheduler's SIGTERM reach every process; the parent still needs batches to finish its step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _end_workers(items: Any) -> None:
    """End the workers of a loader's iterator, which a traceback may keep alive, and with it them."""
    if items not in (_loading or ()):  # ended already, or without any; None while Python is torn down
        return
    _loading.discard(items)
    items._shutdown_workers()  # first, or torch would take their end for a failure
    for worker in items._workers:
        worker.kill()  # one that is still busy: SIGTERM it ignores


@atexit.register
def _end_all_workers() -> None:
    for items in list(_loading):
        _end_workers(items)
