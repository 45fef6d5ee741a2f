"""Rows without a network: how soon a command answers, what a waiting supervisor costs."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.measure import Compared, Fact, Pair, Result, Row, Way, in_pairs, seconds_of
from tests.bench.world import Site, World, wait_until

IMPORT = [sys.executable, "-c", "import typer"]


def help_(world: World, row: Row, way: Way, pairs: int) -> Sequence[Result]:
    site = world.site(Way.LOOPBACK)
    project = world.project("listing", files=5, size=5_000)
    return [row.compared(way, _against_import(site, project, ["orch", "--help"], pairs))]


def ls(world: World, row: Row, way: Way, pairs: int) -> Sequence[Result]:
    # A ledger of its own: what other rows recorded would count.
    site = Site(world, world.folder / "ls", world.site(Way.LOOPBACK).config)
    project = world.project("listing", files=5, size=5_000)
    run_id = site.orch(project, "submit", "stamp", "--host", "local").strip()
    site.orch(project, "wait", run_id)
    found: list[Result] = []
    for count, goal in zip(world.sizes.runs, (2.0, 2.5), strict=True):
        _fill(site.home / "state" / "orch" / "ledger.db", run_id, count)
        taken = _against_import(site, project, ["orch", "ls"], pairs)
        work = row.work.replace("N runs", f"{count:,} runs")
        found.append(Compared(work, row.against, way, goal, taken))
    return found


def _against_import(site: Site, project: Path, argv: list[str], pairs: int) -> list[Pair]:
    def run(words: list[str]) -> float:
        return seconds_of(
            lambda: subprocess.run(
                words,
                cwd=project,
                env=site.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
        )

    return in_pairs(lambda: run(argv), lambda: run(IMPORT), 3 * pairs, warm=2)


def _fill(ledger: Path, run_id: str, count: int) -> None:
    """The ledger holds `count` runs: copies of the one given, each with its timeline."""
    with sqlite3.connect(ledger) as db:
        have = db.execute("SELECT count(*) FROM runs").fetchone()[0]
        names = [row[1] for row in db.execute("PRAGMA table_info(runs)")]
        rest = ", ".join(names[1:])
        new = [(f"{run_id}-{number:06}",) for number in range(have, count)]
        copy = f"SELECT ?1, {rest} FROM runs WHERE run_id = '{run_id}'"
        db.executemany(f"INSERT INTO runs (run_id, {rest}) {copy}", new)
        db.executemany(
            "INSERT INTO events SELECT ?1, seq, at, kind, data FROM events "
            f"WHERE run_id = '{run_id}'",
            new,
        )
    db.close()


def idle(world: World, row: Row, way: Way, pairs: int) -> Sequence[Result]:
    site = world.site(Way.LOOPBACK)
    project = world.project("idle", files=5, size=5_000)
    (project / "jobs" / "idle.yaml").write_text("command: [sleep, '3600']\n")
    run_id = site.submit(project, "idle")
    pid = json.loads((site.root / "runs" / run_id / "supervisor.json").read_text())["pid"]
    wait_until(lambda: not world.sshd.session_pids(), "the submit's connection to close")
    time.sleep(min(2.0, world.sizes.idle_s))
    before = _ticks(pid)
    time.sleep(world.sizes.idle_s)
    used = (_ticks(pid) - before) / os.sysconf("SC_CLK_TCK")
    resident = _kilobytes(Path(f"/proc/{pid}/status"), "VmRSS:") * 1024 / 1e6
    shared = _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") * 1024 / 1e6
    site.orch(project, "cancel", run_id)
    return [
        Fact("supervisor of an idle job: resident (VmRSS)", resident, "MB", 15.0),
        Fact("supervisor of an idle job: proportional share (PSS)", shared, "MB", 15.0),
        Fact(f"supervisor of an idle job: CPU in {world.sizes.idle_s:g} s", used, "s", 0.0),
    ]


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _kilobytes(path: Path, name: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


ROWS = (
    Row("help", "`orch --help`", "`python -c 'import typer'`", {Way.LOCAL: 1.5}, help_),
    Row(
        "ls",
        "`orch ls`, N runs in the ledger",
        "`python -c 'import typer'`",
        {Way.LOCAL: None},
        ls,
        "All runs are of the project asked in, finished, with a config each; 50 are shown.",
    ),
    Row("idle", "supervisor of an idle job", "", {Way.LOCAL: None}, idle, "A job that sleeps."),
)
