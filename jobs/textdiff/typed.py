"""Decoded JSON as frozen dataclasses: every key known, present and of its type, or ConfigError.

A default that fills a gap silently is how an incomplete config gets trained for nine hours, so a
class's fields are exactly the keys its mapping must have. Only a field that says how far a config
departs from the published recipe may have a default, which is the recipe's.
"""

from __future__ import annotations

import difflib
import json
import math
import types
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from jobs.textdiff.errors import ConfigError

T = TypeVar("T")


def read(path: Path) -> Any:
    """The decoded JSON at `path`."""
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise ConfigError(f"config {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"config {path}: not JSON: {error}") from error
    except RecursionError:
        raise ConfigError(f"config {path}: nested too deeply") from None


def build(cls: type[T], tree: Any, at: str = "") -> T:
    """`tree` as a `cls`; field types are int, float, str, bool, list of text, or one of these
    or None; or another dataclass."""
    if not isinstance(tree, dict):
        raise ConfigError(f"config {at or '(top)'}: expected a mapping, got {_kind(tree)}")
    hints = get_type_hints(cls)
    for key in tree:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"; did you mean {_join(at, near[0])}?" if near else ""
            raise ConfigError(f"config {_join(at, key)}: unknown key{hint}")
    for field in fields(cls):
        if field.name not in tree and field.default is MISSING:
            raise ConfigError(f"config {_join(at, field.name)}: missing")
    return cls(**{name: _value(hints[name], tree[name], _join(at, name)) for name in tree})


def flat(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of a dataclass."""
    if not is_dataclass(value):
        yield at, value
        return
    for field in fields(value):
        yield from flat(getattr(value, field.name), _join(at, field.name))


def _value(kind: Any, value: Any, at: str) -> Any:
    if is_dataclass(kind):
        return build(kind, value, at)  # type: ignore[arg-type]
    if get_origin(kind) in (Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (arg for arg in get_args(kind) if arg is not type(None))
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or not all(type(item) is str for item in value):
            raise ConfigError(f"config {at}: expected a list of text, got {_kind(value)}")
        return tuple(value)
    if kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            raise ConfigError(f"config {at}: expected a finite number, got a larger one") from None
    if type(value) is not kind:  # `is`: true is not 1
        raise ConfigError(f"config {at}: expected {kind.__name__}, got {_kind(value)}")
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"config {at}: expected a finite number, got {value}")
    return value


def _join(at: str, key: object) -> str:
    return f"{at}.{key}" if at else str(key)


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    word = names.get(type(value), type(value).__name__)
    return word if isinstance(value, (dict, list)) else f"{word} ({json.dumps(value)})"
