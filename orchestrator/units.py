"""Durations, sizes and GPU counts as people write them. Pure; UsageError shows the right form."""

from __future__ import annotations

import re
from typing import Any

from orchestrator.errors import UsageError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "B": 1,
    **{sign + "B": 1000**power for power, sign in enumerate("kMGT", start=1)},
    **{sign + "iB": 1024**power for power, sign in enumerate("KMGT", start=1)},
    "KB": 1000,
}
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)"
_DURATION = re.compile(_NUMBER + r"([smhd])")
_SIZE = re.compile(_NUMBER + r" ?([A-Za-z]+)")
_GPUS = re.compile(r"([0-9]{1,3})(?:-([0-9]{1,3}))?")


def duration(value: Any) -> float:
    """Seconds in `90s`, `30m`, `1.5h` or `2d`; more than zero."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise UsageError(f"{_shown(value)} is not a duration; write e.g. 90s, 30m, 1.5h or 2d")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if seconds <= 0:
        raise UsageError(f"{_shown(value)}: a duration must be more than zero")
    return seconds


def timeout(text: str) -> float:
    """Seconds for `--timeout`: a duration, or a bare number of seconds, zero included."""
    if re.fullmatch(_NUMBER, text):
        return float(text)
    return duration(text)


def size(value: Any) -> int:
    """Bytes in `16GiB` (1024-based) or `500MB` (1000-based)."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[2] not in _BYTES:
        raise UsageError(
            f"{_shown(value)} is not a size; write e.g. 16GiB (1024-based) or 500MB (1000-based)"
        )
    return int(float(found[1]) * _BYTES[found[2]])


def gpus(value: Any) -> tuple[int, int]:
    """Least and most GPUs: `2` is exactly two, `0-1` is one if the host has one."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        value = str(value)
    found = _GPUS.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise UsageError(f"{_shown(value)} is not a number of GPUs; write e.g. 1, 2 or 0-1")
    least = int(found[1])
    most = int(found[2]) if found[2] is not None else least
    if most < least:
        raise UsageError(f"{_shown(value)}: the most GPUs are fewer than the least")
    return least, most


def _shown(value: Any) -> str:
    short = ascii(value) if isinstance(value, str) else str(value)
    return f"`{short.strip(chr(39))[:40]}`"
