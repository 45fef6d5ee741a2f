"""Runs `orch` as a user would: a real process whose home, state and settings are its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "ORCH_DATA")
TRACEBACK = "Traceback (most recent call last)"


def orch_argv(args: Sequence[str]) -> list[str]:
    """The command line that runs this checkout's `orch`."""
    # Without -P the project's own `jobs` would come before the installed packages. It is not set
    # by PYTHONSAFEPATH, which the jobs of the host `local` would inherit.
    safe = ["-P"] if sys.version_info >= (3, 11) else []
    return [sys.executable, *safe, "-m", "orchestrator", *args]


def orch_env(home: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """A whole environment: nothing of the caller's but KEPT, everything else below `home`.

    State is in `home/state/orch` (ORCH_HOME), the ssh configuration in `home/.ssh/config`.
    `env` is laid over it.
    """
    return {
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        "HOME": str(home),
        "ORCH_HOME": str(home / "state" / "orch"),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_DATA_HOME": str(home / "share"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "NO_COLOR": "1",
        "COLUMNS": "160",
        **(env or {}),
    }


def run_orch(
    args: Sequence[str],
    *,
    home: Path,
    project: Path,
    env: Mapping[str, str] | None = None,
    input: str | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """What `orch ARGS` did, started in `project`; stdin is empty unless `input` is given.

    Raises subprocess.TimeoutExpired after `timeout` seconds, the process being dead then.
    """
    home.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        orch_argv(args),
        cwd=project,
        env=orch_env(home, env),
        input=input or "",
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def start_orch(
    args: Sequence[str],
    *,
    home: Path,
    project: Path,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """A running `orch ARGS` whose output is read and which is signalled by the caller.

    Its process group is its own, so that a Ctrl-C can be sent to it alone.
    """
    home.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        orch_argv(args),
        cwd=project,
        env=orch_env(home, env),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )


def assert_no_traceback(done: subprocess.CompletedProcess[str]) -> None:
    """Neither stream shows a traceback."""
    assert TRACEBACK not in done.stderr, told(done)
    assert TRACEBACK not in done.stdout, told(done)


def assert_exit(done: subprocess.CompletedProcess[str], code: int) -> None:
    """It ended with `code` and without a traceback; all it said is shown otherwise."""
    assert done.returncode == code, told(done)
    assert_no_traceback(done)


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The whole of what a process said, for a failing assertion."""
    words = " ".join(str(word) for word in done.args[1:])
    return f"{words}: exit {done.returncode}\n--stdout\n{done.stdout}\n--stderr\n{done.stderr}"
