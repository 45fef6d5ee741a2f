"""The first process of a job, or of a tool that prepares for it: every other one is below it."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from remote import files, procs, status
from remote.aside import Aside
from remote.causes import End
from remote.gpu import Gpu
from remote.layout import RunFiles

LEAVING = 0.5


class Ending(NamedTuple):
    """How a process ended; with a signal the code is 128 + its number, as shells have it."""

    code: int
    signal: Optional[int]


class Leader:
    """As its parent sees it; `remote.adopt` has the view of one who is not."""

    poll: Optional[float] = None  # seconds between two looks at it; None: the kernel tells

    def __init__(self) -> None:
        self.pid: Optional[int] = None  # of a job its keeper; not reaped before its tree is
        self.last: Optional[Ending] = None  # how the one before ended

    def ending(self, pid: int) -> Optional[Ending]:
        """How the child ended, if it did. It stays a zombie, so that its pid stays its own."""
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if info is None:
            return None
        if info.si_code == os.CLD_EXITED:
            return Ending(info.si_status, None)
        return Ending(128 + info.si_status, info.si_status)

    def outlived(self, run_id: str, aside: Aside) -> List[int]:
        """The processes of the run that are still there `LEAVING` s after its first one has ended:
        those that were about to end by themselves are none of them."""
        tree, until = self._tree(run_id, aside), time.monotonic() + LEAVING
        left = tree.living()
        while left and time.monotonic() < until:
            time.sleep(0.02)
            aside.reap()
            left = tree.living()
        return left

    def _tree(self, run_id: str, aside: Aside) -> procs.Tree:
        return procs.Tree(run_id, self.pid, [os.getpid(), *aside.pids])

    def clear(self, run_id: str, aside: Aside, grace: float) -> List[int]:
        """End what is left of the run, then let its first process go; pids that would not end."""
        left = procs.end_tree(self._tree(run_id, aside), grace, aside.reap)
        if self.pid is not None and not left:
            self.last = self.reaped(self.pid)
            self.pid = None
        return left

    def reaped(self, pid: int) -> Optional[Ending]:
        """How it ended, a keeper as its job did; it is no zombie any more."""
        ended = self.ending(pid)
        os.waitpid(pid, os.WNOHANG)
        return ended

    def told_in(self, end: End, run: RunFiles) -> End:
        """`end` with the code or signal of a job that was ended for a reason of ours; the verdict
        stays.

        One that never began has none, whatever tool of its set-up was ended.
        """
        if self.last is None or (end.exit_code, end.signal) != (None, None):
            return end
        if (files.read_json(run.job) or {}).get("phase") != "running":
            return end
        code = self.last.code if self.last.signal is None else None
        return end._replace(exit_code=code, signal=self.last.signal)


def spawning(cards: Sequence[Gpu], time_left: Optional[float]) -> Dict[str, Any]:
    """`job.json` before there is a job: what a watcher would need to know if the owner were killed
    in this moment. `time_left`: seconds of the run's limit from now, None without one."""
    return {
        "phase": "spawning",
        "gpus": [card._asdict() for card in cards],
        "time_left": time_left,
        "since_boot": procs.since_boot(),
    }


def record(
    run: RunFiles, pid: int, cards: Sequence[Gpu], time_left: Optional[float]
) -> Dict[str, Any]:
    """`job.json` with the job, each stage anew."""
    before = files.read_json(run.job) or {}
    return {
        **spawning(cards, time_left),
        "phase": "running",
        "pid": pid,
        "start_time": procs.start_time(pid),
        "started_at": before.get("started_at") or status.now(),
    }
