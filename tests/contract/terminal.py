"""`orch` on a terminal of its own."""

from __future__ import annotations

import os
import pty
import select
import signal
import time

from tests.contract.desk import Desk
from tests.helpers.cli import orch_argv, orch_env


def attached(desk: Desk, word: str, seconds: float = 20, **more: str) -> str:
    """`shown` of `orch attach`."""
    return shown(desk, ["attach"], word, seconds, **more)


def shown(desk: Desk, words: list[str], word: str, seconds: float = 20, **more: str) -> str:
    """What the terminal of `orch WORDS` showed until `word` came or the time was over.

    `more`: of its environment.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(desk.project)
        env = orch_env(desk.home, {**desk.env, "TERM": "xterm", **more})
        os.execve(orch_argv([])[0], orch_argv(words), env)
    seen = b""
    end = time.monotonic() + seconds
    while word.encode() not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 0.5)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                break
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(terminal)
    return seen.decode(errors="replace")
