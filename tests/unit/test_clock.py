from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from orchestrator.clock import SystemClock, age_words, iso, parse_iso, seconds_between, span_words

MOMENT = datetime(2026, 11, 23, 9, 19, 29, 123456, tzinfo=timezone.utc)


def test_a_moment_is_written_with_microseconds_and_read_back() -> None:
    assert iso(MOMENT) == "2026-11-23T09:19:29.123456Z"
    assert parse_iso(iso(MOMENT)) == MOMENT


def test_a_whole_second_is_as_long_as_any_other_so_that_texts_sort_as_times_do() -> None:
    whole = MOMENT.replace(microsecond=0)
    assert iso(whole) == "2026-11-23T09:19:29.000000Z"
    assert iso(whole) < iso(MOMENT)


def test_another_zone_is_written_in_utc() -> None:
    east = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert iso(east) == iso(MOMENT)


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2026-11-23T09:19:29Z", 0),
        ("2026-11-23T09:19:29.1Z", 100_000),
        ("2026-11-23T09:19:29.123456789+00:00", 123_456),
        ("2026-11-23T11:19:29.123+02:00", 123_000),
    ],
)
def test_other_spellings_of_the_standard_are_read(text: str, microsecond: int) -> None:
    assert parse_iso(text) == MOMENT.replace(microsecond=microsecond)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-23T09:19:29", "2026-13-01T00:00:00Z"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_iso(text)


def test_a_time_without_a_zone_is_not_written() -> None:
    with pytest.raises(ValueError):
        iso(datetime(2026, 11, 23))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (14 * 60 + 59, "14 min"),
        (3600, "1 h"),
        (3 * 3600 + 20 * 60, "3 h 20 min"),
        (86400, "1 d"),
        (5 * 86400 + 4 * 3600, "5 d 4 h"),
        (-3, "0 s"),
    ],
)
def test_spans_are_words_of_two_places_at_most(seconds: float, words: str) -> None:
    assert span_words(seconds) == words


def test_an_age_is_a_span_and_a_time_ahead_of_the_clock_is_just_now() -> None:
    assert age_words(14 * 60) == "14 min ago"
    assert age_words(-300) == "just now"


def test_seconds_between_two_texts_have_a_sign() -> None:
    assert seconds_between("2026-11-23T09:00:00Z", "2026-11-23T09:00:01.5Z") == 1.5
    assert seconds_between("2026-11-23T09:00:01Z", "2026-11-23T09:00:00Z") == -1.0


def test_the_system_clock_is_aware_utc_and_its_monotonic_side_never_goes_back() -> None:
    clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() <= clock.monotonic()
