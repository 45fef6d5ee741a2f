"""Tags and the note of a run: what its user says of it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator import names
from orchestrator.domain import Run
from orchestrator.errors import UsageError
from orchestrator.usecases.context import Context

NOTE_MAX = 4000


def retag(ctx: Context, selector: str, labels: Sequence[str], delete: Sequence[str]) -> Run:
    """The run with these tags as well and without the deleted ones; its other tags stay."""
    new = dict(names.tag(label) for label in labels)
    both = sorted(new.keys() & set(delete))
    if both:
        raise UsageError(f"tag `{both[0]}` is both set and deleted", hint="say one of them")
    changes = bool(new or delete)
    with ctx.ledger(readonly=not changes) as ledger:
        run = ctx.run(ledger, selector, to_change=changes)
        if changes:
            ledger.tagged(run.run_id, ctx.now(), new, delete)
        return ledger.get(run.run_id)


def annotate(ctx: Context, selector: str, text: str | None) -> Run:
    """The run with the note; None leaves it as it is, an empty text takes it away."""
    if text is not None and len(text) > NOTE_MAX:
        raise UsageError(
            f"the note has {len(text)} characters; at most {NOTE_MAX}",
            hint="keep longer texts in a file, and name it here",
        )
    with ctx.ledger(readonly=text is None) as ledger:
        run = ctx.run(ledger, selector, to_change=text is not None)
        if text is None:
            return run
        ledger.noted(run.run_id, ctx.now(), text or None)
        return ledger.get(run.run_id)
