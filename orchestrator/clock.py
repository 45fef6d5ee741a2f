"""Time, injected: moments as text for the ledger and as words for people."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock's time, aware, in UTC. For display and records, never for waiting."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back. For waiting and for durations."""


class SystemClock:
    """This machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def monotonic(self) -> float:
        return time.monotonic()


def iso(moment: datetime) -> str:
    """`2026-11-23T09:19:29.123456Z`: always this long, so that texts sort as times do.

    ValueError for a time without a zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without a zone is no moment")
    utc = moment.astimezone(timezone.utc)
    # strftime's %Y does not pad years to four digits everywhere.
    return f"{utc.year:04d}-{utc:%m-%dT%H:%M:%S}.{utc.microsecond:06d}Z"


def parse_iso(text: str) -> datetime:
    """The moment `iso` wrote, or another ISO 8601 time with `Z` or an offset; aware, in UTC.

    ValueError for anything else, a time without a zone included.
    """
    spelled = text[:-1] + "+00:00" if text.endswith("Z") else text
    moment = datetime.fromisoformat(_six_digits(spelled))
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError(f"{text!r} is before the first year, or after the last, in UTC") from None


def age_words(seconds: float) -> str:
    """`14 min ago`; a time ahead of this clock (hosts differ) counts as `just now`."""
    return "just now" if seconds < 1.0 else f"{span_words(seconds)} ago"


def span_words(seconds: float) -> str:
    """`12 s`, `14 min`, `3 h 20 min`, `5 d 4 h`: two places at most."""
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        hours, minutes = whole // 3600, whole % 3600 // 60
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = whole // 86400, whole % 86400 // 3600
    return f"{days} d {hours} h" if hours else f"{days} d"


def seconds_between(earlier: str, later: str) -> float:
    """Seconds from one ISO time to another; negative when they are the other way round."""
    return (parse_iso(later) - parse_iso(earlier)) / timedelta(seconds=1)


def _six_digits(text: str) -> str:
    """Python 3.10 reads a fraction of a second only with three or six digits."""
    head, dot, tail = text.partition(".")
    if not dot:
        return text
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return f"{head}.{tail[:digits][:6].ljust(6, '0')}{tail[digits:]}"
