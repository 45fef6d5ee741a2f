"""What of a project travels, what never does, and that a scan tells the truth about bytes."""

from __future__ import annotations

import os
import shutil
import socket
import time
from functools import partial
from pathlib import Path

import pytest

from orchestrator.datatree import list_data
from orchestrator.errors import SourceChanged, UsageError
from orchestrator.gitlisting import GitListing, GitState
from orchestrator.manifest import (
    Scan,
    any_travels,
    read_object,
    scan,
    scan_project,
)
from remote import wire
from tests.helpers.project import commit_all, run_git


def scanned(root: Path, **options: object) -> Scan:
    cache = root.parent / "cache" / "hashes"
    listing = GitListing(root)
    try:
        return scan_project(root, listing, cache, **options)  # type: ignore[arg-type]
    finally:
        listing.state()  # git's second answer is read too, so that its process has ended


def git_state(root: Path) -> GitState:
    listing = GitListing(root)
    listing.paths()
    return listing.state()


def paths(scan: Scan) -> list[str]:
    return [os.fsdecode(entry.path) for entry in wire.parse_manifest(scan.manifest)]


def reasons(scan: Scan) -> dict[str, str]:
    return dict(scan.skipped)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "a.py").write_text("a\n")
    return folder


def make_git(root: Path) -> None:
    run_git(root, "init", "-q", "-b", "main")
    commit_all(root, "begin")


@pytest.mark.parametrize("git", [False, True])
def test_tracked_and_untracked_files_travel_but_no_result_cache_or_git(
    root: Path, git: bool
) -> None:
    if git:
        make_git(root)
    for name in ("results/r/log", "__pycache__/a.pyc", ".venv/bin/x", "sub/node_modules/x.js"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    (root / "sub" / "results").mkdir()
    (root / "sub" / "results" / "kept.txt").write_text("not the project's results")
    assert paths(scanned(root)) == ["a.py", "sub/results/kept.txt"]


def test_what_git_ignores_stays_and_a_tracked_deleted_file_is_no_error(root: Path) -> None:
    (root / ".gitignore").write_text("*.bin\n")
    (root / "gone.py").write_text("x")
    make_git(root)
    (root / "gone.py").unlink()
    (root / "big.bin").write_text("x")
    (root / "new.py").write_text("untracked")
    assert paths(scanned(root)) == [".gitignore", "a.py", "new.py"]


def test_orchignore_takes_away_from_what_git_gives(root: Path) -> None:
    make_git(root)
    (root / "notes").mkdir()
    (root / "notes" / "n.md").write_text("x")
    (root / "notes" / "keep.md").write_text("x")
    (root / ".orchignore").write_text("# remark\nnotes/*\n!notes/keep.md\n")
    assert paths(scanned(root)) == [".orchignore", "a.py", "notes/keep.md"]


def test_an_orchignore_that_is_not_text_is_an_error_that_names_it(root: Path) -> None:
    (root / ".orchignore").write_bytes(b"\xff\xfe\0")
    with pytest.raises(UsageError, match=r"\.orchignore"):
        scanned(root)


@pytest.mark.parametrize(
    "name", [".env", ".env.production", "server.pem", "id_rsa", "deep/id_ed25519", "x.key"]
)
def test_f14_what_looks_like_a_secret_stays_and_is_named(root: Path, name: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("s3cret")
    found = scanned(root)
    assert name not in paths(found)
    assert reasons(found) == {name: "looks like a secret"}


@pytest.mark.parametrize("name", [".env.example", "id_rsa.pub", "keyboard.py"])
def test_what_only_resembles_a_secret_travels(root: Path, name: str) -> None:
    (root / name).write_text("x")
    assert name in paths(scanned(root))


@pytest.mark.parametrize("git", [True, False])
def test_f14_special_files_are_skipped_and_a_fifo_does_not_hang(git: bool, root: Path) -> None:
    if git:
        make_git(root)
    os.mkfifo(root / "pipe")
    # A socket's path is at most 107 bytes long, so it is bound by a relative name.
    with socket.socket(socket.AF_UNIX) as bound:
        before = os.getcwd()
        os.chdir(root)
        try:
            bound.bind("sock")
        finally:
            os.chdir(before)
    found = scanned(root)
    assert paths(found) == ["a.py"]
    assert reasons(found) == {"pipe": "not a regular file", "sock": "not a regular file"}


def test_f14_links_inside_travel_as_links_and_links_out_do_not(root: Path) -> None:
    (root / "sub").mkdir()
    for name, target in {
        "in": "a.py", "sub/up": "../a.py", "loop": "loop", "dangling": "nowhere", "tosub": "sub",
        "out": "../x", "abs": "/etc/passwd", "sub/sly": "../sub/../../x",
    }.items():  # fmt: skip
        (root / name).symlink_to(target)
    found = scanned(root)
    assert paths(found) == ["a.py", "dangling", "in", "loop", "sub/up", "tosub"]
    assert set(reasons(found)) == {"out", "abs", "sub/sly"}
    kinds = {e.path: (e.kind, e.mode) for e in wire.parse_manifest(found.manifest)}
    assert kinds[b"in"] == ("l", 0o777)


def test_f64_names_of_any_bytes_travel(root: Path) -> None:
    names = [b"sp ace", b"new\nline", b"-rf", b"quo'te\"", "ü".encode(), b"\xff\xfe"]
    for name in names:
        (root / os.fsdecode(name)).write_text("x")
    entries = [entry.path for entry in wire.parse_manifest(scanned(root).manifest)]
    assert sorted([*names, b"a.py"]) == entries
    make_git(root)
    assert [entry.path for entry in wire.parse_manifest(scanned(root).manifest)] == entries


def test_a_file_over_the_limit_is_refused_by_name_with_what_to_do(root: Path) -> None:
    (root / "model.pt").write_bytes(b"\0" * 2_000_001)
    with pytest.raises(UsageError, match=r"model\.pt") as caught:
        scanned(root, max_file=2_000_000)
    assert ".orchignore" in (caught.value.hint or "")


def test_only_the_owners_execute_bit_of_a_mode_travels(root: Path) -> None:
    (root / "run.sh").write_text("x")
    (root / "run.sh").chmod(0o4777)
    (root / "a.py").chmod(0o600)
    modes = {e.path: e.mode for e in wire.parse_manifest(scanned(root).manifest)}
    assert modes == {b"run.sh": 0o755, b"a.py": 0o644}


def test_the_cache_never_hides_a_change(root: Path) -> None:
    old = (root / "a.py").stat()
    os.utime(root / "a.py", ns=(10**18, 10**18))
    first = scanned(root)
    assert scanned(root).tree == first.tree
    (root / "a.py").write_text("b\n")  # same size, and the old time put back
    os.utime(root / "a.py", ns=(10**18, 10**18))
    assert scanned(root).tree != first.tree
    assert old.st_size == (root / "a.py").stat().st_size


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written just now counts as settled, so that it is cached."""
    now = time.time_ns
    monkeypatch.setattr("orchestrator.manifest.time.time_ns", lambda: now() + 10**10)


@pytest.mark.usefixtures("later")
def test_what_did_not_change_is_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "link").symlink_to("a.py")
    first = scanned(root)

    def read(*_: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr("orchestrator.manifest._entry", read)
    again = scanned(root)
    assert (again.manifest, again.sources) == (first.manifest, first.sources)
    (root / "a.py").write_text("b\n")
    with pytest.raises(AssertionError):
        scanned(root)


@pytest.mark.usefixtures("later")
def test_a_torn_or_foreign_cache_only_costs_time(root: Path) -> None:
    first = scanned(root)
    cache = root.parent / "cache" / "hashes"
    sound = cache.read_bytes()
    assert sound.startswith(b"a.py\0") and sound.endswith(b" \0")
    damaged = (sound[:-1], sound[:-2], sound[5:], sound * 2 + b"x", sound.replace(b" f ", b" g "))
    for content in (b"", b"\0", b"a.py\0", b'{"a.py": 7}', b"\xff", *damaged):
        cache.write_bytes(content)
        assert scanned(root).tree == first.tree, content


def test_a_tracked_file_whose_folder_became_a_file_is_left_out(root: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "b.py").write_text("x")
    make_git(root)
    shutil.rmtree(root / "sub")
    (root / "sub").write_text("now a file")
    assert paths(scanned(root)) == ["a.py", "sub"]


def test_a_submodule_or_nested_repository_travels_with_its_files(root: Path) -> None:
    make_git(root)
    inner = root / "vendored"
    inner.mkdir()
    (inner / "lib.py").write_text("x")
    make_git(inner)
    assert paths(scanned(root)) == ["a.py", "vendored/lib.py"]


@pytest.mark.parametrize("submodule", [False, True])
def test_what_a_nested_repository_ignores_stays_as_well(root: Path, submodule: bool) -> None:
    make_git(root)
    inner = root / "sub" / "mod"
    inner.mkdir(parents=True)
    (inner / ".gitignore").write_text("*.ckpt\n")
    (inner / "lib.py").write_text("x")
    make_git(inner)
    if submodule:
        commit_all(root, "its commit is tracked")
    (inner / "new.py").write_text("x")
    with (inner / "last.ckpt").open("wb") as file:
        file.truncate(1 << 30)
    ours = ["a.py", "sub/mod/.gitignore", "sub/mod/lib.py", "sub/mod/new.py"]
    assert paths(scanned(root)) == ours


def test_a_nested_repository_of_which_git_tells_nothing_is_not_sent_whole(root: Path) -> None:
    make_git(root)
    inner = root / "mod"
    inner.mkdir()
    make_git(inner)
    commit_all(root, "as a submodule")
    shutil.rmtree(inner / ".git")
    (inner / ".git").write_text("gitdir: ../nowhere\n")
    with pytest.raises(UsageError, match="mod is in a git repository"):
        scanned(root)


def test_a_submodule_that_was_not_fetched_is_an_empty_folder(root: Path) -> None:
    make_git(root)
    inner = root / "mod"
    inner.mkdir()
    make_git(inner)
    commit_all(root, "as a submodule")
    shutil.rmtree(inner)
    inner.mkdir()
    assert paths(scanned(root)) == ["a.py"]


def test_tracked_results_are_named_as_left_out_and_others_are_not(root: Path) -> None:
    for name in ("results/r/baseline.json", "out/x.json"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("x")
    make_git(root)
    (root / "results" / "r" / "untracked").write_text("x")
    found = scanned(root, results_dirs=("results", "out", "results"))
    assert paths(found) == ["a.py"]
    told = "results are not sent; git tracks 1 file there"
    assert reasons(found) == dict.fromkeys(["results/", "out/"], told)
    (root / "out" / "x.json").unlink()
    run_git(root, "rm", "-q", "--cached", "out/x.json")
    assert reasons(scanned(root, results_dirs=("results", "out"))) == {"results/": told}


@pytest.mark.parametrize("becomes", ["gone", "a link", "a folder gone"])
def test_f12_a_file_that_goes_away_before_it_is_hashed_is_named(
    becomes: str, tmp_path: Path
) -> None:
    place = tmp_path / "data" / "deep" / "a.txt"
    place.parent.mkdir(parents=True)
    place.write_text("x")
    found = list_data(tmp_path / "data").found
    place.unlink()
    if becomes == "a link":
        place.symlink_to("elsewhere")
    elif becomes == "a folder gone":
        place.parent.rmdir()
        place.parent.touch()
    with pytest.raises(SourceChanged, match=r"deep/a\.txt changed while it was read"):
        scan(tmp_path / "data", found, tmp_path / "cache", max_file=None, secrets=False)


def test_f12_a_file_that_changes_while_it_is_sent_is_named(root: Path) -> None:
    found = scanned(root)
    (entry,) = wire.parse_manifest(found.manifest)
    (root / "a.py").write_text("c\n")
    with pytest.raises(SourceChanged, match=r"a\.py"):
        b"".join(read_object(found, entry))
    (root / "a.py").unlink()
    with pytest.raises(SourceChanged, match=r"a\.py"):
        b"".join(read_object(found, entry))


def test_a_file_swapped_for_a_link_is_not_followed(root: Path) -> None:
    found = scanned(root)
    (entry,) = wire.parse_manifest(found.manifest)
    (root.parent / "same").write_text("a\n")
    (root / "a.py").unlink()
    (root / "a.py").symlink_to("../same")
    with pytest.raises(SourceChanged):
        b"".join(read_object(found, entry))


@pytest.mark.parametrize("offset", [0, 1, wire.DATA_MAX, wire.DATA_MAX + 5, 2 * wire.DATA_MAX])
def test_an_object_is_read_from_any_offset(root: Path, offset: int) -> None:
    content = bytes(range(256)) * (2 * wire.DATA_MAX // 256) + b"end"
    (root / "a.py").write_bytes(content)
    found = scanned(root)
    (entry,) = wire.parse_manifest(found.manifest)
    assert b"".join(read_object(found, entry, offset)) == content[offset:]


def test_git_state_tells_commit_and_dirt(root: Path) -> None:
    assert git_state(root).commit is None
    make_git(root)
    commit = run_git(root, "rev-parse", "HEAD").strip()
    state = git_state(root)
    assert (state.commit, state.dirty) == (commit, False)
    (root / "new.py").write_text("x")
    assert git_state(root).dirty is True


def test_only_what_travels_makes_a_project_dirty(tmp_path: Path) -> None:
    top = tmp_path / "top"
    root = top / "mine"
    (root / "notes").mkdir(parents=True)
    for path in ("mine/a.py", "mine/notes/n.md", "mine/old.md", "other.py"):
        (top / path).write_text("x\n")
    (root / ".orchignore").write_text("*.md\n")
    make_git(top)

    def is_dirty() -> bool | None:
        listing = GitListing(root)
        listing.paths()
        travel = partial(any_travels, root, results_dirs=("results", "out"))
        return listing.state(travel).dirty

    for path in ("mine/results/r/metrics.json", "mine/out/x", "mine/__pycache__/a.pyc",
                 "mine/sub/.env", "mine/notes/new.md", "other2.py"):  # fmt: skip
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text("x")
    (root / "notes" / "n.md").write_text("changed")
    (root / "old.md").unlink()
    (top / "other.py").write_text("changed")
    assert is_dirty() is False
    (root / "a.py").rename(root / "b c.py")
    run_git(top, "add", "-A")
    assert is_dirty() is True
    commit_all(top, "all")
    assert is_dirty() is False
    (root / "b c.py").unlink()
    assert is_dirty() is True
    run_git(top, "checkout", "mine/b c.py")
    (root / "sub" / "new.py").write_text("x")
    assert is_dirty() is True
