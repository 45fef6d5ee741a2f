"""The GPU driver against torch's CUDA, with an nvidia-smi and a torch that the test made up."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from remote import environment
from remote.layout import Layout
from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, Desk, assert_clear

VERSION = """from typing import Optional
__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']
__version__ = '2.5.1'
debug = False
cuda: Optional[str] = {cuda!r}
hip: Optional[str] = None
"""
BROKEN = "raise SystemExit('imported')\n"  # what must not happen to torch


class Machine:
    """The folder first on the host's PATH: its python with a torch, its nvidia-smi."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "site" / "torch").mkdir(parents=True)
        (folder / "site" / "torch" / "__init__.py").write_text(BROKEN)
        self._write("python", f'PYTHONPATH={folder}/site exec "{sys.executable}" "$@"')

    def has(self, driver: str, cuda: str | None) -> None:
        self._write("nvidia-smi", f'echo "0, GPU-1, A100, 100, 24000, 0, {driver}"')
        (self.folder / "site" / "torch" / "version.py").write_text(VERSION.format(cuda=cuda))

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.folder / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


def desk_on(machine: Machine, new_desk: MakeDesk, **spec: Any) -> Desk:
    desk = new_desk({"train": {**TRAIN, **spec}})
    desk.env["PATH"] = f"{machine.folder}:{os.environ['PATH']}"
    return desk


def driver_checks(desk: Desk) -> list[tuple[str, str]]:
    told = json.loads(desk.orch("doctor", "--json").stdout)["checks"]
    return [(each["level"], each["text"]) for each in told if each["name"] == "driver"]


def test_a_driver_older_than_torchs_cuda_refuses_check_and_submit(
    machine: Machine, new_desk: MakeDesk
) -> None:
    machine.has("470.57.02", "12.4")
    setup = {"requirements": "requirements.txt"}
    desk = desk_on(machine, new_desk, resources={"gpus": 1}, setup=setup)
    (desk.project / "requirements.txt").write_text("torch==2.5.1\n")
    layout = Layout(str(desk.home / ".orch"))
    made = Path(environment.place_of(layout, [b"torch==2.5.1\n"]))  # as a run before this one did
    made.mkdir(parents=True)
    (made / "bin").symlink_to(machine.folder)
    (made / environment.COMPLETE).touch()
    words = ["torch 2.5.1 (CUDA 12.4)", "needs driver 525.60.13 or newer, box has 470.57.02"]
    assert_clear(desk.orch("submit", "train", code=5), *words)
    assert desk.rows() == []
    shown = desk.orch("check", "train", "--host", "box", code=5).stdout
    assert all(word in shown for word in words)
    told = driver_checks(desk)  # of the host's python and of the environment
    assert len(told) == 2
    assert all(level == "warn" and "needs driver 525.60.13" in text for level, text in told)


def test_a_driver_of_the_same_major_release_is_enough(machine: Machine, new_desk: MakeDesk) -> None:
    machine.has("525.60.13", "12.8")
    desk = desk_on(machine, new_desk, resources={"gpus": 1})
    assert "driver" not in desk.orch("check", "train", "--host", "box").stdout
    ((level, text),) = driver_checks(desk)
    assert level == "ok" and text.startswith("525.60.13 runs torch 2.5.1 (CUDA 12.8)")


@pytest.mark.parametrize("gpus", [1, "0-1"])
def test_a_run_that_may_do_without_this_torch_is_warned_and_goes_on(
    machine: Machine, new_desk: MakeDesk, gpus: object
) -> None:
    machine.has("470.57.02", "13.0")
    desk = desk_on(machine, new_desk, resources={"gpus": gpus})
    run_id = desk.submit("train")
    desk.orch("wait")
    found = {each["rule"]: each["severity"] for each in desk.show(run_id)["findings"]}
    assert found["driver"] == "warning"


def test_a_torch_without_cuda_is_told_to_a_run_that_needs_a_gpu(
    machine: Machine, new_desk: MakeDesk
) -> None:
    machine.has("580.65.06", None)
    desk = desk_on(machine, new_desk, resources={"gpus": 1})
    assert "built without CUDA" in desk.orch("check", "train", "--host", "box").stdout


def test_of_an_environment_that_is_still_to_be_made_nothing_is_said(
    machine: Machine, new_desk: MakeDesk
) -> None:
    machine.has("470.57.02", "12.4")
    setup = {"requirements": "requirements.txt"}
    desk = desk_on(machine, new_desk, resources={"gpus": 1}, setup=setup)
    (desk.project / "requirements.txt").write_text("no-such-package-at-all==1\n")
    assert "driver" not in desk.orch("check", "train", "--host", "box").stdout
