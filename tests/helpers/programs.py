"""Where a system program lies, also when PATH lacks the administrator's folders."""

from __future__ import annotations

import os
import shutil


def find_program(name: str) -> str | None:
    """Absolute path of `name`, or None."""
    places = [os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"]
    return shutil.which(name, path=os.pathsep.join(places))


def require_program(name: str) -> str:
    """Absolute path of `name`; RuntimeError when it is not installed."""
    found = find_program(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed")
    return found
