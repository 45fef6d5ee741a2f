"""Counts, sizes and values as sentences have them."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import wording
from remote import files


def test_one_is_singular_and_every_other_number_plural() -> None:
    assert [wording.counted(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert wording.counted(1, "finding refuses", "findings refuse") == "1 finding refuses"
    assert wording.counted(3, "finding refuses", "findings refuse") == "3 findings refuse"


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (49_999, "50.0 kB"), (999_949, "999.9 kB"),
     (999_950, "1.0 MB"), (40_000_000, "40.0 MB"),
     (999_950_000, "1.0 GB"), (5 * 10**12, "5000.0 GB")],
)  # fmt: skip
def test_a_size_has_the_unit_that_shows_it(count: int, told: str) -> None:
    assert wording.size(count) == told
    assert files.size(count) == told  # a host says it in the same words


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "null"), (True, "true"), ({"a": [None, 1]}, '{"a": [null, 1]}'), (1e-4, "0.0001"),
     ("text", "'text'"), ("größe", "'gr\\xf6\\xdfe'"), (["ö"], '["\\u00f6"]')],
)  # fmt: skip
def test_a_value_is_shown_as_json_has_it(value: Any, told: str) -> None:
    assert wording.value(value) == told


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("box: no answer", "no answer"),
        ("box (me@1.2.3.4:22): cannot connect: no", "me@1.2.3.4:22: cannot connect: no"),
        ("boxer: no answer", "boxer: no answer"),
        ("box is gone", "box is gone"),
        ("nothing (at all): no", "nothing (at all): no"),
    ],
)
def test_a_host_is_not_named_where_its_name_stands_already(message: str, told: str) -> None:
    assert wording.without_name("box", message) == told
