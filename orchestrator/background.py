"""One call on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """`work` is being done; `result` waits and raises what it raised."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._value: T | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self._value = work()
        except BaseException as exc:
            self._error = exc

    def is_done_within(self, seconds: float) -> bool:
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    def result(self) -> T:
        while not self.is_done_within(1.0):  # in steps: Ctrl-C must come through
            pass
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def discard(self, dispose: Callable[[T], None]) -> None:
        """Nobody wants the result any more; `dispose` gets one that is there already."""
        if self.is_done_within(0.5) and self._value is not None:
            dispose(self._value)
