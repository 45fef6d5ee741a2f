"""What a host may refuse, in words the controller turns into its own errors."""

from __future__ import annotations

import contextlib
from typing import Callable, Iterator

from remote import files

HEADROOM = 8 * 1024 * 1024  # bytes that stay free for logs and exit records


class Refused(Exception):
    """The host will not do it; nothing was changed. `kind` names the controller's error class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@contextlib.contextmanager
def before_any_change(unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """What the system does not permit in here is Refused, unless `unless()` a change was made; a
    full disk has words of its own elsewhere."""
    try:
        yield
    except BrokenPipeError:  # the controller is gone
        raise
    except OSError as exc:
        if files.is_full(exc) or unless():
            raise
        raise Refused("Unusable", files.words(exc)) from None


class Damaged(Exception):
    """Objects that are missing or do not match their name any more (they were put aside)."""

    def __init__(self, count: int) -> None:
        super().__init__("%d objects are missing or damaged" % count)
        self.count = count
