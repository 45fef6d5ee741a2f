"""Maps in maps by dotted keys, `training.ema`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_NOTHING = object()


def leaves(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is not a non-empty map, with its dotted key."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def lookup(config: Mapping[str, Any], dotted: str, default: Any = _NOTHING) -> Any:
    """The value at a dotted key; `default` (else a private marker) when there is none."""
    value: Any = config
    for step in dotted.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return default
        value = value[step]
    return value
