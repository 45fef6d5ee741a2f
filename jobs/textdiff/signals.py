"""What SIGTERM does: end at once, or, where something must be finished first, be remembered."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import FrameType


class Signals:
    """A handler that ends the process, or, within `deferred`, only sets `asked`."""

    def __init__(self) -> None:
        self.asked, self._deferred = False, False

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
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
