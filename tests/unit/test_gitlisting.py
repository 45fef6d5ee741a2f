"""Where git refuses to say what it ignores, nothing is taken for the project's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator import gitlisting
from orchestrator.errors import UsageError
from orchestrator.gitlisting import GitListing
from tests.helpers.project import commit_all, run_git


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project in a folder of a repository."""
    (tmp_path / "p" / "sub").mkdir(parents=True)
    (tmp_path / "p" / "sub" / "a.py").write_text("a\n")
    (tmp_path / "p" / ".gitignore").write_text("private\n")
    run_git(tmp_path / "p", "init", "-q", "-b", "main")
    commit_all(tmp_path / "p", "begin")
    return tmp_path / "p" / "sub"


def refusal(root: Path) -> str:
    with pytest.raises(UsageError) as caught:
        GitListing(root).paths()
    hint = caught.value.hint or ""
    assert f"{root.parent}/.git away" in hint and ".orchignore" in hint
    return caught.value.message


def test_a_listing_is_read_as_often_as_it_is_asked_for(root: Path) -> None:
    listing = GitListing(root)
    assert listing.paths() == listing.paths() == [b"a.py"]
    assert listing.state().dirty is False


def test_a_repository_of_somebody_else_is_refused_in_gits_words(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(root.parent, 12345, 12345)
    assert "detected dubious ownership" in refusal(root)


def test_a_damaged_repository_is_refused(root: Path) -> None:
    (root.parent / ".git" / "HEAD").write_text("")
    assert "not a git repository" in refusal(root)


def test_a_repository_without_a_git_program_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(root))
    assert "not installed" in refusal(root)


def test_a_git_that_does_not_end_is_ended_and_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(gitlisting, "DEADLINE", 0.1)
    assert "did not end within 0.1 s" in refusal(root)


@pytest.mark.parametrize("program", [True, False])
def test_no_repository_is_no_refusal_whether_git_is_there_or_not(
    program: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()  # empty: git passes it by
    if not program:
        monkeypatch.setenv("PATH", str(tmp_path))
    listing = GitListing(tmp_path)
    assert listing.paths() is None
    assert listing.state().commit is None
