from __future__ import annotations

import math
from datetime import datetime, timezone

from orchestrator.compare import (
    CodeFile,
    accuracy_change,
    changed_files,
    compare,
    document,
    rows_of,
    same,
    with_diff,
)
from orchestrator.comparetext import compare_text, short_ids
from orchestrator.runtext import show_text
from tests.helpers.runs import a_run, an_id

ENV = {"python": {"version": "3.11.2", "packages": {"torch": "2.13.0"}}, "driver": None}
OTHER = {"python": {"version": "3.11.2", "packages": {"torch": "2.12.0"}}, "driver": "550.1"}


def code_file(sha: str, mode: int = 0o644, size: int = 10) -> CodeFile:
    return CodeFile(mode, "f", size, sha * 64)


def test_only_keys_that_differ_are_told_and_an_absent_key_is_not_a_null() -> None:
    one = a_run(an_id(1), config={"a": {"x": 1, "y": None}, "b": [1, 2]})
    two = a_run(an_id(2), config={"a": {"x": 1}, "b": [1, 2], "c": {}})
    told = document(compare([one, two], [ENV, OTHER], []), everything=False)
    assert [row["key"] for row in told["config"]] == ["a.y", "c"]
    assert told["config"][0]["values"] == {one.run_id: None}
    assert told["config"][1]["values"] == {two.run_id: {}}
    assert [row["key"] for row in told["environment"]] == ["python.packages.torch", "driver"]
    whole = document(compare([one, two], [ENV, OTHER], []), everything=True)
    assert [row["key"] for row in whole["config"]] == ["a.x", "a.y", "b", "c"]


def test_one_word_says_absent_and_null_is_what_was_written_as_null() -> None:
    one = a_run(an_id(1), config={"a": None}, overrides={"a": None}, metrics={"m": None})
    two = a_run(an_id(2), config={"a": 1}, metrics={"m": 1}, profile="cpu", tags={"k": "v"})
    table = compare_text(compare([one, two], [ENV, OTHER], []))
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.strip()}
    assert rows["profile"] == ["(absent)", "cpu"] and rows["tags.k"] == ["(absent)", "v"]
    assert rows["driver"] == ["(absent)", "550.1"]
    assert rows["overrides.a"] == ["null", "(absent)"]
    assert rows["a"] == rows["m"] == ["null", "1"]
    assert "none" not in table


def test_values_are_equal_as_numbers_but_a_flag_is_no_number() -> None:
    assert same(1, 1.0) and same(1e-3, 0.001) and same(math.nan, math.nan)
    assert same([1, {"a": 2}], [1.0, {"a": 2.0}])
    assert not same(1, True) and not same(0, None) and not same("1", 1)
    assert not same([1, 2], [1]) and not same({"a": 1}, {"b": 1})


def test_a_config_differs_where_its_hash_does() -> None:
    one = a_run(
        an_id(1), config={"f": 1.0, "z": -0.0, "l": [1, {"a": 1}], "s": 1}, metrics={"m": 1}
    )
    two = a_run(
        an_id(2), config={"f": 1, "z": 0.0, "l": [1, {"a": 1.0}], "s": 1}, metrics={"m": 1.0}
    )
    found = compare([one, two], [ENV, ENV], [])
    assert [row.key for row in found.differing("config")] == ["f", "l"]
    assert found.differing("metrics") == []


def test_a_text_is_not_shown_as_the_other_value_it_looks_like() -> None:
    pairs: list[tuple[object, str, str]] = [
        (1, "1", '1 "1"'), (True, "true", 'true "true"'), (None, "null", 'null "null"'),
        ([1], "[1]", '[1] "[1]"'), ({}, "{}", '{} "{}"'), (1e-4, "1e-4", '0.0001 "1e-4"'),
        ("a", "a ", 'a "a "'), ("", "~", '"" "~"'), ("plain-1", "b/c:2", "plain-1 b/c:2"),
        ("a\tb", "a b", '"a\\tb" a b'), ('"1"', "1", '"\\"1\\"" "1"'),
    ]  # fmt: skip
    one = a_run(an_id(1), config={f"k{at}": pair[0] for at, pair in enumerate(pairs)})
    two = a_run(an_id(2), config={f"k{at}": pair[1] for at, pair in enumerate(pairs)})
    table = compare_text(compare([one, two], [ENV, ENV], []))
    rows = [" ".join(line.split()) for line in table.splitlines() if line.startswith("k")]
    assert rows == [f"k{at} {pair[2]}" for at, pair in enumerate(pairs)]
    assert 'k0: "1"' in show_text(two, [], datetime(2026, 1, 1, tzinfo=timezone.utc))


def test_a_version_or_a_tag_is_always_a_text_and_stands_without_quotes() -> None:
    told = compare_text(
        compare(
            [a_run(an_id(1), tags={"seed": "1"}), a_run(an_id(2), tags={"seed": "2"})],
            [{"python": {"version": "3.10"}}, {"python": {"version": "3.11"}}],
            [],
        )
    )
    assert '"' not in told


def test_an_environment_that_is_not_known_is_not_compared() -> None:
    found = compare([a_run(an_id(1)), a_run(an_id(2))], [ENV, None], [], ["environment: silent"])
    assert found.sections["environment"] == ()
    assert "silent" in compare_text(found)


def test_three_runs_have_a_column_each() -> None:
    rows = rows_of([{"lr": 1}, {"lr": 1}, {"lr": 2}])
    assert [(row.key, row.values, row.differs) for row in rows] == [("lr", (1, 1, 2), True)]


def test_files_are_told_by_what_became_of_them() -> None:
    before = {"a": code_file("a"), "b": code_file("b"), "m": code_file("c"), "z": code_file("d")}
    after = {"b": code_file("e"), "m": code_file("c", 0o755), "n": code_file("f"), "z": before["z"]}
    told = [(each.path, each.change) for each in changed_files(before, after)]
    assert told == [("a", "removed"), ("b", "changed"), ("m", "mode"), ("n", "added")]


def test_a_diff_is_made_of_small_text_and_else_says_why_not() -> None:
    contents = {"a" * 64: b"one\ntwo\n", "b" * 64: b"one\n2\n", "c" * 64: b"\0\1"}

    def diff_of(new: str, size: int = 10) -> tuple[tuple[str, ...] | None, str | None]:
        pair = {"f": code_file("a")}, {"f": code_file(new, size=size)}
        found = with_diff(changed_files(*pair)[0], lambda f: contents.get(f.sha256), 100)
        return found.diff, found.why

    assert diff_of("b") == (("@@ -1,2 +1,2 @@", " one", "-two", "+2"), None)
    assert diff_of("c") == (None, "not text")
    assert diff_of("d") == (None, "its content could not be had")
    assert diff_of("b", 1000) == (None, "larger than 100 B")


def test_a_difference_of_accuracies_has_newcombes_interval() -> None:
    # Newcombe 1998, example (a): 56/70 less 48/80 is 0.20, from 0.0524 to 0.3339.
    one = a_run(an_id(1), accuracy=48 / 80, metrics={"n": 80})
    two = a_run(an_id(2), accuracy=56 / 70, metrics={"n": 70})
    change = accuracy_change(one, two)
    assert change is not None and change.low is not None and change.high is not None
    assert round(change.difference, 4) == 0.2
    assert (round(change.low, 4), round(change.high, 4)) == (0.0524, 0.3339)
    assert accuracy_change(one, a_run(an_id(2))) is None


def test_hostile_text_cannot_steer_the_terminal() -> None:
    one = a_run(an_id(1), config={"a\x1b[2J": "\x1b]0;x\x07"})
    text = compare_text(compare([one, a_run(an_id(2))], [None, None], [], ["\x1b[31mno"]))
    assert "\x1b" not in text and "\x07" not in text


def test_ids_are_shortened_to_what_tells_them_apart() -> None:
    assert short_ids(["a-b-c1", "a-b-c2"]) == ["c1", "c2"]
    assert short_ids(["a-b-c1", "a-x-c1"]) == ["b-c1", "x-c1"]
