"""Text from elsewhere, made safe to show on a terminal. Pure.

What could steer a terminal or disguise a line (control characters, ESC and with it OSC and CSI, C1,
DEL, bidirectional controls, bytes that are no UTF-8) is shown as an escape such as `\\x1b`.
"""

from __future__ import annotations

import codecs
import re
from functools import cache

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_TEXT = f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}\u2028\u2029\ud800-\udfff]"
_LINE = f"[\x00-\x1f\x7f-\x9f{_BIDI}\u2028\u2029\ud800-\udfff]"
_BEYOND_ASCII = f"[\x80-\x9f{_BIDI}\u2028\u2029]"

# The bytes that need no second look. Left over are the control characters, and the first bytes of
# the UTF-8 sequences in which C1 (c2), U+061C (d8) and the other bidi controls (e2) are written.
_LEADS = b"\xc2\xd8\xe2"
_PLAIN = bytes(b for b in range(256) if (b >= 32 and b != 127 and b not in _LEADS) or b in b"\n\t")
_NOT_NOW = b"\r" + _LEADS
# Per first byte: the sequences to look for, each a literal so that the search is a fast one, and
# then the exact pattern. Block characters of progress bars begin with e2 and pass the first.
_WIDE = {
    0xC2: ((b"\xc2",), rb"\xc2[\x80-\x9f]"),
    0xD8: ((b"\xd8\x9c",), rb"\xd8\x9c"),
    0xE2: (
        (b"\xe2\x80", b"\xe2\x81"),
        rb"\xe2(?:\x80[\x8e\x8f\xa8-\xae]|\x81[\xa6-\xa9])",
    ),
}


def text(value: bytes | str) -> str:
    """Safe for a terminal; line feeds and tabs stay."""
    decoded = _decoded(value)
    return decoded if decoded.isprintable() else _pattern(_TEXT).sub(_escape, decoded)


def line(value: bytes | str) -> str:
    """Safe for a terminal and one line: line feeds and tabs are escapes too."""
    decoded = _decoded(value)
    return decoded if decoded.isprintable() else _pattern(_LINE).sub(_escape, decoded)


def folded(value: str) -> str:
    """The lines of a text as one, for a table; it is still to be made safe."""
    return " ".join(part for part in map(str.strip, value.split("\n")) if part)


class LogSanitizer:
    """A log as it comes in, in chunks cut anywhere; what it gives out is safe for a terminal.

    CR LF becomes LF. A CR alone, with which progress bars overwrite themselves, stays when
    `allow_cr`, and else becomes LF. Nothing is held back but an unfinished character (3 bytes) and
    one CR, so memory is bounded whatever the length of a line.
    """

    def __init__(self, *, allow_cr: bool = False) -> None:
        self._allow_cr = allow_cr
        self._held_cr = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def feed(self, chunk: bytes) -> str:
        if self._held_cr and chunk:
            chunk, self._held_cr = b"\r" + chunk, False
        # A character begun in the chunk before is judged here, where it ends.
        begun = bool(self._decoder.getstate()[0])
        left = chunk.translate(None, _PLAIN)
        if not left and not begun:
            return self._decoder.decode(chunk)
        if b"\r" in left:
            chunk = self._without_cr(chunk)
        # Byte value by byte value, as each `replace` runs at the speed of memory and few occur.
        # Below 128 a byte is never part of a longer UTF-8 sequence.
        for sign in set(left).difference(_NOT_NOW):
            chunk = chunk.replace(bytes((sign,)), b"\\x%02x" % sign)
        suspect = begun or any(lead in left and _has_wide(lead, chunk) for lead in _LEADS)
        decoded = self._decoder.decode(chunk)
        return _pattern(_BEYOND_ASCII).sub(_escape, decoded) if suspect else decoded

    def finish(self) -> str:
        """What was held back; the log has ended."""
        rest = self._decoder.decode(b"", final=True)
        if self._held_cr:
            self._held_cr = False
            rest += "\r" if self._allow_cr else "\n"
        return rest

    def _without_cr(self, chunk: bytes) -> bytes:
        if chunk.endswith(b"\r"):
            chunk, self._held_cr = chunk[:-1], True
        chunk = chunk.replace(b"\r\n", b"\n")
        return chunk if self._allow_cr else chunk.replace(b"\r", b"\n")


@cache
def _pattern(signs: str) -> re.Pattern[str]:
    return re.compile(signs)  # when first needed: most commands print nothing that is unsafe


def _has_wide(lead: int, chunk: bytes) -> bool:
    starts, exact = _WIDE[lead]
    return any(start in chunk for start in starts) and re.search(exact, chunk) is not None


def _decoded(value: bytes | str) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
