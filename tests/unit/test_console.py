"""The process's edge: what an exception that nobody foresaw means for the caller."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
