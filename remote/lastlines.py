"""The last lines of a log, found from its end: the log may be huge."""

from __future__ import annotations

import os
from typing import List, Tuple

from remote import files

BLOCK = 65536


def last_lines(path: str, count: int, raw: bool) -> Tuple[int, List[Tuple[int, int]]]:
    """Where the last `count` lines begin, and the jumps (from, to) in what follows.

    Jumped over is what a progress bar has overwritten: on a terminal all that is left of a line is
    what stands behind its last CR. With `raw` nothing is.
    """
    fd = files.open_regular(path)
    if fd is None:
        return 0, []
    try:
        text = _Text(fd)
        end = begin = text.size
        jumps: List[Tuple[int, int]] = []
        while end > 0 and count > 0:
            line, shown = _line(text, end, raw)
            if begin != end:
                jumps.append((end, begin))
            end, begin, count = line, shown, count - 1
    finally:
        os.close(fd)
    return begin, jumps[::-1]


def _line(text: _Text, end: int, raw: bool) -> Tuple[int, int]:
    """Where the line that ends before `end` begins, and where what is shown of it does."""
    stop = text.stripped(end, b"\n", 1)
    line = text.rfind(b"\n", 0, stop) + 1
    if raw:
        return line, line
    stop = text.stripped(stop, b"\r", stop - line)
    return line, max(line, text.rfind(b"\r", line, stop) + 1)


class _Text:
    """A file's bytes, searched backwards with one block of them in memory."""

    def __init__(self, fd: int) -> None:
        self.size = os.fstat(fd).st_size
        self._fd = fd
        self._start = 0
        self._block = b""

    def rfind(self, sign: bytes, low: int, high: int) -> int:
        """Where `sign` is last between them; -1: it is not."""
        while high > low:
            self._load(high)
            found = self._block.rfind(sign, max(0, low - self._start), high - self._start)
            if found >= 0:
                return self._start + found
            high = self._start
        return -1

    def stripped(self, end: int, sign: bytes, most: int) -> int:
        """`end` without the up to `most` signs before it."""
        while most > 0 and end > 0:
            self._load(end)
            if self._block[end - self._start - 1 : end - self._start] != sign:
                break
            end, most = end - 1, most - 1
        return end

    def _load(self, high: int) -> None:
        """The byte before `high` is in memory, unless the file was cut meanwhile."""
        if not self._start < high <= self._start + len(self._block):
            self._start = max(0, high - BLOCK)
            self._block = os.pread(self._fd, high - self._start, self._start)
