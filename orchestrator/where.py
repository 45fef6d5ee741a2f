"""`orch ls --where`: which runs are meant, as a small expression over a run's document. Pure.

An expression is parsed by `ast` and walked by an allow-list; nothing is ever evaluated by python.
Names are dotted paths into what `orch show --json` prints (`config.training.lr`), or metrics by
their bare name (`loss`). Allowed: numbers, texts, true, false, null, lists, comparisons (also
chained, `in`), and, or, not, + - * /, and `key("config.a-b")` for a path that is no plain name. A
run that lacks what a comparison needs does not match it.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.errors import UsageError

LENGTH_MAX = 1000
PARTS_MAX = 200
CONSTANTS = {"true": True, "false": False, "null": None}
HINT = "such as --where 'accuracy > 0.8 and config.training.lr < 1e-3'; names are those of --json"

_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.In: lambda item, among: item in among, ast.NotIn: lambda item, among: item not in among,
}  # fmt: skip
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_CHILDREN = (ast.BoolOp, ast.Compare, ast.List, ast.Tuple)


class Where:
    """An expression that was checked; call it with a run's document."""

    def __init__(self, text: str, fields: frozenset[str]) -> None:
        """UsageError names the position of what is not allowed. `fields`: a document's keys."""
        self._text, self._fields = text, fields
        if len(text) > LENGTH_MAX:
            raise self._refused(LENGTH_MAX, f"it is longer than {LENGTH_MAX} characters")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # python's own advice on odd escapes
                self._tree = ast.parse(text.strip(), mode="eval").body
        except SyntaxError as error:
            at = (error.offset or len(text)) + len(text) - len(text.lstrip())
            raise self._refused(at, error.msg) from None
        except (ValueError, RecursionError, MemoryError):
            raise self._refused(0, "it cannot be read") from None
        if sum(1 for _ in ast.walk(self._tree)) > PARTS_MAX:
            raise self._refused(0, f"it has more than {PARTS_MAX} parts")
        self._allow(self._tree)

    def __call__(self, document: Mapping[str, Any]) -> bool:
        return bool(_value(self._tree, document))

    def _refused(self, position: int, why: str) -> UsageError:
        mark = " " * max(position - 1, 0) + "^"
        shown = ascii(self._text)[1:-1]
        lines = f"\n  {shown}\n  {mark}" if shown == self._text and position else ""
        return UsageError(f"--where: position {position}: {why}{lines}", hint=HINT)

    def _allow(self, node: ast.expr) -> None:
        path = _path(node)
        if path is not None:
            self._allow_path(node, path)
        elif isinstance(node, ast.Constant):
            if not (node.value is None or isinstance(node.value, (bool, int, float, str))):
                raise self._bad(node, f"{node.value!r} is not allowed")
        elif isinstance(node, ast.Name):
            pass  # one of CONSTANTS
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
            self._allow(node.operand)
        elif isinstance(node, _CHILDREN) or (
            isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC
        ):
            if any(type(each) not in _COMPARE for each in getattr(node, "ops", [])):
                raise self._bad(node, "`is` is not allowed; write ==")
            for below in ast.iter_child_nodes(node):
                if isinstance(below, ast.expr):
                    self._allow(below)
        else:
            raise self._bad(node, f"{type(node).__name__} is not allowed")

    def _allow_path(self, node: ast.expr, path: tuple[str, ...]) -> None:
        """A dotted path must begin with a field; a bare name may be a metric of any run."""
        if len(path) > 1 and path[0] not in self._fields:
            from orchestrator.names import did_you_mean  # loads difflib, for a mistake only

            near = did_you_mean(path[0], sorted(self._fields))
            raise self._bad(node, f"a run has no `{path[0]}`{near}")

    def _bad(self, node: ast.expr, why: str) -> UsageError:
        before = self._text.strip().encode()[: node.col_offset].decode(errors="replace")
        lead = len(self._text) - len(self._text.lstrip())
        return self._refused(lead + len(before) + 1, why)


def find(document: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at the path, or None. A bare name that is no field is looked for in the metrics."""
    if len(path) == 1 and path[0] not in document:
        metrics = document.get("metrics")
        return metrics.get(path[0]) if isinstance(metrics, Mapping) else None
    value: Any = document
    for at, name in enumerate(path):
        if not isinstance(value, Mapping):
            return None
        rest = ".".join(path[at:])
        if rest in value:  # a key with a dot of its own
            return value[rest]
        value = value.get(name)
    return value


def _path(node: ast.expr) -> tuple[str, ...] | None:
    """`a.b.c` as nested attributes, or `key("a.b.c")`; None for anything else."""
    if isinstance(node, ast.Name):
        return None if node.id in CONSTANTS else (node.id,)
    if isinstance(node, ast.Attribute):
        above = _path(node.value)
        return None if above is None else (*above, node.attr)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "key":
        word = node.args[0] if len(node.args) == 1 and not node.keywords else None
        if isinstance(word, ast.Constant) and isinstance(word.value, str):
            return tuple(word.value.split("."))
    return None


def _value(node: ast.expr, document: Mapping[str, Any]) -> Any:
    path = _path(node)
    if path is not None:
        return find(document, path)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return CONSTANTS[node.id]
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(each, document) for each in node.elts]
    if isinstance(node, ast.BoolOp):
        every = isinstance(node.op, ast.And)
        return (all if every else any)(_value(each, document) for each in node.values)
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, document)
        if isinstance(node.op, ast.Not):
            return not value
        return -value if isinstance(value, (int, float)) else None
    if isinstance(node, ast.BinOp):
        return _arithmetic(node, document)
    assert isinstance(node, ast.Compare)
    return _compare(node, document)


def _arithmetic(node: ast.BinOp, document: Mapping[str, Any]) -> Any:
    left, right = _value(node.left, document), _value(node.right, document)
    if not all(isinstance(each, (int, float)) for each in (left, right)):
        return None
    try:
        return _ARITHMETIC[type(node.op)](left, right)
    except ArithmeticError:
        return None


def _compare(node: ast.Compare, document: Mapping[str, Any]) -> bool:
    left = _value(node.left, document)
    for sign, other in zip(node.ops, node.comparators, strict=True):
        right = _value(other, document)
        try:
            holds = _COMPARE[type(sign)](left, right)
        except TypeError:  # a null, or a text against a number
            return False
        if not holds:
            return False
        left = right
    return True
