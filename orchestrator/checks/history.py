"""What became of this exact config before. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from orchestrator.checks.reference import covering, equal
from orchestrator.confighash import config_hash
from orchestrator.domain import Finding, Outcome, Run, RunState, Severity, Verdict
from orchestrator.nested import leaves
from orchestrator.wording import counted, shown

SHOWN = 5
_BAD_OUTCOMES = (Outcome.DEGENERATE, Outcome.BELOW_TARGET, Outcome.INVALID_RESULT)


def check(digest: str, runs: Iterable[Run], project: str) -> list[Finding]:
    """One finding for each of the latest SHOWN runs with this config hash, and one for the rest.

    Runs of other projects count and name theirs, but for an empty config: it identifies nothing.
    A warning where the run's result did not pass or its process did not succeed, else information:
    the same config gives the same result, unless code or data changed.
    """
    same = [run for run in runs if run.config_hash == digest and _began(run)]
    if digest == config_hash({}):
        same = [run for run in same if run.project == project]
    same.sort(key=lambda run: (run.created_at, run.run_id), reverse=True)
    findings = [_finding(run, project) for run in same[:SHOWN]]
    rest = same[SHOWN:]
    if rest:
        severity = Severity.WARNING if any(map(_went_badly, rest)) else Severity.INFO
        findings.append(
            Finding(severity, "history", f"and {counted(len(rest), 'earlier run')} of this config")
        )
    return findings


def _began(run: Run) -> bool:
    return run.verdict is not Verdict.NEVER_STARTED


def against_best(
    config: Mapping[str, Any], best: Run | None, volatile: Collection[str] = ()
) -> list[Finding]:
    """In what this config differs from the best run's; nothing when it is that run's config."""
    if best is None or best.accuracy is None:
        return []
    ours, theirs = dict(leaves(config)), dict(leaves(best.config))
    changed = [
        key
        for key in dict.fromkeys((*theirs, *ours))
        if not equal(ours.get(key, _NONE), theirs.get(key, _NONE)) and not covering(key, volatile)
    ]
    if not changed:
        return []
    pairs = [f"{key} ({_value(theirs, key)} -> {_value(ours, key)})" for key in changed[:SHOWN]]
    told = ", ".join(pairs)
    if len(changed) > SHOWN:
        told += f" and {len(changed) - SHOWN} more"
    only = "only in" if len(changed) <= SHOWN else "in"
    message = f"differs from the best run {only} {told}: {_account(best).removeprefix('ran: ')}"
    return [Finding(Severity.INFO, "best-run", message, ours=changed)]


_NONE = "\0not there"


def _value(tree: Mapping[str, Any], key: str) -> str:
    return shown(tree[key]) if key in tree else "not there"


def _finding(run: Run, project: str) -> Finding:
    severity = Severity.WARNING if _went_badly(run) else Severity.INFO
    where = "" if run.project == project else f" (in {run.project})"
    told = f"this exact config already {_account(run)}{where}"
    return Finding(severity, "history", told, ours=None)


def _went_badly(run: Run) -> bool:
    # A cancelled or lost run says nothing about its config.
    told = (Verdict.FAILED, Verdict.KILLED, Verdict.OOM)
    return run.outcome in _BAD_OUTCOMES or run.verdict in told


def _account(run: Run) -> str:
    if run.state is not RunState.FINISHED:
        return f"has an open run: {run.run_id} on {run.host}, {run.state.value}"
    parts = [run.run_id]
    if run.accuracy is not None:
        parts.append(f"{100 * run.accuracy:.1f} %")
    if run.verdict is not None and run.verdict is not Verdict.SUCCEEDED:
        parts.append(run.verdict.value)
    elif run.outcome is not None:
        parts.append(run.outcome.value)
    return f"ran: {', '.join(parts)}"
