"""Names are taken from an allow-list; what is refused is shown with its position."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import names
from orchestrator.errors import UsageError

NOW = datetime(2026, 11, 23, 9, 19, 29, 123_456, tzinfo=timezone.utc)


@pytest.mark.parametrize("name", ["a", "mdlm-pretrained-fixed", "0.x_y", "a" * 64])
def test_good_job_name_is_returned_unchanged(name: str) -> None:
    assert names.job_name(name) == name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a; rm -rf ~", "`;` at position 2"),
        ("$(x)", "`$` at position 1"),
        ("-rf", "`-` at position 1"),
        ("..", "`.` at position 1"),
        ("a\nb", "U+000A at position 2"),
        ("a\0", "U+0000 at position 2"),
        ("ab\u202ec", "U+202E at position 3"),
        ("Upper", "`U` at position 1"),
        ("a/b", "`/` at position 2"),
        ("é", "U+00E9 at position 1"),
        ("a\u0660", "U+0660 at position 2"),
        ("a" * 300, "position 65"),
        ("", "empty"),
    ],
)
def test_f63_hostile_job_name_is_refused_with_its_position(name: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        names.job_name(name)
    assert told in caught.value.message
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("can.canary", "the canaries of the job `can` are kept under it"),
        ("20261123-091929-123k3x7q", "a run's id looks like that"),
    ],
)
def test_a_job_is_not_called_what_already_means_something_else(name: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        names.job_name(name)
    assert names.recorded_job(name) == name


@given(st.text(max_size=80))
def test_f63_any_text_is_a_safe_name_or_refused(text: str) -> None:
    try:
        name = names.job_name(text)
    except UsageError as error:
        assert error.message.isprintable()
        return
    assert name == text
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    assert name[0] not in "._-"


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (names.host_name, "nigel.birs-2_x", "-oProxyCommand=x"),
        (names.host_name, "Nigel", "vincent@nigel"),
        (names.host_name, "_gateway", "a:22"),
        (names.data_name, "SST-2", "../x"),
        (names.env_name, "_a1", "1a"),
        (names.env_name, "A", "A=B"),
        (names.secret_name, "HF_TOKEN", "hf_token"),
        (names.stage_name, "train.1", "Train"),
        (names.profile_name, "cpu", "--cpu"),
    ],
)
def test_each_kind_of_name_has_its_own_alphabet(
    check: Callable[[str], str], good: str, bad: str
) -> None:
    assert check(good) == good
    with pytest.raises(UsageError):
        check(bad)


def test_tag_is_a_pair_on_one_line() -> None:
    assert names.tag("who=a = b") == ("who", "a = b")
    for bad in ("novalue", "=x", "a b=c", "a=b\nc", "a=" + "x" * 257, "a=\x1b[31m"):
        with pytest.raises(UsageError):
            names.tag(bad)


def test_run_id_shows_the_time_and_is_recognised() -> None:
    run_id = names.new_run_id(NOW, "k3x7q")
    assert run_id == "20261123-091929-123k3x7q"
    assert names.is_run_id(run_id)
    names.recorded_job(run_id)  # an id is safe wherever a job's name is
    assert names.time_of(run_id) == NOW.replace(microsecond=123_000)


@given(st.datetimes(min_value=datetime(2000, 1, 1)), st.integers(1, 10**7))
def test_run_ids_sort_by_time(now: datetime, later_ms: int) -> None:
    first = now.replace(tzinfo=timezone.utc)
    try:
        second = first + timedelta(milliseconds=later_ms)
    except OverflowError:
        return
    assert names.new_run_id(first, "zzzzz") < names.new_run_id(second, "22222")


@given(st.datetimes(datetime(2000, 1, 1)), st.datetimes(datetime(2000, 1, 1)))
def test_a_run_id_sorts_behind_the_newest_whatever_the_clock_says(
    now: datetime, then: datetime
) -> None:
    newest = names.new_run_id(then.replace(tzinfo=timezone.utc), "zzzzz")
    made = names.new_run_id(now.replace(tzinfo=timezone.utc), "22222", newest)
    assert made > newest or newest.startswith("99991231-235959-999")
    assert names.is_run_id(made)


@pytest.mark.parametrize("newest", ["20261399-000000-000zzzzz", "99991231-235959-999zzzzz", "x"])
def test_a_run_id_that_none_can_follow_is_passed_over(newest: str) -> None:
    assert names.new_run_id(NOW, "k3x7q", newest) == "20261123-091929-123k3x7q"


@pytest.mark.parametrize("token", ["", "abcd", "abcdef", "abcdl", "abcdo", "abcd1", "ABCDE"])
def test_run_id_refuses_a_token_of_other_signs(token: str) -> None:
    with pytest.raises(ValueError, match="5 signs"):
        names.new_run_id(NOW, token)


def test_run_id_refuses_a_time_that_is_not_utc() -> None:
    for now in (datetime(2026, 1, 1), NOW.astimezone(timezone(timedelta(hours=1)))):
        with pytest.raises(ValueError, match="UTC"):
            names.new_run_id(now, "aaaaa")


@pytest.mark.parametrize(
    "text", ["", "hello", "20261123-091929-123k3x7", "20261123-091929-123k3x7q\n", "x" * 24]
)
def test_other_texts_are_no_run_ids(text: str) -> None:
    assert not names.is_run_id(text)


def test_did_you_mean_offers_the_nearest_or_nothing() -> None:
    assert names.did_you_mean("acuracy", ["loss", "accuracy"]) == "; did you mean `accuracy`?"
    assert names.did_you_mean("zzz", ["loss", "accuracy"]) == ""
