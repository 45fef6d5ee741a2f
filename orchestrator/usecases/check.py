"""Preflight: everything that can be known of a job before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.checks import baseline, history, reference, relations, strictness
from orchestrator.confighash import config_hash
from orchestrator.domain import Finding, Run, Severity
from orchestrator.errors import NotFound, PreflightRefused, SpecError, UsageError
from orchestrator.gitlisting import GitListing
from orchestrator.jobspec import Baseline, JobSpec
from orchestrator.ledger.select import resolve
from orchestrator.ledger.store import Ledger
from orchestrator.manifest import MAX_FILE
from orchestrator.recorded import examples
from orchestrator.references import reference_tree
from orchestrator.spec import load_job
from orchestrator.usecases import datasets, ready, survey
from orchestrator.usecases.context import Context
from orchestrator.usecases.listing import refreshed
from orchestrator.wording import counted

MEND = "mend the config, waive the finding with a reason in the spec, or --force"
# What helps against a finding, by its rule and the first part of its key. Where --force is not
# named it would be of no use.
ADVICE = {
    ("canary", "canary"): "mend what stopped the canary; --no-canary starts without it",
    ("driver", "resources"): "ask for another torch in `setup.requirements`, name another --host, "
    "or --force",
    ("host", "resources"): "ask for less in `resources`, or name another --host or --profile; "
    "`orch doctor` shows what a host has, `orch gpus` who uses it",
    ("host", "data"): "put it there, or name another place in the job's file",
    ("results-dir", "results"): "move the program, name another `results.dir`, or --force",
    ("shell", "secrets"): "export it in this shell; its value goes to the job only",
    ("shell", "notify"): "export it in this shell",
}
MET = 20  # of a job's open runs: in a sweep of many each submit would ask after all of them


@dataclass(frozen=True, slots=True)
class Preflight:
    spec: JobSpec
    config_hash: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not any(finding.refuses for finding in self.findings)

    def more(self, findings: Sequence[Finding]) -> Preflight:
        return replace(self, findings=(*self.findings, *findings))


def check(
    ctx: Context, job: str, profile: str | None, overrides: Sequence[str], host: str | None = None
) -> Preflight:
    """What can be known of the job here; of the host too when one is named.

    Raises what a submit would for what the job's file names and this machine does not have.
    """
    project = ctx.project()
    listing = GitListing(project)
    max_file = ctx.config().max_file_size or MAX_FILE
    spec = load_job(project, job, profile=profile, overrides=overrides)
    on = ctx.named_host(host) if host is not None else None
    data = datasets.left_out(ready.folders(ctx, spec))
    found = preflight(ctx, spec, every=True)
    code = ready.code(ctx, project, spec, listing, max_file)
    ready.tell_left_out(ctx, (*code.skipped, *data))
    found = found.more(ready.unset(ctx, spec))
    found = found.more(survey.checkpoint_findings(ctx, spec, on))
    return found.more(survey.host_findings(ctx, spec, on)) if on is not None else found


def preflight(ctx: Context, spec: JobSpec, *, every: bool) -> Preflight:
    """What the spec, its references and the ledger say of the job.

    The job's open runs are asked after first: `every` one, or those of this very config, whose
    results would be a reason not to start. Without a config there is nothing to learn from them.
    """
    _meet_open_runs(ctx, spec, every)
    with ctx.ledger(readonly=True) as ledger:
        return _preflight(ctx, spec, ledger)


def _meet_open_runs(ctx: Context, spec: JobSpec, every: bool) -> None:
    """The ledger holds the latest word on the job's open runs that comes in time."""
    with ctx.ledger(readonly=True) as ledger:
        project = str(ctx.project())
        runs = ledger.runs(project=project, job=spec.name, open_only=True, limit=MET)
    if not every:
        digest = config_hash(spec.config, spec.volatile)
        runs = [run for run in runs if spec.config and run.config_hash == digest]
    if runs:
        refreshed(ctx, runs, {})


def _preflight(ctx: Context, spec: JobSpec, ledger: Ledger) -> Preflight:
    project = ctx.project()
    digest = config_hash(spec.config, spec.volatile)
    best = ledger.best(str(project), spec.name, spec.profile)
    spec, compared = _with_baseline(ctx, spec, ledger)
    findings = [
        *reference.check(spec.config, spec.reference, _reference(project, spec)),
        *relations.check(spec.config, spec.rules),
        *strictness.check(spec),
        *_results_folder(project, spec),
        *compared,
        *history.check(digest, ledger.same_config(digest, spec.name), str(project)),
        *history.against_best(spec.config, best, spec.volatile),
    ]
    return Preflight(spec, digest, tuple(findings))


def _reference(project: Path, spec: JobSpec) -> dict[str, Any]:
    try:
        return reference_tree(project, spec.reference)
    except SpecError as exc:
        exc.message += f" (jobs/{spec.path.name} names it under `reference`)"
        raise


def _results_folder(project: Path, spec: JobSpec) -> list[Finding]:
    """A folder for results is not sent; a program in it would be missing on the host."""
    found = next((project / spec.results_dir).rglob("*.py"), None)
    if found is None or spec.results_dir == "results":
        return []
    told = (
        f"results.dir `{spec.results_dir}` is not sent, and {found.relative_to(project)} is in it"
    )
    return [Finding(Severity.ERROR, "results-dir", told, key="results.dir", ours=spec.results_dir)]


def _with_baseline(ctx: Context, spec: JobSpec, ledger: Ledger) -> tuple[JobSpec, list[Finding]]:
    """The spec with the run that `expect.against` means now, and a word on which that is."""
    against, project = spec.expect.against, str(ctx.project())
    if against is None:
        return spec, []
    data = datasets.hashes(ctx, spec)
    if against == "best":
        run = ledger.best(
            project,
            spec.name,
            spec.profile,
            lambda run: not baseline.differences(spec, project, data, run),
        )
    else:
        run = _named(ledger, against, project)
    if run is None or run.accuracy is None:
        told = "no earlier run of this job and profile on the same data has a good result to be"
        told += " compared with"
        return spec, [Finding(Severity.INFO, "baseline", told, key="expect.against")]
    base = Baseline(run.run_id, run.accuracy, examples(run))
    expect = replace(spec.expect, baseline=base)
    return replace(spec, expect=expect), baseline.check(spec, project, data, run)


def _named(ledger: Ledger, against: str, project: str) -> Run:
    try:
        run = resolve(ledger, against, project)
    except NotFound as error:
        raise UsageError(f"expect.against: {error.message}", hint=error.hint) from None
    if run.accuracy is None:
        raise UsageError(f"expect.against: {run.run_id} has no accuracy to compare with")
    return run


def next_steps(bad: Sequence[Finding]) -> str:
    """What helps against these findings, a line each."""
    keys = [(finding.rule, (finding.key or "").partition(".")[0]) for finding in bad]
    return "\n      ".join(dict.fromkeys(ADVICE.get(key, MEND) for key in keys))


def refuse(job: str, bad: Sequence[Finding]) -> PreflightRefused:
    lines = "".join(f"\n  {finding.rule}: {finding.message}" for finding in bad)
    count = counted(len(bad), "finding refuses", "findings refuse")
    return PreflightRefused(f"{job}: {count} it; nothing was started{lines}", hint=next_steps(bad))
