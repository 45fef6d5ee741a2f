"""What is said to help against a finding is of use against it."""

from __future__ import annotations

import pytest

from orchestrator.domain import Finding, Severity
from orchestrator.usecases.check import MEND, next_steps


def found(rule: str, key: str) -> Finding:
    return Finding(Severity.ERROR, rule, "told", key=key)


@pytest.mark.parametrize(
    ("rule", "key", "words", "forces"),
    [
        ("missing", "optim.lr", "mend the config", True),
        ("host", "resources.gpus", "less in `resources`", False),
        ("host", "resources.disk", "less in `resources`", False),
        ("host", "data.sst2", "put it there", False),
        ("driver", "resources.gpus", "another torch", True),
        ("canary", "canary", "--no-canary", False),
        ("shell", "secrets", "export it", False),
        ("shell", "notify.webhook", "export it", False),
        ("results-dir", "results.dir", "another `results.dir`", True),
    ],
)
def test_each_finding_has_the_next_step_that_helps(
    rule: str, key: str, words: str, forces: bool
) -> None:
    told = next_steps([found(rule, key)])
    assert words in told
    assert ("--force" in told) == forces


def test_each_next_step_is_told_once() -> None:
    both = [found("missing", "a"), found("differs", "b"), found("host", "resources.gpus")]
    first, second = next_steps(both).split("\n")
    assert (first, "`resources`" in second) == (MEND, True)
