from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import sanitize
from orchestrator.sanitize import LogSanitizer

NASTY = [
    ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
    ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
    ("\x1b]0;title\x1b\\", "\\x1b]0;title\\x1b\\"),
    ("a\x00b\x08c\x7f", "a\\x00b\\x08c\\x7f"),
    ("\x9b31m\x85", "\\x9b31m\\x85"),
    ("\u202eabc\u202c \u2066x\u2069 \u200f \u061c", None),
    ("line\u2028sep\u2029", "line\\u2028sep\\u2029"),
    ("[red]markup[/red]", "[red]markup[/red]"),
    ("größe – 日本 █▏ 🎉", "größe – 日本 █▏ 🎉"),
]


def unsafe(text: str) -> list[str]:
    """Signs that a terminal might act on, found one by one and not by a pattern."""
    bidi = {0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
    return [
        sign
        for sign in text
        if (ord(sign) < 32 and sign not in "\n\t")
        or 127 <= ord(sign) < 160
        or ord(sign) in bidi
        or 0xD800 <= ord(sign) < 0xE000
    ]


@pytest.mark.parametrize(("raw", "shown"), NASTY)
def test_f74_what_could_steer_a_terminal_is_shown_as_an_escape(raw: str, shown: str | None) -> None:
    assert unsafe(sanitize.text(raw)) == []
    assert sanitize.text(raw.encode()) == sanitize.text(raw)
    if shown is not None:
        assert sanitize.text(raw) == shown


def test_a_text_keeps_its_line_feeds_and_tabs_and_a_line_does_not() -> None:
    assert sanitize.text("a\n\tb\r") == "a\n\tb\\x0d"
    assert sanitize.line("a\n\tb") == "a\\x0a\\x09b"


def test_f75_bytes_that_are_no_utf8_and_lone_surrogates_are_escapes() -> None:
    assert sanitize.text(b"a\xff\xc3(") == "a\\xff\\xc3("
    assert sanitize.text("x\udc80\ud800") == "x\\udc80\\ud800"
    assert sanitize.text(b"\xed\xa0\x80") == "\\xed\\xa0\\x80"


def fed(data: bytes, size: int, *, allow_cr: bool = False) -> str:
    log = LogSanitizer(allow_cr=allow_cr)
    pieces = [log.feed(data[i : i + size]) for i in range(0, len(data), size)]
    return "".join(pieces) + log.finish()


CORPUS = (
    "".join(raw for raw, _ in NASTY).encode()
    + b"\r\nbar 1\rbar 2\r\r\n\xff\xe2\x80\n\xe2\x80\xae\xe2\x81\xa6\xd8\x9c\xc2\x9b\xed\xa0\x80\r"
)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 64, 10_000])
@pytest.mark.parametrize("allow_cr", [False, True])
def test_f75_a_log_reads_the_same_wherever_it_is_cut(size: int, allow_cr: bool) -> None:
    whole = fed(CORPUS, len(CORPUS), allow_cr=allow_cr)
    assert fed(CORPUS, size, allow_cr=allow_cr) == whole
    assert unsafe(whole.replace("\r", "") if allow_cr else whole) == []


@given(st.binary(max_size=200), st.integers(1, 9))
def test_f75_any_bytes_are_safe_and_the_same_in_any_chunks(data: bytes, size: int) -> None:
    whole = fed(data, max(1, len(data)))
    assert unsafe(whole) == []
    assert fed(data, size) == whole


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "Zs", "S"]), max_size=200))
def test_ordinary_text_of_any_script_is_left_as_it_is(text: str) -> None:
    assert fed(text.encode(), 5) == text
    assert sanitize.text(text) == text


def test_carriage_returns_become_lines_or_stay_when_asked() -> None:
    bars = b"1%\r2%\r3%\r\ndone\r"
    assert fed(bars, 3) == "1%\n2%\n3%\ndone\n"
    assert fed(bars, 3, allow_cr=True) == "1%\r2%\r3%\ndone\r"


def test_f76_a_line_without_end_passes_on_in_pieces_without_being_kept() -> None:
    log, chunk = LogSanitizer(), b"x" * 65536
    tracemalloc.start()
    for _ in range(200):
        assert len(log.feed(chunk)) == len(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_two_hundred_megabytes_of_plain_log_pass_quickly() -> None:
    log, chunk = LogSanitizer(), b"step 100 loss 2.31 lr 1e-4 grad 0.7\n" * 29_000
    begun = time.process_time()
    for _ in range(200_000_000 // len(chunk)):
        log.feed(chunk)
    assert time.process_time() - begun < 0.8
