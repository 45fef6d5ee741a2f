"""What these tests prove that the product does not do yet: set a reason to None once it does.

A test marked with one of these fails the build when it passes, so that no mark outlives its reason.
"""

from __future__ import annotations

import pytest

RECONCILE: str | None = "`orch reconcile` is in work"
CLOSING: str | None = "a run given up is not yet closed on its host: a late start starts it"
ADOPTION: str | None = "a job whose supervisor was killed is not yet watched again"
RESUME: str | None = "`orch resume` is in work"
OPENSSH: str | None = "the transport over the user's own ssh is in work"
MANY_TAILS: str | None = "`orch tail RUN RUN` is in work"


def until(reason: str | None) -> pytest.MarkDecorator:
    """The test is expected to fail for `reason`, or, with None, expected to pass."""
    return pytest.mark.xfail(reason is not None, reason=str(reason), strict=True)
