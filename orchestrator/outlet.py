"""Where output goes: stdout, or a file its user named. What cannot be written is an error of ours.

A reader that left stays a BrokenPipeError: that is no mistake of anybody's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import StdoutLost, UsageError


@contextmanager
def to_stdout() -> Iterator[None]:
    """StdoutLost when what is written within does not arrive."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise StdoutLost(
            f"stdout could not be written: {exc.strerror or exc}",
            hint="what went to it is not whole; make room there, or send it elsewhere",
        ) from None


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """UsageError when `path`, which its user named, cannot be written within."""
    try:
        yield
    except OSError as exc:
        raise UsageError(
            f"{path} cannot be written: {exc.strerror or exc}", hint="name another file with -o"
        ) from None
