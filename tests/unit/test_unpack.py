"""The one writer of fetched files, against a host that lies in every way it can."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from orchestrator import disk, retry
from orchestrator.errors import (
    FolderBusy,
    ManifestMismatch,
    OrchError,
    UnsafePath,
    UsageError,
)
from orchestrator.unpack import Folder
from remote.wire import FOLDERS_MAX, JOURNAL, PARTS


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def small(path: str, content: bytes = b"x", mode: int = 0o644) -> tuple[str, int, bytes, str]:
    return (path, mode, content, sha(content))


def write(destination: Path, *items: tuple[str, int, bytes, str]) -> Folder:
    with Folder(destination) as folder:
        folder.write_batch(list(items))
        return folder


def outside(tmp_path: Path) -> dict[str, bytes]:
    """Everything beside the destination, by name and content."""
    found = {}
    for path in sorted(tmp_path.rglob("*")):
        if "d" not in path.relative_to(tmp_path).parts[:1]:
            found[str(path)] = path.read_bytes() if path.is_file() else b""
    return found


def final_files(destination: Path) -> list[str]:
    """What lies under final names: not our journal, not our parts."""
    found = []
    for path in destination.rglob("*"):
        name = str(path.relative_to(destination))
        if name != JOURNAL and not name.startswith(PARTS) and not path.is_dir():
            found.append(name)
    return sorted(found)


@pytest.fixture
def d(tmp_path: Path) -> Path:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "precious").write_bytes(b"precious")
    return tmp_path / "d"


UNSAFE = [
    "../beside/precious", "a/../../beside/precious", "/etc/orch-was-here", "", ".", "..", "a/",
    "a//b", "./a", "a/.", "a\0b", "a" * 256, "/".join("a" * 3000), "x/" * (FOLDERS_MAX + 1) + "x",
    JOURNAL, PARTS + "/0.new", JOURNAL + "/x", "\ud800x",
]  # fmt: skip


@pytest.mark.parametrize("path", UNSAFE, ids=lambda path: ascii(path)[:30])
@pytest.mark.parametrize("large", [False, True])
def test_f79_an_unsafe_path_is_refused_and_nothing_is_written_anywhere(
    d: Path, path: str, large: bool
) -> None:
    before = outside(d.parent)
    item = (path, 0o644, b"evil", sha(b"evil"))
    with Folder(d) as folder, pytest.raises(UnsafePath):
        folder.begin_large(path, 0o644, 1, 0) if large else folder.write_batch([item])
    assert outside(d.parent) == before
    assert final_files(d) == []
    assert not os.path.exists("/etc/orch-was-here")


def test_f64_lawful_names_of_every_kind_are_written_as_they_are(d: Path) -> None:
    names = [
        "a",
        "sub/b",
        "sp ace",
        "new\nline",
        "-rf",
        "ü/é",
        "\udcff\udcfe",
        "a" * 255,
        "~",
        "$x",
    ]
    write(d, *[small(name, name.encode("utf-8", "surrogateescape")) for name in names])
    assert final_files(d) == sorted(names)
    for name in names:
        assert (d / name).read_bytes() == name.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o777, 0o6777, 0o100755, 1 << 40 | 0o100])
def test_no_special_bit_and_no_foreign_right_is_taken_over(d: Path, mode: int) -> None:
    write(d, small("tool", mode=mode), small("plain", mode=mode & ~0o100))
    assert (d / "tool").stat().st_mode & 0o7777 & ~0o755 == 0
    assert (d / "plain").stat().st_mode & 0o7777 & ~0o644 == 0


def test_one_file_with_wrong_bytes_keeps_its_whole_batch_from_being_placed(d: Path) -> None:
    with pytest.raises(ManifestMismatch, match="bad"):
        write(d, small("good"), ("bad", 0o644, b"other", sha(b"promised")))
    assert final_files(d) == []
    write(d, small("good"), small("bad"))
    assert final_files(d) == ["bad", "good"]


@pytest.mark.parametrize("where", ["", "sub"])
def test_f80_a_link_in_place_of_a_folder_is_not_walked_through(d: Path, where: str) -> None:
    inner = d / where
    inner.mkdir(parents=True)
    (inner / "link").symlink_to(d.parent / "beside")
    before = outside(d.parent)
    with pytest.raises(UnsafePath, match="link"):
        write(d, small(f"{where}/link/precious".lstrip("/")))
    assert outside(d.parent) == before


def test_a_link_in_place_of_a_file_is_neither_followed_nor_replaced(d: Path) -> None:
    d.mkdir()
    (d / "log").symlink_to(d.parent / "beside" / "precious")
    folder = write(d, small("log", b"precious"))
    assert folder.changed == ["log"]
    assert (d.parent / "beside" / "precious").read_bytes() == b"precious"
    assert (d / "log").is_symlink()


def test_f82_a_destination_that_is_a_link_or_a_file_is_refused(d: Path) -> None:
    d.symlink_to(d.parent / "beside")
    before = outside(d.parent)
    with pytest.raises(UsageError, match="in the way"):
        write(d, small("x"))
    assert outside(d.parent) == before
    d.unlink()
    d.write_text("a file")
    with pytest.raises(UsageError, match="in the way"):
        write(d, small("x"))
    assert d.read_text() == "a file"


def test_f80_a_folder_swapped_for_a_link_during_the_fetch_is_not_followed(d: Path) -> None:
    with Folder(d) as folder:
        folder.write_batch([small("sub/a")])
        (d / "sub").rename(d / "moved")
        (d / "sub").symlink_to(d.parent / "beside")
        folder.write_batch([small("sub/precious", b"evil")])
    assert (d.parent / "beside" / "precious").read_bytes() == b"precious"


def test_f80_our_own_folder_of_parts_swapped_for_a_link_is_not_followed(d: Path) -> None:
    d.mkdir()
    (d / PARTS).symlink_to(d.parent / "beside")
    before = outside(d.parent)
    with pytest.raises((OrchError, OSError)):
        write(d, small("x"))
    assert outside(d.parent) == before


def test_a_file_that_a_result_also_uses_as_a_folder_is_an_error(d: Path) -> None:
    for before, after in (("a", "a/b"), ("b/c", "b")):
        with Folder(d) as folder:
            folder.write_batch([small(before)])
            try:
                folder.write_batch([small(after, b"new")])
            except UnsafePath:
                pass
            else:
                assert folder.changed == [after]
        assert (d / before).read_bytes() == b"x"


def test_a_file_or_folder_of_ones_own_does_not_give_way(d: Path) -> None:
    write(d, small("b/c"))
    (d / "a").write_bytes(b"mine")
    (d / "b" / "notes").write_bytes(b"mine")
    with pytest.raises(UnsafePath):
        write(d, small("a/b"))
    assert write(d, small("b")).changed == ["b"]
    assert (d / "a").read_bytes() == (d / "b" / "notes").read_bytes() == b"mine"


def test_a_fetched_folder_gives_way_to_a_file_and_a_file_to_a_folder(d: Path) -> None:
    write(d, small("a/b/c", b"1"), small("a/d", b"2"), small("e", b"3"), small("f", b"4"))
    (d / "e").write_bytes(b"edited by hand")
    folder = write(d, small("a", b"new"), small("e/f/g", b"new"), small("f", b"4"))
    assert folder.changed == []
    assert final_files(d) == ["a", "e/f/g", "f"]
    assert folder.earlier.path == d.parent / "earlier" / "d"
    assert final_files(folder.earlier.path) == ["a/b/c", "a/d", "e"]
    assert (folder.earlier.path / "e").read_bytes() == b"edited by hand"
    with Folder(d) as folder:
        assert sorted(folder.have()) == ["a", "e/f/g", "f"]
        folder.same(["f"])
        assert sorted(folder.gone()) == ["a", "e/f/g"]


def test_what_goes_aside_is_never_put_over_what_did_before(d: Path) -> None:
    for content in (b"first", b"second"):
        with Folder(d) as folder:
            folder.write_batch([small("sub/x", content), small("y")])
        with Folder(d) as folder:
            folder.same(["y"])
            folder.set_aside(folder.gone())
            assert folder.gone() == []
    assert final_files(d) == ["y"]
    assert not (d / "sub").exists()
    earlier = d.parent / "earlier"
    assert (earlier / "d" / "sub" / "x").read_bytes() == b"first"
    assert (earlier / "d.2" / "sub" / "x").read_bytes() == b"second"


def test_f80_nothing_goes_aside_through_a_link_or_by_an_unsafe_name(d: Path) -> None:
    write(d, small("beside/precious"), small("a"))
    (d / "beside" / "precious").unlink()
    (d / "beside").rmdir()
    (d / "beside").symlink_to(d.parent / "beside")
    line = [f"../{d.name}/../beside/precious", 8, sha(b"precious"), 1]
    with (d / JOURNAL).open("a") as journal:
        journal.write(json.dumps(line) + "\n")
    before = outside(d.parent)
    with Folder(d) as folder:
        folder.same(["a"])
        assert folder.gone() == ["beside/precious"]
        folder.set_aside(folder.gone())
    assert outside(d.parent) == before
    assert (d / "beside").is_symlink()


def test_what_is_in_the_way_of_what_goes_aside_is_named(d: Path) -> None:
    write(d, small("a"))
    (d.parent / "earlier").write_bytes(b"mine")
    with Folder(d) as folder, pytest.raises(UsageError, match="earlier is in the way"):
        folder.set_aside(["a"])
    assert final_files(d) == ["a"]


def test_what_was_fetched_is_renewed_and_what_was_edited_here_is_kept(d: Path) -> None:
    write(d, small("log", b"one"), small("mine", b"one"))
    time.sleep(0.02)
    (d / "mine").write_bytes(b"edited by hand")
    folder = write(d, small("log", b"one two"), small("mine", b"one two"))
    assert (d / "log").read_bytes() == b"one two"
    assert (d / "mine").read_bytes() == b"edited by hand"
    assert folder.changed == ["mine"]


def test_a_file_nobody_fetched_is_never_overwritten(d: Path) -> None:
    d.mkdir()
    (d / "notes.md").write_bytes(b"my own")
    (d / "same").write_bytes(b"x")
    folder = write(d, small("notes.md", b"the host's"), small("same", b"x"))
    assert (d / "notes.md").read_bytes() == b"my own"
    assert folder.changed == ["notes.md"]


def test_have_names_exactly_what_is_still_as_it_was_fetched(d: Path) -> None:
    write(d, small("a"), small("b"), small("c"))
    (d / "b").unlink()
    (d / "c").write_bytes(b"y")
    os.utime(d / "c", ns=(1, 1))
    with Folder(d) as folder:
        assert folder.have() == {"a": [1, sha(b"x")]}


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b"[]", b'["a",1]', b'[1,2,3,4]', b'[["a"],1,"x",1]', b"\xff", b"[" * 5000,
        b'"abcd"',
    ],
    ids=repr,
)  # fmt: skip
def test_a_torn_journal_line_costs_only_that_file(d: Path, line: bytes) -> None:
    write(d, small("a"))
    with (d / JOURNAL).open("ab") as journal:
        journal.write(line)
    with Folder(d) as folder:
        folder.write_batch([small("b")])
        assert "a" in folder.have()
    with Folder(d) as folder:
        assert "a" in folder.have()
        folder.write_batch([small("b")])
        assert folder.changed == []


def test_the_entry_after_a_torn_journal_line_is_not_lost(d: Path) -> None:
    write(d, small("a"))
    with (d / JOURNAL).open("ab") as journal:
        journal.write(b'["torn", 12')
    write(d, small("log", b"one"))
    folder = write(d, small("log", b"one two"))  # the host's grew
    assert folder.changed == []
    assert (d / "log").read_bytes() == b"one two"


def test_a_renewed_file_that_a_kill_kept_from_its_name_is_still_ours(d: Path) -> None:
    write(d, small("log", b"one"))
    time.sleep(0.02)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "_place", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(d, small("log", b"one two"))
    assert (d / "log").read_bytes() == b"one"
    folder = write(d, small("log", b"one two three"))
    assert folder.changed == []
    assert (d / "log").read_bytes() == b"one two three"


def interrupted(*_args: object) -> None:
    raise KeyboardInterrupt


# --- power cuts -----------------------------------------------------------------------------------


def lose_bytes(path: Path, content: bytes) -> None:
    """As a power cut does: the name and the time are there, the bytes never were."""
    mtime = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(mtime, mtime))


@pytest.mark.parametrize("content", [b"", b"on", b"\0\0\0"])
def test_what_a_power_cut_during_a_fetch_took_is_fetched_again(d: Path, content: bytes) -> None:
    write(d, small("log", b"one"), small("whole"))
    lose_bytes(d / "log", content)
    with Folder(d) as folder:
        assert folder.have() == {"whole": [1, sha(b"x")]}
        folder.write_batch([small("log", b"one two")])
        assert folder.changed == []
    assert (d / "log").read_bytes() == b"one two"


def test_what_is_durable_is_not_read_again_and_a_shorter_one_was_changed_here(
    d: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Folder(d) as folder:
        folder.write_batch([small("log", b"one"), small("a")])
        folder.make_durable()
    lose_bytes(d / "log", b"on")
    monkeypatch.setattr("orchestrator.unpack.digest_of", lambda _path: None)
    with Folder(d) as folder:
        assert folder.have() == {"a": [1, sha(b"x")]}
        folder.write_batch([small("log", b"one two")])
        assert folder.changed == ["log"]


@pytest.mark.parametrize("count", [3, disk.FEW + 1])
@pytest.mark.parametrize("syncfs", [True, False])
def test_every_file_and_folder_is_synced_before_the_journal_says_so(
    count: int, syncfs: bool, d: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync, whole = os.fsync, disk._sync_filesystem

    def note(fd: int) -> None:
        assert b"synced" not in (d / JOURNAL).read_bytes()
        fsync(fd)
        synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), d))

    def note_whole(fd: int) -> bool:
        assert b"synced" not in (d / JOURNAL).read_bytes()
        if syncfs and whole(fd):
            synced.append("all")
        return syncfs

    names = [f"deep/er/{number}" for number in range(count)]
    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(disk, "_sync_filesystem", note_whole)
    with Folder(d) as folder:
        folder.write_batch([small(name) for name in names])
        assert synced == []
        folder.make_durable()
        folder.make_durable()  # nothing is left to do
    one_by_one = count <= disk.FEW or not syncfs
    assert sorted(synced) == (sorted([*names, "deep/er", "deep", "."]) if one_by_one else ["all"])
    assert (d / JOURNAL).read_bytes().endswith(b'\n"synced"\n')


# --- large files ----------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 1000


def test_f03_a_large_file_cut_half_way_is_gone_on_with_and_is_never_under_its_name_before(
    d: Path,
) -> None:
    with Folder(d) as folder:
        large = folder.begin_large("sub/model.pt", 0o644, len(CONTENT), 0)
        large.write(CONTENT[:1000])
        large.close()
    assert final_files(d) == []
    with Folder(d) as folder:
        assert folder.parts() == {"sub/model.pt": [1000, sha(CONTENT[:1000])]}
        large = folder.begin_large("sub/model.pt", 0o644, len(CONTENT), 1000)
        large.write(CONTENT[1000:])
        large.finish(sha(CONTENT))
    assert (d / "sub" / "model.pt").read_bytes() == CONTENT
    assert not (d / PARTS).exists()


def test_a_large_file_with_another_hash_than_promised_is_not_kept(d: Path) -> None:
    with Folder(d) as folder:
        large = folder.begin_large("m", 0o644, len(CONTENT), 0)
        large.write(CONTENT)
        with pytest.raises(ManifestMismatch):
            large.finish(sha(b"other"))
        assert folder.parts() == {}
    assert final_files(d) == []


@pytest.mark.parametrize("offset", [-1, 1, 10**9, 2**45, 2**70])
def test_an_offset_beyond_what_is_here_is_refused_at_once(d: Path, offset: int) -> None:
    started = time.monotonic()
    with Folder(d) as folder, pytest.raises(OrchError):
        folder.begin_large("m", 0o644, 10**9, offset)
    assert time.monotonic() - started < 20
    used = sum(path.lstat().st_blocks for path in d.rglob("*"))
    assert used < 64
    assert final_files(d) == []


@pytest.mark.parametrize("extra", [1, 5_000_000])
def test_f81_a_large_file_that_brings_more_than_was_said_is_stopped(d: Path, extra: int) -> None:
    with Folder(d) as folder:
        large = folder.begin_large("m", 0o644, 10, 0)
        with pytest.raises(OrchError):
            large.write(b"x" * (10 + extra))
        large.close()
    assert final_files(d) == []


def test_a_large_file_that_was_edited_here_is_kept_and_named(d: Path) -> None:
    d.mkdir()
    (d / "m").write_bytes(b"mine")
    with Folder(d) as folder:
        large = folder.begin_large("m", 0o644, len(CONTENT), 0)
        large.write(CONTENT)
        large.finish(sha(CONTENT))
        assert folder.changed == ["m"]
    assert (d / "m").read_bytes() == b"mine"


def test_descriptors_stay_bounded_over_many_folders(d: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Folder(d) as folder:
        for number in range(1500):
            folder.write_batch([small(f"f{number}/deep/x")])
        assert len(os.listdir("/proc/self/fd")) < before + 600
    assert len(os.listdir("/proc/self/fd")) <= before
    assert len(final_files(d)) == 1500


def test_one_writer_at_a_time_and_the_next_sees_what_the_first_placed(d: Path) -> None:
    with Folder(d) as first:
        with pytest.raises(FolderBusy), Folder(d):
            pass
        first.write_batch([small("a")])
    with Folder(d) as second:
        assert second.have() == {"a": [1, sha(b"x")]}


def test_a_claim_waits_for_the_writer_before_and_then_holds_the_folder(d: Path) -> None:
    first = Folder(d)
    first.__enter__()
    told = []
    second = Folder(d)
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            first.__exit__()  # it found nothing: its folder is gone again

    retry.when_free(second.__enter__, lambda: told.append("waits"), sleep=sleep)
    second.write_batch([small("a")])
    second.__exit__()
    assert told == ["waits"] and len(pauses) == 3
    assert final_files(d) == ["a"]


def test_a_writer_that_was_killed_leaves_no_lock(d: Path) -> None:
    child = os.fork()
    if child == 0:
        Folder(d).__enter__()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with Folder(d) as folder:
        folder.write_batch([small("a")])
    assert final_files(d) == ["a"]
