"""Work beside the job, in children of the supervisor: a slow tmux must not hold the job up."""

from __future__ import annotations

import os
import signal
from typing import Callable, List

from remote import procs


class Aside:
    def __init__(self) -> None:
        self.pids: List[int] = []

    def do(self, work: Callable[[], None]) -> int:
        """`work` is being done by a child, which holds no lock of ours; gives its pid."""
        pid = os.fork()
        if pid:
            self.pids.append(pid)
            return pid
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            procs.let_go()
            work()
        finally:
            os._exit(0)

    def wait_for(self, pid: int) -> None:
        """The child has ended."""
        if pid in self.pids:
            os.waitpid(pid, 0)
            self.pids.remove(pid)

    def reap(self) -> None:
        for pid in list(self.pids):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.pids.remove(pid)
