"""What a host may refuse, in words the controller turns into its own errors."""

from __future__ import annotations

HEADROOM = 8 * 1024 * 1024  # bytes that stay free for logs and exit records


class Refused(Exception):
    """The host will not do it; nothing was changed. `kind` names the controller's error class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Damaged(Exception):
    """Objects that are missing or do not match their name any more (they were put aside)."""

    def __init__(self, count: int) -> None:
        super().__init__("%d objects are missing or damaged" % count)
        self.count = count
