"""What of a project cannot be read: a refusal that names it, unless it would not travel anyway."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.datatree import scan_data
from orchestrator.errors import UsageError
from tests.unit.test_manifest import make_git, paths, scanned


@pytest.fixture
def users_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of a user who cannot read everything, as whom the test goes on."""
    home = Path(tempfile.mkdtemp())  # pytest's folder is closed to other users
    root = home / "p"
    root.mkdir()
    (root / "a.py").write_text("a")
    monkeypatch.setenv("HOME", str(home))
    was = os.geteuid()
    if was == 0:
        for place in (home, root, root / "a.py"):
            os.chown(place, 12345, 12345)
        os.seteuid(12345)
    try:
        yield root
    finally:
        os.seteuid(was)
        subprocess.run(["chmod", "-R", "u+rwx", home], check=True)
        shutil.rmtree(home)


def make_closed(place: Path) -> None:
    """A folder with a file, or a file, that cannot be read."""
    if place.suffix:
        place.write_text("x")
    else:
        place.mkdir(parents=True)
        (place / "x.py").write_text("x")
    place.chmod(0)


GIT = pytest.mark.parametrize("git", [True, False], ids=["git", "no git"])


@GIT
@pytest.mark.parametrize("below", ["", "sub"])
@pytest.mark.parametrize("name", ["closed", "in/\u754c closed", "closed\nfolder", "secret.bin"])
def test_what_cannot_be_read_is_an_error_not_a_smaller_tree(
    name: str, below: str, git: bool, users_root: Path
) -> None:
    project = users_root / below
    project.mkdir(exist_ok=True)
    (project / "b.py").write_text("b")
    if git:
        make_git(users_root)
    make_closed(project / name)
    with pytest.raises(UsageError) as caught:
        scanned(project)
    assert "could not read" in caught.value.message or f"{project / name}" in caught.value.message
    assert "make it readable" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["closed", "in/closed", "secret.bin"])
def test_data_that_cannot_be_read_is_named(name: str, users_root: Path) -> None:
    make_closed(users_root / name)
    with pytest.raises(UsageError, match=str(users_root / name)):
        scan_data(users_root, users_root.parent / "cache")


@GIT
@pytest.mark.parametrize("name", ["results/closed", "closed", "in/closed", "node_modules"])
def test_what_does_not_travel_need_not_be_read(name: str, git: bool, users_root: Path) -> None:
    (users_root / ".orchignore").write_text("closed/\n")
    if git:
        make_git(users_root)
    make_closed(users_root / name)
    assert paths(scanned(users_root)) == [".orchignore", "a.py"]
