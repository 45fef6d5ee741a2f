"""Python environments of runs: what a host's python has, and the folder in which it is `python`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from remote import environment, files, satisfied
from remote.layout import Layout
from tests.helpers.lanes import find_python38


def code(folder: Path, *options: str, **texts: str) -> int:
    """How the question for `r.txt` ends; `texts` are files by their stem."""
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    python, *rest = satisfied.command(str(folder / "r.txt"))
    return subprocess.run([python, *options, *rest], stderr=subprocess.DEVNULL).returncode


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("pytest>=7,!=0.1 ; python_version >= '3'  # in any case\nPyTest\n", 0),
        ("--index-url https://x.invalid\n\n# pytest==0.1\npytest --hash=sha256:00\n", 0),
        ("pytest==0.1\n", 1),
        ("pytest==0.1 ; python_version < '3'\n", 0),
        ("no-such-package-at-all\n", 1),
        ("pytest\n-r more.txt\n", 1),
        ("pytest\n-c more.txt\n", 0),
        ("pluggy\n--constraint=bound.txt\n", 1),
        ("pytest\n-c bound.txt\n", 1),  # for what it needs itself, too
        ("pytest @ https://x.invalid/pytest.whl\n", 1),
        ("-e .\n", 1),
        ("what ?\n", 1),
    ],
)
def test_a_python_has_what_is_asked_for_or_not(text: str, answer: int, tmp_path: Path) -> None:
    more, bound = "no-such-package-at-all\n", "pluggy==0.1\n"
    assert code(tmp_path, r=text, more=more, bound=bound) == answer


def test_what_an_interrupted_pip_has_left_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "~ytest-1.0.dist-info").mkdir()
    (tmp_path / "numpy-99.dist-info").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert code(tmp_path, r="pytest\n") == 0
    assert code(tmp_path, r="numpy==99\n") == 1


def test_a_python_without_pip_cannot_tell(tmp_path: Path) -> None:
    assert code(tmp_path, "-S", r="pytest\n") == satisfied.CANNOT_TELL


@pytest.mark.py38
def test_the_oldest_python_can_tell_with_its_old_pip(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("pip\nsetuptools>=1\n")
    _, *rest = satisfied.command(str(tmp_path / "r.txt"))
    python = find_python38()
    assert python is not None
    assert subprocess.run([python, *rest]).returncode == 0
    (tmp_path / "r.txt").write_text("pip==0.1\n")
    assert subprocess.run([python, *rest]).returncode == 1


def test_a_shim_can_be_executed_from_its_first_moment_and_a_broken_one_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(str(tmp_path))
    layout.ensure()
    named: list[int] = []
    rename = os.rename

    def observed(source: str, target: str) -> None:
        named.append(os.stat(source).st_mode & 0o777)
        rename(source, target)

    monkeypatch.setattr(os, "rename", observed)
    python = Path(environment.shim(layout, sys.executable)) / "python"
    assert named == [0o700, 0o700]
    python.chmod(0o600)
    environment.shim(layout, sys.executable)
    assert python.stat().st_mode & 0o777 == 0o700


def test_machines_that_share_a_home_have_an_environment_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, texts = Layout(str(tmp_path)), [b"toolz==1.0\n"]

    def places() -> set[str]:
        found = set()
        for name in ("first", "second"):
            (tmp_path / name).write_text(name)
            monkeypatch.setenv("ORCH_MACHINE_ID_FILE", str(tmp_path / name))
            found.add(environment.place_of(layout, texts))
        return found

    assert len(places()) == 1  # a disk of its own: a new id is the same machine
    monkeypatch.setattr(files, "filesystem", lambda path: "nfs4")
    assert len(places()) == 2
