from __future__ import annotations

from datetime import datetime, timezone

import pytest

from orchestrator.columns import columns_table, unknown
from orchestrator.domain import Outcome, Run, RunState, Verdict
from orchestrator.errors import UsageError
from orchestrator.selection import COLUMNS, columns, moment, selection
from tests.helpers.runs import a_run, an_id

NOW = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


AN_HOUR = {"started_at": "2026-11-23T08:00:00.000000Z", "ended_at": "2026-11-23T09:00:00.000000Z"}


def runs() -> list[Run]:
    done = {"state": RunState.FINISHED, "verdict": Verdict.SUCCEEDED, "outcome": Outcome.OK}
    return [
        a_run(
            an_id(4),
            state=RunState.RUNNING,
            created_at="2026-11-24T11:00:00.000000Z",
            started_at="2026-11-24T11:30:00.000000Z",
        ),
        a_run(an_id(3), **done, accuracy=0.7, tags={"k": "v", "e": ""}, host="box"),
        a_run(
            an_id(2),
            state=RunState.FINISHED,
            verdict=Verdict.FAILED,
            metrics={"loss": 2.0},
            **AN_HOUR,
            tags={"c": "a,b"},
        ),
        a_run(an_id(1), **done, accuracy=0.9, tags={"k": "w"}, note="x" * 200),
    ]


def found(**asked: object) -> list[int]:
    chosen = selection(NOW, **asked)  # type: ignore[arg-type]
    ids = [an_id(second) for second in range(10)]
    return [ids.index(run.run_id) for run in chosen.apply(runs())]


def test_each_filter_narrows_and_words_of_one_are_alternatives() -> None:
    assert found() == [4, 3, 2, 1]
    assert found(states=["running,failed"]) == [4, 2]
    assert found(states=["running", "failed"]) == [4, 2]
    assert found(states=["finished"]) == [3, 2, 1]
    assert found(hosts=["box"]) == [3]
    assert found(outcomes=["ok"]) == [3, 1]
    assert found(outcomes=["none"]) == [4, 2]
    assert found(tags=["k"]) == [3, 1]
    assert found(tags=["k=v"]) == [3]
    assert found(tags=["e="]) == [3]
    assert found(tags=["k=v,k=w"]) == found(tags=["k=v", "k=w"]) == [3, 1]
    assert found(tags=["e,absent"]) == [3]
    assert found(tags=["c=a,b"]) == [2]
    assert found(jobs=["train"]) == [4, 3, 2, 1]
    assert found(jobs=["other,absent"]) == found(jobs=["other", "absent"]) == []
    assert found(since="2h") == [4]
    assert found(since="2026-11-23") == [4, 3, 2, 1]
    assert found(where="accuracy > 0.8", hosts=["box"]) == []


def test_sorting_puts_runs_without_the_value_last_both_ways() -> None:
    assert found(sort="accuracy") == [3, 1, 4, 2]
    assert found(sort="-accuracy") == [1, 3, 4, 2]
    assert found(sort="loss") == [2, 4, 3, 1]
    assert found(sort="created") == [3, 2, 1, 4]
    assert found(sort="ran") == found(sort="ran_for") == [4, 2, 3, 1]
    assert found(sort="-ran") == [2, 4, 3, 1]
    assert found(sort="tags") == [2, 3, 1, 4]


@pytest.mark.parametrize("name", [*COLUMNS, "ran_for"])
def test_what_is_a_column_sorts(name: str) -> None:
    assert unknown(runs(), columns(name)) == []
    assert sorted(found(sort=name)) == sorted(found(sort="-" + name)) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "asked",
    [{"states": ["runing"]}, {"outcomes": ["good"]}, {"since": "yesterday"}, {"since": ""},
     {"sort": "confg.lr"}, {"where": "1 +"}],
)  # fmt: skip
def test_a_word_that_can_match_nothing_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(UsageError) as refused:
        found(**asked)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("outcome == ok", "in quotes: 'ok'"),
        ("state == running", "in quotes: 'running'"),
        ("host == box", "in quotes: 'box'"),
        ("acuracy > 0.8", "did you mean `accuracy`?"),
        ("accuracy > 0.5 and los > 1", "did you mean `loss`?"),
        ("ema > 1", "did you mean `config.training.ema`?"),
        ("bogus > 1", "no run has `bogus`"),
    ],
)
def test_a_bare_name_that_no_run_has_is_refused_with_what_was_meant(where: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        found(where=where)
    assert told in refused.value.message


@pytest.mark.parametrize(
    ("sort", "told"),
    [
        ("-acuracy", "did you mean `accuracy`?"),
        ("los", "did you mean `loss`?"),
        ("ema", "did you mean `config.training.ema`?"),
        ("-config.training.emma", "no run has `config.training.emma`"),
    ],
)
def test_an_order_that_sorts_no_run_is_refused(sort: str, told: str) -> None:
    with pytest.raises(UsageError, match="--sort") as refused:
        found(sort=sort)
    assert told in refused.value.message and refused.value.hint


def test_a_field_that_no_run_has_yet_sorts_nothing_and_is_no_mistake() -> None:
    assert selection(NOW, sort="-accuracy").apply(runs()[:1]) == runs()[:1]
    assert selection(NOW, sort="bogus").apply([]) == []


def test_a_metric_of_some_runs_is_missing_in_the_others() -> None:
    assert found(where="loss > 1") == [2]
    assert found(where="loss == null") == [4, 3, 1]
    assert found(where="outcome == loss") == []
    assert found(where="outcome == null") == [4, 2]


def test_without_runs_no_name_is_unknown() -> None:
    assert selection(NOW, where="bogus > 1").apply([]) == []


def test_moments_are_spans_dates_and_times() -> None:
    assert moment("90m", NOW) == "2026-11-24T10:30:00.000000Z"
    assert moment("2026-11-23", NOW) == "2026-11-23T00:00:00.000000Z"
    assert moment("2026-11-23 09:30", NOW) == "2026-11-23T09:30:00.000000Z"
    assert moment("2026-11-23T09:30:00+02:00", NOW) == "2026-11-23T07:30:00.000000Z"


def test_the_columns_asked_for_are_shown_in_their_order() -> None:
    names = columns("run, accuracy,config.training.ema,status,absent,tags,note")
    table = columns_table(runs(), names, NOW)
    assert table.splitlines()[0].split() == [
        "RUN", "ACCURACY", "config.training.ema", "STATUS", "TAGS", "NOTE"
    ]  # fmt: skip
    assert "0.9999" in table and "70.0 %" in table and "e= k=v" in table and "failed" in table
    assert unknown(runs(), names) == ["absent"]
    assert "x" * 61 not in table
    assert columns_table(runs(), ["absent"], NOW) == ""
    with pytest.raises(UsageError, match="no column"):
        columns(" , ")


def test_state_verdict_and_their_one_word_for_people_are_three_columns() -> None:
    table = columns_table(runs(), ["state", "verdict", "status"], NOW)
    assert [line.split() for line in table.splitlines()] == [
        ["STATE", "VERDICT", "STATUS"],
        ["running", "running"],
        ["finished", "succeeded", "succeeded"],
        ["finished", "failed", "failed"],
        ["finished", "succeeded", "succeeded"],
    ]
