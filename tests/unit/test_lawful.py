"""Values from outside: of their type, or absent."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import lawful

ODD: list[Any] = [None, True, [], {}, "x", -1, 1.5, float("nan"), float("inf"), 10**400, b"x"]


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", ODD)
def test_no_value_raises(value: Any) -> None:
    for read in (lawful.text, lawful.count, lawful.real, lawful.moment, lawful.table,
                 lawful.mapping, lawful.items, lawful.texts, lawful.is_plain):  # fmt: skip
        read(value)


def test_numbers_are_numbers() -> None:
    assert (lawful.count(7), lawful.count(0)) == (7, 0)
    assert [lawful.count(each) for each in (True, -1, 1.0, "1", 65536)] == [None] * 5
    assert (lawful.real(7), lawful.real(-0.5)) == (7, -0.5)
    odd = (True, "1", float("nan"), float("inf"), 10**400)
    assert [lawful.real(each) for each in odd] == [None] * 5


@pytest.mark.parametrize(
    ("told", "moment"),
    [
        ("2026-11-23T10:00:00Z", "2026-11-23T10:00:00.000000Z"),
        ("2026-11-23T11:30:00.5+01:30", "2026-11-23T10:00:00.500000Z"),
        ("yesterday", None),
        ("2026-11-23T10:00:00", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-23:59", None),
        (7, None),
        ("2" * 1000, None),
    ],
)
def test_a_moment_is_one_of_this_calendar_with_a_zone(told: Any, moment: str | None) -> None:
    assert lawful.moment(told) == moment


def test_plain_values_are_finite_and_not_too_deep() -> None:
    assert lawful.is_plain({"a": [1, 2.5, None, True, "x"]})
    assert not lawful.is_plain({"a": [{"b": float("nan")}]})
    assert lawful.is_plain(deep(lawful.DEPTH_MAX))
    assert not lawful.is_plain(deep(lawful.DEPTH_MAX + 1))
    assert not lawful.is_plain(deep(900))
    assert lawful.table({"a": deep(900)}) == {}
