"""The mark in a report's file: it says who made it, and shows whether anybody changed it. Pure."""

from __future__ import annotations

import hashlib
import re

MARK = "made by orch report"
WITHIN = 4096  # bytes of a file in which its mark stands
_SEAL = re.compile(MARK.encode() + rb"(, sha256:([0-9a-f]{64}))")


def sealed(text: str) -> bytes:
    """The file's bytes, with their own sha256 in the mark: it is that of the text without it."""
    data = text.encode("utf-8", "backslashreplace")
    seal = f"{MARK}, sha256:{hashlib.sha256(data).hexdigest()}"
    return data.replace(MARK.encode(), seal.encode(), 1)


def is_report(data: bytes) -> bool:
    return MARK.encode() in data[:WITHIN]


def is_untouched(data: bytes) -> bool:
    """Whether it is a report as it was written. One of an earlier version has no digest and may
    have been changed."""
    found = _SEAL.search(data[:WITHIN])
    if found is None:
        return False
    bare = data[: found.start(1)] + data[found.end(1) :]
    return hashlib.sha256(bare).hexdigest().encode() == found[2]
