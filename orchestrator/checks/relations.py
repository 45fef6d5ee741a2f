"""Relations a config must keep: `rules:` of a spec, expressions over its keys. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orchestrator.domain import Finding, Severity
from orchestrator.expressions import Expression, Unfit
from orchestrator.expressions import parse as parse_expression
from orchestrator.jobspec import Rule
from orchestrator.names import did_you_mean
from orchestrator.nested import leaves, lookup
from orchestrator.wording import shown


def parse(text: str, config: Mapping[str, Any]) -> Expression:
    """The expression, every name in it a key of the config; or BadExpression."""

    def refused(name: str) -> str | None:
        missing = object()
        if lookup(config, name, missing) is not missing:
            return None
        return f"the config has no key `{name}`{did_you_mean(name, dict(leaves(config)))}"

    return parse_expression(text, refused)


def check(config: Mapping[str, Any], rules: Iterable[Rule]) -> list[Finding]:
    """A finding `relation` for each rule that the config breaks, or that its values do not fit."""
    return [found for rule in rules if (found := _finding(config, rule)) is not None]


def number(config: Mapping[str, Any], text: str) -> float | None:
    """What the expression gives; None when that is no finite number above 0."""
    try:
        value = parse(text, config).value(_values(config))
    except Unfit:
        return None
    lawful = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if lawful and 0 < value < math.inf else None


def _values(config: Mapping[str, Any]) -> Callable[[str], Any]:
    return lambda name: lookup(config, name)


def _finding(config: Mapping[str, Any], rule: Rule) -> Finding | None:
    expression = parse(rule.text, config)
    try:
        if expression.value(_values(config)):
            return None
        message = f"`{rule.text}` does not hold"
    except Unfit as error:
        message = f"`{rule.text}` cannot be told: {error}"
    used = {name: lookup(config, name) for name in expression.names}
    if used:
        message += ": " + ", ".join(f"{key} is {shown(value)}" for key, value in used.items())
    if rule.why:
        message += f" ({rule.why})"
    key = next(iter(used), None)
    return Finding(Severity.ERROR, "relation", message, key=key, ours=used, waived=rule.waive)
