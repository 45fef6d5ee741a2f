"""A user's desk: a home, a project, a host to run on, and `orch` called as a program."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.helpers import processes
from tests.helpers.cli import assert_exit, run_orch, start_orch
from tests.helpers.project import JobText, make_project

WORK = """
import json, os, sys
print("first byte of the job", flush=True)
for step in range(1, 4):
    print(f"step {step}", flush=True)
names = [n for n in os.environ if n.startswith(("ORCH_", "CUDA_")) or n in ("GREETING", "TOKEN")]
told = {name: os.environ[name] for name in names}
told["cwd"], told["stdin"] = os.getcwd(), os.readlink("/proc/self/fd/0")
out = os.environ["ORCH_RESULTS_DIR"]
os.makedirs("results/sub", exist_ok=True)
with open("results/sub/env.json", "w") as file:
    json.dump(told, file)
config = json.load(open(os.environ["ORCH_CONFIG"]))
right = config["right"]
matrix = [[right, 50 - right], [50 - right, right]]
result = {"accuracy": right / 50, "confusion_matrix": matrix, "labels": ["neg", "pos"], "n": 100}
with open(os.path.join(out, "metrics.json"), "w") as file:
    json.dump(result, file)
print("last line without an end", end="", flush=True)
"""
WORK_LOG = b"first byte of the job\nstep 1\nstep 2\nstep 3\nlast line without an end"

TRAIN: Mapping[str, Any] = {
    "command": "python3 work.py",
    "config": {"right": 45, "lr": 1.0e-4},
    "env": {"GREETING": "h\u00e9llo $HOME 'quoted'"},
    "expect": {"accuracy": {"min": 0.85}, "predictions": "not-degenerate"},
}


class Desk:
    """`orch` of one user in one project."""

    def __init__(self, home: Path, project: Path, env: Mapping[str, str] | None = None) -> None:
        self.home, self.project = home, project
        self.env = dict(env or {})
        self._started: list[subprocess.Popen[str]] = []

    def orch(
        self, *args: str, code: int | None = 0, timeout: float = 60, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """What `orch ARGS` did; it ended with `code` (None: any) and without a traceback."""
        done = run_orch(
            args, home=self.home, project=self.project, env={**self.env, **env}, timeout=timeout
        )
        assert_exit(done, done.returncode if code is None else code)
        return done

    def start(self, *args: str, **streams: Any) -> subprocess.Popen[str]:
        """A running `orch ARGS`, in a process group of its own; `stdout`, `stderr`: else pipes."""
        running = start_orch(args, home=self.home, project=self.project, env=self.env, **streams)
        self._started.append(running)
        return running

    def end_started(self) -> None:
        """What a test that failed has left running, and its pipes."""
        for running in self._started:
            if running.poll() is None:
                running.kill()
                running.wait()
            for stream in (running.stdout, running.stderr):
                if stream is not None:
                    stream.close()

    def submit(self, *args: str, code: int = 0) -> str:
        """The id of a new run: the only thing on stdout."""
        done = self.orch("submit", *args, code=code)
        (line,) = done.stdout.splitlines()
        assert done.stdout == line + "\n"
        return line

    def show(self, *args: str) -> dict[str, Any]:
        return json.loads(self.orch("show", *args, "--json").stdout)

    def runs(self) -> list[dict[str, Any]]:
        return json.loads(self.orch("ls", "--json").stdout)

    def rows(self) -> list[tuple[str, str, str | None]]:
        """(run id, state, verdict) as the ledger file holds them, asked without `orch`."""
        path = self.home / "state" / "orch" / "ledger.db"
        if not path.exists():
            return []
        connection = sqlite3.connect(path)
        try:
            query = "SELECT run_id, state, verdict FROM runs ORDER BY run_id"
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def spec(self, job: str, spec: Mapping[str, Any] | str) -> None:
        """The job's file holds this from now on."""
        text = spec if isinstance(spec, str) else json.dumps(spec)
        (self.project / "jobs" / f"{job}.yaml").write_text(text)

    def results(self, job: str, run_id: str) -> Path:
        return self.project / "results" / job / run_id


def make_desk(
    folder: Path,
    jobs: Mapping[str, JobText] | None = None,
    *,
    host: Mapping[str, Any] | None = None,
    ssh_config: Path | None = None,
    git: bool = False,
    files: Mapping[str, str | bytes] | None = None,
) -> Desk:
    """A desk with a project whose default host is `box`, described by `host` (default: local)."""
    described = {"box": dict(host or {"transport": "local", "session": "plain"})}
    project = make_project(
        folder / "project",
        jobs or {"train": TRAIN},
        orch_yaml={"hosts": described, "default_host": "box"},
        files={"work.py": WORK, **(files or {})},
        git=git,
    )
    home = folder / "desk"
    home.mkdir()
    return Desk(home, project, {"ORCH_SSH_CONFIG": str(ssh_config)} if ssh_config else None)


def assert_clear(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The error names what it is about, and a next step stands on a line of its own."""
    said = done.stderr
    for word in words:
        assert word in said, f"{word!r} is not in:\n{said}"
    assert "internal error" not in said, said
    assert len(said.strip().splitlines()) >= 2, f"no next step:\n{said}"


def until(true: Callable[[], Any], seconds: float = 20, every: float = 0.05) -> Any:
    """The first true value of `true()`; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(every)
    return found


def take_away(folder: Path) -> None:
    """The folder is gone, also if what a run leaves beside its job is still being written there."""

    def is_gone() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    until(is_gone)


def of_run(run_id: str) -> list[int]:
    """Living processes that belong to the run: its job's, whoever started them."""
    return processes.with_environment("ORCH_RUN_ID", run_id)


def job_of(run_id: str) -> int:
    """The first process of the run's job: the one that no other started. Pids may have wrapped."""
    until(lambda: of_run(run_id))
    every = of_run(run_id)
    return next(pid for pid in every if processes.parent_of(pid) not in every)


def supervisor_of(run_folder: Path) -> int:
    """The pid of a run's supervisor, from the file it wrote."""
    path = run_folder / "supervisor.json"
    until(path.exists)
    return int(json.loads(path.read_text())["pid"])


def end_all(home: Path) -> None:
    """Everything started under this home is gone: jobs, supervisors, sessions' viewers."""
    left = processes.end(processes.with_environment("HOME", str(home)))
    assert not left, f"processes {left} did not end"


def is_root() -> bool:
    return os.geteuid() == 0
