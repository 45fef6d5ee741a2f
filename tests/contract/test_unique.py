"""`--unique`: whether a config may run once more is decided by its host, whoever asks."""

from __future__ import annotations

from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, assert_clear

JOBS = {
    "held": {
        "command": "until test -e ../go; do sleep 0.05; done; test ! -e ../bad",
        "config": {"lr": 0.1},
    },
    "other": {"command": "true", "config": {"lr": 0.1}},
}


def end(desk: Desk, run_id: str, well: bool) -> None:
    place = desk.home / ".orch" / "runs" / run_id
    if not well:
        (place / "bad").touch()
    (place / "go").touch()
    desk.orch("wait", run_id, code=0 if well else 1)


def test_f50_a_second_controller_is_refused_with_the_first_run_while_it_is_open_or_has_succeeded(
    new_desk: MakeDesk,
) -> None:
    mine = new_desk(JOBS)
    theirs = Desk(mine.home, mine.project, {**mine.env, "ORCH_HOME": str(mine.home / "second")})
    failed = mine.submit("held", "--unique")
    assert_clear(theirs.orch("submit", "held", "--unique", code=5), failed, "running", "box")
    end(mine, failed, well=False)
    first = theirs.submit("held", "--unique")
    end(theirs, first, well=True)
    assert_clear(mine.orch("submit", "held", "--unique", code=5), first, "succeeded")
    mine.submit("held", "--unique", "--set", "lr=0.2")
    mine.submit("other", "--unique")
    mine.orch("cancel", mine.submit("held"))


def test_f50_of_many_unique_submits_at_once_exactly_one_starts(new_desk: MakeDesk) -> None:
    desk = new_desk(JOBS)
    asked = [desk.start("submit", "held", "--unique") for _ in range(4)]
    told = [(each.communicate(timeout=120)[0].strip(), each.returncode) for each in asked]
    assert sorted(code for _, code in told) == [0, 5, 5, 5]
    (first,) = [run_id for run_id, _ in told if run_id]
    assert sorted(row[1:] for row in desk.rows()).count(("finished", "never_started")) == 3
    end(desk, first, well=True)
