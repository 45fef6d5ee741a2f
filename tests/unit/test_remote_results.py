"""Which results are sent, which are left, and which should have been sent and could not be."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from remote import results, status, wire
from remote.channel import Channel
from remote.layout import RunFiles

FITS = {
    "checkpoints/**": ("checkpoints", "a/checkpoints checkpoints2 checkpoint"),
    "checkpoints/": ("checkpoints a/checkpoints", "checkpoints2"),
    "./checkpoints/**": ("checkpoints", "a/checkpoints"),
    "/checkpoints/**": ("checkpoints", "a/checkpoints"),
    "/checkpoints": ("checkpoints", "a/checkpoints"),
    "**/checkpoints/**": ("checkpoints a/b/checkpoints", "a/xcheckpoints"),
    "**/*.pt": ("top.pt a/b.pt", "pt"),
    "*.pt": ("top.pt a/b.pt", "pt"),
    "a/**/b": ("a/b a/x/b a/x/y/b", "ab axb a/xb x/a/b"),
    "**/a/**/b": ("a/b x/a/b x/a/y/b", "xa/b"),
    "checkpoints/*.pt": ("checkpoints/a.pt checkpoints/x/a.pt", "a.pt"),
    "a|b": ("a|b c/a|b", "a b"),
    "**": ("a a/b", ""),
    "./": ("", "a a/b"),
}


@pytest.mark.parametrize("pattern", FITS)
def test_an_exclude_pattern_fits_what_it_says(pattern: str) -> None:
    yes, no = FITS[pattern]
    found = results.compiled(pattern)
    assert [path for path in yes.split() if not found.match(path)] == []
    assert [path for path in no.split() if found.match(path)] == []


class Told:
    """A channel that keeps what is said on it."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []

    def item(self, value: dict[str, Any]) -> None:
        self.items.append(value)

    def data(self, _payload: bytes) -> None:
        pass

    def beat(self) -> None:
        pass

    def rows(self, *, unread: bool) -> list[list[str]]:
        items = (item for item in self.items if item.get("unread", False) is unread)
        return [row for item in items for row in item.get("left", [])]


def sent(root: Path, *exclude: str, goes_on: bool = False) -> tuple[results.Sender, Told]:
    told = Told()
    channel: Channel = told  # type: ignore[assignment]
    sender = results.Sender(channel, str(root), {}, {}, goes_on)
    sender.run(list(exclude))
    return sender, told


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, size in {"a": 1, "big": results.SMALL + 1, "deep/er/x": 1, "deep/y": 1}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x" * size)
    (tmp_path / "link").symlink_to("a")
    return tmp_path


@pytest.mark.parametrize("pattern", ["deep/**", "deep/", "deep", "deep/*"])
def test_of_an_excluded_folder_every_file_is_counted(pattern: str, root: Path) -> None:
    sender, told = sent(root, pattern)
    assert (sender.count, sender.excluded) == (2, 2)
    assert told.rows(unread=False) == [["link", "a symbolic link"]]


def failing(monkeypatch: pytest.MonkeyPatch, call: str, path: Path, code: int) -> None:
    """`os.call` of this path fails, or, of `pread`, of a descriptor of it."""
    real = getattr(os, call)

    def fails(what: Any, *args: Any) -> Any:
        place = os.readlink(f"/proc/self/fd/{what}") if call == "pread" else os.fspath(what)
        if place.rstrip("/") == str(path):
            raise OSError(code, os.strerror(code))
        return real(what, *args)

    monkeypatch.setattr(results.os, call, fails)


@pytest.mark.parametrize(
    ("call", "path", "code", "why"),
    [
        ("listdir", "deep/er", errno.EACCES, "Permission denied"),
        ("listdir", ".", errno.EACCES, "Permission denied"),
        ("lstat", "deep/y", errno.EACCES, "Permission denied"),
        ("open", "a", errno.EACCES, "Permission denied"),
        ("open", "a", errno.ENOENT, "went away while it was read"),
        ("pread", "a", errno.EIO, "Input/output error"),
        ("pread", "big", errno.EIO, "Input/output error"),
    ],
)
def test_what_cannot_be_read_is_named_apart_and_all_else_is_sent(
    call: str, path: str, code: int, why: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, call, root / path, code)
    sender, told = sent(root)
    assert told.rows(unread=True) == [[path, why]]
    assert sender.count == (0 if path == "." else 3)
    assert ({"torn": path} in told.items) is (path == "big")
    assert sent(root, path)[1].rows(unread=True) == ([] if path != "." else [[path, why]])


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_file_that_becomes_shorter_is_missing_only_once_the_run_has_ended(
    goes_on: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "CHUNK", 1024)
    real = os.pread

    def cuts(fd: int, count: int, at: int) -> bytes:
        if at == results.CHUNK:
            os.truncate(root / "big", at)
        return real(fd, count, at)

    monkeypatch.setattr(results.os, "pread", cuts)
    _, told = sent(root, goes_on=goes_on)
    assert {"torn": "big"} in told.items
    assert ["big", "became shorter while it was read"] in told.rows(unread=not goes_on)


def test_what_the_other_side_would_refuse_is_named_and_all_else_is_sent(root: Path) -> None:
    deep = "/".join(["d"] * (wire.FOLDERS_MAX + 1))
    for path in (wire.JOURNAL, f"{wire.PARTS}/0.new", f"deep/{wire.JOURNAL}", f"{deep}/x"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    sender, told = sent(root)
    assert sender.count == 5
    assert told.rows(unread=True) == [[f"{deep}/x", results.TOO_DEEP]]
    kept = [path for path, why in told.rows(unread=False) if "orch itself" in why]
    assert kept == [wire.JOURNAL, f"{wire.PARTS}/0.new"]


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    """A run that has begun: its results are known by two names."""
    made = RunFiles(str(tmp_path / "run"), "r1")
    Path(made.results).mkdir(parents=True)
    Path(made.tree, "out").mkdir(parents=True)
    Path(made.tree, "out", "results").symlink_to("../../results")
    return made


def put(run: RunFiles, what: str, elsewhere: Path) -> Path:
    """In place of the results in the tree is `what`."""
    inside = Path(run.tree, "out", "results")
    inside.unlink()
    if what == "folder":
        inside.mkdir()
    elif what == "file":
        inside.write_text("x")
    elif what == "link to a folder":
        elsewhere.mkdir()
        inside.symlink_to(elsewhere)
    elif what == "link to nowhere":
        inside.symlink_to(elsewhere)
    elif what == "link of its own":
        inside.symlink_to(run.results)
    return inside


@pytest.mark.parametrize(
    ("what", "followed", "unread"),
    [
        ("nothing", False, ""),
        ("link of its own", False, ""),
        ("folder", True, ""),
        ("link to a folder", True, ""),
        ("link to nowhere", False, "a symbolic link to {}, no folder"),
        ("file", False, "no folder"),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_what_a_job_put_in_place_of_its_results_is_followed_or_named(
    what: str, followed: bool, unread: str, before: bool, run: RunFiles, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "scratch"
    inside = put(run, what, elsewhere)
    if before:
        Path(run.results, "early").write_text("x")
    root = status.results_root(run, "out/results")
    assert root == (str(inside) if followed else run.results)
    sender, _ = sent(Path(root))
    results.look_aside(sender, run, root, "out/results")
    assert sender.unread == ([[str(inside), unread.format(elsewhere)]] if unread else [])
    assert [path for path, _ in sender.left] == ([run.results] if followed and before else [])
