"""The job's parent. It waits for the job and writes down how it ended, whatever becomes of the
supervisor: the kernel tells an exit status to the parent alone, and only once.

It leads the session the job lives in, holds the GPU leases for as long as the job lives, and ends
as the job did, so that to the supervisor it looks like the job itself.
"""

from __future__ import annotations

import os
import resource
import signal
from typing import Any, Dict, Optional, Sequence

from remote import causes, files, procs
from remote.layout import RunFiles


def spawn(
    argv: Sequence[str],
    env: Dict[str, str],
    run: RunFiles,
    output: int,
    leases: Sequence[int],
    stage: Dict[str, Any],
) -> int:
    """Start `argv` below a keeper; returns the keeper's pid. OSError when exec fails.

    After its end `run.ended` holds `stage` with `code`, `signal` and `oom`: whether the kernel
    killed for memory meanwhile. On a full disk only the keeper's own end tells.
    """
    files.remove(run.ended)  # the stage before

    def work() -> None:
        os.setsid()
        before = causes.oom_kills()
        job = procs.spawn(argv, env, run.tree, output, own_session=False)
        procs.let_go(leases)
        _keep(job, run, stage, before)

    return procs.begin(argv[0], work)


def _keep(job: int, run: RunFiles, stage: Dict[str, Any], oom_before: int) -> None:
    # TERM and its like are blocked, as in the supervisor: they are for the job.
    _, status = os.waitpid(job, 0)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    code = os.WEXITSTATUS(status) if number is None else 128 + number
    oom = causes.oom_kills() > oom_before
    record = {**stage, "code": code, "signal": number, "oom": oom}
    try:
        files.write_json(run.ended, record, durable=False)
    except OSError:
        pass
    if number is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the job has left its core already
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        os.kill(os.getpid(), number)
    os._exit(code)


def word(run: RunFiles) -> Optional[Dict[str, Any]]:
    """What the keeper wrote of the last stage's end: `code`, `signal`, `oom`; None: nothing."""
    record = files.read_json(run.ended)
    if record is None or not isinstance(record.get("code"), int):
        return None
    return record
