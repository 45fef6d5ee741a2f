"""What was told from outside, value by value: of the type it must have, or None. Never raises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.clock import iso, parse_iso

TEXT_MAX = 2000
NUMBER_MAX = 65536
MOMENT_MAX = 64
DEPTH_MAX = 100  # a config may be 64 deep


def text(value: Any, most: int = TEXT_MAX) -> str | None:
    """The text, its first `most` characters."""
    return value[:most] if isinstance(value, str) else None


def whole_text(value: Any, most: int) -> str | None:
    """A text that is neither empty nor longer than `most`: cut, it would mean something else."""
    return value if isinstance(value, str) and 0 < len(value) <= most else None


def count(value: Any, below: int = NUMBER_MAX) -> int | None:
    """A whole number from 0 on."""
    lawful = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below
    return value if lawful else None


def real(value: Any) -> float | None:
    """A finite number that a float can hold; a whole one stays whole."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def moment(value: Any) -> str | None:
    """An ISO 8601 time with a zone, as `clock.iso` writes it."""
    if not isinstance(value, str) or len(value) > MOMENT_MAX:
        return None
    try:
        return iso(parse_iso(value))
    except ValueError:
        return None


def mapping(value: Any) -> Mapping[str, Any]:
    """A map of whatever is in it; empty for anything else."""
    return value if isinstance(value, dict) else {}


def table(value: Any) -> Mapping[str, Any]:
    """A map of plain values; empty for anything else."""
    return value if isinstance(value, dict) and is_plain(value) else {}


def items(value: Any) -> list[Any]:
    """A list of plain values; empty for anything else."""
    return value if isinstance(value, list) and is_plain(value) else []


def texts(value: Any) -> tuple[str, ...] | None:
    """A list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(value)


def is_plain(value: Any, depth: int = DEPTH_MAX) -> bool:
    """No NaN, no infinity and no number beyond them in a JSON value, nor more than `depth` levels:
    what comes later may walk it."""
    if isinstance(value, (int, float)):
        return isinstance(value, bool) or real(value) is not None
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(is_plain(each, depth - 1) for each in inner)
