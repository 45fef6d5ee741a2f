"""A GPU driver against the CUDA that torch was built for. Pure.

Within a major release of CUDA every toolkit runs on the drivers from the first of that release on
("minor version compatibility"); newer drivers run older CUDA; before 11 each toolkit had a least
driver of its own. Source: NVIDIA, CUDA Compatibility, docs.nvidia.com/deploy/cuda-compatibility.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.domain import Finding, Severity

RULE = "driver"
Version = tuple[int, ...]

# From this CUDA on, within its major release: the least Linux driver.
LEAST: tuple[tuple[Version, Version], ...] = (
    ((13, 0), (580,)),
    ((12, 0), (525, 60, 13)),
    ((11, 0), (450, 80, 2)),
    ((10, 2), (440, 33)),
    ((10, 1), (418, 39)),
    ((10, 0), (410, 48)),
)


@dataclass(frozen=True, slots=True)
class Torch:
    """The torch that a python on a host would import."""

    python: str
    version: str
    cuda: str | None  # None: built without it
    rocm: bool = False

    def __str__(self) -> str:
        built = f" (CUDA {self.cuda})" if self.cuda else ""
        return f"torch {self.version}{built} of {self.python}"


def torch_of(value: Any) -> Torch | None:
    """What a host said of one python's torch; None when that is nothing lawful."""
    if not isinstance(value, Mapping):
        return None
    python, version, cuda = (value.get(name) for name in ("python", "version", "cuda"))
    if not isinstance(python, str) or not isinstance(version, str):
        return None
    built = cuda[:20] if isinstance(cuda, str) else None
    return Torch(python[:200], version[:40], built, rocm=isinstance(value.get("hip"), str))


def least_driver(cuda: str) -> str | None:
    """The oldest driver this CUDA runs on; None for one that is not known here."""
    asked = _numbers(cuda)
    for first, driver in LEAST:
        if asked and asked[0] == first[0] and asked >= first:
            return ".".join(map(str, driver))
    return None


def too_old(driver: str, cuda: str) -> bool:
    """Whether the driver is known to be older than this CUDA needs."""
    have, least = _numbers(driver), least_driver(cuda)
    return bool(have) and least is not None and have < _numbers(least)


def check(
    driver: str, torch: Torch | None, *, host: str, needs_gpu: bool, asked: bool, forward: bool
) -> list[Finding]:
    """A finding when torch would not see the host's GPUs.

    It refuses a run that must have one (`needs_gpu`) and says itself what it imports (`asked`: by
    its `setup.requirements`), unless a newer libcuda may stand in for the driver's (`forward`). A
    torch that merely lies on the host may be of no use to the job.
    """
    if torch is None or torch.rocm:
        return []
    if torch.cuda is None:
        if not needs_gpu:
            return []
        told = f"{torch} on {host} is built without CUDA: it would use no GPU"
        return [Finding(Severity.WARNING, RULE, told, key="resources.gpus")]
    if not too_old(driver, torch.cuda):
        return []
    least = least_driver(torch.cuda)
    told = f"{torch} needs driver {least} or newer, {host} has {driver}: torch would find no GPU"
    refuses = needs_gpu and asked and not forward
    if forward:
        told += ", unless the libcuda under /usr/local/cuda*/compat is in use"
    severity = Severity.ERROR if refuses else Severity.WARNING
    return [Finding(severity, RULE, told, key="resources.gpus", ours=driver, reference=least)]


def _numbers(version: str) -> Version:
    """(12, 4) of "12.4"; empty for what is no version."""
    lawful = re.fullmatch(r"\d{1,6}(\.\d{1,6}){0,3}", version)
    return tuple(map(int, version.split("."))) if lawful else ()
