"""Ledgers whose writers are killed at any moment, or are several at once."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.domain import RunState, Verdict
from orchestrator.ledger import Ledger, schema
from tests.helpers.runs import AT, a_run, an_id

NEWEST = len(schema.MIGRATIONS)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with three runs, closed."""
    place = tmp_path / "ledger.db"
    with Ledger.open(place) as ledger:
        for second in range(3):
            ledger.intend(a_run(an_id(second)))
    return place


LIVES = """
import sys
from pathlib import Path
from orchestrator.domain import ExitRecord, Judged, Outcome, RunState, Verdict
from orchestrator.ledger import Ledger
from tests.helpers.runs import AT, a_run, an_id
with Ledger.open(Path(sys.argv[1])) as ledger:
    first = ledger.count()
    for second in range(first, 80000):
        run_id = an_id(second)
        ledger.intend(a_run(run_id, config={"text": "x" * 9000}))
        print("intent", run_id, flush=True)
        ledger.started(run_id, AT, AT, None, RunState.RUNNING)
        print("started", run_id, flush=True)
        ledger.finished(run_id, AT, ExitRecord(Verdict.SUCCEEDED, 0), Judged(Outcome.OK))
        print("finished", run_id, flush=True)
"""

WHOLE = {
    ("intent",): (RunState.INTENT, None, None),
    ("intent", "started"): (RunState.RUNNING, AT, None),
    ("intent", "started", "finished"): (RunState.FINISHED, AT, Verdict.SUCCEEDED),
}


def killed(lines: int, seconds: float, code: str, *arguments: str) -> str:
    """What the program had printed when it was killed: `seconds` after its `lines`-th line."""
    argv = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(lines)]
        time.sleep(seconds)
        process.kill()
        return "".join(told) + process.stdout.read()


def test_f57_killed_at_any_moment_a_run_is_as_before_or_after_an_event(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    chance = random.Random(20261123)
    told: list[str] = []
    for _ in range(8):
        told += killed(
            chance.randrange(1, 9), chance.random() * 0.02, LIVES, str(path)
        ).splitlines()
        with Ledger.open(path) as ledger:
            assert ledger.integrity() == []
            for run in ledger.runs():
                kinds = tuple(event.kind for event in ledger.events(run.run_id))
                assert (run.state, run.started_at, run.verdict) == WHOLE[kinds]
    with Ledger.open(path, readonly=True) as ledger:
        for line in told:
            kind, _, run_id = line.partition(" ")
            if line.count(" ") == 1 and len(run_id) == len(an_id(0)):
                assert kind in [event.kind for event in ledger.events(run_id)]


MAKE = """
import sys
from pathlib import Path
from orchestrator.ledger import Ledger
for number in range(100000):
    Ledger.open(Path(sys.argv[1]) / str(number) / "ledger.db").close()
    print(number, flush=True)
"""


def test_killed_while_it_is_made_a_ledger_is_absent_or_whole(tmp_path: Path) -> None:
    chance = random.Random(7)
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        killed(chance.randrange(1, 4), chance.random() * 0.02, MAKE, str(folder))
        for made in folder.glob("*"):
            with Ledger.open(made / "ledger.db") as ledger:
                assert ledger.integrity() == []
                ledger.intend(a_run())


MIGRATE = """
import sys
from pathlib import Path
from orchestrator.ledger import Ledger, schema
more = tuple(f"CREATE TABLE extra{n} (x TEXT)" for n in range(400))
schema.MIGRATIONS = (*schema.MIGRATIONS, more)
print("go", flush=True)
Ledger.open(Path(sys.argv[1])).close()
"""


def test_f57_killed_while_it_migrates_a_ledger_has_the_old_or_the_new_schema(path: Path) -> None:
    chance = random.Random(3)
    original = path.read_bytes()
    seen = set()
    for round_ in range(10):
        for each in path.parent.glob("ledger.db*"):
            each.unlink()
        path.write_bytes(original)
        killed(1, chance.random() * 0.04 if round_ else 0.0, MIGRATE, str(path))
        with sqlite3.connect(path) as after:
            version = after.execute("PRAGMA user_version").fetchone()[0]
            query = "SELECT count(*) FROM sqlite_master WHERE name LIKE 'extra%'"
            extra = after.execute(query).fetchone()[0]
            assert after.execute("SELECT count(*) FROM runs").fetchone() == (3,)
        after.close()
        assert (version, extra) in [(NEWEST, 0), (NEWEST + 1, 400)]
        seen.add(version)
    assert NEWEST in seen, "the sweep killed too late to show anything"


def test_two_that_finish_one_run_at_the_same_time_agree_on_one_end(path: Path) -> None:
    code = """
import sys
from pathlib import Path
from orchestrator.domain import ExitRecord, Judged, Outcome, Verdict
from orchestrator.ledger import Ledger
from tests.helpers.runs import AT, an_id
with Ledger.open(Path(sys.argv[1])) as ledger:
    sys.stdin.readline()
    record = ExitRecord(Verdict(sys.argv[2]), 0)
    print(ledger.finished(an_id(0), AT, record, Judged(Outcome.OK)))
"""
    verdicts = [Verdict.SUCCEEDED, Verdict.LOST, Verdict.CANCELLED]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), verdict.value],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for verdict in verdicts
    ]
    won = [process.communicate("go\n", timeout=30)[0].strip() for process in processes]
    assert sorted(won) == ["False", "False", "True"]
    with Ledger.open(path) as ledger:
        assert ledger.get(an_id(0)).verdict is verdicts[won.index("True")]
        assert [event.kind for event in ledger.events(an_id(0))] == ["intent", "finished"]


BEGIN = """
import sys
from pathlib import Path
from orchestrator.ledger import Ledger
from tests.helpers.runs import a_run, an_id
base = int(sys.argv[2])
sys.stdin.readline()
for number in range(30):
    with Ledger.open(Path(sys.argv[1]) / str(number) / "ledger.db") as ledger:
        ledger.intend(a_run(an_id(base)))
"""


def test_processes_that_make_one_ledger_at_the_same_time_lose_no_run(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN, str(tmp_path), str(base)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            text=True,
        )
        for base in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    for number in range(30):
        with Ledger.open(tmp_path / str(number) / "ledger.db", readonly=True) as ledger:
            assert ledger.count() == 4
        assert not list((tmp_path / str(number)).glob("*.new-*"))
