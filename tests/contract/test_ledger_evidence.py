"""`orch ledger verify` and `import`: rows against evidence, and another ledger's rows."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger.store import Ledger
from orchestrator.usecases import takein
from orchestrator.usecases.context import Context
from orchestrator.usecases.takein import take_in
from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, Desk, assert_clear, take_away
from tests.contract.liar import running_run


def ledger_of(desk: Desk) -> Path:
    return desk.home / "state" / "orch" / "ledger.db"


def change(desk: Desk, statement: str, *values: object) -> None:
    """The ledger's file is changed behind orch's back."""
    connection = sqlite3.connect(ledger_of(desk))
    with connection:
        connection.execute(statement, values)
    connection.close()


def verified(desk: Desk, *args: str, code: int = 0) -> dict[str, Any]:
    return dict(json.loads(desk.orch("ledger", "verify", "--json", *args, code=code).stdout))


def levels(found: dict[str, Any], run: str) -> dict[str, str]:
    return {each["check"]: each["level"] for each in found["checks"] if each["run_id"] == run}


def done(desk: Desk, *args: str) -> str:
    run = desk.submit("train", *args)
    desk.orch("wait", run, code=None)
    desk.orch("fetch-results", run, code=None)
    return run


def test_a_row_agrees_with_its_evidence_until_one_of_them_is_changed(new_desk: MakeDesk) -> None:
    desk = new_desk({"train": {**TRAIN, "volatile": ["lr"]}})
    run = done(desk)
    assert levels(verified(desk), run) == {"config hash": "ok", "results": "ok", "host": "ok"}
    file = desk.results("train", run) / "metrics.json"
    file.write_text(file.read_text().replace("45", "44"))
    assert levels(verified(desk, code=11), run)["results"] == "differs"
    assert "metrics.json has other bytes" in desk.orch("ledger", "verify", code=11).stdout
    file.unlink()
    assert levels(verified(desk, code=11), run)["results"] == "differs"


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        ("UPDATE runs SET accuracy = 0.99", "host"),
        ("UPDATE runs SET verdict = 'failed', exit_code = 3", "host"),
        ("UPDATE runs SET config = replace(config, '45', '46')", "config hash"),
        ("UPDATE runs SET config_hash = 'c1:' || substr(hex(zeroblob(32)), 1, 64)", "host"),
    ],
)
def test_a_row_that_was_tampered_with_is_found(desk: Desk, statement: str, check: str) -> None:
    run, other = done(desk), done(desk, "--set", "right=40")
    change(desk, statement + " WHERE run_id = ?", run)
    found = verified(desk, code=11)
    assert levels(found, run)[check] == "differs"
    assert set(levels(found, other).values()) == {"ok"}


@pytest.mark.parametrize(("accuracy", "level"), [(0.75, "ok"), (0.5, "ok"), (0.6, "differs")])
def test_a_row_of_before_nested_accuracies_were_read_contradicts_nothing(
    accuracy: float, level: str, new_desk: MakeDesk
) -> None:
    metrics = '{"accuracy": 0.5, "eval": {"accuracy": 0.75}}'
    spec = {"command": f"echo '{metrics}' > results/metrics.json"}
    desk = new_desk({"train": {**spec, "metrics": {"primary": "eval.accuracy"}}})
    run = done(desk)
    assert desk.show()["accuracy"] == 0.75
    change(desk, f"UPDATE runs SET accuracy = {accuracy} WHERE run_id = ?", run)
    code = 0 if level == "ok" else 11
    assert levels(verified(desk, code=code), run)["host"] == level


def test_what_cannot_be_proved_is_not_called_wrong(desk: Desk) -> None:
    run = done(desk)
    assert "host" not in levels(verified(desk, "--offline"), run)
    take_away(desk.home / ".orch")
    assert levels(verified(desk), run)["host"] == "unproven"
    change(desk, "UPDATE runs SET spec = json_remove(spec, '$.volatile'), config_hash = 'c1:0'")
    assert levels(verified(desk, "--offline"), run)["config hash"] == "unproven"


def test_another_machines_ledger_is_taken_in_and_left_as_it_is(new_desk: MakeDesk) -> None:
    mine, theirs = new_desk(), new_desk()
    run, other = done(mine), done(theirs)
    theirs.orch("note", other, "from there")
    file = ledger_of(theirs)
    before = {path.name: path.read_bytes() for path in file.parent.glob("ledger.db*")}
    told = json.loads(mine.orch("ledger", "import", str(file), "--json").stdout)
    assert (told["added"], told["known"]) == ([other], 0)
    assert {path.name: path.read_bytes() for path in file.parent.glob("ledger.db*")} == before
    shown = mine.show(other)
    assert shown["note"] == "from there"
    kinds = [event["kind"] for event in shown["events"]]
    assert kinds[0] == "intent" and kinds[-1] == "imported"
    theirs.orch("note", other, "changed there")
    again = json.loads(mine.orch("ledger", "import", str(file), "--json").stdout)
    assert (again["added"], again["known"], again["differing"]) == ([], 1, [other])
    assert mine.show(other)["note"] == "from there"
    assert mine.show(run)["run_id"] == run
    assert_clear(mine.orch("ledger", "import", "absent.db", code=3), "absent.db")
    assert_clear(mine.orch("ledger", "import", str(ledger_of(mine)), code=2), "in use")
    (mine.project / "x.db").write_text("no database")
    assert_clear(mine.orch("ledger", "import", "x.db", code=11), "not a ledger")
    named = mine.orch("ledger", "import", "orch.yaml", code=11).stderr
    assert str(mine.project / "orch.yaml") in named
    assert "orch-import-" not in named and "rebuild" not in named
    assert_clear(mine.orch("ledger", "import", ".", code=2), "is a folder")


def test_a_ledger_in_use_is_taken_in_whole_whatever_its_owner_does_meanwhile(
    ctx: Context, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "theirs.db"
    with Ledger.open(path) as theirs:
        run = running_run(ctx, theirs)
        copy = shutil.copyfile

        def checkpointed(source: Path, target: Path) -> None:
            copy(source, target)
            with sqlite3.connect(path) as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            other.close()

        monkeypatch.setattr(shutil, "copyfile", checkpointed)
        assert take_in(ctx, str(path)).added == [run.run_id]
        assert ledger.get(run.run_id).job == run.job
        seen = [True, False]  # somebody began in the middle of the copying
        monkeypatch.setattr(takein, "_in_use", lambda _path: seen.pop())
        assert take_in(ctx, str(path)).known == 1


def test_a_rebuilt_ledger_and_the_lost_one_do_not_contradict_each_other(desk: Desk) -> None:
    run_id = desk.submit("train", "--tag", "a=b")
    desk.orch("wait", run_id)
    desk.orch("fetch-results", run_id)
    old = shutil.copy(ledger_of(desk), desk.project / "old.db")
    shutil.rmtree(desk.results("train", run_id))
    for path in ledger_of(desk).parent.glob("ledger.db*"):
        path.unlink()
    desk.orch("ledger", "rebuild")
    assert desk.show(run_id)["fetched"] == "none"
    told = json.loads(desk.orch("ledger", "import", str(old), "--json").stdout)
    assert (told["known"], told["differing"]) == (1, [])
