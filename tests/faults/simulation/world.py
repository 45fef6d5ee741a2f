"""Processes of which exactly one runs at a time; the dice say which, and what befalls them."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from greenlet import getcurrent, greenlet

EPOCH = datetime(2026, 11, 25, tzinfo=timezone.utc)
PREEMPTED = 0.4  # chance that another one goes on at a point


class Killed(BaseException):
    """This process is no more: nothing it does from here on has an effect."""


class Exited(BaseException):
    """It left by `_exit`."""


class Process:
    """One simulated process. `where`: controller, agent, supervisor."""

    def __init__(self, world: World, where: str, pid: int, work: Callable[[], None]) -> None:
        self.world, self.where, self.pid = world, where, pid
        self.born = world.ticks()
        self.dead = self.done = False
        self.asked_to_end = False
        self.channel: Any = None  # an agent's end of its connection
        self.ready: Callable[[], bool] = lambda: True
        self.until: float | None = None
        self._work = work
        self.line = greenlet(self._run, world.main)

    @property
    def alive(self) -> bool:
        return not self.dead and not self.done

    def _run(self) -> None:
        try:
            if not self.dead:
                self._work()
        except (Killed, Exited):
            pass
        finally:
            self.done = True
            self.world.forget(self)


class World:
    """Time, dice and processes. `log` is the history: (seconds, what was done)."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.seconds = 0.0
        self.skew = 0.0  # of the host's wall clock
        self.processes: list[Process] = []
        self.current: Process | None = None
        self.main = getcurrent()
        self.log: list[tuple[float, str]] = []
        self.locks: dict[str, Process] = {}
        self.fds: dict[int, str] = {}
        self._pids = 1000
        self._next_fd = 1_000_000
        self.befall: Callable[[], None] = lambda: None

    # --- clocks -----------------------------------------------------------------------------------

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def ticks(self) -> int:
        return int(self.seconds * 100)

    # --- processes --------------------------------------------------------------------------------

    def spawn(self, where: str, work: Callable[[], None]) -> Process:
        process = Process(self, where, self.new_pid(), work)
        self.processes.append(process)
        return process

    def new_pid(self) -> int:
        self._pids += 1
        return self._pids

    def kill(self, process: Process) -> None:
        """SIGKILL: it is dead at once, the kernel takes back its locks."""
        if process.alive:
            self.note(f"KILL {process.where} {process.pid}")
            process.dead = True
            self.forget(process)

    def forget(self, process: Process) -> None:
        for path in [path for path, holder in self.locks.items() if holder is process]:
            del self.locks[path]

    def note(self, text: str) -> None:
        self.log.append((self.seconds, text))

    def point(self, what: str) -> None:
        """The running process is about to do, or has just done, what others can see."""
        me = self.current
        assert me is not None
        if me.dead:
            raise Killed
        self.note(f"{me.where} {me.pid}: {what}")
        if self.dice.random() < PREEMPTED:
            self._give_up(me)

    def wait(self, ready: Callable[[], bool], seconds: float | None) -> bool:
        """Whether `ready` came true before `seconds` had passed."""
        me = self.current
        assert me is not None
        if me.dead:
            raise Killed
        me.ready = ready
        me.until = None if seconds is None else self.seconds + seconds
        self._give_up(me)
        me.ready, me.until = lambda: True, None
        return ready()

    def _give_up(self, me: Process) -> None:
        self.main.switch()
        if me.dead:
            raise Killed

    def run(self, over: Callable[[], bool]) -> None:
        """Processes go on, one at a time, until `over()` or until none can."""
        for _ in range(20_000):
            self.befall()
            dying = [p for p in self.processes if p.dead and not p.done]
            if not dying and over():
                return
            now = self.seconds
            able = dying or [
                p
                for p in self.processes
                if not p.done and (p.ready() or (p.until is not None and p.until <= now))
            ]
            if not able:
                waits = [p.until for p in self.processes if p.alive and p.until is not None]
                if not waits:
                    return
                self.seconds = max(self.seconds, min(waits))
                continue
            self.seconds += 0.001
            self._step(able[0] if dying else self.dice.choice(able))
        raise AssertionError("the history does not end")

    def _step(self, process: Process) -> None:
        self.current = process
        process.line.switch()
        self.current = None
        if process.done:
            self.processes.remove(process)

    # --- locks ------------------------------------------------------------------------------------

    def try_lock(self, path: str) -> int | None:
        assert self.current is not None
        if path in self.locks:
            return None
        self.locks[path] = self.current
        self._next_fd += 1
        self.fds[self._next_fd] = path
        return self._next_fd

    def lock(self, path: str) -> int:
        while True:
            held = self.try_lock(path)
            if held is not None:
                return held
            self.wait(lambda: path not in self.locks, None)

    def unlock(self, fd: int) -> bool:
        """True if `fd` was one of ours: the lock it stood for is free."""
        path = self.fds.pop(fd, None)
        if path is None:
            return False
        if self.locks.get(path) is self.current:
            del self.locks[path]
        return True
