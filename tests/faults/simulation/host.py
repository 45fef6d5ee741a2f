"""The host of the simulation: what the agent and the supervisor stand on, replaced by the world."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from remote import (
    adopt,
    aside,
    causes,
    ending,
    environment,
    files,
    keeper,
    leader,
    ownership,
    procs,
    results,
    session,
    start,
    status,
    stream,
    supervisor,
    voice,
)
from remote.layout import Layout, RunFiles
from tests.faults.simulation.world import EPOCH, Exited, World

METRICS = [
    '{"accuracy": 0.75, "n": 4}', '{"accuracy": 0.5}', '{"accuracy": NaN}', '{"accuracy": 97}',
    '{"accuracy": "0.9"}', '{"accuracy": 1e999}', "", "{torn", '{"loss": 1}', None,
]  # fmt: skip


@dataclass
class Job:
    """A job's process tree. It runs until the world ends it."""

    run: RunFiles
    pid: int
    born: int
    ended: leader.Ending | None = None
    metrics: str | None = None


class Host:
    """Its processes and its files below `root`; `starts` counts how often a run's job began."""

    def __init__(self, world: World, root: str) -> None:
        self.world, self.root = world, root
        self.boot = 1
        self.jobs: list[Job] = []
        self.starts: Counter[str] = Counter()
        self.reports: dict[int, bytearray] = {}
        self.reporters: dict[int, Any] = {}
        self.logs: list[int] = []  # descriptors of every supervisor there was
        self.adopted: set[str] = set()  # runs whose job got a new watcher
        self.written: defaultdict[str, set[str]] = defaultdict(set)  # result file -> its contents

    def time(self) -> float:
        return EPOCH.timestamp() + self.world.seconds + self.world.skew

    def living(self, run_id: str | None = None) -> list[Job]:
        return [j for j in self.jobs if j.ended is None and run_id in (None, j.run.run_id)]

    def begin(self, run: RunFiles) -> int:
        """The job's first process; it has written part of its results already."""
        job = Job(run, self.world.new_pid(), self.world.ticks())
        self.jobs.append(job)
        self.starts[run.run_id] += 1
        self.world.note(f"JOB of {run.run_id} begins")
        if self.world.dice.random() < 0.3:
            self._result(run, "model.bin", self.world.dice.randbytes(140_000))
        return job.pid

    def end(self, job: Job, code: int, signal: int | None = None) -> None:
        """The job ends; in its last moments it writes its metrics, if it gets the time."""
        if signal is None:
            job.metrics = self.world.dice.choice(METRICS)
            if job.metrics is not None:
                self._result(job.run, "metrics.json", job.metrics.encode())
        job.ended = leader.Ending(code, signal)
        word = {"stage": "main", "last": True, "code": code, "signal": signal, "oom": False}
        with open(job.run.ended, "w") as file:  # the keeper's, who outlives the supervisor
            json.dump(word, file)
        self.world.note(f"JOB of {job.run.run_id} ends: {job.ended}")

    def _result(self, run: RunFiles, name: str, content: bytes) -> None:
        with open(os.path.join(run.results, name), "wb") as file:
            file.write(content)
        self.written[f"{run.run_id}/{name}"].add(hashlib.sha256(content).hexdigest())

    def restart(self) -> None:
        """Every process of the host is gone; its files stay."""
        self.world.note("REBOOT")
        self.boot += 1
        self.adopted.clear()
        for process in self.world.processes:
            if process.where != "controller":
                self.world.kill(process)
        for job in self.living():
            job.ended = leader.Ending(128 + 9, 9)

    # --- processes --------------------------------------------------------------------------------

    def is_same(self, pid: object, started: object) -> bool:
        here = [
            (p.pid, p.born) for p in self.world.processes if p.where == "supervisor" and p.alive
        ]
        return (pid, started) in [*here, *((j.pid, j.born) for j in self.living())]

    def start_time(self, pid: int) -> int | None:
        found = [p.born for p in self.world.processes if p.pid == pid]
        return (found or [j.born for j in self.jobs if j.pid == pid] or [None])[0]

    def send(self, pid: int, number: int) -> None:
        for process in self.world.processes:
            if process.pid == pid and process.alive:
                process.asked_to_end = True

    def spawn(self, argv: Any, env: dict[str, str], run: RunFiles, *_: Any) -> int:
        self.world.point("forks the job")
        pid = self.begin(run)
        self.world.point("has forked the job")
        return pid

    def end_tree(self, tree: Any, *_: Any) -> list[int]:
        self.world.point(f"ends what is left of {tree.run_id}")
        for job in self.living(tree.run_id):
            self.end(job, 143, 15)
        self.world.point(f"has ended what was left of {tree.run_id}")
        return []

    # --- the supervisor ---------------------------------------------------------------------------

    def fork_supervisor(self, layout: Layout, run: RunFiles, order: dict[str, Any]) -> int:
        fd = 2_000_000 + len(self.reports)
        self.reports[fd] = bytearray()
        self.reporters[fd] = self.world.spawn(
            "supervisor", lambda: supervisor.supervise(layout, run, order, fd)
        )
        self.world.point("has forked the supervisor")
        return fd

    def first_report(self, fd: int) -> dict[str, Any] | None:
        told = self.reports[fd]
        self.world.wait(lambda: b"\n" in told or not self.reporters[fd].alive, 20.0)
        return json.loads(told) if b"\n" in told else None

    def take_over(self, layout: Layout, run_id: str) -> bool:
        fd = 2_000_000 + len(self.reports)
        self.reports[fd] = bytearray()
        watcher = self.world.spawn(
            "supervisor", lambda: adopt._watch(layout, layout.run(run_id), fd)
        )
        self.world.wait(lambda: bool(self.reports[fd]) or not watcher.alive, 10.0)
        if self.reports[fd]:
            self.world.note(f"ADOPTED {run_id}")
            self.adopted.add(run_id)
        return bool(self.reports[fd])

    def tree(self, run_id: str, *_: Any) -> Any:
        return SimpleNamespace(
            run_id=run_id, living=lambda: [job.pid for job in self.living(run_id)]
        )

    def lock_alive(self, path: str, _beat: Any, shared: bool = False) -> int:
        """None here is alone with a config (`--unique`), so those that share it never wait."""
        return os.open(os.devnull, os.O_RDONLY) if shared else self.world.lock(path)

    def lock_within(self, path: str, seconds: float) -> int | None:
        self.world.wait(lambda: path not in self.world.locks, seconds)
        return self.world.try_lock(path)

    def wait_for_job(self, owner: supervisor.Supervisor, pid: int | None) -> leader.Ending:
        # A watcher is no parent: it knows the run, and of that the job.
        (job,) = [j for j in self.jobs if pid in (j.pid, 0) and j.run.run_id == owner.run.run_id]
        me = self.world.current
        assert me is not None
        self.world.wait(lambda: me.asked_to_end or job.ended is not None, None)
        if me.asked_to_end:
            me.asked_to_end = False
            raise supervisor.Ended(owner._asked_to_end())
        assert job.ended is not None
        return job.ended

    def clear_tree(self, owner: supervisor.Supervisor) -> list[int]:
        return self.end_tree(SimpleNamespace(run_id=owner.run.run_id))


@contextmanager
def installed(host: Host) -> Iterator[None]:
    """Meanwhile everything below the agent is the world's, in this process."""
    swaps = _swaps(host)
    before = [(place, name, getattr(place, name)) for place, name, _ in swaps]
    for place, name, value in swaps:
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
        for log in host.logs:  # a supervisor's end would have closed its own
            os.close(log)


def _swaps(host: Host) -> list[tuple[Any, str, Any]]:
    """(module or class, name, what stands for it)."""
    world, owner = host.world, supervisor.Supervisor
    clock = SimpleNamespace(time=host.time, gmtime=time.gmtime, strftime=time.strftime)

    def close(fd: int) -> None:
        if fd not in host.reports and not world.unlock(fd):
            _REAL["close"](fd)

    def open_log(self: voice.Voice, *args: Any) -> None:
        _REAL["voice"](self, *args)
        host.logs.append(self.log)

    def write_all(fd: int, data: bytes) -> None:
        if fd in host.reports:
            host.reports[fd] += data
        else:
            _REAL["write_all"](fd, data)

    return [
        (os, "close", close),
        (os, "getpid", lambda: world.current.pid if world.current else _REAL["getpid"]()),
        (os, "_exit", _exit),
        *[(files, name, _observed(host, name)) for name in ("write_atomic", "write_once")],
        (files, "remove", _observed(host, "remove")),
        (files, "write_all", write_all),
        (files, "try_lock", world.try_lock),
        (files, "lock", world.lock),
        (files, "lock_within", host.lock_within),
        (files, "lock_alive", host.lock_alive),
        (files, "note", lambda _held, _text: None),
        (files, "is_locked", lambda path: path in world.locks),
        (files, "filesystem", lambda path: "local"),
        (files, "free_bytes", lambda path: 1 << 40),
        (files, "sync_dir", lambda path: None),
        (procs, "boot_id", lambda: f"boot-{host.boot}"),
        (procs, "since_boot", world.monotonic),
        (procs, "is_same", host.is_same),
        (procs, "start_time", host.start_time),
        (procs, "send", host.send),
        (keeper, "spawn", host.spawn),
        (procs, "end_tree", host.end_tree),
        (procs, "tagged", lambda run_id: [job.pid for job in host.living(run_id)]),
        (procs, "Tree", host.tree),
        (procs, "in_child", lambda work: work()),
        (status, "time", clock),
        (ending, "time", SimpleNamespace(monotonic=world.monotonic)),
        (stream, "Watch", lambda run, control: _Watch(world)),
        (session, "choose", lambda wanted: "plain"),
        (environment, "search_path", lambda *_: "/bin"),
        (causes, "oom_kills", lambda: 0),
        (causes, "in_log", lambda log: []),
        (start, "_fork_supervisor", host.fork_supervisor),
        (start, "_first_report", host.first_report),
        (owner, "_wait", lambda self, pid, seconds: host.wait_for_job(self, pid)),
        (voice.Voice, "__init__", open_log),
        (owner, "_clear_tree", lambda self: host.clear_tree(self)),
        (aside.Aside, "do", lambda self, work: 0),
        (adopt, "take_over", host.take_over),
        (ownership, "detach", lambda report: world.point("has left the agent")),
        (results, "SMALL", 64 * 1024),
        (results, "CHUNK", 16 * 1024),
    ]


_REAL: dict[str, Callable[..., Any]] = {
    "close": os.close, "getpid": os.getpid, "write_all": files.write_all,
    "write_atomic": files.write_atomic, "write_once": files.write_once, "remove": files.remove,
    "voice": voice.Voice.__init__,
}  # fmt: skip


def _exit(code: int) -> None:
    raise Exited


def _observed(host: Host, name: str) -> Callable[..., Any]:
    """A primitive of `files` with a point before and after it."""

    def call(path: str, *args: Any, **options: Any) -> Any:
        what = f"{name} {path[len(host.root) + 1 :]}"
        host.world.point(what)
        done = _REAL[name](path, *args, **options)
        host.world.point(f"done {what}")
        return done

    return call


class _Watch:
    """`stream.Watch` without inotify: it wakes when the controller speaks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._spoken: Callable[[], bool] = world.current.channel.spoken  # type: ignore[union-attr]

    def wait(self, seconds: float) -> bool:
        return self._world.wait(self._spoken, seconds)

    def close(self) -> None:
        pass
