"""The identity of a config: the same hyper-parameters give the same bytes, everywhere. Pure.

Canonical bytes, version c1, ASCII: JSON without spaces; maps sorted by key (code points, after
NFC); texts in NFC with every non-ASCII character escaped; an integer in decimal digits; a float as
the shortest digits that give it back (`0.0001`, `1e-05`, `1.0`), with -0.0 written as 0.0. So the
integer 1 and the float 1.0 differ: fields are given their type before they are hashed (`overlay`).
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from orchestrator.errors import UsageError

PREFIX = "c1:"
MAX_DEPTH = 64


def config_hash(config: Mapping[str, Any], volatile: Collection[str] = ()) -> str:
    """`c1:` + sha256 (64 hex digits) of the canonical bytes."""
    return PREFIX + hashlib.sha256(canonical(config, volatile)).hexdigest()


def canonical(config: Mapping[str, Any], volatile: Collection[str] = ()) -> bytes:
    """The bytes that are hashed, without the volatile dotted keys.

    UsageError names the dotted key of anything that has no canonical form: NaN, infinity, a key
    that is no text or that equals another after NFC, a type JSON does not know.
    """
    return _text(config, (), frozenset(volatile)).encode("ascii")


def _text(value: Any, trail: tuple[str, ...], volatile: frozenset[str]) -> str:
    if len(trail) > MAX_DEPTH:
        raise UsageError(f"config is nested deeper than {MAX_DEPTH} levels")
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _float(value, trail)
    if isinstance(value, str):
        return _string(value, trail)
    if isinstance(value, Mapping):
        return _map(value, trail, volatile)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        items = (_text(item, (*trail, str(at)), volatile) for at, item in enumerate(value))
        return "[" + ",".join(items) + "]"
    raise UsageError(f"config key {_where(trail)} has a value of type {type(value).__name__}")


def _integer(value: int) -> str:
    return int.__repr__(value)


def _float(value: float, trail: tuple[str, ...]) -> str:
    if not math.isfinite(value):
        raise UsageError(f"config key {_where(trail)} is {value!r}: not a finite number")
    return float.__repr__(value if value else 0.0)


def _string(value: str, trail: tuple[str, ...]) -> str:
    if any("\ud800" <= sign <= "\udfff" for sign in value):
        raise UsageError(f"config key {_where(trail)} holds text that is not valid Unicode")
    return json.dumps(unicodedata.normalize("NFC", value), ensure_ascii=True)


def _map(value: Mapping[Any, Any], trail: tuple[str, ...], volatile: frozenset[str]) -> str:
    entries: dict[str, str] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise UsageError(f"config key {_where((*trail, repr(key)))} is not a text")
        name = unicodedata.normalize("NFC", key)
        below = (*trail, key)
        if ".".join(below) in volatile:
            continue
        if name in entries:
            raise UsageError(f"config key {_where(below)} is given twice (after Unicode NFC)")
        entries[name] = _string(key, below) + ":" + _text(item, below, volatile)
    return "{" + ",".join(entries[name] for name in sorted(entries)) + "}"


def _where(trail: tuple[str, ...]) -> str:
    return f"`{ascii('.'.join(trail))[1:-1]}`"
