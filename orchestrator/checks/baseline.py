"""Whether an earlier run's accuracy can be held against this job's: the same task? Pure."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.checks.reference import covering, equal
from orchestrator.domain import Finding, Run, Severity
from orchestrator.jobspec import JobSpec
from orchestrator.nested import leaves

RULE = "baseline"
KEY = "expect.against"


def differences(spec: JobSpec, project: str, data: Mapping[str, str], run: Run) -> list[str]:
    """Why the two are not to be compared, in words; empty when they are.

    `data` is the content hash of each dataset the job sends. The project, the job, its profile,
    each of these, and each config key that `expect.same` covers must be the same.
    """
    told = [] if run.project == project else [f"its project is {run.project}"]
    told += [] if run.job == spec.name else [f"its job is {run.job}"]
    if run.profile != spec.profile:
        told.append(f"its profile is {run.profile}" if run.profile else "it has no profile")
    names = dict.fromkeys((*data, *run.data))
    told += [
        f"its data `{name}` is other" for name in names if run.data.get(name) != data.get(name)
    ]
    ours, theirs = dict(leaves(spec.config)), dict(leaves(run.config))
    for key in dict.fromkeys((*ours, *theirs)):
        same = key in ours and key in theirs and equal(ours[key], theirs[key])
        if covering(key, spec.expect.same) and not same:
            told.append(f"its {key} is other")
    return told


def check(spec: JobSpec, project: str, data: Mapping[str, str], run: Run) -> list[Finding]:
    """With which run the result will be compared, and what makes that unsound."""
    assert run.accuracy is not None
    told = f"the result will be compared with {run.run_id}, {100 * run.accuracy:.1f} %"
    found = [Finding(Severity.INFO, RULE, told, key=KEY, reference=run.accuracy)]
    reasons = differences(spec, project, data, run)
    if reasons:
        message = f"{run.run_id} is no fair comparison: {', '.join(reasons)}"
        found.append(Finding(Severity.WARNING, RULE, message, key=KEY))
    return found
