"""YAML without surprises: what a reader sees is what the program gets. The only user of `yaml`.

Scalars follow the core schema of YAML 1.2 (`1e-4` is a float). What another reader would take for
something else (`no`, `010`, `1:30`, a date, `.nan`) is an error that shows the fix. Duplicate keys,
tags, anchors, aliases, merge keys, directives and second documents are errors. Events are walked
as the parser makes them, so a limit ends the work before memory or the stack is spent.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.scalars import Surprise, plain, quoted, to_mend

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 10_000

Trail = tuple[str | int, ...]  # the way to a node: keys and list positions from the root
Mark = tuple[int, int]  # line and column, from 1


@dataclass(frozen=True, slots=True)
class Document:
    """A loaded file: plain Python values, and where each key and list item stands."""

    value: Any
    path: str
    marks: Mapping[Trail, Mark] = field(default_factory=dict)

    def error(self, trail: Trail, message: str, hint: str | None = None) -> SpecError:
        """A SpecError that points at the node, or at its nearest parent with a known place."""
        while trail and trail not in self.marks:
            trail = trail[:-1]
        line, column = self.marks.get(trail, (None, None))
        return SpecError(message, path=self.path, line=line, column=column, hint=hint)


def load(text: str, *, path: str) -> Any:
    """The text's one document as dict, list, str, int, float, bool or None; SpecError otherwise."""
    return load_document(text, path=path).value


def load_document(text: str, *, path: str) -> Document:
    """As `load`, with the place of every node."""
    import yaml  # late: most commands read no YAML

    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise SpecError("the text is not valid Unicode", path=path) from error
    if size > MAX_BYTES:
        raise SpecError(f"the file has {size} bytes; at most {MAX_BYTES} are read", path=path)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    composer = _Composer(path)
    try:
        value = composer.stream(yaml.parse(text, Loader=loader))
    except yaml.YAMLError as error:
        raise _syntax_error(error, path) from None
    return Document(value, path, composer.marks)


def load_file(file: Path, *, shown: str) -> Document:
    """As `load_document`, from a UTF-8 file; at most MAX_BYTES + 1 of it are read."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror or error}", path=shown) from error
    if len(raw) > MAX_BYTES:
        raise SpecError(f"the file is larger than {MAX_BYTES} bytes", path=shown)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SpecError("the file is not UTF-8 text", path=shown, line=line) from None
    return load_document(text, path=shown)


def scalar(text: str) -> Any:
    """The value of `--set key=TEXT`: a plain scalar by the same rules, or a quoted or flow value.

    A plain text is taken to its end: `#`, `: ` and commas in it have no meaning.
    """
    text = text.strip()
    if not text:
        raise SpecError("the value is empty; write null, or '' for an empty text")
    if text[0] in "[{\"'":
        return load(text, path="the value")
    if text[0] in "!&*|>%@`":
        raise SpecError(f"{quoted(text)} starts with a YAML sign; quote it inside: '{text}'")
    if not text.isprintable():
        raise SpecError(f'{quoted(text)} has a control character; quote it inside: "..."')
    try:
        return plain(text)
    except Surprise as error:
        raise SpecError(str(error)) from None


# --- documents ------------------------------------------------------------------------------------


class _Composer:
    """Builds values from parser events and keeps their places."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.marks: dict[Trail, Mark] = {}
        self.nodes = 0

    def stream(self, events: Iterator[Any]) -> Any:
        value: Any = None
        documents = 0
        self.marks[()] = (1, 1)
        for event in events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                documents += 1
                if documents > 1:
                    raise self.error(event, "a second document starts here; one is allowed")
                if event.version or event.tags:
                    raise self.error(event, "directives (%YAML, %TAG) are not allowed")
                value = self.node(next(events), events, (), 1)
        return value

    def node(self, event: Any, events: Iterator[Any], trail: Trail, depth: int) -> Any:
        kind = type(event).__name__
        self.marks.setdefault(trail, (event.start_mark.line + 1, event.start_mark.column + 1))
        if kind == "AliasEvent":
            raise self.error(event, f"alias {quoted('*' + event.anchor)}: write the value out")
        if event.anchor is not None:
            raise self.error(event, f"anchor {quoted('&' + event.anchor)}: write the value out")
        if event.tag is not None:
            raise self.error(event, f"tag {quoted(event.tag)}: tags are not allowed")
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.error(event, f"more than {MAX_NODES} nodes")
        if kind == "ScalarEvent":
            return self.scalar(event)
        if depth > MAX_DEPTH:
            raise self.error(event, f"nested deeper than {MAX_DEPTH} levels")
        if kind == "SequenceStartEvent":
            return self.sequence(events, trail, depth)
        return self.mapping(events, trail, depth)

    def sequence(self, events: Iterator[Any], trail: Trail, depth: int) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if type(event).__name__ == "SequenceEndEvent":
                break
            items.append(self.node(event, events, (*trail, len(items)), depth + 1))
        return items

    def mapping(self, events: Iterator[Any], trail: Trail, depth: int) -> dict[str, Any]:
        table: dict[str, Any] = {}
        places: dict[str, int] = {}
        for event in events:
            if type(event).__name__ == "MappingEndEvent":
                break
            key = self.key(event)
            line = event.start_mark.line + 1
            # Two spellings of one character look alike and would be one key in the hash.
            same = unicodedata.normalize("NFC", key)
            if same in places:
                first = places[same]
                raise self.error(event, f"key {quoted(key)} is given twice (first in line {first})")
            places[same] = line
            below = (*trail, key)
            self.marks[below] = (line, event.start_mark.column + 1)
            table[key] = self.node(next(events), events, below, depth + 1)
        return table

    def key(self, event: Any) -> str:
        if type(event).__name__ != "ScalarEvent":
            raise self.error(event, "a key must be a text, not a list, a map or an alias")
        if event.anchor is not None or event.tag is not None:
            raise self.error(event, "anchors and tags are not allowed on keys")
        text: str = event.value
        self.nodes += 1
        if event.style:
            return text
        if text == "<<":
            raise self.error(event, "merge key `<<`: write the keys out")
        if text in ("on", "y", "n"):
            return text  # what old readers take for true makes no sense as a key: `retry: {on:`
        value = self.scalar(event)
        if not isinstance(value, str):
            raise self.error(event, f"key {quoted(text)} is not a text; quote it: {to_mend(text)}")
        return value

    def scalar(self, event: Any) -> Any:
        text: str = event.value
        if event.style:
            return text
        try:
            return plain(text)
        except Surprise as error:
            raise self.error(event, str(error)) from None

    def error(self, event: Any, message: str) -> SpecError:
        mark = event.start_mark
        return SpecError(message, path=self.path, line=mark.line + 1, column=mark.column + 1)


def _syntax_error(error: Exception, path: str) -> SpecError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    parts = (getattr(error, "context", None), getattr(error, "problem", None))
    said = ", ".join(part for part in parts if part) or getattr(error, "reason", None)
    message = f"not valid YAML: {said or str(error).splitlines()[0]}"
    if mark is None:
        return SpecError(message, path=path)
    return SpecError(message, path=path, line=mark.line + 1, column=mark.column + 1)
