"""The language controller and agent speak over one byte stream. Pure; python >= 3.8; stdlib only.

A frame is a 24-byte header and a payload:

    magic 4 | nonce 8 | kind 1 | flags 1 | zero 2 | length 4 | crc32 4 | payload

The controller picks a nonce for each call; a reader skips everything before the first header that
carries it (shell start-up noise, at most `NOISE_MAX` bytes) and takes no gap after that. A reply is
complete only when its END frame arrived: a stream that just stops is a lost link, never a success.

A manifest describes a tree as NUL-ended lines sorted by path:

    <mode, octal> <f|l> <size> <sha256> <path>\\0

A symbolic link's content is its target. The tree's name is `s1:` + sha256 of these bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from typing import Any, Callable, Iterable, List, NamedTuple, Optional, Tuple

PROTOCOL = 1
MAGIC = b"oRc1"
HEADER = struct.Struct("!4s8sBBHII")
NONCE_SIZE = 8
READ_AHEAD = 64 * 1024
NOISE_MAX = 64 * 1024
DATA_MAX = 1024 * 1024  # payload of one DATA frame, unpacked
JSON_MAX = 64 * 1024 * 1024
BITS_MAX = 4096
DEPTH_MAX = 64
# Of fetched results: what a fetch keeps in their folder, and how deep folders in it may lie.
JOURNAL = ".orch-fetched.jsonl"
PARTS = ".orch-parts"
FOLDERS_MAX = 64

REQUEST, ITEM, DATA, END = 1, 2, 3, 4
PACKED = 1  # flag: the payload is zlib-compressed

LINE_MAX = 8192
TREE_PREFIX = "s1:"


class WireError(Exception):
    """What came in is not this protocol: noise, a bad checksum, another call's nonce."""


class TooNoisy(WireError):
    """More than `NOISE_MAX` bytes of something else before the first frame."""


class LinkClosed(WireError):
    """The stream ended inside a frame or before one that was due."""


class Frame(NamedTuple):
    kind: int
    payload: bytes

    def json(self) -> Any:
        return decode_json(self.payload)


def decode_json(payload: bytes) -> Any:
    try:
        return json.loads(payload.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise WireError("a frame holds no valid JSON") from exc


def encode_json(value: Any) -> bytes:
    """ASCII JSON; undecodable path bytes travel as lone surrogates and come back as they were."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def lawful(value: Any, depth: int = 0) -> Any:
    """`value` with null in place of what JSON has no words for, or a reader may refuse: NaN,
    infinity, integers of more than `BITS_MAX` bits, and what lies deeper than `DEPTH_MAX`."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if value.bit_length() <= BITS_MAX else None
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth >= DEPTH_MAX:
        return None
    if isinstance(value, dict):
        return {key: lawful(each, depth + 1) for key, each in value.items()}
    return [lawful(each, depth + 1) for each in value]


def frame(nonce: bytes, kind: int, payload: bytes, flags: int = 0) -> bytes:
    head = HEADER.pack(MAGIC, nonce, kind, flags, 0, len(payload), zlib.crc32(payload))
    return head + payload


def json_frame(nonce: bytes, kind: int, value: Any) -> bytes:
    """A frame of a host, which can always be sent: in it may be whatever a run wrote."""
    try:
        payload = encode_json(value)
    except (ValueError, RecursionError):
        payload = encode_json(lawful(value))
    if len(payload) > 4096:
        return frame(nonce, kind, zlib.compress(payload, 1), PACKED)
    return frame(nonce, kind, payload)


class FrameReader:
    """Reads frames from `read(n) -> up to n bytes, b"" at the end`.

    With `nonce` None (the agent's side) the first header seen decides it. A frame of another nonce,
    a wrong checksum or an unlawful length raises WireError; an end inside a frame LinkClosed.
    """

    def __init__(self, read: Callable[[int], bytes], nonce: Optional[bytes] = None) -> None:
        self._read = read
        self.nonce = nonce
        self.noise = b""
        self._buffer = b""
        self._at = 0
        self._synced = False

    def next(self) -> Optional[Frame]:
        """The next frame, or None at a clean end between two frames."""
        if not self._synced and not self._sync():
            return None
        head = self._exactly(HEADER.size, eof_ok=True)
        if head is None:
            return None
        magic, nonce, kind, flags, _zero, length, crc = HEADER.unpack(head)
        if magic != MAGIC or nonce != self.nonce:
            raise WireError("a frame with a foreign header")
        if length > (DATA_MAX + 4096 if kind == DATA else JSON_MAX):
            raise WireError("a frame of %d bytes is over the limit" % length)
        payload = self._exactly(length, eof_ok=False)
        assert payload is not None
        if zlib.crc32(payload) != crc:
            raise WireError("a frame with a wrong checksum")
        if flags & PACKED:
            payload = unpack_payload(payload, DATA_MAX if kind == DATA else JSON_MAX)
        return Frame(kind, payload)

    def forget(self) -> None:
        """Drop what was read ahead."""
        self._buffer, self._at = b"", 0

    def _sync(self) -> bool:
        wanted = MAGIC + (self.nonce or b"")
        seen = b""
        while True:
            at = seen.find(wanted)
            if at >= 0 and len(seen) >= at + HEADER.size:
                break
            if at < 0 and len(seen) > NOISE_MAX:
                self.noise = seen[:512]
                raise TooNoisy("more than %d bytes before the first frame" % NOISE_MAX)
            chunk = self._read(65536)
            if not chunk:
                self.noise = seen[:512]
                if seen:
                    raise LinkClosed("the stream ended before the first frame")
                return False
            seen += chunk
        self.noise = seen[: min(at, 512)]
        self._buffer, self._at = seen[at:], 0
        if self.nonce is None:
            self.nonce = self._buffer[len(MAGIC) : len(MAGIC) + NONCE_SIZE]
        self._synced = True
        return True

    def _exactly(self, count: int, eof_ok: bool) -> Optional[bytes]:
        end = self._at + count
        if end <= len(self._buffer):
            out = self._buffer[self._at : end]
            self._at = end
            return out
        parts = [self._buffer[self._at :]]
        lacking = count - len(parts[0])
        while True:
            chunk = self._read(max(READ_AHEAD, lacking))
            if not chunk:
                if lacking == count and eof_ok:
                    return None
                raise LinkClosed("the stream ended inside a frame")
            if len(chunk) >= lacking:
                break
            parts.append(chunk)
            lacking -= len(chunk)
        # The rest stays one piece: cutting it for each frame would copy it each time.
        self._buffer, self._at = chunk, lacking
        parts.append(chunk[:lacking])
        return b"".join(parts)


def unpack_payload(payload: bytes, limit: int) -> bytes:
    """Decompress, refusing to grow past `limit` bytes."""
    engine = zlib.decompressobj()
    try:
        out = engine.decompress(payload, limit)
    except zlib.error as exc:
        raise WireError("a packed frame does not unpack") from exc
    if engine.unconsumed_tail or not engine.eof:
        raise WireError("a packed frame is torn or unpacks to more than %d bytes" % limit)
    return out


# --- manifests ------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One file or link of a tree. `size` in bytes; `sha256` in hex; `path` relative, as bytes."""

    mode: int
    kind: str  # "f" | "l"
    size: int
    sha256: str
    path: bytes

    def line(self) -> bytes:
        head = "%o %s %d %s " % (self.mode, self.kind, self.size, self.sha256)
        return head.encode("ascii") + self.path


def tree_hash(manifest: bytes) -> str:
    return TREE_PREFIX + hashlib.sha256(manifest).hexdigest()


def encode_manifest(lines: Iterable[bytes]) -> bytes:
    """`lines` in any order; each as `Entry.line` makes it."""
    return b"".join(line + b"\0" for line in sorted(lines, key=_path_of))


def _path_of(line: bytes) -> bytes:
    parts = line.split(b" ", 4)
    if len(parts) != 5:
        raise WireError("a manifest line that does not parse")
    return parts[4]


def split_manifest(manifest: bytes) -> List[bytes]:
    if not manifest:
        return []
    if not manifest.endswith(b"\0"):
        raise WireError("a manifest without its last NUL")
    return manifest[:-1].split(b"\0")


def parse_line(line: bytes) -> Entry:
    parts = line.split(b" ", 4)
    if len(parts) != 5 or len(line) > LINE_MAX:
        raise WireError("a manifest line that does not parse")
    mode, kind, size, sha, path = parts
    try:
        entry = Entry(int(mode, 8), kind.decode("ascii"), int(size), sha.decode("ascii"), path)
    except ValueError as exc:
        raise WireError("a manifest line that does not parse") from exc
    if entry.kind not in ("f", "l") or entry.size < 0 or not 0 <= entry.mode <= 0o777:
        raise WireError("a manifest line with an unlawful field")
    if len(entry.sha256) != 64 or entry.sha256.strip("0123456789abcdef"):
        raise WireError("a manifest line without a sha256")
    check_path(path)
    return entry


def parse_manifest(manifest: bytes) -> List[Entry]:
    """All entries, checked: lawful fields, safe paths, rising order, no file used as a folder."""
    entries = [parse_line(line) for line in split_manifest(manifest)]
    files = set()
    last = b""
    for entry in entries:
        if entry.path <= last:
            raise WireError("a manifest out of order")
        last = entry.path
        files.add(last)
    for entry in entries:
        parent = entry.path.rpartition(b"/")[0]
        while parent:
            if parent in files:
                raise WireError("a manifest that uses a file as a folder")
            parent = parent.rpartition(b"/")[0]
    return entries


def check_path(path: bytes) -> None:
    """A relative path of plain components, or WireError."""
    if not path or len(path) > 4096 or b"\0" in path or path.startswith(b"/"):
        raise WireError("an unsafe path in a manifest")
    for part in path.split(b"/"):
        if part in (b"", b".", b"..") or len(part) > 255:
            raise WireError("an unsafe path in a manifest")


def is_own(path: str) -> bool:
    """Whether a path in a folder of results is one of the controller's own."""
    return path.partition("/")[0] in (JOURNAL, PARTS)


def apply_delta(manifest: bytes, delta: bytes) -> bytes:
    """`delta` holds NUL-ended lines, each a manifest line with `-` or `+` in front."""
    lines = set(split_manifest(manifest))
    for change in split_manifest(delta):
        sign, line = change[:1], change[1:]
        if sign == b"-" and line in lines:
            lines.remove(line)
        elif sign == b"+" and line not in lines:
            lines.add(line)
        else:
            raise WireError("a delta that does not fit its base")
    return encode_manifest(lines)


def make_delta(old: bytes, new: bytes) -> Tuple[bytes, List[Entry]]:
    """The delta from `old` to `new`, and the entries that are new."""
    before, after = set(split_manifest(old)), set(split_manifest(new))
    added = sorted(after - before)
    delta = b"".join(b"-" + line + b"\0" for line in sorted(before - after))
    delta += b"".join(b"+" + line + b"\0" for line in added)
    return delta, [parse_line(line) for line in added]
