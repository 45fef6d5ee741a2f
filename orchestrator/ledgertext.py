"""What verify and import found, as text and as documents. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator import sanitize
from orchestrator.tables import PLAIN, Cell, Column, Style, layout
from orchestrator.wording import counted

if TYPE_CHECKING:
    from orchestrator.usecases.takein import Added
    from orchestrator.usecases.verify import Check


def verify_document(checks: Sequence[Check]) -> dict[str, Any]:
    return {
        "ok": not any(check.level == "differs" for check in checks),
        "checks": [
            {"run_id": c.run_id or None, "check": c.name, "level": c.level, "text": c.text}
            for c in checks
        ],
    }


def verify_text(checks: Sequence[Check], style: Style = PLAIN) -> str:
    """A line for each row that its evidence contradicts or does not prove; then the counts."""
    colours = {"differs": ("red",), "unproven": ("yellow",)}
    rows: list[list[str | Cell]] = [
        [Cell(c.level, colours[c.level]), c.run_id, c.name, c.text]
        for c in checks
        if c.level in colours
    ]
    heads = [Column(""), Column("RUN"), Column("EVIDENCE"), Column("")]
    table = layout(heads, rows, Style(style.colour)) if rows else ""
    levels = [c.level for c in checks]
    counts = ", ".join(f"{levels.count(word)} {word}" for word in ("ok", "unproven", "differs"))
    runs = len({c.run_id for c in checks if c.run_id})
    of = f"{counted(len(checks), 'check')} of {counted(runs, 'run')}"
    return f"{table}{of}: {counts}\n"


def added_document(made: Added) -> dict[str, Any]:
    return {
        "ledger": str(made.ledger),
        "added": made.added,
        "known": made.known,
        "differing": made.differing,
    }


def added_text(made: Added) -> str:
    known = counted(made.known, "was", "were")
    lines = [f"{counted(len(made.added), 'run')} added to {made.ledger}, {known} known"]
    lines += [f"  known here otherwise, left as it was: {each}" for each in made.differing]
    return "".join(sanitize.line(line) + "\n" for line in lines)
