"""SIGTERM and Ctrl-C: they end the process, or are remembered where work must be finished first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import FrameType


class Signals:
    """A handler that ends the process, or, within `deferred`, only sets `asked`."""

    def __init__(self) -> None:
        self.asked, self.number, self._deferred = False, 0, False

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.asked, self.number = True, number
        if not self._deferred:
            # os.write: the signal may have interrupted a print, which cannot be entered twice.
            os.write(1, b"stopped by a signal; what was learnt is in the checkpoints\n")
            raise SystemExit(128 + number)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
