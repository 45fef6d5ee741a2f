"""Names that are safe everywhere: as a file, a session, an argument, a line of output. Pure.

Every validator is an allow-list: it returns the text unchanged, or raises UsageError with the first
offending character and its position (counted from 1).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

from orchestrator.errors import UsageError

_LOWER = "abcdefghijklmnopqrstuvwxyz"
_UPPER = _LOWER.upper()
_DIGITS = "0123456789"

# No l, no o, no 0, no 1: an id is read aloud and typed from a screen. 32 signs, 5 bits each.
TOKEN_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
TOKEN_LENGTH = 5

CANARY = ".canary"

_MILLISECOND = timedelta(milliseconds=1)
_END = datetime.max.replace(tzinfo=timezone.utc) - _MILLISECOND  # nothing comes after it
_RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9]{3}[a-km-np-z2-9]{5}")


def job_name(text: str) -> str:
    """`[a-z0-9][a-z0-9._-]{0,63}`, but nothing that already means something else: a run's id, or
    the job of a canary's run."""
    recorded_job(text)
    if is_run_id(text):
        raise UsageError(
            f"job name {_shown(text)} is not allowed: a run's id looks like that",
            hint="give the job's file another name",
        )
    if text.endswith(CANARY):
        raise UsageError(
            f"job name {_shown(text)} is not allowed: the canaries of the job "
            f"{_shown(text[: -len(CANARY)])} are kept under it",
            hint="give the job's file another name",
        )
    return text


def recorded_job(text: str) -> str:
    """The name of a run's job as it is recorded: a job's, or that of its canaries."""
    return _checked(text, "job name", _LOWER + _DIGITS, "._-", 64)


def canary_of(job: str) -> str:
    """The name under which the ledger has a job's canaries."""
    return job[: 64 - len(CANARY)] + CANARY


def stage_name(text: str) -> str:
    """Like a job name."""
    return _checked(text, "stage name", _LOWER + _DIGITS, "._-", 64)


def profile_name(text: str) -> str:
    """Like a job name."""
    return _checked(text, "profile name", _LOWER + _DIGITS, "._-", 64)


def host_name(text: str) -> str:
    """An alias: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}`. A `user@host` address is not a name."""
    if "@" in text or ":" in text:
        raise UsageError(
            f"{_shown(text)} is an address, not a host's name",
            hint="name it in orch.yaml: hosts: {NAME: {ssh: user@host:port}}",
        )
    return _checked(text, "host name", _LOWER + _UPPER + _DIGITS + "_", ".-", 64)


def data_name(text: str) -> str:
    """The name of a folder under `$ORCH_DATA`: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}`."""
    return _checked(text, "data name", _LOWER + _UPPER + _DIGITS + "_", ".-", 64)


def env_name(text: str) -> str:
    """`[A-Za-z_][A-Za-z0-9_]{0,127}`."""
    return _checked(text, "environment variable", _LOWER + _UPPER + "_", _DIGITS, 128)


def secret_name(text: str) -> str:
    """`[A-Z_][A-Z0-9_]{0,127}`."""
    return _checked(text, "secret", _UPPER + "_", _DIGITS, 128)


def tag(text: str) -> tuple[str, str]:
    """`key=value` as a pair; the key is a name, the value one line of at most 256 characters."""
    key, found, value = text.partition("=")
    if not found:
        raise UsageError(f"tag {_shown(text)} has no `=`; write key=value")
    _checked(key, "tag name", _LOWER + _UPPER + _DIGITS + "_", ".-", 64)
    for position, sign in enumerate(value, start=len(key) + 2):
        if not sign.isprintable():
            raise UsageError(f"tag {_shown(text)}: {_sign(sign)} at position {position}")
    if len(value) > 256:
        raise UsageError(f"tag `{key}` has a value of {len(value)} characters; at most 256")
    return key, value


def new_run_id(now: datetime, token: str, newest: str | None = None) -> str:
    """An id that sorts by time, e.g. `20261123-091929-123k3x7q`: UTC to the millisecond + token.

    `now` is aware and in UTC; `token` is TOKEN_LENGTH random signs of TOKEN_ALPHABET. It sorts
    behind the id `newest` also where that is of a later time: the next millisecond is then its own.
    Raises ValueError for anything else: it is a mistake in the program, never the user's.
    """
    if now.utcoffset() != timedelta(0):
        raise ValueError("a run id is made from a time in UTC")
    if len(token) != TOKEN_LENGTH or not set(token) <= set(TOKEN_ALPHABET):
        raise ValueError(f"a run id needs {TOKEN_LENGTH} signs of {TOKEN_ALPHABET}")
    last = time_of(newest) if newest is not None else None
    if last is not None and last < _END:
        now = max(now, last + _MILLISECOND)
    return f"{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}{token}"


def time_of(run_id: str) -> datetime | None:
    """The time in the id, to the millisecond; None where none is."""
    try:
        return datetime.strptime(f"{run_id[:19]}+0000", "%Y%m%d-%H%M%S-%f%z")
    except ValueError:
        return None


def is_run_id(text: str) -> bool:
    return _RUN_ID.fullmatch(text) is not None


def run_id_in(text: str) -> str | None:
    """The first run id that stands in the text."""
    found = _RUN_ID.search(text)
    return found[0] if found else None


def words(given: Iterable[str]) -> list[str]:
    """Those of an option that may come again and may hold several with commas."""
    return [word.strip() for each in given for word in each.split(",") if word.strip()]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean `x`?` for the nearest known word, or an empty text."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else ""


def _checked(text: str, what: str, first: str, then: str, longest: int) -> str:
    if not text:
        raise UsageError(f"{what} is empty")
    for position, sign in enumerate(text, start=1):
        if sign in first or (position > 1 and sign in then):
            continue
        raise UsageError(
            f"{what} {_shown(text)} is not allowed: {_sign(sign)} at position {position}",
            hint=f"allowed: {_ranges(first)}, and after the first character also {_ranges(then)}",
        )
    if len(text) > longest:
        raise UsageError(
            f"{what} {_shown(text)} is not allowed: {len(text)} characters, "
            f"position {longest + 1} is past the limit of {longest}"
        )
    return text


def _ranges(signs: str) -> str:
    for run, short in ((_LOWER, "a-z"), (_UPPER, "A-Z"), (_DIGITS, "0-9")):
        signs = signs.replace(run, short + " ")
    tail = signs.rsplit(" ", 1)
    return " ".join([*tail[:-1], *tail[-1]]).strip()


def _shown(text: str) -> str:
    """The text as ASCII in backticks, so that a hostile name cannot steer the terminal."""
    short = text if len(text) <= 40 else text[:37] + "..."
    return f"`{ascii(short)[1:-1]}`"


def _sign(sign: str) -> str:
    return f"`{sign}`" if sign.isascii() and sign.isprintable() else f"U+{ord(sign):04X}"
