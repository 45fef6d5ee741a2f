"""Kill a program at one exact system call, and know all the calls where that can be done."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.contract.desk import Desk
from tests.helpers.cli import TRACEBACK, orch_argv, orch_env

# What leaves something behind: on a disk, in a pipe, in another process. Between two of them a kill
# makes no difference to anyone else.
EFFECTS = (
    "write,pwrite64,writev,sendto,sendmsg,connect,shutdown,fsync,fdatasync,rename,renameat,link,"
    "linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,ftruncate,flock,kill,setsid,"
    "execve,fork,vfork,clone,clone3"
)


class Step(NamedTuple):
    """The n-th call of that name in one process, counted from 1."""

    call: str
    number: int

    def kill(self) -> list[str]:
        """A command line prefix: SIGKILL on entering the call, which is then not executed."""
        inject = f"inject={self.call}:signal=SIGKILL:when={self.number}"
        return ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={self.call}", "-e", inject]


def orch_under(
    desk: Desk, prefix: Sequence[str], *args: str, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """What `orch ARGS` did under a tracer; 137 or -9 if it was killed."""
    done = subprocess.run(
        [*prefix, *orch_argv(args)],
        cwd=desk.project,
        env=orch_env(desk.home, desk.env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert TRACEBACK not in done.stderr, done.stderr
    return done


def steps_of(desk: Desk, folder: Path, calls: str, *args: str) -> list[Step]:
    """The calls that the main thread of `orch ARGS` makes, in their order; it is not disturbed."""
    trace = folder / "trace"
    done = orch_under(desk, ["strace", "-qq", "-o", str(trace), "-e", f"trace={calls}"], *args)
    assert done.returncode == 0, done.stderr
    return list(read_steps(trace.read_text(errors="replace").splitlines()))


def read_steps(lines: list[str]) -> list[Step]:
    counted: Counter[str] = Counter()
    found = []
    for line in lines:
        call = re.match(r"([a-z0-9_]+)\(", line)
        if call:
            counted[call.group(1)] += 1
            found.append(Step(call.group(1), counted[call.group(1)]))
    return found


def steps_by_process(trace: Path) -> list[list[Step]]:
    """Of a trace with `-f`: the calls of each process, the first process first."""
    lines: dict[str, list[str]] = {}
    for line in trace.read_text(errors="replace").splitlines():
        pid, _, rest = line.partition(" ")
        lines.setdefault(pid, []).append(rest.strip())
    return [read_steps(each) for each in lines.values()]
