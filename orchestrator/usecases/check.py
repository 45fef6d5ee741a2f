"""Preflight: everything that can be known of a job before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.checks import history, reference, relations, strictness
from orchestrator.confighash import config_hash
from orchestrator.domain import Finding, Run, Severity
from orchestrator.errors import NotFound, PreflightRefused, UsageError
from orchestrator.jobspec import Baseline, JobSpec
from orchestrator.ledger.select import resolve
from orchestrator.ledger.store import Ledger
from orchestrator.references import reference_tree
from orchestrator.runtext import examples
from orchestrator.spec import load_job
from orchestrator.usecases import survey
from orchestrator.usecases.context import Context


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
    """What can be known of the job here; of the host too when one is named."""
    project = ctx.project()
    spec = load_job(project, job, profile=profile, overrides=overrides)
    with ctx.ledger(readonly=True) as ledger:
        found = preflight(project, spec, ledger)
    on = ctx.host(host) if host is not None else None
    found = found.more(survey.checkpoint_findings(ctx, spec, on))
    return found.more(survey.host_findings(ctx, spec, on)) if on is not None else found


def preflight(project: Path, spec: JobSpec, ledger: Ledger) -> Preflight:
    digest = config_hash(spec.config, spec.volatile)
    best = ledger.best(str(project), spec.name, spec.profile)
    spec, baseline = _with_baseline(project, spec, ledger, best)
    findings = [
        *reference.check(spec.config, spec.reference, reference_tree(project, spec.reference)),
        *relations.check(spec.config, spec.rules),
        *strictness.check(spec),
        *_results_folder(project, spec),
        *baseline,
        *history.check(digest, ledger.same_config(digest, spec.name)),
        *history.against_best(spec.config, best, spec.volatile),
    ]
    return Preflight(spec, digest, tuple(findings))


def _results_folder(project: Path, spec: JobSpec) -> list[Finding]:
    """A folder for results is not sent; a program in it would be missing on the host."""
    found = next(iter(sorted((project / spec.results_dir).rglob("*.py"))), None)
    if found is None or spec.results_dir == "results":
        return []
    told = (
        f"results.dir `{spec.results_dir}` is not sent, and {found.relative_to(project)} is in it"
    )
    return [Finding(Severity.ERROR, "results-dir", told, key="results.dir", ours=spec.results_dir)]


def _with_baseline(
    project: Path, spec: JobSpec, ledger: Ledger, best: Run | None
) -> tuple[JobSpec, list[Finding]]:
    """The spec with the run that `expect.against` means now, and a word on which that is."""
    against = spec.expect.against
    if against is None:
        return spec, []
    run = best
    if against != "best":
        try:
            run = resolve(ledger, against, str(project))
        except NotFound as error:
            raise UsageError(f"expect.against: {error.message}", hint=error.hint) from None
        if run.accuracy is None:
            raise UsageError(f"expect.against: {run.run_id} has no accuracy to compare with")
    if run is None or run.accuracy is None:
        told = "no earlier run of this job and profile has a good result to be compared with"
        return spec, [Finding(Severity.INFO, "baseline", told, key="expect.against")]
    base = Baseline(run.run_id, run.accuracy, examples(run))
    told = f"the result will be compared with {run.run_id}, {100 * run.accuracy:.1f} %"
    expect = replace(spec.expect, baseline=base)
    return replace(spec, expect=expect), [
        Finding(Severity.INFO, "baseline", told, key="expect.against", reference=run.accuracy)
    ]


def refuse(found: Preflight) -> PreflightRefused:
    bad = [finding for finding in found.findings if finding.refuses]
    lines = "".join(f"\n  {finding.rule}: {finding.message}" for finding in bad)
    return PreflightRefused(
        f"{found.spec.name}: {len(bad)} findings refuse it; nothing was started{lines}",
        hint="mend the config, waive the finding with a reason in the spec, or --force",
    )
