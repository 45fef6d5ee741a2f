from __future__ import annotations

import csv
import io
import json
import math

from orchestrator.domain import Fetched, Outcome, RunState, Session, Verdict
from orchestrator.export import to_csv, to_json_text
from orchestrator.runjson import PROMISED, json_text, plain, to_json
from tests.helpers.runs import a_run, an_id

DONE = a_run(
    an_id(2),
    state=RunState.FINISHED,
    verdict=Verdict.SUCCEEDED,
    exit_code=0,
    outcome=Outcome.OK,
    accuracy=0.875,
    session=Session("tmux", "s"),
    metrics={"n": 8, "loss": math.nan},
    confusion_matrix=((4, 0), (1, 3)),
    labels=("neg", "pos"),
    fetched=Fetched.COMPLETE,
    config={"b": 1, "a": {"x": [1, 2], "y": {}}, "dotted.key": True},
    tags={"k": "v"},
)
OPEN = a_run(an_id(1), config={"a": {"z": "text"}})


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_config_is_columns_and_the_union_of_all_runs() -> None:
    first, second = table(to_csv([DONE, OPEN]))
    assert first["config.b"] == "1"
    assert first["config.a.x"] == "[1,2]"
    assert first["config.a.y"] == "{}"
    assert first['config."dotted.key"'] == "true"
    assert (first["config.a.z"], second["config.a.z"]) == ("", "text")
    assert second["config.b"] == ""
    assert (first["session.kind"], second["session.kind"]) == ("tmux", "")
    assert (first["accuracy"], second["accuracy"]) == ("0.875", "")
    assert first["metrics.loss"] == ""
    assert first["confusion_matrix"] == "[[4,0],[1,3]]"


def test_columns_have_one_order_whatever_the_order_of_runs_and_keys() -> None:
    names = to_csv([DONE, OPEN]).splitlines()[0]
    assert names == to_csv([OPEN, DONE]).splitlines()[0]
    assert names.startswith("run_id,job,state,verdict,exit_code,signal,outcome,")
    listed = names.split(",")
    assert listed == list(dict.fromkeys(listed))


def test_runs_stay_in_the_order_given() -> None:
    assert [row["run_id"] for row in table(to_csv([DONE, OPEN]))] == [an_id(2), an_id(1)]


def test_no_runs_are_a_line_of_names() -> None:
    assert to_csv([]).count("\n") == 1
    assert json.loads(to_json_text([])) == []


def test_a_note_can_neither_steer_a_terminal_nor_run_in_a_spreadsheet() -> None:
    rows = table(to_csv([a_run(note="=1+1"), a_run(note='a "b",\nc \x1b[2J')]))
    assert [row["note"] for row in rows] == ["'=1+1", 'a "b",\nc \\x1b[2J']


def test_the_document_has_every_promised_key_in_its_order() -> None:
    document = to_json(OPEN)
    assert tuple(document)[: len(PROMISED)] == PROMISED
    assert {"profile", "overrides", "findings", "forced", "data", "project"} <= set(document)
    assert (document["session"], document["verdict"], document["accuracy"]) == (None, None, None)
    assert "events" not in document
    assert to_json(OPEN, [])["events"] == []


def test_words_are_plain_and_numbers_finite() -> None:
    document = json.loads(json_text(to_json(DONE)))
    assert document["state"] == "finished"
    assert document["outcome"] == "ok"
    assert document["fetched"] == "complete"
    assert document["session"] == {"kind": "tmux", "name": "s"}
    assert document["metrics"] == {"n": 8, "loss": None}
    assert document["labels"] == ["neg", "pos"]


def test_any_value_becomes_json_that_a_strict_reader_takes() -> None:
    value = {"a": (1, math.inf), 2: {Verdict.OOM}, "p": DONE.state, "t": True}
    text = json_text(value)
    assert text.isascii()
    assert json.loads(text, parse_constant=lambda word: 1 / 0)["a"] == [1, None]
    assert plain(True) is True


def test_documents_carry_no_control_character() -> None:
    text = json_text({"note": "\x1b[2J\x7f\x9b\u202e"})
    assert text.replace("\n", "").isprintable()
    assert text.isascii()
    assert json.loads(text)["note"] == "\x1b[2J\x7f\x9b\u202e"
