"""The sections of a job spec that say what must hold: before a run, during it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.checks import relations
from orchestrator.fields import Field
from orchestrator.jobspec import Rule


def rules(field: Field | None, config: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Expressions over the config, each as a text or {rule: TEXT, why: TEXT, waive: REASON}."""
    return tuple(_rule(item, config) for item in field.items()) if field else ()


def _rule(field: Field, config: Mapping[str, Any]) -> Rule:
    table = {"rule": field}
    if not isinstance(field.value, str):
        table = field.table(("rule", "why", "waive"))
        if "rule" not in table:
            raise field.error(f"`{field.name}` must be an expression or {{rule: ..., why: ...}}")
    text = table["rule"].text().strip()
    try:
        relations.parse(text, config)
    except relations.BadRule as error:
        raise table["rule"].error(
            f"rule `{ascii(text)[1:-1]}`, character {error.position}: {error}",
            "a rule compares config keys: a.b < c.d, with and, or, not, + - * /, min, max",
        ) from None
    why, waive = (table[key].text() if key in table else None for key in ("why", "waive"))
    return Rule(text, why, waive)
