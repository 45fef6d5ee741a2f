"""What of a data set travels: every file, also behind links; and what cannot is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.datatree import list_data, scan_data
from orchestrator.manifest import Scan, read_object
from remote import wire


def contents(scan: Scan) -> dict[str, bytes]:
    """path -> the file's bytes; of a link where it leads."""
    return {
        os.fsdecode(entry.path): b"".join(read_object(scan, entry))
        for entry in wire.parse_manifest(scan.manifest)
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "d").mkdir()
    return tmp_path / "d"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "hashes"


@pytest.mark.parametrize(
    "name",
    ["results/id_rsa", "venv/x", ".git/x", "node_modules/x", "__pycache__/x", ".env", "a.pt"],
)
def test_data_travels_whatever_its_name(name: str, data: Path, cache: Path) -> None:
    (data / name).parent.mkdir(exist_ok=True)
    (data / name).write_bytes(b"x")
    found = scan_data(data, cache)
    assert (contents(found), found.skipped) == ({name: b"x"}, ())


def test_the_files_of_a_hugging_face_cache_are_behind_links_and_travel(
    tmp_path: Path, cache: Path
) -> None:
    repository = tmp_path / "datasets--sst2"
    snapshot = repository / "snapshots" / "abc"
    (snapshot / "data").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "1234").write_bytes(b"rows")
    (snapshot / "train.parquet").symlink_to("../../blobs/1234")
    (snapshot / "data" / "dev.parquet").symlink_to(repository / "blobs" / "1234")
    expected = {"train.parquet": b"rows", "data/dev.parquet": b"rows"}
    for _ in range(2):  # hashed, then out of the cache
        found = scan_data(snapshot, cache)
        assert (contents(found), found.skipped) == (expected, ())
        assert {entry.kind for entry in wire.parse_manifest(found.manifest)} == {"f"}
    one = scan_data(snapshot / "train.parquet", cache)
    assert contents(one) == {"train.parquet": b"rows"}


def test_fetched_results_travel_without_what_orch_keeps_beside_them(
    data: Path, cache: Path
) -> None:
    for path in ("a", wire.JOURNAL, "run/b", f"run/{wire.JOURNAL}", f"run/{wire.PARTS}/0.new"):
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_bytes(b"x")
    found = scan_data(data, cache)
    assert contents(found) == {"a": b"x", "run/b": b"x"}
    assert [path for path, _ in found.skipped] == [
        wire.JOURNAL, f"run/{wire.JOURNAL}", f"run/{wire.PARTS}",
    ]  # fmt: skip


def test_a_link_that_stays_inside_travels_as_a_link(data: Path, cache: Path) -> None:
    (data / "sub").mkdir()
    (data / "sub" / "a").write_bytes(b"x")
    (data / "b").symlink_to("sub/a")
    (data / "also").symlink_to("sub")
    found = scan_data(data, cache)
    assert contents(found) == {"sub/a": b"x", "b": b"sub/a", "also": b"sub"}


def test_links_to_folders_elsewhere_are_followed_once_round_a_loop(
    tmp_path: Path, data: Path, cache: Path
) -> None:
    far = tmp_path / "far"
    (far / "deep").mkdir(parents=True)
    (far / "x").write_bytes(b"x")
    (far / "deep" / "up").symlink_to("../x")  # in the folder here, elsewhere on the host
    (far / "deep" / "round").symlink_to("..")
    (far / "home").symlink_to(data)
    (data / "train").symlink_to(far)
    (data / "all").symlink_to("/")
    found = scan_data(data, cache)
    assert contents(found) == {"train/x": b"x", "train/deep/up": b"x"}
    why = "a link to a folder that it lies in"
    assert dict(found.skipped) == {"all": why, "train/home": why, "train/deep/round": why}


def test_what_cannot_travel_is_named(tmp_path: Path, data: Path, cache: Path) -> None:
    os.mkfifo(data / "pipe")
    os.mkfifo(tmp_path / "pipe")
    (data / "to_pipe").symlink_to("../pipe")
    (data / "gone").symlink_to("../nowhere")
    (data / "self").symlink_to(data / "self")
    found = scan_data(data, cache)
    assert found.count == 0
    assert dict(found.skipped) == {
        "pipe": "not a regular file",
        "to_pipe": "not a regular file",
        "gone": "a link that leads nowhere",
        "self": "a link that leads nowhere",
    }
    listing = list_data(data)
    assert (listing.found, tuple(listing.left_out)) == ([], found.skipped)
