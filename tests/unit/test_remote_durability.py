"""What a marker vouches for is on the disk before the marker is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote import environment, files, procs
from remote.layout import Layout


@pytest.mark.parametrize("count", [3, files.FEW + 1])
def test_every_file_of_a_tree_is_synced_one_by_one_or_all_at_once(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep").mkdir()
    names = [f"deep/{number}" for number in range(count)]
    for name in names:
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    synced: list[str] = []
    whole, fsync = files._sync_filesystem, os.fsync

    def note(fd: int) -> None:
        fsync(fd)
        synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), tmp_path))

    def note_whole(path: str) -> None:
        whole(path)
        synced.append("all")

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(files, "_sync_filesystem", note_whole)
    files.sync_tree(str(tmp_path))
    assert sorted(synced) == (sorted([".", "deep", *names]) if count < files.FEW else ["all"])


def test_of_a_folder_in_use_what_is_no_file_or_goes_away_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("a", "b"):
        (tmp_path / name).write_text("x")
    synced: list[str] = []
    sync = files.sync_dir

    def note(path: str) -> None:
        for name in ("a", "b"):
            if path.endswith(("/a", "/b")) and not path.endswith(name):
                (tmp_path / name).unlink(missing_ok=True)
        sync(path)
        synced.append(os.path.basename(path))

    monkeypatch.setattr(files, "sync_dir", note)
    files.sync_tree(str(tmp_path))
    assert len(synced) == 2 and {"a", "b"} & set(synced)


def test_an_environment_is_on_the_disk_before_it_is_marked_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(str(tmp_path / "root"))
    layout.ensure()
    run = layout.attempt("20261127-120000-100abcde", 1)
    os.makedirs(run.tree)
    Path(run.tree, "requirements.txt").write_text("no-such-package-at-all\n")
    place = environment.place_of(layout, [b"no-such-package-at-all\n"])
    seen: list[bool] = []

    def note(path: str) -> None:
        assert path == place
        seen.append(os.path.exists(os.path.join(place, environment.COMPLETE)))

    def spawn(argv: list[str], *_rest: object, **_more: object) -> int:
        os.makedirs(place, exist_ok=True)
        return 1 if "requirements.txt" in argv and "install" not in argv else 0

    monkeypatch.setattr(files, "sync_tree", note)
    monkeypatch.setattr(procs, "spawn", spawn)
    log = os.open(os.devnull, os.O_WRONLY)
    try:
        maker = environment.Maker(run, log, lambda _: None, lambda code: code, lambda: None)
        environment.prepare(layout, ["requirements.txt"], maker)
    finally:
        os.close(log)
    assert seen == [False]
    assert os.path.exists(os.path.join(place, environment.COMPLETE))
