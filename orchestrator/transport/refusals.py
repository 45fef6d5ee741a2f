"""What a host's refusal is here: which error, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator import errors, names
from orchestrator.domain import Host
from remote import wire

REFUSALS: Mapping[str, type[errors.OrchError]] = {
    "HostDiskFull": errors.HostDiskFull,
    "HostReadOnly": errors.HostDiskFull,
    "NoRoom": errors.PreflightRefused,
    "NoData": errors.PreflightRefused,
    "GpuBusy": errors.GpuBusy,
    "GpuInUse": errors.GpuBusy,
    "NotUnique": errors.PreflightRefused,
    "UsageError": errors.UsageError,
    "FrameGarbled": errors.FrameGarbled,
    "AgentMismatch": errors.HostUnfit,
    "NotResumable": errors.PreflightRefused,
    "Elsewhere": errors.HostUnfit,
    "Unusable": errors.HostUnfit,
    "HostError": errors.HostFailed,
}
HINTS: Mapping[str, str] = {
    "HostDiskFull": "free space there (`orch doctor` shows it) and run the command again",
    "NoRoom": "free space there (`orch doctor` shows it), or ask for less in `resources.disk`",
    "NoData": "put it there, or name another place in the job's file",
    "HostReadOnly": "nothing can be written there; look at its mounts and its kernel log",
    "GpuBusy": "ask for less in `resources`, or name another --host; `orch gpus` shows their GPUs",
    "GpuInUse": "`orch gpus` shows who uses them; `--queue` waits, `--share` runs beside them",
    "NotUnique": "`orch show RUN` tells of it; without `--unique` a second run is made",
    "NotFound": "put it there, or name another place in the job's file",
    "NotResumable": "`orch retry RUN` makes a new run of the job",
    "Unusable": "make that a place that you may write in, or name another `root:` for this host in "
    "orch.yaml; `orch doctor HOST` tries what runs need there",
    "HostError": "`orch doctor HOST` tries what runs need there",
    "Elsewhere": "reach that machine by a name of its own: here nothing tells whether it lives",
}


def refusal(host: Host, error: Any) -> errors.OrchError:
    """The error that an agent's reply carries; WireError when that is none."""
    if not isinstance(error, dict):
        raise wire.WireError("a refusal without a reason")
    kind, message = str(error.get("kind"))[:80], str(error.get("message"))[:2000]
    known, hint = REFUSALS.get(kind, errors.HostFailed), HINTS.get(kind)
    named = names.run_id_in(message)
    if hint is not None:
        hint = hint.replace("HOST", host.name).replace("RUN", named or "RUN")
    return known(f"{host.name}: {message}", hint=hint)
