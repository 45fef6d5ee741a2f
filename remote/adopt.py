"""A new watcher for a job whose supervisor was killed: the job goes on, its end is recorded."""

from __future__ import annotations

import os
import select
import time
from typing import Any, Dict, Optional

from remote import files, gpu, keeper, ownership, procs, status
from remote.attempts import Attempt
from remote.causes import End
from remote.layout import Layout, RunFiles
from remote.leader import Ending, Leader
from remote.supervisor import Ended, Supervisor

REPORT_DEADLINE = 10.0


class Adopted(Leader):
    """A keeper that is no child of ours: whether it lives is looked up, and how the job ended is
    what it wrote."""

    poll = 1.0

    def __init__(self, run: RunFiles, job: Dict[str, Any]) -> None:
        super().__init__()
        self._run = run
        self._job = job
        if self._lives():
            self.pid = int(job["pid"])

    def _lives(self) -> bool:
        return procs.is_same(self._job.get("pid"), self._job.get("start_time"))

    def ending(self, pid: int) -> Optional[Ending]:
        if self._lives():
            return None
        if keeper.word(self._run) is None and status.tree_of(self._run).living():
            return None  # the keeper was killed too: it is over when nothing of the job is left
        return Ending(0, None)

    def reaped(self, pid: int) -> Optional[Ending]:
        word = keeper.word(self._run)
        return None if word is None else Ending(int(word["code"]), word.get("signal"))


class Watcher(Supervisor):
    """The owner of an adopted job; attempts that follow are its own."""

    def __init__(self, layout: Layout, run: RunFiles) -> None:
        order: Dict[str, Any] = files.read_json(run.order) or {}
        if order.get("secrets_named"):
            order["retry"] = None  # another attempt needs what only the submitter has
        job = files.read_json(run.job) or {}
        adopted = Attempt(run, order, Adopted(run, job), _deadline(job))
        super().__init__(layout, adopted, order, None)
        self.gpus = [gpu.Gpu(**card) for card in job.get("gpus") or []]

    def watch(self) -> None:
        """After this returns the exit record stands and every process of the run is gone."""
        if not self._has_begun():
            self.voice.say("the supervisor was killed before it had started the job")
        else:
            self.voice.say("the supervisor was killed; the job goes on and is watched again")
            self._stand_guard()
        self.live(self._watched)

    def _has_begun(self) -> bool:
        """Else what lives of the run are the tools that make its environment."""
        return files.read_json(self.run.job) is not None

    def _watched(self) -> End:
        if self._is_cancelled():
            return self._asked_to_end()
        try:
            if self._has_begun():
                self._wait(0, None)
        except Ended as ended:
            return ended.end
        self._tell_outlived()
        return status.end_without_supervisor(self.run)


def _deadline(job: Dict[str, Any]) -> Optional[float]:
    """When the job's time is up, on the monotonic clock; None: it has no limit."""
    if job.get("time_left") is None:
        return None
    passed = procs.since_boot() - float(job["since_boot"])
    return time.monotonic() + float(job["time_left"]) - passed


def take_over(layout: Layout, run_id: str) -> bool:
    """True once a watcher holds the lock of the run, whose job lives unowned; of two that try
    at once one does."""
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        try:
            _watch(layout, layout.run(run_id), write_end)
        finally:
            os._exit(1)
    os.close(write_end)
    try:
        ready, _, _ = select.select([read_end], [], [], REPORT_DEADLINE)
        return bool(ready and os.read(read_end, 1))
    finally:
        os.close(read_end)


def _watch(layout: Layout, run: RunFiles, report: int) -> None:
    if not ownership.take(layout, run, report, adopted_at=status.now()):
        os._exit(1)
    watcher = Watcher(layout, run)
    files.write_all(report, b"1")
    os.close(report)
    watcher.leave_login()
    watcher.watch()
    os._exit(0)


def owned_status(layout: Layout, run_id: str) -> Dict[str, Any]:
    """The run's status; a job found without its supervisor has a watcher afterwards."""
    known = status.status(layout, run_id)
    if known["phase"] == "unowned" and take_over(layout, run_id):
        known = status.status(layout, run_id)
    return known
