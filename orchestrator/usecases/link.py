"""Going on over a link that breaks: one call after another, until one has done its work."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from orchestrator.clock import span_words
from orchestrator.domain import Host
from orchestrator.errors import TransportError
from orchestrator.retry import Patience, is_lost_link
from orchestrator.transport.base import Agent
from orchestrator.usecases.context import Context

T = TypeVar("T")

STOOD = 10.0  # seconds after which a connection on which words come is one that works


class Moved(Protocol):
    def __call__(self, further: bool = True) -> None:
        """The work has got `further`; False: it was only heard of, which counts after STOOD."""


def unmoved(further: bool = True) -> None:
    """For work that is done over one connection, whatever becomes of it."""


def persistently(
    ctx: Context,
    host: Host,
    work: Callable[[Agent, Moved], T],
    notice: Callable[[str], None],
    *,
    agent: Agent | None = None,
    until: float | None = None,
) -> T:
    """What `work(agent, moved)` returns, over as many connections as that takes.

    `work` must be safe to repeat. A link lost after `moved` is taken up at once; where nothing
    moves the pauses grow, and after 15 minutes of it (with `until`: at that moment of the clock)
    the last error is raised. An error of the very first connection is raised at once.
    """
    patience = Patience(ctx.clock, until)
    lost, began = False, ctx.clock.monotonic()

    def moved(further: bool = True) -> None:
        nonlocal lost
        if not further and ctx.clock.monotonic() - began < STOOD:
            return
        patience.renew()
        if lost:
            notice(f"connected to {host.name} again")
        lost = False

    agent = agent or ctx.connect(host)
    while True:
        try:
            with agent or ctx.connect(host) as line:
                return work(line, moved)
        except TransportError as exc:
            if not is_lost_link(exc):
                raise
            pause = patience.next_pause()
            if pause is None:
                raise _given_up(exc, patience.tried()) from None
            notice(_told(host, exc, lost, pause))
        agent, lost = None, True
        rest(pause)
        began = ctx.clock.monotonic()


def rest(most: float) -> None:
    """Up to `most` seconds: those who lost the same host do not come back at the same moment."""
    time.sleep(random.uniform(most / 2, most))


def _told(host: Host, exc: TransportError, lost: bool, pause: float) -> str:
    then = f"; next try within {pause:.0f} s" if pause >= 1 else ""
    if lost:
        return f"{host.name} does not answer ({exc.message}){then}"
    return f"link to {host.name} lost ({exc.message}); what runs there is not affected{then}"


def _given_up(exc: TransportError, seconds: float) -> TransportError:
    told = f"given up after {span_words(seconds)}; what runs there is not affected"
    return type(exc)(f"{exc.message}; {told}", hint=exc.hint)
