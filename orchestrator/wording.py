"""Counts, sizes and values as sentences have them. Pure."""

from __future__ import annotations

import json
from typing import Any


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 run`, `2 runs`; `plural` where an s is not enough."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def size(count: float) -> str:
    """`0 B`, `999 B`, `1.2 kB`, `3.4 MB`, `5.6 GB`: 1000-based, with one digit."""
    if count < 1000:
        return f"{count:.0f} B"
    for power, unit in ((1, "kB"), (2, "MB")):
        if count < 999_950 * 1000 ** (power - 1):  # what rounds to 1000.0 is the next unit's 1.0
            return f"{count / 1000**power:.1f} {unit}"
    return f"{count / 1e9:.1f} GB"


def without_name(host: str, message: str) -> str:
    """What is said of a host, for a place that has its name; `name (address): why` keeps the
    address."""
    rest = message.removeprefix(host)
    if rest != message and rest.startswith(": "):
        return rest[2:]
    address, found, why = rest.removeprefix(" (").partition("): ")
    return f"{address}: {why}" if found and rest.startswith(" (") else message


def value(of: Any) -> str:
    """As JSON has it (`null`, `true`, `{"a": 1}`), a text in single quotes; printable ASCII."""
    return ascii(of) if isinstance(of, str) else json.dumps(of, default=str)


def shown(of: Any) -> str:
    """`value`, in at most 60 characters."""
    text = value(of)
    return text if len(text) <= 60 else text[:57] + "..."
