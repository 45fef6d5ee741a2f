"""`make retrain` and `make results` call the programs, in whose place a recorder stands."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"
RECORDER = '#!/bin/sh\necho "${0##*/} $*" >>calls\ncase $1 in submit) exit $CODE ;; esac\n'
CHANCE = {"HOST": "x86_64-conda-linux-gnu", "PROFILE": "a", "JOB": "b", "DATA": "c"}

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout whose environments are made."""
    shutil.copy(MAKEFILE, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).touch()
    for name in ("venv", "dev", "jobs"):
        (tmp_path / ".venv" / f".stamp-{name}").touch()
    for name in ("orch", "python"):
        (tmp_path / ".venv" / "bin" / name).write_text(RECORDER)
        (tmp_path / ".venv" / "bin" / name).chmod(0o755)
    return tmp_path


def calls(folder: Path, *words: str, code: int = 0, **env: str) -> list[str]:
    subprocess.run(
        ["make", *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "CODE": str(code), **env},
        capture_output=True,
        check=code == 0,
    )
    return (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["retrain"], "orch submit mdlm-pretrained-fixed --host local --profile cpu -f"),
        (["retrain", "HOST=h", "JOB=j", "PROFILE=p"], "orch submit j --host h --profile p -f"),
        (["results"], "python -m jobs.results --run --data sst2 --profile cpu --host local"),
        (
            ["results", "DATA=d", "HOST=h", "RESULTS_ARGS=--redo"],
            "python -m jobs.results --run --data d --profile cpu --host h --redo",
        ),
    ],
)
def test_what_the_environment_has_by_chance_is_not_meant(
    words: list[str], first: str, folder: Path
) -> None:
    assert calls(folder, *words, **CHANCE)[0] == first


@pytest.mark.parametrize(("code", "more"), [(0, 2), (1, 2), (7, 2), (2, 0), (6, 0), (70, 0)])
def test_only_a_verdict_is_followed_by_a_fetch(code: int, more: int, folder: Path) -> None:
    assert len(calls(folder, "retrain", code=code)) == 1 + more
