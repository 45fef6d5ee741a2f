"""What a spec leaves open, so that a run could go wrong without anyone being told. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.domain import Finding, Severity
from orchestrator.jobspec import JobSpec


def check(spec: JobSpec) -> list[Finding]:
    """Information only: none of these refuses a submit."""
    return [Finding(Severity.INFO, rule, message, key=key) for rule, key, message in _open(spec)]


def _open(spec: JobSpec) -> Iterator[tuple[str, str, str]]:
    expect = spec.expect
    if not expect.metrics and expect.predictions is None and expect.against is None:
        yield "no-expect", "expect", "nothing is expected: a good result will stay `unverified`"
    elif spec.expect.predictions == "any":
        yield "any-predictions", "expect.predictions", "a one-sided result will pass: `any`"
    if not spec.metrics_declared:
        yield "no-metrics", "metrics", "no metrics are declared: a run without a result file passes"
    if spec.config and spec.reference is None:
        yield "no-reference", "reference", "the config is compared with no reference"
