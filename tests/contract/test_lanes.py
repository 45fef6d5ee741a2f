"""A lane that cannot run is named with its reason, and fails the session where CI is set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import pytest

@pytest.mark.data
def test_that_needs_data():
    pass

@pytest.mark.slow
def test_that_is_slow():
    pass
"""


def run_lanes(
    folder: Path, *options: str, ci: str | None = None, data: Path | None = None
) -> tuple[int, str]:
    """Exit status and output of a session over TESTS, with the lanes of this project."""
    (folder / "test_sample.py").write_text(TESTS)
    env = {k: v for k, v in os.environ.items() if k not in ("CI", "ORCH_DATA")}
    env |= {"CI": ci} if ci is not None else {}
    env |= {"ORCH_DATA": str(data)} if data is not None else {}
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    argv += ["-c", os.devnull, "--rootdir", str(folder), str(folder), *options]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180)
    return done.returncode, done.stdout


def test_a_skipped_lane_is_named_with_its_reason(tmp_path: Path) -> None:
    code, said = run_lanes(tmp_path)
    assert code == 0
    assert "data      skipped 1: ORCH_DATA is not set" in said
    assert "slow      ran 1" in said
    assert "torch     no tests selected" in said


def test_a_skipped_lane_fails_ci(tmp_path: Path) -> None:
    code, said = run_lanes(tmp_path, ci="true")
    assert code == 1
    assert "FAILED: CI is set and lanes were skipped: data" in said


@pytest.mark.parametrize(("options", "ci"), [(("-m", "slow"), "true"), ((), "false")])
def test_ci_asks_only_for_lanes_that_were_selected(
    tmp_path: Path, options: tuple[str, ...], ci: str
) -> None:
    code, said = run_lanes(tmp_path, *options, ci=ci)
    assert code == 0, said


def test_a_lane_whose_needs_are_met_runs(tmp_path: Path) -> None:
    (tmp_path / "sst2").mkdir()
    code, said = run_lanes(tmp_path, ci="true", data=tmp_path)
    assert code == 0
    assert "data      ran 1" in said
