"""The last lines of a log: found from its end, and of a progress bar what it shows last."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote import lastlines

LOG = b"a\r\n\rb\rc\n" + b"bar\r" * 100_000 + b"d\r\r\n\n" + b"\re\rf"


def shown(path: Path, count: int, raw: bool = False) -> bytes:
    """What of the file is sent."""
    at, jumps = lastlines.last_lines(str(path), count, raw)
    text, sent = path.read_bytes(), b""
    for stop, begin in jumps:
        assert at < stop < begin
        sent, at = sent + text[at:stop], begin
    return sent + text[at:]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, b""),
        (1, b"f"),
        (2, b"\nf"),
        (3, b"d\r\r\n\nf"),
        (4, b"c\nd\r\r\n\nf"),
        (5, b"a\r\nc\nd\r\r\n\nf"),
        (9, b"a\r\nc\nd\r\r\n\nf"),
    ],
)
def test_of_each_line_its_last_state(count: int, expected: bytes, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LOG)
    assert shown(tmp_path / "log", count) == expected


@given(
    text=st.lists(st.sampled_from([b"\n", b"\r", b"x", b"yy"]), max_size=40).map(b"".join),
    count=st.integers(0, 9), block=st.integers(1, 9), raw=st.booleans(),
)  # fmt: skip
def test_it_is_what_a_search_from_the_start_finds(
    text: bytes, count: int, block: int, raw: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(text)
    lines = re.findall(rb"[^\n]*\n|[^\n]+\Z", text)
    states = [re.sub(rb"\A[^\n]*\r(?=[^\r\n])", b"", line) for line in lines]
    last = (lines if raw else states)[len(lines) - min(count, len(lines)) :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lastlines, "BLOCK", block)
        assert shown(path, count, raw) == b"".join(last)
