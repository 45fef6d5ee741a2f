"""fabric and paramiko, for the modules beside this one; imported here alone, in half the time."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from types import ModuleType

__all__ = ["fabric", "paramiko"]


@contextlib.contextmanager
def _without(*names: str) -> Iterator[None]:
    """These modules are empty ones while others are imported, unless they are there already."""
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__dict__["Mock"] = object
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


# fabric's invoke, which paramiko loads as well, has a class for other people's tests, and for that
# it imports mocks, asyncio and ssl: a tenth of the time that a submit takes in all.
with _without("unittest", "unittest.mock"):
    import fabric
    import paramiko

# paramiko logs its threads' tracebacks; what a user needs to know is raised as an error of ours.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False
