"""The projects and the `orch` processes other tests are built on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.strictyaml import load_file
from tests.helpers.cli import assert_exit, assert_no_traceback, orch_env
from tests.helpers.project import commit_all, make_project, run_git


def test_a_made_project_is_a_clean_repository_with_its_jobs(tmp_path: Path) -> None:
    root = make_project(
        tmp_path / "p",
        {"a": "echo hi", "b": ["echo", "no"], "c": {"command": "true", "config": {"lr": 1e-4}}},
        files={"src/x.bin": b"\0\r\n"},
    )
    assert run_git(root, "status", "--porcelain") == ""
    assert (root / "src/x.bin").read_bytes() == b"\0\r\n"
    assert load_file(root / "jobs/b.yaml", shown="x").value == {"command": ["echo", "no"]}
    assert load_file(root / "jobs/c.yaml", shown="x").value["config"] == {"lr": 1e-4}
    (root / "new").write_text("x")
    assert commit_all(root, "more") == run_git(root, "rev-parse", "HEAD").strip()
    assert run_git(root, "status", "--porcelain") == ""


def test_a_plain_project_is_no_repository(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p", {}, orch_yaml={"name": "plain"}, git=False)
    assert not (root / ".git").exists()
    assert load_file(root / "orch.yaml", shown="x").value == {"name": "plain"}


def test_orch_gets_nothing_of_the_callers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_HOST", "of-the-caller")
    env = orch_env(tmp_path, {"EXTRA": "1"})
    assert "ORCH_HOST" not in env
    assert env["EXTRA"] == "1"
    assert env["PATH"] == os.environ["PATH"]
    assert all(env[name].startswith(str(tmp_path)) for name in ("HOME", "ORCH_HOME"))


def test_a_traceback_is_noticed_even_when_the_exit_code_fits() -> None:
    argv = [sys.executable, "-c", "raise RuntimeError('seen')"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    with pytest.raises(AssertionError, match="seen"):
        assert_exit(done, 1)
    with pytest.raises(AssertionError, match="seen"):
        assert_no_traceback(done)
