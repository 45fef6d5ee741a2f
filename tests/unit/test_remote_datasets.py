"""Datasets on the host: read-only, durable before they count, and found out when changed."""

from __future__ import annotations

import hashlib
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote import datasets, files, store, trees
from remote.attempts import mark_begun
from remote.causes import End
from remote.errors import Damaged
from remote.layout import Layout
from remote.status import write_exit
from tests.unit.test_remote_store import TREE, put, read

ODD = "odd \udcff\nname"
SOMEBODY = 12345


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "root"))
    made.ensure()
    return made


def placed(layout: Layout) -> tuple[Path, str]:
    manifest, tree = put(layout, TREE)
    assert datasets.place(layout, manifest, tree) is False
    assert datasets.is_intact(layout, tree)
    return Path(layout.dataset(tree)), tree


def place_again(layout: Layout, tree: str) -> bool:
    return datasets.place(layout, store.manifest_of(layout, tree), tree)


def assert_whole(place: Path) -> None:
    found = read(str(place))
    assert {path: content for path, (_, _, content) in found.items()} == {
        path: content for path, (_, _, content) in TREE.items()
    }
    assert all(mode & 0o222 == 0 for mode, kind, _ in found.values() if kind == "f")
    assert {os.stat(folder).st_mode & 0o777 for folder, _, _ in os.walk(place)} == {0o500}


def as_somebody(folder: Path, work: Callable[[Layout], None]) -> None:
    """`work` is done by a user who is not root, with a layout in `folder`."""
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, SOMEBODY, SOMEBODY)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.chdir(folder)  # what is above is not for everybody
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(SOMEBODY)
                os.setuid(SOMEBODY)
            layout = Layout(".")
            layout.ensure()
            work(layout)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_dataset_is_placed_once_read_only_and_whole(layout: Layout) -> None:
    place, tree = placed(layout)
    inode = place.stat().st_ino
    assert place_again(layout, tree) is False
    assert place.stat().st_ino == inode
    assert_whole(place)
    assert sorted(os.listdir(layout.data)) == [place.name, place.name + ".seal"]


def test_whoever_is_not_root_cannot_change_it_and_shares_the_stores_bytes(tmp_path: Path) -> None:
    def work(layout: Layout) -> None:
        place, tree = placed(layout)
        assert_whole(place)
        for change in (
            lambda: (place / "a.py").write_text("x"),
            lambda: (place / "a.py").unlink(),
            lambda: (place / "deep" / "new").touch(),
        ):
            with pytest.raises(PermissionError):
                change()
        assert (place / "a.py").stat().st_nlink > 1
        place.chmod(0o700)  # it is the user's own, so who insists can
        (place / "a.py").unlink()
        (place / "a.py").write_text("PRINT(2)\n")
        assert not datasets.is_intact(layout, tree)
        for _ in range(2):
            assert place_again(layout, tree) is True
            assert_whole(place)
            place.chmod(0o700)
            (place / "a.py").unlink()
        files.remove_tree(layout.data)
        assert not os.path.exists(layout.data)

    as_somebody(tmp_path / "home", work)


def test_roots_job_cannot_write_through_a_link_into_the_store(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    place, _ = placed(layout)
    assert (place / "a.py").stat().st_nlink == 1
    entries = [entry.size for entry in store.wire.parse_manifest(put(layout, TREE)[0])]
    assert datasets.copied_bytes(store.wire.parse_manifest(put(layout, TREE)[0])) == sum(entries)


def other_bytes(place: Path) -> None:
    (place / "a.py").chmod(0o600)
    (place / "a.py").write_bytes(b"print(2)\n")


def other_size(place: Path) -> None:
    (place / "deep" / "er" / "x").chmod(0o600)
    (place / "deep" / "er" / "x").write_bytes(b"more")


def other_file(place: Path) -> None:
    """Of the same size and time."""
    (place / "bin").chmod(0o700)
    (place / "bin" / "run").rename(place / "bin" / "gone")


def other_kind(place: Path) -> None:
    place.chmod(0o700)
    (place / "a.py").unlink()
    (place / "a.py").symlink_to("print(1)\n")


def other_link(place: Path) -> None:
    place.chmod(0o700)
    (place / "link").unlink()
    (place / "link").symlink_to("/etc/pass")


def no_folder(place: Path) -> None:
    files.remove_tree(str(place))


def more_file(place: Path) -> None:
    (place / "deep").chmod(0o700)
    (place / "deep" / "train-2.csv").write_text("leak")


def more_link(place: Path) -> None:
    place.chmod(0o700)
    (place / "more").symlink_to("bin")


def more_folder(place: Path) -> None:
    """Without a file, but e.g. a class of pictures."""
    place.chmod(0o700)
    (place / "cats" / "old").mkdir(parents=True)


def file_for_folder(place: Path) -> None:
    """As many as before, under another name."""
    (place / "deep" / "er").chmod(0o700)
    (place / "deep" / "er" / "x").rename(place / "deep" / "er" / "y")


CHANGES = [other_bytes, other_size, other_file, other_kind, other_link, no_folder, file_for_folder]
MORE = [more_file, more_link, more_folder]


@pytest.mark.parametrize("change", [*CHANGES, *MORE])
def test_a_changed_dataset_is_found_out_and_placed_anew(
    change: Callable[[Path], None], layout: Layout
) -> None:
    place, tree = placed(layout)
    change(place)
    assert not datasets.is_intact(layout, tree)
    assert datasets.changed(layout, {"sst2": tree}) == ([] if change in MORE else ["sst2"])
    assert place_again(layout, tree) is (change is not no_folder)
    assert_whole(place)
    assert datasets.changed(layout, {"sst2": tree}) == []
    assert os.path.isdir(f"{place}.damaged") is (change is not no_folder)


def test_a_folder_beside_the_data_that_cannot_be_read_changes_nothing_of_it(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job shut it, or removes it in this very moment."""
    place, tree = placed(layout)
    place.chmod(0o700)
    (place / "cache").mkdir()
    scan = os.scandir

    def gone(path: bytes) -> Any:
        if path.endswith(b"cache"):
            raise FileNotFoundError(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", gone)
    assert datasets.changed(layout, {"sst2": tree}) == []
    assert not datasets.is_intact(layout, tree)


def test_a_dataset_without_a_file_is_intact_until_it_has_one(layout: Layout) -> None:
    manifest, tree = put(layout, {})
    datasets.place(layout, manifest, tree)
    assert datasets.is_intact(layout, tree)
    more_link(Path(layout.dataset(tree)))
    assert not datasets.is_intact(layout, tree)


def test_the_datasets_path_leads_to_its_files_at_every_moment(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, tree = placed(layout)
    more_file(place)
    rename = os.rename

    def watched(source: str, target: str) -> None:
        rename(source, target)
        assert (place / "a.py").read_bytes() == TREE[b"a.py"][2]

    monkeypatch.setattr(os, "rename", watched)
    assert place_again(layout, tree) is True
    assert_whole(place)


def test_where_names_cannot_be_exchanged_it_is_placed_anew_all_the_same(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, tree = placed(layout)
    more_file(place)
    monkeypatch.setattr(files, "exchange", lambda *_: False)
    assert place_again(layout, tree) is True
    assert_whole(place)
    assert Path(f"{place}.damaged", "deep", "train-2.csv").exists()


@pytest.mark.parametrize("goes_on", [True, False])
def test_what_a_job_that_goes_on_may_stand_in_is_kept(goes_on: bool, layout: Layout) -> None:
    place, tree = placed(layout)
    run = layout.attempt("20261123-100000-000abcde", 1)
    os.mkdir(run.path)
    files.write_json(run.spec, {"data": {"set": tree}})
    mark_begun(run)
    guard = files.lock(layout.lock(run.run_id + ".lock"))
    if not goes_on:
        write_exit(run, End("succeeded"), None)
    more_file(place)
    assert datasets.is_intact(layout, tree) is goes_on  # it may be a cache of that job's
    for _ in range(3):
        other_bytes(place)
        assert place_again(layout, tree) is True
        assert_whole(place)
    aside = [name for name in os.listdir(layout.data) if ".damaged" in name]
    assert len(aside) == (3 if goes_on else 1)
    os.close(guard)


def test_a_dataset_of_an_earlier_orch_has_no_seal_and_is_placed_anew_once(layout: Layout) -> None:
    _, tree = placed(layout)
    os.unlink(layout.seal(tree))
    assert not datasets.is_intact(layout, tree)
    assert datasets.changed(layout, {"sst2": tree}) == []
    assert place_again(layout, tree) is False  # nobody can tell whether it was changed
    assert datasets.is_intact(layout, tree)


@pytest.mark.parametrize("seal", [b"", b"1\n2\n", b"x", b"\xff\n" * 6])
def test_a_torn_seal_is_no_seal(seal: bytes, layout: Layout) -> None:
    _, tree = placed(layout)
    Path(layout.seal(tree)).write_bytes(seal)
    assert not datasets.is_intact(layout, tree)


def test_a_dataset_with_a_damaged_object_is_not_placed(layout: Layout) -> None:
    manifest, tree = put(layout, TREE)
    path = Path(layout.object(hashlib.sha256(b"odd").hexdigest()))
    path.chmod(0o600)
    path.write_bytes(b"0dd")
    with pytest.raises(Damaged):
        datasets.place(layout, manifest, tree)
    assert os.listdir(layout.data) == []
    assert placed(layout)[0].joinpath(ODD).read_bytes() == b"odd"


def test_a_dataset_is_on_the_disk_before_it_has_its_name(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    sync = files.sync_tree

    def note(path: str) -> None:
        sync(path)
        (making,) = os.listdir(layout.data)
        assert_whole(Path(layout.data) / making)
        seen.append([making])

    monkeypatch.setattr(files, "sync_tree", note)
    place, _ = placed(layout)
    assert len(seen) == 1
    assert seen[0][0].startswith(place.name + ".making.")


def test_a_full_disk_leaves_no_half_of_a_dataset(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, tree = put(layout, TREE)

    def full(_path: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync_tree", full)
    with pytest.raises(OSError, match="No space"):
        datasets.place(layout, manifest, tree)
    assert os.listdir(layout.data) == []


def test_what_ended_processes_left_half_made_is_removed_after_a_day(layout: Layout) -> None:
    manifest, tree = put(layout, TREE)
    leftovers = ["x.making.1", "x.taken.2"]
    for place in (layout.data, layout.spares):
        for name in [*leftovers, "young.making.3", "other"]:
            (Path(place) / name / "deep").mkdir(parents=True)
            (Path(place) / name / "deep").chmod(0o500)
        for name in [*leftovers, "other"]:
            os.utime(os.path.join(place, name), (time.time() - 90000, time.time() - 90000))
    datasets.place(layout, manifest, tree)
    trees.make_spare(layout, tree)
    for place in (layout.data, layout.spares):
        assert {"young.making.3", "other"} <= set(os.listdir(place))
        assert not set(leftovers) & set(os.listdir(place))
