"""What an owner of a run takes from one attempt to the next, and from the owner before it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from remote import adopt, attempts, ending, files, gpu, keeper, procs, status
from remote.attempts import Attempt
from remote.causes import End
from remote.layout import Layout, RunFiles
from remote.supervisor import Supervisor

RUN_ID = "20261123-091929-123k3x7q"
AGAIN = End("failed", "exit", 75)
ORDER: dict[str, Any] = {"retry": {"exit": [75], "max": 3}, "time": 5, "stages": []}
CARD = gpu.Gpu(0, "GPU-1", "card", 0, 10, 0, "5")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "root"))
    made.ensure()
    run = made.attempt(RUN_ID, 1)
    os.mkdir(run.path)
    files.write_json(run.order, ORDER)
    assert attempts.mark_begun(run)
    return made


def verdicts(run: RunFiles) -> dict[str, str]:
    found = Path(run.path).glob("exit*.json")
    return {path.name: json.loads(path.read_text())["verdict"] for path in found}


def test_the_time_and_the_grace_of_an_attempt_are_over_with_it(layout: Layout) -> None:
    run = layout.attempt(RUN_ID, 1)
    order = {**ORDER, "grace": 300}
    owner = Supervisor(layout, Attempt(run, order), order, None)
    owner.attempt.deadline = 1.0
    assert owner._asked_to_end().verdict == "killed"
    assert owner.attempt.grace == 300.0
    assert owner._over(AGAIN)
    assert owner.run.attempt == 2
    assert owner.attempt.deadline is None
    assert owner.attempt.grace == attempts.GRACE
    assert owner._wait(None, 0.0) is None  # nothing of the set-up runs out of time


def test_what_sweeps_old_files_away_finds_the_locks_of_a_run_touched(layout: Layout) -> None:
    run = layout.attempt(RUN_ID, 1)
    owner = Supervisor(layout, Attempt(run, ORDER), ORDER, None)
    owner.gpus = [CARD]
    locks = [Path(layout.lock(name)) for name in (RUN_ID + ".lock", gpu.lock_name(CARD))]
    for path in locks:
        path.touch()
        os.utime(path, (0, 0))
    owner.touch_at = 0.0
    owner._wait(None, 0.0)
    assert all(path.stat().st_mtime > 0 for path in locks)
    assert owner.touch_at > 0, "not at each turn of the wait"


def test_a_watcher_has_the_gpus_and_the_time_of_the_job_it_found(layout: Layout) -> None:
    run = layout.attempt(RUN_ID, 1)
    job = {"phase": "running", "gpus": [CARD._asdict()], "time_left": 1e6,
           "since_boot": procs.since_boot()}  # fmt: skip
    files.write_json(run.job, job)
    watcher = adopt.Watcher(layout, run)
    assert watcher.gpus == [CARD]
    assert watcher.attempt.deadline is not None


def test_a_job_adopted_in_the_moment_of_its_spawn_has_its_time_limit_and_gpus(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = layout.attempt(RUN_ID, 1)
    order = {**ORDER, "stages": [{"name": "main", "argv": ["true"]}]}
    owner = Supervisor(layout, Attempt(run, order), order, None)
    owner.gpus = [CARD]

    def killed(*_: object) -> int:
        raise InterruptedError

    monkeypatch.setattr(keeper, "spawn", killed)
    with pytest.raises(InterruptedError):
        owner._stages("/bin")
    watcher = adopt.Watcher(layout, run)
    assert watcher.gpus == [CARD]
    assert watcher.attempt.deadline == pytest.approx(owner.attempt.deadline, abs=1)


def test_an_attempt_that_follows_has_a_reserve_for_its_end_too(layout: Layout) -> None:
    run = layout.attempt(RUN_ID, 1)
    owner = Supervisor(layout, Attempt(run, ORDER), ORDER, None)
    for number in (1, 2):
        files.remove(run.reserve)  # it was freed for the end of the attempt before
        assert owner._over(AGAIN)
        assert owner.run.attempt == number + 1
        assert os.path.getsize(run.reserve) == attempts.RESERVE


def test_a_cancel_of_the_attempt_that_was_adopted_also_ends_the_one_that_follows(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = layout.attempt(RUN_ID, 1)
    monkeypatch.setattr(adopt.Watcher, "_watched", lambda self: AGAIN)

    def fresh(self: Supervisor) -> End:
        Path(run.cancel).touch()  # its mark was made while the second began
        return self._asked_to_end()

    monkeypatch.setattr(Supervisor, "_fresh", fresh)
    adopt.Watcher(layout, run).watch()
    assert verdicts(run) == {"exit.json": "failed", "exit.2.json": "cancelled"}


def test_an_owner_whose_name_found_no_room_is_asked_to_end_by_its_locks_word(
    layout: Layout,
) -> None:
    held = files.try_lock(layout.lock(RUN_ID + ".lock"))
    assert held is not None
    with subprocess.Popen(["sleep", "60"]) as owner:
        known = {"pid": owner.pid, "start_time": procs.start_time(owner.pid)}
        files.note(held, json.dumps(known))
        ending._ask(layout, RUN_ID)
        assert owner.wait(20) == -signal.SIGTERM
    os.close(held)


@pytest.mark.parametrize(("age", "phase"), [(0, "starting"), (60, "finished"), (-60, "finished")])
def test_f31_whether_a_start_is_overdue_is_no_matter_of_the_wall_clock(
    age: float, phase: str, layout: Layout
) -> None:
    run = layout.attempt(RUN_ID, 1)
    marker = json.loads(Path(run.started).read_text())
    marker["since_boot"] -= age
    Path(run.started).write_text(json.dumps(marker))
    day = os.stat(run.started).st_mtime + (-86400 if phase == "starting" else 86400)
    os.utime(run.started, (day, day))
    assert status.status(layout, RUN_ID)["phase"] == phase
