"""Compare runs: the ledger's rows, and what their hosts still know of code and environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator import compare as pure
from orchestrator.domain import Run
from orchestrator.errors import UsageError
from orchestrator.ledger.store import Ledger
from orchestrator.usecases.context import Context
from orchestrator.usecases.evidence import TEXT_MAX, CodeStore, Hosts, environment_of, latest

FILES_WITH_DIFF = 100


def compare(ctx: Context, selectors: Sequence[str]) -> pure.Comparison:
    """The first run against each of the others. A silent host leaves parts out, and says which."""
    with ctx.ledger_or_copy() as ledger:
        runs = [ctx.run(ledger, selector) for selector in selectors]
        if len({run.run_id for run in runs}) < len(runs) or len(runs) < 2:
            named = ", ".join(run.run_id for run in runs)
            raise UsageError(
                f"compare needs two different runs or more; given: {named}",
                hint="`orch ls` lists the runs",
            )
        return compared(ctx, ledger, runs)


def compared(ctx: Context, ledger: Ledger, runs: Sequence[Run]) -> pure.Comparison:
    with Hosts(ctx) as hosts:
        told = hosts.ask(runs)
        runs = [latest(ctx, ledger, run, told.get(run.run_id)) for run in runs]
        environments = [environment_of(ctx, ledger, run, told.get(run.run_id)) for run in runs]
        code, missing = code_changes(hosts, runs)
    for run, environment in zip(runs, environments, strict=True):
        if environment is None:
            why = hosts.silent(run) or "none was recorded"
            missing.append(f"environment of {run.run_id}: {why}")
    return pure.compare(runs, _with_python(runs, environments, missing), code, missing)


def _with_python(
    runs: Sequence[Run], environments: Sequence[Mapping[str, Any] | None], missing: list[str]
) -> list[Mapping[str, Any] | None]:
    """The environments; without their pythons when one is not known, which `missing` then tells."""
    unknown = False
    for run, environment in zip(runs, environments, strict=True):
        python = (environment or {}).get("python")
        known = isinstance(python, dict) and isinstance(python.get("packages"), dict)
        if environment is None or known:
            continue
        unknown = True
        why = python.get("error") if isinstance(python, dict) else None
        missing.append(f"python and packages of {run.run_id}: {why or 'none were recorded'}")
    if not unknown:
        return list(environments)
    return [
        each and {key: value for key, value in each.items() if key != "python"}
        for each in environments
    ]


def code_changes(hosts: Hosts, runs: Sequence[Run]) -> tuple[list[pure.CodeChange], list[str]]:
    """From the first run to each other; what the host or git could not give is in the list."""
    first, others = runs[0], runs[1:]
    if all(run.snapshot == first.snapshot and run.snapshot for run in others):
        return [pure.CodeChange(run.run_id, True, ()) for run in others], []
    store = CodeStore(hosts, runs)
    changes: list[pure.CodeChange] = []
    for run in others:
        same = first.snapshot is not None and run.snapshot == first.snapshot
        if same or first.run_id not in store.codes or run.run_id not in store.codes:
            changes.append(pure.CodeChange(run.run_id, same, () if same else None))
            continue
        files = pure.changed_files(store.codes[first.run_id], store.codes[run.run_id])
        shown, rest = files[:FILES_WITH_DIFF], files[FILES_WITH_DIFF:]
        sides = [side for each in shown for side in (each.before, each.after) if side is not None]
        store.load(sides)
        known = [pure.with_diff(each, store.read, size_max=TEXT_MAX) for each in shown]
        changes.append(pure.CodeChange(run.run_id, False, (*known, *rest)))
    return changes, store.missing
