"""The host's store: damage is noticed and asked anew; every way to a tree gives the tree."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote import files, store, trees, wire
from remote.channel import no_beat
from remote.errors import Damaged
from remote.layout import Layout

Tree = dict[bytes, tuple[int, str, bytes]]  # path -> (mode, kind, content)

TREE: Tree = {
    b"a.py": (0o644, "f", b"print(1)\n"),
    b"bin/run": (0o755, "f", b"#!/bin/sh\n"),
    b"deep/er/x": (0o644, "f", b""),
    b"deep/same": (0o644, "f", b"print(1)\n"),
    b"link": (0o777, "l", b"deep/er/x"),
    b"odd \xff\nname": (0o644, "f", b"odd"),
}


def manifest_of(tree: Tree) -> bytes:
    entries = [
        wire.Entry(mode, kind, len(content), hashlib.sha256(content).hexdigest(), path)
        for path, (mode, kind, content) in tree.items()
    ]
    return wire.encode_manifest(entry.line() for entry in entries)


def put(layout: Layout, tree: Tree) -> tuple[bytes, str]:
    """The tree is committed; returns (manifest, its hash)."""
    manifest = manifest_of(tree)
    entries = wire.parse_manifest(manifest)
    by_path = {path: content for path, (_, _, content) in tree.items()}
    wanted = store.missing(layout, entries)
    payload = b"".join(by_path[entries[index].path][have:] for index, have in wanted)
    pieces = iter([payload[at : at + 7] for at in range(0, len(payload), 7)])
    store.receive(layout, entries, wanted, store.ByteStream(pieces))
    store.commit_tree(layout, manifest, wire.tree_hash(manifest))
    return manifest, wire.tree_hash(manifest)


def read(folder: str) -> Tree:
    found: Tree = {}
    base = os.fsencode(folder)
    for place, folders, names in os.walk(base):
        for name in [*folders, *names]:
            path = os.path.join(place, name)
            if name in folders and not os.path.islink(path):
                continue
            info = os.lstat(path)
            if stat.S_ISLNK(info.st_mode):
                entry = (0o777, "l", os.readlink(path))
            else:
                with open(path, "rb") as file:
                    entry = (info.st_mode & 0o777, "f", file.read())
            found[os.path.relpath(path, base)] = entry
    return found


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "root"))
    made.ensure()
    return made


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_tree_is_built_as_it_was_and_is_not_asked_for_again(
    layout: Layout, tmp_path: Path
) -> None:
    manifest, tree = put(layout, TREE)
    assert store.missing(layout, wire.parse_manifest(manifest)) == []
    trees.build(layout, manifest, str(tmp_path / "t"))
    assert read(str(tmp_path / "t")) == TREE
    assert store.manifest_of(layout, tree) == manifest


@pytest.mark.parametrize("how", ["flip", "shorten", "remove"])
def test_f13_a_damaged_object_is_noticed_never_handed_out_and_asked_anew(
    layout: Layout, tmp_path: Path, how: str
) -> None:
    manifest, _ = put(layout, TREE)
    path = Path(layout.object(hashlib.sha256(b"odd").hexdigest()))
    path.chmod(0o600)
    if how == "remove":
        path.unlink()
    else:
        path.write_bytes(b"0dd" if how == "flip" else b"od")
    with pytest.raises(Damaged):
        trees.build(layout, manifest, str(tmp_path / "t"))
    entries = wire.parse_manifest(manifest)
    wanted = store.missing(layout, entries)
    assert [entries[index].path for index, _ in wanted] == [b"odd \xff\nname"]
    put(layout, TREE)
    trees.build(layout, manifest, str(tmp_path / "again"))
    assert read(str(tmp_path / "again")) == TREE


@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_a_damaged_manifest_reads_as_a_tree_the_host_does_not_have(
    layout: Layout, content: bytes | None
) -> None:
    manifest, tree = put(layout, TREE)
    Path(layout.tree(tree)).write_bytes(manifest[:-3] if content is None else content)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            store.manifest_of(layout, tree)
    put(layout, TREE)
    assert store.manifest_of(layout, tree) == manifest


def test_f13_wrong_bytes_on_their_way_are_refused_and_not_kept(layout: Layout) -> None:
    manifest = manifest_of({b"a": (0o644, "f", b"right")})
    entries = wire.parse_manifest(manifest)
    with pytest.raises(wire.WireError):
        store.receive(layout, entries, [(0, 0)], store.ByteStream(iter([b"wrong"])))
    assert store.missing(layout, entries) == [(0, 0)]


BIG = os.urandom(store.WHOLE_MAX + 12345)


def test_f01_a_large_object_cut_half_way_goes_on_from_there(layout: Layout) -> None:
    entries = wire.parse_manifest(manifest_of({b"big": (0o644, "f", BIG)}))
    cut = store.ByteStream(iter([BIG[:700_000]]))
    with pytest.raises((StopIteration, RuntimeError, wire.WireError)):
        store.receive(layout, entries, store.missing(layout, entries), cut)
    assert not os.path.exists(layout.object(entries[0].sha256))
    beats: list[int] = []
    wanted, begun = store.take_up(
        layout, entries, store.missing(layout, entries), lambda: beats.append(1)
    )
    assert wanted == [(0, 700_000)]
    assert beats, "no sign of life while what is here was hashed"
    assert files.is_locked(layout.part(entries[0].sha256) + ".lock")
    rest = store.ByteStream(iter([BIG[700_000:]]))
    store.receive(layout, entries, wanted, rest, begun)
    assert Path(layout.object(entries[0].sha256)).read_bytes() == BIG
    assert os.listdir(layout.parts) == []


def test_a_large_object_gone_on_with_from_wrong_bytes_is_thrown_away(layout: Layout) -> None:
    entries = wire.parse_manifest(manifest_of({b"big": (0o644, "f", BIG)}))
    Path(layout.part(entries[0].sha256)).write_bytes(b"\0" * 1000)
    wanted, begun = store.take_up(layout, entries, store.missing(layout, entries), no_beat)
    assert wanted == [(0, 1000)]
    with pytest.raises(wire.WireError):
        store.receive(layout, entries, wanted, store.ByteStream(iter([BIG[1000:]])), begun)
    assert store.missing(layout, entries) == [(0, 0)]


def test_a_spare_is_taken_once_and_is_the_tree(layout: Layout, tmp_path: Path) -> None:
    _, tree = put(layout, TREE)
    trees.make_spare(layout, tree)
    assert len(os.listdir(layout.spares)) == 1
    trees.take(layout, tree, "", b"", str(tmp_path / "one"))
    assert os.listdir(layout.spares) == []
    trees.take(layout, tree, "", b"", str(tmp_path / "two"))
    assert read(str(tmp_path / "one")) == read(str(tmp_path / "two")) == TREE


def test_a_spare_of_another_boot_is_not_used(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, tree = put(layout, TREE)
    trees.make_spare(layout, tree)
    (spare,) = os.listdir(layout.spares)
    os.unlink(os.path.join(layout.spares, spare, "a.py"))  # as a crash may leave it
    (tmp_path / "boot").write_text("another")
    monkeypatch.setenv("ORCH_BOOT_ID_FILE", str(tmp_path / "boot"))
    trees.take(layout, tree, "", b"", str(tmp_path / "t"))
    assert read(str(tmp_path / "t")) == TREE


def test_a_patch_whose_object_is_damaged_is_no_tree(layout: Layout, tmp_path: Path) -> None:
    old, old_hash = put(layout, TREE)
    trees.make_spare(layout, old_hash)
    new, new_hash = put(layout, {**TREE, b"new": (0o644, "f", b"brand new")})
    delta, _ = wire.make_delta(old, new)
    path = Path(layout.object(hashlib.sha256(b"brand new").hexdigest()))
    path.chmod(0o600)
    path.write_bytes(b"brand old")
    with pytest.raises(Damaged):
        trees.take(layout, new_hash, old_hash, delta, str(tmp_path / "t"))


def test_only_a_few_spares_are_kept(layout: Layout) -> None:
    for number in range(8):
        _, tree = put(layout, {b"a": (0o644, "f", b"%d" % number)})
        trees.make_spare(layout, tree)
    assert len(os.listdir(layout.spares)) <= 4


NAME = st.sampled_from([b"a", b"b", b"c", b"d"])
PATH = st.lists(NAME, min_size=1, max_size=3).map(b"/".join)
FILE = st.tuples(st.sampled_from([0o644, 0o755]), st.just("f"), st.binary(max_size=2))
LINK = st.tuples(st.just(0o777), st.just("l"), st.sampled_from([b"a", b"b/c", b"x"]))


def lawful(tree: Tree) -> bool:
    return not any(path.startswith(other + b"/") for path in tree for other in tree)


TREES = st.dictionaries(PATH, FILE | LINK, max_size=6).filter(lawful)


@given(TREES, TREES)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_patched_spare_equals_the_built_tree(
    tmp_path_factory: pytest.TempPathFactory, old: Tree, new: Tree
) -> None:
    folder = tmp_path_factory.mktemp("store")
    layout = Layout(str(folder / "root"))
    layout.ensure()
    before, old_hash = put(layout, old)
    trees.make_spare(layout, old_hash)
    after, new_hash = put(layout, new)
    delta, _ = wire.make_delta(before, after)
    trees.take(layout, new_hash, old_hash, delta, str(folder / "patched"))
    trees.build(layout, after, str(folder / "built"))
    assert read(str(folder / "patched")) == read(str(folder / "built")) == new
    folders = [sorted(str(p.relative_to(folder / kind)) for p in (folder / kind).rglob("*"))
               for kind in ("patched", "built")]  # fmt: skip
    assert folders[0] == folders[1], "an empty folder was left"


def test_what_a_process_of_the_same_number_left_is_in_nobodys_way(layout: Layout) -> None:
    sha256 = hashlib.sha256(b"odd").hexdigest()
    left = Path(f"{layout.object(sha256)}.{os.getpid()}")
    left.parent.mkdir()
    left.write_bytes(b"half of it, longer")
    left.chmod(0o400)
    inode = left.stat().st_ino
    kept = os.open(left, os.O_RDONLY)  # so that its number is not given anew
    try:
        store.put_object(layout, sha256, b"odd")
    finally:
        os.close(kept)
    made = Path(layout.object(sha256))
    assert (made.read_bytes(), made.stat().st_ino == inode) == (b"odd", False)
    assert not left.exists()


def test_f16_what_a_crash_has_cost_a_tree_is_placed_anew_and_the_rest_stays(
    layout: Layout, tmp_path: Path
) -> None:
    _, tree = put(layout, TREE)
    place, aside = str(tmp_path / "tree"), str(tmp_path / "aside")
    trees.take(layout, tree, "", b"", place)
    assert trees.mend(layout, tree, place, aside) == []
    for name in ("a.py", "deep/er/x", "link"):
        os.unlink(os.path.join(place, name))
    Path(place, "a.py").touch()
    os.symlink("elsewhere", os.path.join(place, "link"))
    os.rmdir(os.path.join(place, "deep/er"))
    Path(place, "made by the job").write_text("x")
    assert trees.mend(layout, tree, place, aside) == ["a.py", "deep/er/x", "link"]
    mended = read(place)
    assert mended.pop(b"made by the job")[2] == b"x"
    assert mended == TREE
    assert sorted(read(aside)) == [b"a.py", b"link"]


@pytest.mark.parametrize("put_there", ["link", "file"])
def test_f16_what_a_job_put_in_a_folders_place_goes_aside_and_nothing_beyond_it_is_touched(
    put_there: str, layout: Layout, tmp_path: Path
) -> None:
    _, tree = put(layout, TREE)
    place, aside, other = tmp_path / "tree", tmp_path / "aside", tmp_path / "other"
    trees.take(layout, tree, "", b"", str(place))
    (place / "deep").rename(tmp_path / "was")
    (other / "er").mkdir(parents=True)
    (other / "er" / "x").write_text("somebody's")
    if put_there == "link":
        (place / "deep").symlink_to(other)
    else:
        (place / "deep").write_text("a file")
    assert "deep/er/x" in trees.mend(layout, tree, str(place), str(aside))
    assert read(str(place)) == TREE
    assert (other / "er" / "x").read_text() == "somebody's"
    assert os.path.lexists(aside / "deep")


def test_f16_a_tree_whose_content_is_nowhere_cannot_be_placed_anew(
    layout: Layout, tmp_path: Path
) -> None:
    _, tree = put(layout, TREE)
    place = str(tmp_path / "tree")
    trees.take(layout, tree, "", b"", place)
    for name in ("a.py", "bin/run"):
        Path(place, name).write_text("")
    Path(layout.object(hashlib.sha256(b"print(1)\n").hexdigest())).unlink()
    with pytest.raises(Damaged):
        trees.mend(layout, tree, place, str(tmp_path / "aside"))
    assert Path(place, "bin/run").read_bytes() == TREE[b"bin/run"][2]
