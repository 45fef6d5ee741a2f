"""SIGKILL of the agent and of the supervisor at each step of their work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.errors import HostUnfit, TransportError
from orchestrator.transport.base import Agent
from tests.contract import liar
from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, of_run, until
from tests.faults.hosts import Python
from tests.faults.tracing import EFFECTS, Step, steps_by_process
from tests.faults.truth import MARK, assert_truthful, host_root, marks, settled

pytestmark = pytest.mark.tracing


@pytest.mark.parametrize(("code", "words"), [(137, ""), (-9, ""), (1, "Traceback (most recent")])
def test_f46_an_agent_that_died_may_have_done_what_it_was_asked_to(code: int, words: str) -> None:
    """Its host is not called unfit, which would count as proof that nothing was started."""

    class Dead(liar.LyingPipe):
        def closing_words(self) -> tuple[int | None, str]:
            return code, words

    transport = liar.LyingTransport(lambda _request, _nonce: b"", Dead)
    with Agent(liar.HOST, transport) as agent, pytest.raises(TransportError) as caught:
        agent.call("start", {})
    assert not isinstance(caught.value, HostUnfit)


def traced(desk: Desk, python: Python, trace: Path, *args: str) -> list[list[Step]]:
    """The steps of each process on the host while `orch ARGS` runs to its end."""
    python.prefix("strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={EFFECTS}")
    desk.orch(*args)
    python.plain()
    until(lambda: not processes_under(trace))
    return steps_by_process(trace)


def processes_under(trace: Path) -> list[int]:
    """Tracers that still write this trace."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path("/proc", name, "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(trace) in words:
                found.append(int(name))
    return found


def spread(steps: list[Step], full: bool, count: int) -> list[Step]:
    return steps if full else steps[:: -max(1, len(steps) // count)]


def make_old(root: Path) -> None:
    """The host's patience with starts that have not come up yet is over."""
    for marker in (root / "runs").glob("*/started"):
        past = marker.stat().st_mtime - 3600
        os.utime(marker, (past, past))


def kill_everyone_at(desk: Desk, python: Python, step: Step, *args: str) -> None:
    """`orch ARGS` while each process on the host dies on entering its n-th such call."""
    inject = f"inject={step.call}:signal=SIGKILL:when={step.number}"
    python.prefix(
        "strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={step.call}", "-e", inject
    )
    desk.orch(*args, code=None)
    python.plain()


@pytest.mark.parametrize("whose", ["agent", "supervisor"])
def test_f46_f48_whoever_is_killed_on_the_host_at_a_start_no_run_is_misjudged(
    whose: str, new_desk: MakeDesk, tmp_path: Path, full: bool
) -> None:
    python = Python(tmp_path / "python")
    desk = new_desk({"quick": f"{MARK}; sleep 0.2"}, host=python.host)
    root = host_root(desk)
    desk.orch("submit", "quick", "-f")
    by_process = traced(desk, python, tmp_path / "trace", "submit", "quick", "-f")
    # The agent answers several requests here; its last calls belong to following the run.
    steps = by_process[0 if whose == "agent" else 1]
    assert len(steps) > 15, by_process
    began = len(marks(root))
    for step in spread(steps, full, 12):
        kill_everyone_at(desk, python, step, "submit", "quick")
    make_old(root)
    settled(desk, root)
    assert_truthful(desk, root, host_was_hurt=True)
    print(f"{whose}: {len(steps)} steps; {len(marks(root)) - began} jobs ran")
    desk.orch("submit", "quick", "-f")


def test_f24_f27_an_agent_killed_during_a_cancel_leaves_it_to_the_next(
    new_desk: MakeDesk, tmp_path: Path, full: bool
) -> None:
    python = Python(tmp_path / "python")
    desk = new_desk({"sleep": "sleep 600 & wait"}, host=python.host)
    run_id = desk.submit("sleep")
    (steps, *_) = traced(desk, python, tmp_path / "trace", "cancel", run_id)
    for step in spread(steps, full, 6):
        run_id = desk.submit("sleep")
        kill_everyone_at(desk, python, step, "cancel", run_id)
        desk.orch("cancel", run_id)
        assert of_run(run_id) == []
        assert desk.show(run_id)["verdict"] == "cancelled"
    assert_truthful(desk, host_root(desk), host_was_hurt=True)
