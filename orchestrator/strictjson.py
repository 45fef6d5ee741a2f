"""JSON that another program wrote, taken only if it means one thing. Pure.

Refused: duplicate keys, NaN and Infinity (also by overflow), integers past 64 bits, invalid UTF-8,
lone surrogates, more bytes or more depth than the caps. Never a traceback, whatever the bytes are.
"""

from __future__ import annotations

import json
import math
from typing import Any

MAX_BYTES = 4 << 20
MAX_DEPTH = 32


class JsonRefused(ValueError):
    """The bytes are not JSON that can be trusted; the message says why, in words and numbers."""


def loads(raw: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """The value as dict, list, str, int, float, bool or None; raises JsonRefused."""
    if len(raw) > max_bytes:
        raise JsonRefused(f"it has {len(raw)} bytes; at most {max_bytes} are read")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonRefused(f"it is not UTF-8: byte {error.start}") from None
    if not text.strip():
        raise JsonRefused("it is empty")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise JsonRefused(f"it is not JSON: line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise JsonRefused(f"it is nested deeper than {max_depth} levels") from None
    _walk(value, max_depth)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise JsonRefused(f"the key `{cut(key)}` is given twice")
        table[key] = value
    return table


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise JsonRefused(f"an integer of {len(digits)} digits does not fit into 64 bits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise JsonRefused(f"the number {cut(digits)} is too large")
    return value


def _constant(name: str) -> Any:
    raise JsonRefused(f"it holds {name}, which is not a number")


def _walk(value: Any, max_depth: int) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > max_depth + 1:
            raise JsonRefused(f"it is nested deeper than {max_depth} levels")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.keys())
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str) and not _encodes(item):
                raise JsonRefused("a text in it holds half of a surrogate pair")
        level = below


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def cut(text: str, longest: int = 40) -> str:
    """The text as printable ASCII, shortened: safe inside a message."""
    short = ascii(text)[1:-1]
    return short if len(short) <= longest else short[: longest - 3] + "..."
