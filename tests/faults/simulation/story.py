"""One history: people at their shells, what befalls them and the host, and what must be true."""

from __future__ import annotations

import hashlib
import math
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import inflight, retry
from orchestrator.clock import iso
from orchestrator.datatree import scan_data
from orchestrator.domain import Host as HostEntry
from orchestrator.domain import Run, RunState
from orchestrator.errors import OrchError
from orchestrator.ledger.database import Database, _migrate
from orchestrator.ledger.store import Ledger
from orchestrator.manifest import Scan
from orchestrator.spec import load_job
from orchestrator.transport.base import Agent
from orchestrator.usecases import asking, cancel, deliver, fetch, follow
from orchestrator.usecases import link as lasting
from orchestrator.usecases import submit as submitting
from orchestrator.usecases.check import Preflight
from orchestrator.usecases.plan import Plan, Request
from orchestrator.usecases.ready import Content
from remote.wire import JOURNAL, PARTS
from tests.faults.simulation import link
from tests.faults.simulation.host import Host, installed
from tests.faults.simulation.world import World

START_CALL = deliver._start_call
BOX = HostEntry(name="host", transport="local")
COMMANDS = (
    "submit",
    "submit",
    "submit",
    "look",
    "look",
    "cancel",
    "wait",
    "fetch",
    "fetch",
    "twin",
)
EVENTS = {
    "intend", "synced", "started", "seen", "unknown", "finished", "never_started", "fetched",
    "seen_all",
}  # fmt: skip
STATES = (RunState.SYNCED, RunState.QUEUED, RunState.RUNNING)  # in their order, as a host says them
FAULT = 0.015  # chance of a fault before each step; of a job's natural end, twice that


@dataclass(frozen=True)
class Fixed:
    """What is the same in every history: a project with one job and one file, an empty ledger."""

    spec: Any
    scan: Scan
    connection: sqlite3.Connection

    @classmethod
    def make(cls, folder: Path) -> Fixed:
        (folder / "jobs").mkdir(parents=True)
        (folder / "jobs" / "train.yaml").write_text(
            "command: python3 train.py\nconfig: {lr: 0.1}\nmetrics: {file: results/metrics.json}\n"
        )
        (folder / "orch.yaml").write_text("")
        (folder / "code").mkdir()
        (folder / "code" / "train.py").write_text("train()\n")
        scan = scan_data(folder / "code", folder / "cache.json")
        connection = sqlite3.connect(":memory:", isolation_level=None)
        _migrate(connection)
        return cls(load_job(folder, "train"), scan, connection)


class Observed:
    """The ledger, with a point before and after each event. `early`: ended while their jobs ran."""

    def __init__(self, ledger: Ledger, host: Host) -> None:
        self._ledger, self._host, self._world = ledger, host, host.world
        self.early: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._ledger, name)
        if name not in EVENTS:
            return real

        def call(*args: Any, **options: Any) -> Any:
            shown = args[0].run_id if isinstance(args[0], Run) else args[0]
            self._world.point(f"ledger: {name} {shown}")
            done = real(*args, **options)
            if name in ("finished", "never_started") and self._host.living(shown):
                self.early.append(shown)
            self._world.point(f"ledger: done {name} {shown}")
            return done

        return call


@dataclass
class Desk:
    """A `Context` for the simulation: the same questions, the world's answers."""

    world: World
    host: Host
    store: Observed
    cwd: Path
    lines: list[link.Wire] = field(default_factory=list)
    quiet: bool = False  # nothing goes wrong any more

    @property
    def clock(self) -> World:
        return self.world

    @property
    def layout(self) -> Any:
        return SimpleNamespace(
            host_cache=lambda name, project: self.cwd / "host.manifest",
            inflight=lambda run_id: self.cwd / "inflight" / run_id,
        )

    def now(self) -> str:
        return iso(self.world.now())

    def say(self, text: str) -> None:
        self.world.note(f"  {text}")

    def ledger(self, readonly: bool = False) -> Any:
        return nullcontext(self.store)

    def host_of(self, run: Run) -> HostEntry:
        return BOX

    described_host_of = host_of

    def folder_of(self, run: Run) -> Path:
        return Path(run.project)

    def connect(self, host: HostEntry) -> Agent:
        refuse = not self.quiet and self.world.dice.random() < 0.05
        return link.connect(self.world, self.host.root, host, self.lines, refuse)


class Inline:
    """`Background` without a thread: the work is done when its result is asked for."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.result = work

    def is_done_within(self, seconds: float) -> bool:
        return True


class Story:
    """Everything of one seed; `play` it, then `check` it."""

    def __init__(self, seed: int, fixed: Fixed, folder: Path) -> None:
        self.world = World(seed)
        self.folder = folder
        self.host = Host(self.world, str(folder / "host"))
        self.fixed = fixed
        fixed.connection.executescript("DELETE FROM events; DELETE FROM runs")
        self.ledger = Ledger(Database(fixed.connection, folder / "ledger.db", readonly=False))
        self.desk = Desk(self.world, self.host, Observed(self.ledger, self.host), folder)
        self.bodies: list[dict[str, Any]] = []

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Meanwhile the controller has our dice, and waits for our clock, not for time."""
        with pytest.MonkeyPatch.context() as patch:
            dice = SimpleNamespace(choice=self.world.dice.choice)
            patch.setattr(submitting, "secrets", dice)
            patch.setattr(submitting, "deliver", self._deliver)
            patch.setattr(deliver, "_start_call", self._start_call)
            patch.setattr(lasting, "rest", lambda most: self.world.wait(lambda: False, most))
            patch.setattr(asking, "Background", Inline)
            patch.setattr(follow, "Background", Inline)
            patch.setattr(inflight, "hold", self._hold)
            patch.setattr(inflight, "is_held", lambda path: str(path) in self.world.locks)
            patch.setattr(retry, "when_free", self._when_free)
            yield

    @contextmanager
    def _hold(self, path: Path) -> Iterator[bool]:
        held = self.world.try_lock(str(path))
        try:
            yield held is not None
        finally:
            if held is not None:
                self.world.unlock(held)

    def _deliver(self, ctx: Any, plan: Any, ledger: Any, run: Run, sent: Any) -> Any:
        agent = ctx.connect(plan.host)
        content = Content(self.fixed.scan, {})
        return deliver._start(ctx, plan, ledger, run, agent, content, sent), agent

    def _start_call(self, agent: Agent, body: Any, attached: Any, sent: Any) -> Any:
        self.bodies.append(body)
        return START_CALL(agent, body, attached, sent)

    def _when_free(self, claim: Callable[[], Any], on_wait: Any) -> Any:
        from orchestrator.errors import FolderBusy

        for _ in range(100):
            try:
                return claim()
            except FolderBusy:
                self.world.wait(lambda: False, 1.0)
        raise FolderBusy("still busy")

    # --- what people do ---------------------------------------------------------------------------

    def submit(self) -> None:
        found = Preflight(self.fixed.spec, "c1:" + "0" * 64, ())
        listing = SimpleNamespace(state=lambda _travel: SimpleNamespace(commit=None, dirty=None))
        plan: Any = Plan(self.folder, BOX, found, (), {}, None, 1 << 20, listing)  # type: ignore[arg-type]
        _, agent = submitting.submit(self.desk, plan, Request("train"))  # type: ignore[arg-type]
        agent.close()

    def command(self, what: str) -> None:
        runs = self.ledger.runs()
        ctx: Any = self.desk
        store: Any = self.desk.store
        try:
            if what == "submit":
                self.submit()
            elif what == "look" and runs:
                asking.refresh_quietly(ctx, store, runs, lambda _host, _why: None)
            elif what == "cancel" and runs:
                cancel.cancel(ctx, store, self.world.dice.choice(runs))
            elif what == "wait" and runs:
                follow.wait(ctx, store, self.world.dice.choice(runs), 20.0, lambda _text: None)
            elif what == "fetch" and runs:
                fetch.fetch(ctx, store, self.world.dice.choice(runs), lambda _report: None)
            elif what == "twin" and self.bodies:
                with ctx.connect(BOX) as agent:  # another controller with the same run id
                    agent.call("start", self.world.dice.choice(self.bodies))
        except OrchError as exc:
            self.world.note(f"  {what}: {type(exc).__name__}: {exc.message}")

    def shell(self, commands: list[str]) -> Callable[[], bool]:
        """Starts them one after the other, each in a process of its own; whether all are over."""
        left = list(commands)
        running: list[Any] = []

        def over() -> bool:
            if running and running[0].alive:
                return False
            running.clear()
            if left:
                what = left.pop(0)
                self.world.note(f"$ {what}")
                running.append(self.world.spawn("controller", lambda: self.command(what)))
                return False
            return True

        return over

    # --- what happens to them ---------------------------------------------------------------------

    def befall(self) -> None:
        dice, world = self.world.dice, self.world
        chance = dice.random()
        if chance < 2 * FAULT:
            for job in self.host.living()[:1]:
                self.host.end(job, dice.choice([0, 0, 0, 1, 137]))
        elif chance < 3 * FAULT:
            fault = dice.choice(
                ["controller", "agent", "supervisor", "cut", "cut", "mute", "job", "clock", "boot"]
            )
            if fault in ("controller", "agent", "supervisor"):
                alive = [p for p in world.processes if p.where == fault and p.alive]
                if alive:
                    world.kill(dice.choice(alive))
            elif fault in ("cut", "mute"):
                for line in [each for each in self.desk.lines if not each.cut][-1:]:
                    world.note(f"LINK {fault}")
                    setattr(line, fault, True)
            elif fault == "job":
                for job in self.host.living()[:1]:
                    self.host.end(job, 137, 9)
            elif fault == "clock":
                world.skew += dice.choice([-86400.0, 86400.0, 3600.0])
            elif dice.random() < 0.3:
                self.host.restart()

    def play(self) -> None:
        """The shells' commands with all that befalls them; then calm, until nothing is open."""
        dice = self.world.dice
        shells = [
            self.shell(["submit", *dice.choices(COMMANDS, k=dice.randint(1, 3))])
            for _ in range(dice.randint(1, 2))
        ]
        self.world.befall = self.befall

        def over() -> bool:
            return not [each for each in [shell() for shell in shells] if not each]

        self.world.run(over)
        self.desk.quiet = True
        self.world.befall = lambda: None
        for line in self.desk.lines:
            line.cut = True
        self.world.note("CALM")
        for _ in range(2):
            for job in self.host.living():
                self.host.end(job, 0)
            self.world.run(lambda: False)
            self.world.seconds += 30.0
            self.world.run(self.shell(["look"]))
        self.world.run(self.shell(["fetch"]))

    # --- what must be true ------------------------------------------------------------------------

    def check(self) -> None:
        """I1 to I5; AssertionError says which and of which run."""
        rows = {run.run_id: run for run in self.ledger.runs()}
        assert not self.desk.store.early, f"I3: {self.desk.store.early} lived when called finished"
        for run_id, count in self.host.starts.items():
            assert count == 1, f"I1: {run_id} was started {count} times"
            assert run_id in rows, f"I2: {run_id} runs and is in no ledger"
        there = {path.name for path in Path(self.host.root, "runs").glob("*")}
        assert there <= rows.keys(), f"I2: {there - rows.keys()} are in no ledger"
        for run in rows.values():
            self._check_run(run)

    def _check_run(self, run: Run) -> None:
        told = f"{run.run_id}: {run.state.value} {run.verdict and run.verdict.value}"
        ran = self.host.starts[run.run_id] > 0
        exit_record = Path(self.host.root, "runs", run.run_id, "exit.json").exists()
        if run.state is RunState.FINISHED:
            assert run.verdict is not None
            if run.verdict.value == "never_started":
                assert not ran, f"I3: {told}, but it ran"
            else:
                assert exit_record, f"I3: {told} without an exit record"
        else:
            assert not ran, f"I3: {told}, and the host knows better"
        if run.verdict is not None and run.verdict.value == "succeeded":
            (job,) = [each for each in self.host.jobs if each.run.run_id == run.run_id]
            assert job.ended is not None and job.ended.code == 0, f"I3: {told}, {job.ended}"
        if run.verdict is not None and run.run_id in self.host.adopted:
            (job,) = [each for each in self.host.jobs if each.run.run_id == run.run_id]
            assert job.ended is not None, f"I3: {told}, and its job lives"
            if job.ended.signal is None:  # it ended by itself, or a cancel came too late
                kept = run.exit_code == job.ended.code
                assert kept or run.verdict.value == "cancelled", f"I3: adopted, {told}, {job.ended}"
        states = list(self._told_states(run.run_id))
        assert states == sorted(states, key=STATES.index), (
            f"{told}: its timeline goes back: {states}"
        )
        for path in (self.folder / "results" / run.job / run.run_id).glob("**/*"):
            if path.is_file() and not {JOURNAL, PARTS} & set(path.parts):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                known = self.host.written[f"{run.run_id}/{path.name}"]
                assert digest in known, f"I4: {told}: {path.name} is no file of the host"
        if run.accuracy is not None:
            (job,) = [each for each in self.host.jobs if each.run.run_id == run.run_id]
            assert math.isfinite(run.accuracy), f"I5: {told}"
            assert str(run.accuracy) in str(job.metrics), f"I5: {told} {run.accuracy}"

    def _told_states(self, run_id: str) -> Iterator[RunState]:
        """Where its host has said the run is, one after the other; it has a single attempt."""
        for event in self.ledger.events(run_id):
            if event.kind in ("started", "seen") and event.data["state"] in STATES:
                yield RunState(event.data["state"])


def play(seed: int, fixed: Fixed, place: Path) -> list[tuple[float, str]]:
    """The history of `seed`, its files left in a folder of `place`; AssertionError (with `history`
    on it) when an invariant broke."""
    story = Story(seed, fixed, Path(tempfile.mkdtemp(dir=place)))
    try:
        with installed(story.host), story.installed():
            story.play()
        story.check()
    except BaseException as exc:
        exc.history = story.world.log  # type: ignore[attr-defined]
        raise
    return story.world.log
