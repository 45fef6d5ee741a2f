"""Numbered rows of docs/faults.md: a test that proves one carries its number in its name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROWS = range(1, 96)
_NUMBERS = re.compile(r"test((?:_f[0-9]{2}|_to_f[0-9]{2})+)_")


def rows_of(test: str) -> set[int]:
    """The rows a test's name carries: `test_f43_to_f47_...` five, `test_f08_f95_...` two."""
    found = _NUMBERS.match(test)
    if found is None:
        return set()
    numbers: list[int] = []
    for word in found.group(1).split("_")[1:]:
        if word == "to":
            numbers.append(-1)
        elif numbers and numbers[-1] == -1:
            numbers[-1:] = range(numbers[-2] + 1, int(word[1:]) + 1)
        else:
            numbers.append(int(word[1:]))
    return set(numbers)


def files_by_row() -> dict[int, set[str]]:
    """Row -> the files (`contract/test_faults`) that hold a test of it."""
    found: dict[int, set[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        name = str(path.relative_to(TESTS).with_suffix(""))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for row in rows_of(node.name):
                    found.setdefault(row, set()).add(name)
    return found
