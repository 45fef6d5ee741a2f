"""Reading a loaded YAML document field by field: every complaint names the line. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

from orchestrator.errors import SpecError, UsageError
from orchestrator.names import did_you_mean
from orchestrator.strictyaml import Document, Trail

T = TypeVar("T")


def kind_of(value: Any) -> str:
    """What a user calls the type of a YAML value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    kinds: tuple[tuple[type, str], ...] = (
        (int, "an integer"),
        (float, "a number"),
        (str, "text"),
        (list, "a list"),
        (dict, "a map"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), type(value).__name__)


@dataclass(frozen=True, slots=True)
class Field:
    """One node of a document, with its place. The readers return a value or raise SpecError."""

    value: Any
    doc: Document
    trail: Trail = ()

    @property
    def name(self) -> str:
        return ".".join(str(step) for step in self.trail) or "the file"

    def error(self, message: str, hint: str | None = None) -> SpecError:
        return self.doc.error(self.trail, message, hint)

    def expected(self, what: str) -> SpecError:
        return self.error(f"`{self.name}` must be {what}, not {kind_of(self.value)}")

    def table(self, known: Collection[str] | None = None) -> dict[str, Field]:
        """The fields of a map that may hold only `known` keys; null is an empty map."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise self.expected("a map")
        fields = {
            key: Field(value, self.doc, (*self.trail, key)) for key, value in self.value.items()
        }
        for key, field in fields.items():
            if known is not None and key not in known:
                place = f" in `{self.name}`" if self.trail else ""
                raise field.error(
                    f"unknown key `{ascii(key)[1:-1]}`{place}{did_you_mean(key, known)}",
                    hint="known keys: " + ", ".join(sorted(known)),
                )
        return fields

    def items(self) -> list[Field]:
        """The fields of a list; null is an empty list."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise self.expected("a list")
        return [Field(item, self.doc, (*self.trail, at)) for at, item in enumerate(self.value)]

    def text(self) -> str:
        """A text that is not blank and has no NUL."""
        if not isinstance(self.value, str):
            raise self.expected("text")
        if not self.value.strip():
            raise self.error(f"`{self.name}` is empty")
        if "\0" in self.value:
            raise self.error(f"`{self.name}` holds a NUL character")
        return self.value

    def texts(self) -> tuple[str, ...]:
        return tuple(item.text() for item in self.items())

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)):
            raise self.expected("a number")
        return float(self.value)

    def one_of(self, choices: Collection[str]) -> str:
        text = self.text()
        if text not in choices:
            raise self.error(
                f"`{self.name}` is `{ascii(text)[1:-1]}`; it must be one of {', '.join(choices)}"
                + did_you_mean(text, choices)
            )
        return text

    def read(self, reader: Callable[[Any], T]) -> T:
        """`reader(value)`; its UsageError comes back as a SpecError with the place."""
        try:
            return reader(self.value)
        except UsageError as error:
            raise self.error(f"`{self.name}`: {error.message}", error.hint) from None

    def key(self, reader: Callable[[str], str]) -> str:
        """`reader` applied to the field's own key."""
        try:
            return reader(str(self.trail[-1]))
        except UsageError as error:
            raise self.error(error.message, error.hint) from None

    def plain_path(self) -> str:
        """A relative path of plain parts: no `..`, no leading `/` or `~`, no control characters."""
        text = self.text()
        path = PurePosixPath(text)
        plain = text.isprintable() and "\\" not in text and not text.startswith("~")
        if not plain or path.is_absolute() or ".." in path.parts or not path.parts:
            raise self.error(
                f"`{self.name}` is `{ascii(text)[1:-1]}`; it must be a path inside the project, "
                "without `..`, `~` or a leading `/`"
            )
        return path.as_posix()
