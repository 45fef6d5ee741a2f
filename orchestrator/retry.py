"""Named retry policies, each with the reason why its operation may be repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from orchestrator.errors import ConnectFailed, FolderBusy, HostFull, LinkLost, TransportError

T = TypeVar("T")

RECONNECT_FOR = 900.0  # seconds a follower keeps trying before it says so and leaves


def reconnecting(
    connect: Callable[[], T],
    on_wait: Callable[[float], None],
    *,
    patience: float = RECONNECT_FOR,
    sleep: Callable[[float], None] | None = None,
) -> T:
    """Connect again after a lost link, with growing pauses (0.5 s to 20 s, with jitter).

    Safe to repeat: connecting changes nothing on the host. Trust errors are never retried.
    """
    import time

    import tenacity

    policy = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((ConnectFailed, LinkLost)),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=20.0),
        stop=tenacity.stop_after_delay(patience),
        before_sleep=lambda state: on_wait(state.upcoming_sleep),
        sleep=sleep or time.sleep,
        reraise=True,
    )
    return policy(connect)


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
    from orchestrator.errors import CallTimeout, FrameGarbled

    return isinstance(error, (ConnectFailed, LinkLost, CallTimeout, FrameGarbled))
