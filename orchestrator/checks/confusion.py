"""Confusion matrices: whether one can be believed, and whether it shows a classifier at all. Pure.

Rows are the true classes, columns the predicted ones: `m[i][j]` examples of class i were called j.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.checks.binomial import upper_tail
from orchestrator.strictjson import cut
from orchestrator.wording import counted
from orchestrator.wording import value as words

Matrix = tuple[tuple[int, ...], ...]

ALMOST_NEVER = 0.05  # predicted less often than this share of its true examples
LEVEL = 0.01  # of the one-sided test against always guessing the majority class
TOLERANCE = 0.0005  # an accuracy printed with three digits may be off by this from its matrix
COARSE = 0.005  # one printed with two; fewer digits are taken as two: 0.9 as 0.90
EXACT = 2**53  # below it every whole number is a float


class Contradiction(ValueError):
    """The result file cannot be true; the message says why, with the numbers."""


def matrix_of(value: Any) -> Matrix:
    """A square matrix of counts, at least 2 x 2, with at least one example; or Contradiction."""
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise Contradiction("confusion_matrix is not a list of rows")
    size = len(value)
    if size < 2:
        raise Contradiction(
            f"confusion_matrix has {counted(size, 'row')}; a classifier has two classes or more"
        )
    for at, row in enumerate(value):
        if len(row) != size:
            raise Contradiction(
                f"confusion_matrix is not square: {size} rows, row {at} has "
                + counted(len(row), "column")
            )
        for count in row:
            if count_of(count) is None:
                raise Contradiction(
                    f"confusion_matrix row {at} holds {cut(words(count))}, which is not a count"
                )
    if not any(map(any, value)):
        raise Contradiction("confusion_matrix counts no example: all of it is 0")
    return tuple(tuple(int(count) for count in row) for row in value)


def count_of(value: Any) -> int | None:
    """The whole number from 0 on that this is, also as a float (450.0); None for anything else."""
    whole = type(value) is int or (type(value) is float and value.is_integer() and value < EXACT)
    return int(value) if whole and value >= 0 else None


def labels_of(value: Any, matrix: Matrix) -> tuple[str, ...]:
    """One distinct name a class; empty when the file has none."""
    if value is None or value == []:
        return ()
    if not isinstance(value, list) or not all(type(name) in (str, int) for name in value):
        raise Contradiction("labels is not a list of names")
    names = tuple(str(name) for name in value)
    if len(set(names)) != len(names):
        raise Contradiction("labels names a class twice")
    if matrix and len(names) != len(matrix):
        raise Contradiction(
            f"labels has {counted(len(names), 'name')}, confusion_matrix has {len(matrix)} classes"
        )
    return names


def agrees(matrix: Matrix, accuracy: float | None, n: Any) -> None:
    """Raises Contradiction when the matrix gives another accuracy or another number of examples.

    An accuracy of two decimals need only be the matrix's rounded to two, any other to three.
    """
    total, right = _total(matrix), _right(matrix)
    if n is not None and n != total:
        raise Contradiction(f"n is {n}, confusion_matrix counts {counted(total, 'example')}")
    if accuracy is None:
        return
    tolerance = COARSE if round(accuracy, 2) == accuracy else TOLERANCE
    if abs(accuracy - right / total) > tolerance + 1e-9:
        raise Contradiction(
            f"accuracy is {accuracy:.6g}, confusion_matrix gives {right / total:.6g} "
            f"({right} of {total})"
        )


def degeneracy(matrix: Matrix, labels: Sequence[str] = ()) -> tuple[str, ...]:
    """Why the predictions are worth no more than a constant answer; empty when they are worth more.

    A class is almost never predicted when its column sums to less than ALMOST_NEVER of its row. The
    accuracy is no better than always answering the largest class when so many hits or more have a
    probability of LEVEL or more under that answer's share (binomial, one-sided).
    """
    total, right = _total(matrix), _right(matrix)
    true = [sum(row) for row in matrix]
    predicted = [sum(column) for column in zip(*matrix, strict=True)]
    reasons = []
    for at, (there, called) in enumerate(zip(true, predicted, strict=True)):
        if there and called < ALMOST_NEVER * there:
            often = f"predicted only {counted(called, 'time')}" if called else "never predicted"
            reasons.append(f"class {_name(at, labels)} was {often}: {matrix[at][at]} of {there}")
    most = max(true)
    majority = _name(true.index(most), labels)
    if most == total:
        all_ = f"all {total} examples are" if total > 1 else "the only example is"
        reasons.append(f"{all_} of class {majority}: nothing can be told apart")
        return tuple(reasons)
    return (*reasons, *_at_majority(right, total, most / total, majority))


def no_gain(accuracy: float, majority: float, n: int | None) -> tuple[str, ...]:
    """`degeneracy` where there is no matrix: from the largest class's share of the `n` examples.

    Without `n` nothing can be tested; an accuracy not above that share is no better for any.
    """
    name = "the majority class"
    if majority == 1.0:
        return (f"all examples are of {name}: nothing can be told apart",)
    if n is not None:
        return tuple(_at_majority(round(accuracy * n), n, majority, name))
    if accuracy > majority:
        return ()
    return (f"{_compared(accuracy, majority, name, accuracy == majority)}; `n` is not told",)


def _at_majority(right: int, total: int, share: float, majority: str) -> Iterator[str]:
    p = upper_tail(right, total, share)
    if p >= LEVEL:
        same = abs(right - share * total) < 0.5
        yield f"{_compared(right / total, share, majority, same)}; p = {_digits(p)}"


def _compared(accuracy: float, share: float, majority: str, same: bool) -> str:
    always = f"always answering {majority}"
    if same:
        return f"{100 * share:.1f} % is what {always} gives"
    return f"{100 * accuracy:.1f} % is no better than the {100 * share:.1f} % of {always}"


def _digits(p: float) -> str:
    return f"{p:.2f}" if p >= 0.1 else f"{p:.2g}"


def _name(at: int, labels: Sequence[str]) -> str:
    return f"`{cut(labels[at])}`" if labels else f"`{at}`"


def _total(matrix: Matrix) -> int:
    return sum(map(sum, matrix))


def _right(matrix: Matrix) -> int:
    return sum(row[at] for at, row in enumerate(matrix))
