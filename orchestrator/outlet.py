"""Where output goes: stdout, or a file its user named. What cannot be written is an error of ours.

A reader that left stays a BrokenPipeError: that is no mistake of anybody's.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import StdoutLost, UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Patient(io.FileIO):
    """A descriptor that is waited for where it is non-blocking and takes nothing just now."""

    def write(self, data: ReadableBuffer, /) -> int:
        while (taken := super().write(data)) is None:
            room = select.poll()
            room.register(self.fileno(), select.POLLOUT)
            room.poll()
        return taken


def open_streams() -> None:
    """stdout and stderr take all that is written, or raise; also with PYTHONUNBUFFERED, whose
    streams drop what the first write(2) did not take. What an encoding cannot hold is written as an
    escape. A closed stdin is empty, a closed stderr leads nowhere, a closed stdout takes nothing.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        # Read-only: it keeps the number 1 from other files, and each write to it fails.
        sys.stdout = _whole(os.open(os.devnull, os.O_RDONLY), "utf-8")
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _whole(sys.stdout.fileno(), sys.stdout.encoding)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    elif isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _whole(sys.stderr.fileno(), sys.stderr.encoding, by_line=True)


def _whole(fd: int, encoding: str, *, by_line: bool = False) -> io.TextIOWrapper:
    raw = _Patient(fd, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=by_line or raw.isatty(),
    )


@contextmanager
def to_stdout() -> Iterator[None]:
    """StdoutLost when what is written within does not arrive."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        if exc.errno == errno.EBADF:
            raise StdoutLost(
                "stdout is closed: what was to go there is lost",
                hint="call it without `>&-`; `>/dev/null` is for what nobody wants to read",
            ) from None
        raise StdoutLost(
            f"stdout could not be written: {exc.strerror or exc}",
            hint="what went to it is not whole; make room there, or send it elsewhere",
        ) from None


def look() -> None:
    """BrokenPipeError when stdout's reader has left, as a write to it would find out."""
    stdout = select.poll()
    stdout.register(sys.stdout.fileno(), 0)  # a hang-up and an error are told unasked
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in stdout.poll(0)):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def write(path: Path, content: str | bytes) -> None:
    """`path`, which its user named, holds the content whole; UsageError when it cannot be
    written, and what was there is as it was."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    try:
        path = Path(os.path.realpath(path))  # a link stays one
        tmp = path.with_name(f".{path.name}.{os.getpid()}")
        if path.exists() and not path.is_file():  # a terminal, a pipe: nothing to be kept
            path.write_bytes(data)
            return
        try:
            tmp.write_bytes(data)
            os.replace(tmp, path)
        finally:
            with suppress(OSError):
                tmp.unlink(missing_ok=True)
    except OSError as exc:
        raise UsageError(
            f"{path} cannot be written: {exc.strerror or exc}", hint="name another file with -o"
        ) from None
