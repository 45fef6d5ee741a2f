"""SIGTERM and Ctrl-C: they end the process, or are remembered where work must be finished first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from types import FrameType

STOPPED = "stopped by a signal; what was learnt is in the checkpoints"
NOTHING_KEPT = "stopped by a signal; no checkpoint was written before"


class Signals:
    """A handler that ends the process, or, within `deferred`, only sets `asked`."""

    def __init__(self, *, speaks: bool = True) -> None:
        self.asked, self.number, self._deferred, self._speaks = False, 0, False, speaks
        self.kept: Callable[[], bool] = lambda: False  # whether there is a checkpoint

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.asked, self.number = True, number
        if not self._deferred:
            if self._speaks:
                told = STOPPED if self.kept() else NOTHING_KEPT
                # os.write: the signal may have interrupted a print, which cannot be entered twice.
                with contextlib.suppress(OSError):  # nobody listens
                    os.write(1, f"{told}\n".encode())
            raise SystemExit(128 + number)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
