"""What an unquoted YAML scalar means: the core schema of YAML 1.2, minus its traps. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WORDS: Mapping[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_OLD_TRUE, _OLD_FALSE = ("yes", "on", "y"), ("no", "off", "n")
_INT = re.compile(r"[-+]?[0-9]+")
_RADIX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]")
_NOT_FINITE = re.compile(r"[-+]?\.?(?:nan|inf|infinity)", re.IGNORECASE)
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?")
_UNDERSCORED = re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9_]+)?")
_BINARY = re.compile(r"[-+]?0b[01_]+")


class Surprise(Exception):
    """A plain scalar that two readers would read differently; the text shows the fix."""


def plain(text: str) -> Any:
    """The value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return _word(text)
    if _INT.fullmatch(text) or _RADIX.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return _float(text)
    for pattern, what in (
        (_NOT_FINITE, "is not a finite number; quote it if it is a text"),
        (_BASE_60, "would be read as a number to base 60 elsewhere; quote it"),
        (_DATE, "would be read as a date elsewhere; quote it"),
        (_UNDERSCORED, "is a number only to some readers; write it without `_`, or quote it"),
        (_BINARY, "is a number only to some readers; write it in decimal, or quote it"),
    ):
        if pattern.fullmatch(text):
            raise Surprise(f"{quoted(text)} {what}: {to_mend(text)}")
    return text


def is_plain_text(text: str) -> bool:
    """Whether it can be written without quotes and is taken for nothing but this text."""
    if text != text.strip() or not text.isprintable() or text[:1] in tuple("[{\"'("):
        return False
    try:
        return bool(plain(text) == text)
    except Surprise:
        return False


def _word(text: str) -> str:
    low = text.lower()
    if low in _OLD_TRUE or low in _OLD_FALSE:
        better = "true" if low in _OLD_TRUE else "false"
        raise Surprise(
            f"{quoted(text)} is a yes/no word to some readers and a text to others; "
            f"write {better}, or quote it: {to_mend(text)}"
        )
    if _NOT_FINITE.fullmatch(text):
        raise Surprise(
            f"{quoted(text)} is not a finite number; quote it if it is a text: {to_mend(text)}"
        )
    return text


def _integer(text: str) -> int:
    if _LEADING_ZERO.match(text):
        raise _zero(text)
    if len(text) <= 24:
        value = int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        if -(2**63) <= value < 2**63:
            return value
    raise Surprise(f"{quoted(text)} does not fit into 64 bits; quote it if it is a text")


def _float(text: str) -> float:
    if _LEADING_ZERO.match(text):
        raise _zero(text)
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Surprise(f"{quoted(text)} is too large for a float; quote it if it is a text")
    return value


def _zero(text: str) -> Surprise:
    sign = "-" if text[0] == "-" else ""
    digits = text.lstrip("+-").lstrip("0")
    better = sign + (digits if digits[:1].isdigit() else "0" + digits)
    return Surprise(
        f"{quoted(text)} starts with a zero and is octal to some readers; "
        f"write {_cut(better)}, or quote it: {to_mend(text)}"
    )


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def quoted(text: str) -> str:
    return f"`{ascii(_cut(text))[1:-1]}`"


def to_mend(text: str) -> str:
    return f'"{ascii(_cut(text))[1:-1]}"'
