"""The journal of a folder of results: what was put there, and what of it is surely on the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.disk import write_all
from remote import wire

SYNCED = "synced"  # a line of its own: all that the lines above it name is on the disk


@dataclass(frozen=True, slots=True)
class Known:
    """A file that was put in place: what it was, and how to see that it still is."""

    size: int
    sha256: str
    mtime_ns: int


class Journal:
    """The journal behind an open descriptor, which stays its owner's to lock and close."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.known: dict[str, Known] = {}  # the last word on each
        self.loose: set[str] = set()  # those a power cut may have taken bytes of
        self._every: dict[str, list[Known]] = {}
        with os.fdopen(os.dup(fd), "rb") as file:
            text = file.read()
        for item in _items(text):
            if item is None:
                self.loose.clear()
            elif item[1] is None:
                self._drop(item[0])
            else:
                self._take(item[0], item[1])
        if not text.endswith(b"\n") and text:
            write_all(fd, b"\n")  # a line that was torn may not swallow the next one

    def _take(self, path: str, known: Known) -> None:
        self.known[path] = known
        self.loose.add(path)
        self._every.setdefault(path, []).append(known)

    def _drop(self, path: str) -> None:
        self.known.pop(path, None)
        self.loose.discard(path)

    def note(self, items: Iterable[tuple[str, Known]]) -> None:
        """Before the files have their names: a kill in between must not make ours look foreign."""
        lines = []
        for path, known in items:
            self._take(path, known)
            lines.append(json.dumps([path, known.size, known.sha256, known.mtime_ns]) + "\n")
        write_all(self._fd, "".join(lines).encode("ascii"))

    def forget(self, paths: Iterable[str]) -> None:
        """They are no part of the result any more, and are not in the folder."""
        lines = []
        for path in paths:
            self._drop(path)
            lines.append(json.dumps([path]) + "\n")
        write_all(self._fd, "".join(lines).encode("ascii"))

    def note_synced(self) -> None:
        if self.loose:
            write_all(self._fd, json.dumps(SYNCED).encode("ascii") + b"\n")
            self.loose.clear()

    def is_ours(self, path: str, info: os.stat_result) -> bool:
        """Whether what is at `path` was put there and not touched since, but by a power cut.

        Not only the last word counts: a kill may have kept a renewed file from getting its name.
        """
        return any(
            info.st_mtime_ns == each.mtime_ns
            and (info.st_size == each.size or (path in self.loose and info.st_size < each.size))
            for each in self._every.get(path, ())
        )


def read_journal(text: bytes) -> dict[str, Known]:
    """path -> the last word on it; lines torn by a kill are passed over."""
    last = dict(item for item in _items(text) if item is not None)
    return {path: known for path, known in last.items() if known is not None}


def _items(text: bytes) -> Iterator[tuple[str, Known | None] | None]:
    """What each line names; None for one that says that all above are on the disk.

    A path alone is no part of the result any more.
    """
    for line in text.split(b"\n"):
        try:
            value = json.loads(line)
            if value == SYNCED:
                yield None
                continue
            path, *about = value
            wire.check_path(path.encode("utf-8", "surrogateescape"))
        except (ValueError, TypeError, AttributeError, RecursionError, wire.WireError):
            continue
        if not about:
            yield path, None
        elif _is_known(about):
            yield path, Known(*about)


def _is_known(about: list[object]) -> bool:
    return len(about) == 3 and all(
        isinstance(value, kind) for value, kind in zip(about, (int, str, int), strict=True)
    )
