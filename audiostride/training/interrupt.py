"""SIGTERM and Ctrl-C as a request to stop at the next safe moment."""

import signal
import threading
from types import FrameType
from typing import Any

from ..errors import Interrupted


class StopSignals:
    """Inside its `with` block SIGTERM and SIGINT are noted instead of obeyed; a second one acts at once.

    Outside the main thread, where Python does not let signals be handled, it does nothing.

    Attributes:
        number: the signal that arrived, 0 if none did.

    Example:
        >>> with StopSignals() as stop:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     stop.number == signal.SIGTERM
        True
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        self.__exit__()


def interrupted(number: int, step: int) -> Interrupted:
    """The error to raise once a checkpoint is saved after signal `number`."""
    name = signal.Signals(number).name
    return Interrupted(f"stopped by {name} after step {step}, everything is saved", number)
