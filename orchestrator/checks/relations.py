"""Relations a config must keep: `rules:` of a spec, small expressions over its keys. Pure.

An expression is parsed by `ast` and walked by an allow-list; nothing is ever evaluated by python.
Names are dotted config keys. Allowed: numbers, texts, true, false, null, lists, + - * / // % **,
comparisons (also chained, `in`), and, or, not, `x[0]`, the functions of FUNCTIONS, and
`key("a-b.c")` for a key that is no plain name.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orchestrator.domain import Finding, Severity
from orchestrator.jobspec import Rule
from orchestrator.names import did_you_mean
from orchestrator.overlay import leaves, lookup

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


class BadRule(ValueError):
    """The expression cannot be used; `position` counts its characters from 1."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class _Stuck(Exception):
    """The values at hand do not go into the expression."""


def parse(text: str, config: Mapping[str, Any]) -> ast.expr:
    """The expression, all of it allowed and every name in it a key of the config; or BadRule."""
    if len(text) > MAX_LENGTH:
        raise BadRule(f"it is longer than {MAX_LENGTH} characters", MAX_LENGTH)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # python's own advice on odd escapes
            tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise BadRule(f"it is no expression: {error.msg}", error.offset or len(text) + 1) from None
    except (ValueError, RecursionError, MemoryError):
        raise BadRule("it is no expression that can be read", 1) from None
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise BadRule(f"it has more than {MAX_NODES} parts", 1)
    _Allowed(text, config).visit(tree)
    return tree


def check(config: Mapping[str, Any], rules: Iterable[Rule]) -> list[Finding]:
    """A finding `relation` for each rule that the config breaks, or that its values do not fit."""
    return [found for rule in rules if (found := _finding(config, rule)) is not None]


def number(config: Mapping[str, Any], text: str) -> float | None:
    """What the expression gives; None when that is no finite number above 0."""
    try:
        value = _value(parse(text, config), config)
    except _Stuck:
        return None
    lawful = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if lawful and 0 < value < math.inf else None


def _finding(config: Mapping[str, Any], rule: Rule) -> Finding | None:
    tree = parse(rule.text, config)
    used = _used(tree, config)
    told = ", ".join(f"{key} is {_shown(value)}" for key, value in used.items())
    try:
        if _value(tree, config):
            return None
        message = f"`{rule.text}` does not hold"
    except _Stuck as error:
        message = f"`{rule.text}` cannot be told: {error}"
    if told:
        message += f": {told}"
    if rule.why:
        message += f" ({rule.why})"
    key = next(iter(used), None)
    return Finding(Severity.ERROR, "relation", message, key=key, ours=dict(used), waived=rule.waive)


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


# --- names ----------------------------------------------------------------------------------------


def _dotted(node: ast.expr) -> str | None:
    """`a.b.c` of nested attributes, or of `key("a.b.c")`; None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = _dotted(node.value)
        return None if above is None else f"{above}.{node.attr}"
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "key"
    if named and len(node.args) == 1 and not node.keywords:  # type: ignore[attr-defined]
        word = node.args[0]  # type: ignore[attr-defined]
        if isinstance(word, ast.Constant) and isinstance(word.value, str):
            return word.value
    return None


def _used(tree: ast.expr, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config keys an allowed expression names, in its order, with their values."""
    found: dict[str, Any] = {}

    def walk(node: ast.AST) -> None:
        name = _dotted(node) if isinstance(node, ast.expr) else None
        if name is None:
            for below in ast.iter_child_nodes(node):
                walk(below)
        elif name not in CONSTANTS and name not in FUNCTIONS:
            found[name] = lookup(config, name)

    walk(tree)
    return found


class _Allowed(ast.NodeVisitor):
    """Passes over an expression of the allowed kind; raises BadRule at the first other node."""

    def __init__(self, text: str, config: Mapping[str, Any]) -> None:
        self._lines = text.split("\n")
        self._config = config

    def visit(self, node: ast.AST) -> None:
        name = _dotted(node) if isinstance(node, ast.expr) else None
        if name is not None:
            self._known(node, name)
        elif isinstance(node, ast.Call):
            self._call(node)
        elif isinstance(node, ast.Constant):
            if not isinstance(node.value, (bool, int, float, str)):
                raise self._bad(node, f"{node.value!r} is not allowed in a rule")
        elif isinstance(node, (ast.BoolOp, ast.List, ast.Tuple, ast.Compare)) or (
            isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC
        ):
            operators = getattr(node, "ops", [])
            if any(type(each) not in _COMPARISONS for each in operators):
                raise self._bad(node, "`is` is not allowed in a rule; write ==")
            self._below(node)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.UAdd)):
            self.visit(node.operand)
        elif isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice):
            self._below(node)
        else:
            raise self._bad(node, f"{type(node).__name__} is not allowed in a rule")

    def _below(self, node: ast.AST) -> None:
        for below in ast.iter_child_nodes(node):
            if isinstance(below, ast.expr):
                self.visit(below)

    def _known(self, node: ast.AST, name: str) -> None:
        if name in CONSTANTS:
            return
        missing = object()
        if lookup(self._config, name, missing) is missing:
            known = dict(leaves(self._config))
            raise self._bad(node, f"the config has no key `{name}`{did_you_mean(name, known)}")

    def _call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name not in FUNCTIONS:
            raise self._bad(node, "only " + ", ".join(FUNCTIONS) + ' and key("...") can be called')
        if node.keywords:
            raise self._bad(node, f"{name}() takes no named arguments here")
        for argument in node.args:
            self.visit(argument)

    def _bad(self, node: ast.AST, message: str) -> BadRule:
        line = getattr(node, "lineno", 1) - 1
        before = sum(len(each) + 1 for each in self._lines[:line])
        bytes_in = self._lines[line].encode()[: getattr(node, "col_offset", 0)]
        return BadRule(message, before + len(bytes_in.decode(errors="replace")) + 1)


# --- values ---------------------------------------------------------------------------------------


def _value(node: ast.expr, config: Mapping[str, Any]) -> Any:
    """The value of an allowed expression; _Stuck when the values in it do not go together."""
    try:
        return _evaluate(node, config)
    except (TypeError, ValueError, ArithmeticError, IndexError, KeyError) as error:
        raise _Stuck(error.args[-1] if error.args else type(error).__name__) from None


def _evaluate(node: ast.expr, config: Mapping[str, Any]) -> Any:
    name = _dotted(node)
    if name is not None:
        return CONSTANTS[name] if name in CONSTANTS else lookup(config, name)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_evaluate(item, config) for item in node.elts]
    if isinstance(node, ast.BoolOp):
        return _junction(node, config)
    if isinstance(node, ast.UnaryOp):
        value = _evaluate(node.operand, config)
        if isinstance(node.op, ast.Not):
            return not value
        return -value if isinstance(node.op, ast.USub) else +value
    if isinstance(node, ast.BinOp):
        return _binary(node, config)
    if isinstance(node, ast.Compare):
        return _comparison(node, config)
    if isinstance(node, ast.Subscript):
        return _evaluate(node.value, config)[_evaluate(node.slice, config)]
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return FUNCTIONS[node.func.id](*(_evaluate(argument, config) for argument in node.args))


def _junction(node: ast.BoolOp, config: Mapping[str, Any]) -> bool:
    values = (bool(_evaluate(each, config)) for each in node.values)
    return all(values) if isinstance(node.op, ast.And) else any(values)


def _binary(node: ast.BinOp, config: Mapping[str, Any]) -> Any:
    left, right = _evaluate(node.left, config), _evaluate(node.right, config)
    for value in (left, right):
        # A text or a list times a number could be made as large as memory.
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{_shown(value)} is no number")
    if isinstance(node.op, ast.Pow):
        left = float(left)  # a power of integers could have more digits than memory
    return _ARITHMETIC[type(node.op)](left, right)


def _comparison(node: ast.Compare, config: Mapping[str, Any]) -> bool:
    left = _evaluate(node.left, config)
    for each, below in zip(node.ops, node.comparators, strict=True):
        right = _evaluate(below, config)
        if not _COMPARISONS[type(each)](left, right):
            return False
        left = right
    return True
