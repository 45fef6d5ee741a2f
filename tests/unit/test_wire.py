"""The frames and manifests both sides speak: exact round trips, and a refusal for all else."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote import wire

NONCE = b"\x01\x02\x03\x04\x05\x06\x07\x08"
OTHER = b"\x09" * 8


def reading(data: bytes, sizes: list[int] | None = None) -> Callable[[int], bytes]:
    """A `read` over `data` that gives at most `sizes[i]` bytes in its i-th call, then any."""
    left = memoryview(data)
    plan = list(sizes or [])

    def read(count: int) -> bytes:
        nonlocal left
        count = min(count, plan.pop(0)) if plan else count
        chunk, left = bytes(left[:count]), left[count:]
        return chunk

    return read


def all_frames(data: bytes, nonce: bytes | None = NONCE, sizes: list[int] | None = None) -> list:
    reader = wire.FrameReader(reading(data, sizes), nonce)
    found = []
    while (frame := reader.next()) is not None:
        found.append((frame.kind, frame.payload))
    return found


KINDS = st.sampled_from([wire.REQUEST, wire.ITEM, wire.DATA, wire.END])
FRAMES = st.lists(st.tuples(KINDS, st.binary(max_size=300)), min_size=1, max_size=5)
NOISE = st.binary(max_size=200).filter(lambda noise: wire.MAGIC not in noise)


@given(FRAMES, NOISE, st.lists(st.integers(1, 50), max_size=40))
def test_frames_come_back_as_sent_after_noise_in_any_pieces(
    frames: list[tuple[int, bytes]], noise: bytes, sizes: list[int]
) -> None:
    sent = b"".join(wire.frame(NONCE, kind, payload) for kind, payload in frames)
    assert all_frames(noise + sent, sizes=sizes) == frames


@given(FRAMES, st.data())
def test_f08_a_stream_cut_inside_a_frame_is_a_lost_link_and_never_a_clean_end(
    frames: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    pieces = [wire.frame(NONCE, kind, payload) for kind, payload in frames]
    whole = b"".join(pieces)
    borders, at = {0}, 0
    for piece in pieces:
        at += len(piece)
        borders.add(at)
    cut = data.draw(st.integers(0, len(whole)))
    if cut in borders:
        assert all_frames(whole[:cut]) == frames[: sorted(borders).index(cut)]
    else:
        with pytest.raises(wire.LinkClosed):
            all_frames(whole[:cut])


@given(st.binary(min_size=1, max_size=200), st.data())
def test_f13_a_flipped_bit_is_noticed(payload: bytes, data: st.DataObject) -> None:
    whole = bytearray(wire.frame(NONCE, wire.DATA, payload))
    at = data.draw(st.integers(wire.HEADER.size, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(wire.WireError):
        all_frames(bytes(whole))


def test_the_nonce_may_be_split_over_reads_and_follow_a_false_start() -> None:
    good = wire.frame(NONCE, wire.END, b"{}")
    noise = b"motd " + wire.MAGIC + OTHER + b" " + wire.MAGIC + NONCE[:4]
    assert all_frames(noise + good, sizes=[1] * 60) == [(wire.END, b"{}")]


def test_the_agents_side_takes_the_first_nonce_and_keeps_to_it() -> None:
    first = wire.frame(NONCE, wire.REQUEST, b"{}")
    assert all_frames(first + first, nonce=None) == [(wire.REQUEST, b"{}")] * 2
    with pytest.raises(wire.WireError, match="foreign"):
        all_frames(first + wire.frame(OTHER, wire.REQUEST, b"{}"), nonce=None)


def test_f95_a_replayed_answer_of_another_call_is_not_taken_for_this_one() -> None:
    replay = wire.frame(OTHER, wire.END, b'{"ok":true}')
    with pytest.raises(wire.LinkClosed):
        all_frames(replay)
    with pytest.raises(wire.WireError, match="foreign"):
        all_frames(wire.frame(NONCE, wire.ITEM, b"{}") + replay)


def test_noise_between_two_frames_is_refused() -> None:
    frame = wire.frame(NONCE, wire.ITEM, b"{}")
    with pytest.raises(wire.WireError):
        all_frames(frame + b"Connection reset, try again later" + frame)


def test_f66_endless_noise_is_refused_without_reading_on() -> None:
    served = 0

    def yes(count: int) -> bytes:
        nonlocal served
        served += count
        return b"y\n" * (count // 2)

    with pytest.raises(wire.WireError, match="before the first frame"):
        wire.FrameReader(yes, NONCE).next()
    assert served <= 4 * wire.NOISE_MAX


def test_what_noise_said_is_kept_for_the_error_text() -> None:
    reader = wire.FrameReader(reading(b"This account is not available.\n"), NONCE)
    with pytest.raises(wire.LinkClosed):
        reader.next()
    assert b"not available" in reader.noise


@pytest.mark.parametrize("kind", [wire.DATA, wire.END])
def test_f81_an_oversized_length_is_refused_before_it_is_read(kind: int) -> None:
    head = wire.HEADER.pack(wire.MAGIC, NONCE, kind, 0, 0, 0xFFFFFFFF, 0)
    with pytest.raises(wire.WireError, match="over the limit"):
        all_frames(head + b"x" * 100)


def test_f81_a_packed_frame_may_not_grow_past_its_limit() -> None:
    bomb = zlib.compress(b"\0" * (wire.DATA_MAX + 1), 9)
    with pytest.raises(wire.WireError, match="unpacks"):
        all_frames(wire.frame(NONCE, wire.DATA, bomb, wire.PACKED))
    fits = zlib.compress(b"\0" * wire.DATA_MAX, 9)
    assert all_frames(wire.frame(NONCE, wire.DATA, fits, wire.PACKED)) == [
        (wire.DATA, b"\0" * wire.DATA_MAX)
    ]


@pytest.mark.parametrize("payload", [b"", b"no zlib", zlib.compress(b"x" * 9000)[:-3]])
def test_a_packed_frame_that_does_not_unpack_is_refused(payload: bytes) -> None:
    with pytest.raises(wire.WireError):
        all_frames(wire.frame(NONCE, wire.DATA, payload, wire.PACKED))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False).filter(
        lambda number: abs(number) != float("inf")
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_json_survives_the_wire(value: object) -> None:
    sent = wire.json_frame(NONCE, wire.ITEM, value)
    frame = wire.FrameReader(reading(sent), NONCE).next()
    assert frame is not None
    assert frame.json() == value


@given(st.binary(max_size=40))
def test_f64_a_path_of_any_bytes_survives_as_json_text(path: bytes) -> None:
    text = path.decode("utf-8", "surrogateescape")
    back = wire.decode_json(wire.encode_json([text]))[0]
    assert back.encode("utf-8", "surrogateescape") == path


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"\xff\xfe", b"[" * 200_000, b"1" * 5000, b'{"a":1}x']
)
def test_json_that_is_none_is_a_wire_error(payload: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode_json(payload)


def test_a_large_document_is_packed_and_comes_back() -> None:
    value = ["line"] * 5000
    sent = wire.json_frame(NONCE, wire.ITEM, value)
    assert len(sent) < 2000
    frame = wire.FrameReader(reading(sent), NONCE).next()
    assert frame is not None
    assert frame.json() == value


def test_a_host_can_always_answer_whatever_a_run_wrote() -> None:
    deep: object = 1
    for _ in range(5000):
        deep = [deep]
    value = {"nan": float("nan"), "far": [1.5, -float("inf")], "long": 10**5000, "deep": deep,
             "half": "\ud800", "true": True}  # fmt: skip
    frame = wire.FrameReader(reading(wire.json_frame(NONCE, wire.END, value)), NONCE).next()
    assert frame is not None
    told = frame.json()
    assert isinstance(told.pop("deep"), list)
    assert told == {"nan": None, "far": [1.5, None], "long": None, "half": "\ud800", "true": True}


# --- manifests ------------------------------------------------------------------------------------

PART = st.binary(min_size=1, max_size=12).filter(
    lambda part: b"/" not in part and b"\0" not in part and part not in (b".", b"..")
)


def entry(path: bytes, content: bytes = b"", mode: int = 0o644, kind: str = "f") -> wire.Entry:
    return wire.Entry(mode, kind, len(content), hashlib.sha256(content).hexdigest(), path)


def _no_file_is_a_folder(paths: set[bytes]) -> bool:
    return not any(path.startswith(other + b"/") for path in paths for other in paths)


TREES = st.dictionaries(
    st.lists(PART, min_size=1, max_size=3).map(b"/".join), st.binary(max_size=6), max_size=8
).filter(lambda tree: _no_file_is_a_folder(set(tree)))


def manifest(tree: dict[bytes, bytes]) -> bytes:
    return wire.encode_manifest(entry(path, content).line() for path, content in tree.items())


@given(TREES)
def test_f64_a_manifest_of_any_names_comes_back(tree: dict[bytes, bytes]) -> None:
    found = wire.parse_manifest(manifest(tree))
    assert found == [entry(path, tree[path]) for path in sorted(tree)]


@given(TREES, TREES)
def test_a_delta_leads_from_any_tree_to_any_other(
    old: dict[bytes, bytes], new: dict[bytes, bytes]
) -> None:
    before, after = manifest(old), manifest(new)
    delta, added = wire.make_delta(before, after)
    assert wire.apply_delta(before, delta) == after
    assert {one.path for one in added} == {p for p in new if old.get(p) != new[p]}
    if before == after:
        assert (delta, added) == (b"", [])


def test_a_delta_that_does_not_fit_its_base_is_refused() -> None:
    base, other = manifest({b"a": b"1"}), manifest({b"b": b"2"})
    delta, _ = wire.make_delta(base, other)
    for wrong in (other, b""):
        with pytest.raises(wire.WireError):
            wire.apply_delta(wrong, delta)


SHA = "0" * 64


@pytest.mark.parametrize(
    "line",
    [
        b"", b"644 f 1", f"644 d 1 {SHA} a".encode(), f"999 f 1 {SHA} a".encode(),
        f"7777 f 1 {SHA} a".encode(), f"644 f -1 {SHA} a".encode(), f"644 f x {SHA} a".encode(),
        f"644 f 1 {SHA[1:]} a".encode(), f"644 f 1 {SHA[1:]}G a".encode(),
        f"-644 f 1 {SHA} a".encode(), f"644 \xff 1 {SHA} a".encode("latin-1"),
        f"644 f 1 {SHA} {'a/' * 4500}a".encode(),
    ],
)  # fmt: skip
def test_an_unlawful_manifest_line_is_refused(line: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.parse_manifest(line + b"\0")


@pytest.mark.parametrize(
    "path", [b"/etc/passwd", b"../x", b"a/../../x", b"a//b", b".", b"a/.", b"a/", b"a" * 256]
)
def test_f79_a_path_that_could_leave_the_tree_is_refused(path: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.parse_manifest(entry(path).line() + b"\0")


def test_a_manifest_out_of_order_doubled_torn_or_contradictory_is_refused() -> None:
    a, b, inside = entry(b"a").line(), entry(b"b").line(), entry(b"a/x").line()
    for wrong in (b + b"\0" + a + b"\0", a + b"\0" + a + b"\0", a, a + b"\0" + inside + b"\0"):
        with pytest.raises(wire.WireError):
            wire.parse_manifest(wrong)


def test_header_layout_is_what_a_running_agent_of_an_older_controller_expects() -> None:
    packed = wire.frame(NONCE, wire.END, b"{}")
    magic, nonce, kind, flags, zero, length, crc = struct.unpack("!4s8sBBHII", packed[:24])
    assert (magic, nonce, kind, flags, zero, length) == (b"oRc1", NONCE, 4, 0, 0, 2)
    assert crc == zlib.crc32(b"{}")
