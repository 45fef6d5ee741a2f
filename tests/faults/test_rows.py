"""docs/faults.md accounts for every row: by the tests that prove it, or by why there is none."""

from __future__ import annotations

import re
from pathlib import Path

from tests.helpers.rows import ROWS, files_by_row, rows_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"


def proofs() -> dict[int, str]:
    """The last cell of each numbered row of the page."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if re.fullmatch(r"\| [0-9]+ \| .*\|", line):
            assert len(cells) == 4, line
            number = int(cells[0])
            assert number not in found, f"row {number} is there twice"
            found[number] = cells[3].rstrip(" |")
    return found


def test_every_row_is_on_the_page_once_and_in_order() -> None:
    assert list(proofs()) == list(ROWS)


def test_every_row_names_the_files_that_hold_its_tests_or_says_why_there_is_none() -> None:
    tests, wrong = files_by_row(), []
    for number, proof in proofs().items():
        named = set(re.findall(r"`([a-z_]+/test_[a-z0-9_]+)`", proof))
        if named != tests.get(number, set()):
            wrong.append(f"{number}: the page says {sorted(named)}, there are {tests.get(number)}")
        if not named and not re.fullmatch(r"no test: .{20,}", proof):
            wrong.append(f"{number}: neither a test nor a reason")
    assert not wrong, "\n".join(wrong)


def test_no_test_proves_a_row_that_is_not_there() -> None:
    assert files_by_row().keys() <= set(ROWS)


def test_a_name_carries_one_row_or_several() -> None:
    assert rows_of("test_f17_a_pid") == {17}
    assert rows_of("test_f08_f95_an_answer") == {8, 95}
    assert rows_of("test_f43_to_f47_a_submit") == {43, 44, 45, 46, 47}
    assert rows_of("test_fast_and_f17_later") == rows_of("test_f1_short") == set()
