"""The process's edge: what an exception that nobody foresaw means for the caller."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.cli import orch_argv, orch_env

PROGRAM = """
import typer
from orchestrator.console import fail_softly, run_main
app = typer.Typer()
@app.command()
@fail_softly
def fail():
    raise RuntimeError("nobody foresaw this")
run_main(app)
"""


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_fault_of_orch_itself_is_no_verdict_on_a_run(debug: str) -> None:
    argv = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(argv, env={"ORCH_DEBUG": debug}, capture_output=True, text=True)
    assert done.returncode == 70
    assert "internal error: RuntimeError: nobody foresaw this" in done.stderr
    assert ("Traceback" in done.stderr) == bool(debug)


def test_completion_is_installed_for_orch_however_it_was_called(tmp_path: Path) -> None:
    argv = ["bash", "-c", '"$@" --install-completion; exit $?', "bash", *orch_argv([])]
    done = subprocess.run(argv, env=orch_env(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / ".bash_completions").iterdir()
    assert made.name == "orch.sh"
    assert "_ORCH_COMPLETE=complete_bash" in made.read_text()


def test_completion_takes_no_name_of_a_shell(tmp_path: Path) -> None:
    argv = orch_argv(["--install-completion", "tcsh"])
    done = subprocess.run(argv, env=orch_env(tmp_path), capture_output=True, text=True)
    assert done.returncode == 2
    assert "takes no word" in done.stderr
    assert list(tmp_path.iterdir()) == []
