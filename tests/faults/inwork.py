"""What these tests prove that the product does not do yet: set a reason to None once it does.

A test marked with one of these fails the build when it passes, so that no mark outlives its reason.
"""

from __future__ import annotations

import pytest

RECONCILE: str | None = None
CLOSING: str | None = None
ADOPTION: str | None = None
RESUME: str | None = None
OPENSSH: str | None = None
MANY_TAILS: str | None = None


def until(reason: str | None) -> pytest.MarkDecorator:
    """The test is expected to fail for `reason`, or, with None, expected to pass."""
    return pytest.mark.xfail(reason is not None, reason=str(reason), strict=True)
