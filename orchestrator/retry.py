"""Named retry policies, each with the reason why its operation may be repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from orchestrator.clock import Clock
from orchestrator.errors import (
    CallTimeout,
    ConnectFailed,
    FolderBusy,
    FrameGarbled,
    HostFull,
    LinkLost,
    TransportError,
)

T = TypeVar("T")

RECONNECT_FOR = 900.0  # seconds a follower keeps trying before it says so and leaves


class Patience:
    """Growing pauses, up to 0.5 s at first and 20 s at last, for as long as nothing moves.

    It ends after RECONNECT_FOR seconds of that, or at the moment `until` of the clock's. Safe to
    repeat: connecting changes nothing on the host, and a follower's calls only ask.
    """

    def __init__(self, clock: Clock, until: float | None = None) -> None:
        self._clock, self._until = clock, until
        self._tries = 0
        self._began: float | None = None  # when the first try failed; None: the last one moved

    def renew(self) -> None:
        self._tries, self._began = 0, None

    def tried(self) -> float:
        """Seconds since the first of the tries that moved nothing."""
        return 0.0 if self._began is None else self._clock.monotonic() - self._began

    def next_pause(self) -> float | None:
        """At most so many seconds until the next try, none before the first; None at the end."""
        now = self._clock.monotonic()
        self._began = now if self._began is None else self._began
        end = self._began + RECONNECT_FOR if self._until is None else self._until
        if now >= end:
            return None
        pause = min(20.0, 0.25 * 2.0 ** min(self._tries, 10)) if self._tries else 0.0
        self._tries += 1
        return min(pause, end - now)


LET_IN_WITHIN = 8.0  # seconds a login is tried again while the host has too many of them


def when_let_in(enter: Callable[[], T], patience: float = LET_IN_WITHIN) -> T:
    """Log in, or open a session, where only so many are let in at a time; with random pauses.

    Safe to repeat: the host refused before anything was asked of it.
    """
    import tenacity

    policy = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(HostFull),
        wait=tenacity.wait_random(0.05, 0.8),
        stop=tenacity.stop_after_delay(patience),
        reraise=True,
    )
    return policy(enter)


WAIT_FOR_FOLDER = 600.0  # seconds a fetch waits for another one of the same run


def when_free(
    claim: Callable[[], T],
    on_wait: Callable[[], None],
    *,
    patience: float = WAIT_FOR_FOLDER,
    sleep: Callable[[float], None] | None = None,
) -> T:
    """Claim a folder as soon as the process that writes there is through; `on_wait` is called once.

    Safe to repeat: a refused claim has changed nothing.
    """
    import time

    import tenacity

    policy = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(FolderBusy),
        wait=tenacity.wait_random(0.02, 0.2),
        stop=tenacity.stop_after_delay(patience),
        before_sleep=lambda state: on_wait() if state.attempt_number == 1 else None,
        sleep=sleep or time.sleep,
        reraise=True,
    )
    return policy(claim)


def is_lost_link(error: TransportError) -> bool:
    """Whether going on over a new connection makes sense."""
    return isinstance(error, (ConnectFailed, LinkLost, CallTimeout, FrameGarbled))
