"""Small expressions over named values: `rules:` of a spec, `--where` of a listing. Pure.

An expression is parsed by `ast` and walked by an allow-list; nothing is ever evaluated by python.
Names are dotted. Allowed: numbers, texts, true, false, null, lists, + - * / // % **, comparisons
(also chained, `in`), and, or, not, `x[0]`, the functions of FUNCTIONS, and `key("a-b.c")` for what
is no plain name. What a name means, and which there are, is the caller's.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.wording import shown

MAX_LENGTH = 1000
MAX_NODES = 200

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "min": min, "max": max, "abs": abs, "len": len, "sum": sum, "round": round,
    "sqrt": math.sqrt, "log": math.log, "ceil": math.ceil, "floor": math.floor,
}  # fmt: skip
CONSTANTS: Mapping[str, Any] = {"true": True, "false": False, "null": None}

_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}  # fmt: skip
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.In: lambda item, among: item in among, ast.NotIn: lambda item, among: item not in among,
}  # fmt: skip
_MISFITS = (TypeError, ValueError, ArithmeticError, LookupError)


class BadExpression(ValueError):
    """The text cannot be used; `position` counts its characters from 1."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class Unfit(Exception):
    """The values at hand do not go into the expression."""


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression of the allowed kind; `names` are those it uses, in its order."""

    names: tuple[str, ...]
    _tree: ast.expr

    def value(self, lookup: Callable[[str], Any], *, lenient: bool = False) -> Any:
        """What it gives with the values that `lookup` has for its names.

        Unfit when they do not go together; `lenient`: a comparison of such does not hold instead,
        nor does one of two values that are both missing. A `null` that is written is a value.
        """
        try:
            return _Values(lookup, lenient).of(self._tree)
        except _MISFITS as error:
            raise Unfit(error.args[-1] if error.args else type(error).__name__) from None

    def texts_for(self, name: str) -> list[str]:
        """The written texts that the value of `name` is held against: `==`, `!=`, `in [...]`."""
        found: list[ast.expr] = []
        for node in ast.walk(self._tree):
            if not isinstance(node, ast.Compare):
                continue
            sides = [node.left, *node.comparators]
            for sign, left, right in zip(node.ops, sides, sides[1:], strict=False):
                if isinstance(sign, (ast.Eq, ast.NotEq)):
                    found += [right] if _dotted(left) == name else []
                    found += [left] if _dotted(right) == name else []
                elif _dotted(left) == name and isinstance(right, (ast.List, ast.Tuple)):
                    found += right.elts if isinstance(sign, (ast.In, ast.NotIn)) else []
        written = (each.value for each in found if isinstance(each, ast.Constant))
        return [each for each in written if isinstance(each, str)]


def parse(text: str, refused: Callable[[str], str | None]) -> Expression:
    """The expression, all of it allowed; or BadExpression with the place of what is not.

    `refused(name)` says why a name cannot be used, None when it can.
    """
    if len(text) > MAX_LENGTH:
        raise BadExpression(f"it is longer than {MAX_LENGTH} characters", MAX_LENGTH)
    bare = text.lstrip()
    before = len(text) - len(bare)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # python's own advice on odd escapes
            tree = ast.parse(bare, mode="eval").body
    except SyntaxError as error:
        place = before + (error.offset or len(bare) + 1)
        raise BadExpression(f"it is no expression: {error.msg}", place) from None
    except (ValueError, RecursionError, MemoryError):
        raise BadExpression("it is no expression that can be read", 1) from None
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise BadExpression(f"it has more than {MAX_NODES} parts", 1)
    allowed = _Allowed(bare, before, refused)
    allowed.visit(tree)
    return Expression(tuple(dict.fromkeys(allowed.names)), tree)


def _dotted(node: ast.AST) -> str | None:
    """`a.b.c` of nested attributes, or of `key("a.b.c")`; None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = _dotted(node.value)
        return None if above is None else f"{above}.{node.attr}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "key":
        word = node.args[0] if len(node.args) == 1 and not node.keywords else None
        if isinstance(word, ast.Constant) and isinstance(word.value, str):
            return word.value
    return None


class _Allowed(ast.NodeVisitor):
    """Passes over an expression of the allowed kind; BadExpression at the first other node."""

    def __init__(self, text: str, before: int, refused: Callable[[str], str | None]) -> None:
        self._lines = text.split("\n")
        self._before = before
        self._refused = refused
        self.names: list[str] = []

    def visit(self, node: ast.AST) -> None:
        name = _dotted(node)
        if name is not None:
            self._known(node, name)
        elif isinstance(node, ast.Call):
            self._call(node)
        elif isinstance(node, ast.Constant):
            if not (node.value is None or isinstance(node.value, (bool, int, float, str))):
                raise self._bad(node, f"{node.value!r} is not allowed")
        elif isinstance(node, (ast.BoolOp, ast.List, ast.Tuple, ast.Compare)) or (
            isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC
        ):
            if any(type(each) not in _COMPARISONS for each in getattr(node, "ops", [])):
                raise self._bad(node, "`is` is not allowed; write ==")
            self._below(node)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.UAdd)):
            self.visit(node.operand)
        elif isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice):
            self._below(node)
        else:
            raise self._bad(node, f"{type(node).__name__} is not allowed")

    def _below(self, node: ast.AST) -> None:
        for below in ast.iter_child_nodes(node):
            if isinstance(below, ast.expr):
                self.visit(below)

    def _known(self, node: ast.AST, name: str) -> None:
        if name in CONSTANTS:
            return
        why = self._refused(name)
        if why is not None:
            raise self._bad(node, why)
        self.names.append(name)

    def _call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name not in FUNCTIONS:
            raise self._bad(node, "only " + ", ".join(FUNCTIONS) + ' and key("...") can be called')
        if node.keywords:
            raise self._bad(node, f"{name}() takes no named arguments here")
        for argument in node.args:
            self.visit(argument)

    def _bad(self, node: ast.AST, message: str) -> BadExpression:
        line = getattr(node, "lineno", 1) - 1
        above = sum(len(each) + 1 for each in self._lines[:line])
        bytes_in = self._lines[line].encode()[: getattr(node, "col_offset", 0)]
        place = self._before + above + len(bytes_in.decode(errors="replace")) + 1
        return BadExpression(message, place)


def _is_null(node: ast.expr) -> bool:
    """Whether the text says null there (python's None too)."""
    constant = isinstance(node, ast.Constant) and node.value is None
    return constant or (isinstance(node, ast.Name) and node.id == "null")


@dataclass(frozen=True, slots=True)
class _Values:
    """Computes an allowed expression; raises one of _MISFITS when values do not go together."""

    lookup: Callable[[str], Any]
    lenient: bool

    def of(self, node: ast.expr) -> Any:
        name = _dotted(node)
        if name is not None:
            return CONSTANTS[name] if name in CONSTANTS else self.lookup(name)
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self.of(item) for item in node.elts]
        if isinstance(node, ast.BoolOp):
            values = (bool(self.of(each)) for each in node.values)
            return all(values) if isinstance(node.op, ast.And) else any(values)
        if isinstance(node, ast.UnaryOp):
            value = self.of(node.operand)
            if isinstance(node.op, ast.Not):
                return not value
            return -value if isinstance(node.op, ast.USub) else +value
        if isinstance(node, ast.BinOp):
            return self._binary(node)
        if isinstance(node, ast.Compare):
            return self._holds(node)
        if isinstance(node, ast.Subscript):
            return self.of(node.value)[self.of(node.slice)]
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        return FUNCTIONS[node.func.id](*map(self.of, node.args))

    def _binary(self, node: ast.BinOp) -> Any:
        left, right = self.of(node.left), self.of(node.right)
        for value in (left, right):
            # A text or a list times a number could be made as large as memory.
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{shown(value)} is no number")
        if isinstance(node.op, ast.Pow):
            left = float(left)  # a power of integers could have more digits than memory
        return _ARITHMETIC[type(node.op)](left, right)

    def _holds(self, node: ast.Compare) -> bool:
        try:
            left = self.of(node.left)
            written = _is_null(node.left)
            for sign, other in zip(node.ops, node.comparators, strict=True):
                right = self.of(other)
                both = written or _is_null(other)
                if self.lenient and left is None and right is None and not both:
                    return False
                if not _COMPARISONS[type(sign)](left, right):
                    return False
                left, written = right, _is_null(other)
        except _MISFITS:
            if not self.lenient:
                raise
            return False
        return True
