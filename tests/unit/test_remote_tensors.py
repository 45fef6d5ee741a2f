"""Headers of checkpoints: safetensors and torch's zip form, whole, torn and hostile."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote import tensors
from remote.tensors import Unreadable


def safetensors(path: Path, header: dict[str, Any], data: int) -> str:
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * data)
    return str(path)


def torch_zip(path: Path, pickled: bytes) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    return str(path)


ENTRY = {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}


def test_a_safetensors_header_gives_names_shapes_and_dtypes(tmp_path: Path) -> None:
    file = safetensors(tmp_path / "m", {"__metadata__": {"a": "b"}, "w": ENTRY}, 12)
    assert tensors.read(file) == {"w": ([2, 3], "bfloat16")}


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    safetensors(tmp_path / "1.safetensors", {"a": ENTRY}, 12)
    safetensors(tmp_path / "2.safetensors", {"b": ENTRY}, 12)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    assert set(tensors.read(str(index))) == {"a", "b"}
    index.write_text(json.dumps({"weight_map": {"a": "../1.safetensors"}}))
    with pytest.raises(Unreadable, match="no shard beside it"):
        tensors.read(str(index))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "neither"),
        (b"garbage garbage", "neither"),
        (struct.pack("<Q", 2**40) + b"{}", "neither"),
        (struct.pack("<Q", 5) + b"{{{{{", "no JSON"),
        (struct.pack("<Q", 2) + b"[]", "no list of tensors"),
        (struct.pack("<Q", 10) + b'{"a": "b"}', "no list of tensors"),
        (struct.pack("<Q", 9) + b'{"a": {}}', "is no tensor"),
        (b"PK\x03\x04 torn", "zip file that cannot be read"),
    ],
)
def test_what_is_no_checkpoint_is_unreadable_in_words(
    tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(Unreadable, match=told):
        tensors.read(str(tmp_path / "m"))


def test_a_cut_file_and_a_missing_one_are_named(tmp_path: Path) -> None:
    file = safetensors(tmp_path / "m", {"w": ENTRY}, 5)
    with pytest.raises(Unreadable, match="the file is cut"):
        tensors.read(file)
    with pytest.raises(Unreadable, match="No such file"):
        tensors.read(str(tmp_path / "none"))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(6))
def test_reading_a_pickle_runs_nothing_of_it(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    pickled = pickle.dumps({"x": [Evil(made)], "state_dict": {}}, protocol=protocol)
    assert tensors.read(torch_zip(tmp_path / "m", pickled)) == {}
    assert not made.exists()


def test_a_pickle_in_itself_or_without_end_is_bounded(tmp_path: Path) -> None:
    loop: dict[str, Any] = {}
    for name in "abcdefghij":
        loop[name] = loop
    with pytest.raises(Unreadable, match="values"):
        tensors.read(torch_zip(tmp_path / "m", pickle.dumps(loop)))
    for raw in (b"", b"\x80\x02", b"\x80\x02}", b"0.", b"h\x05.", b"\x80\x02(u."):
        with pytest.raises(Unreadable):
            tensors.read(torch_zip(tmp_path / "m", raw))


@given(raw=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    file = torch_zip(tmp_path_factory.mktemp("any") / "m", raw)
    with contextlib.suppress(Unreadable):
        tensors.read(file)


def flipped(content: bytes, at: int, bits: int) -> bytes:
    return content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]


def test_a_zip_file_with_damaged_or_locked_content_is_unreadable_in_words(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(list(range(1000))))
    whole = (tmp_path / "m").read_bytes()
    begin = 30 + len("archive/data.pkl")
    damaged = whole[:begin] + b"\xff" * 40 + whole[begin + 40 :]
    entry = whole.index(b"PK\x01\x02")
    locked = flipped(flipped(whole, 6, 1), entry + 8, 1)
    for content in (damaged, locked):
        (tmp_path / "m").write_bytes(content)
        with pytest.raises(Unreadable, match="zip file that cannot be read"):
            tensors.read(str(tmp_path / "m"))
