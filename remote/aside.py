"""Work beside the job, in children of the supervisor: a slow tmux must not hold the job up."""

from __future__ import annotations

import os
import signal
from typing import Callable, List

from remote import procs


class Aside:
    def __init__(self) -> None:
        self.pids: List[int] = []

    def do(self, work: Callable[[], None]) -> None:
        """`work` is being done by a child, which holds no lock of ours; nobody waits for it."""
        pid = os.fork()
        if pid:
            self.pids.append(pid)
            return
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            procs.let_go()
            work()
        finally:
            os._exit(0)

    def reap(self) -> None:
        for pid in list(self.pids):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.pids.remove(pid)
