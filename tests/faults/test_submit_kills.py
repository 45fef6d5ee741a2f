"""SIGKILL of the controller at each step of a submit, and at random moments."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import Desk
from tests.faults.tracing import EFFECTS, Step, orch_under, steps_of
from tests.faults.truth import MARK, assert_truthful, host_root, settled
from tests.helpers.sshd import PrivateSshd

pytestmark = pytest.mark.tracing

FILES = {f"pkg/m{n}.py": f"value = {n}\n" * 20 for n in range(20)}


def killed_at(desk: Desk, step: Step) -> bool:
    return orch_under(desk, step.kill(), "submit", "quick").returncode != 0


def chosen(steps: list[Step], full: bool, count: int) -> list[Step]:
    """All of them, or so many spread evenly, the last one among them."""
    return steps if full else steps[:: -max(1, len(steps) // count)]


def test_f48_a_submit_killed_at_every_call_that_leaves_a_trace(
    new_desk: MakeDesk, tmp_path: Path, full: bool
) -> None:
    desk = new_desk({"quick": MARK}, files=FILES)
    root = host_root(desk)
    desk.orch("submit", "quick", "-f")
    steps = steps_of(desk, tmp_path, EFFECTS, "submit", "quick")
    assert len(steps) > 40, "the trace is not that of a submit"
    killed = [step for step in chosen(steps, full, 25) if killed_at(desk, step)]
    assert len(killed) > 10
    settled(desk, root)
    assert_truthful(desk, root)
    desk.orch("submit", "quick", "-f")
    print(f"killed at {len(killed)} of {len(steps)} steps; {len(desk.rows())} runs")


def test_f48_the_very_first_submit_killed_at_every_call_that_leaves_a_trace(
    new_desk: MakeDesk, tmp_path: Path, full: bool
) -> None:
    """No agent, no store, no ledger yet: all of them are made on the way."""
    steps = steps_of(new_desk({"quick": MARK}, files=FILES), tmp_path, EFFECTS, "submit", "quick")
    killed = 0
    for number, step in enumerate(chosen(steps, full, 12)):
        desk = new_desk({"quick": MARK}, files=FILES)
        killed += killed_at(desk, step)
        settled(desk, host_root(desk))
        assert_truthful(desk, host_root(desk))
        desk.orch("submit", "quick", "-f")
        assert desk.show()["verdict"] == "succeeded", (number, step)
        # For room only; what a supervisor does after its run's end may still be going on there.
        shutil.rmtree(desk.home, ignore_errors=True)
    assert killed > 5
    print(f"killed at {killed} of {len(steps)} steps")


def test_f43_to_f48_a_submit_killed_at_random_moments(new_desk: MakeDesk, full: bool) -> None:
    desk = new_desk({"quick": MARK}, files=FILES)
    root = host_root(desk)
    desk.orch("submit", "quick", "-f")
    began = time.monotonic()
    desk.orch("submit", "quick")
    takes = time.monotonic() - began
    chance = random.Random(20261125)
    wanted, hit, tries = 500 if full else 20, 0, 0
    while hit < wanted:
        tries += 1
        assert tries <= 10 * wanted, "most submits end before they are killed"
        submit = desk.start("submit", "quick")
        time.sleep(chance.uniform(0.2, 1.0) * takes)  # the moment of the fault, not a wait for it
        os.killpg(submit.pid, signal.SIGKILL)
        submit.communicate(timeout=30)
        hit += submit.returncode == -signal.SIGKILL
    settled(desk, root)
    assert_truthful(desk, root)
    print(f"{hit} of {tries} were killed; {len(desk.rows())} runs")


@pytest.mark.ssh
def test_f48_a_submit_over_ssh_killed_at_calls_that_leave_a_trace(
    new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path, full: bool
) -> None:
    desk = new_desk({"quick": MARK}, host=box(sshd), ssh_config=sshd.client_config, files=FILES)
    desk.orch("submit", "quick", "-f")
    steps = steps_of(desk, tmp_path, EFFECTS, "submit", "quick")
    killed = [step for step in chosen(steps, full, 10) if killed_at(desk, step)]
    assert len(killed) > 4
    settled(desk, sshd.root_dir)
    assert_truthful(desk, sshd.root_dir)
    print(f"killed at {len(killed)} of {len(steps)} steps")
