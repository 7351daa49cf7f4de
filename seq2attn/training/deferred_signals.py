"""Signals that end a training wait until its current update is complete."""

import contextlib
import signal
from types import FrameType
from typing import Any


class DeferredSignals:
    """Records Ctrl-C and SIGTERM, so that the current update is completed. A second Ctrl-C interrupts at
    once."""

    def __init__(self) -> None:
        self.received = 0  # the number of the signal, 0 = none
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> "DeferredSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # outside the main thread handlers cannot be set
                self._previous_handlers[number] = signal.signal(number, self._record)
        return self

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
