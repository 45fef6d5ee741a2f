"""What a submit wants to know of this host before it starts anything: quick, and only facts."""

from __future__ import annotations

import os
import platform
from typing import Any, Dict

from remote import gpu, tensors, torchcuda
from remote.channel import Channel
from remote.layout import Layout


def survey(layout: Layout, channel: Channel, request: Dict[str, Any]) -> Dict[str, Any]:
    """Room, GPUs as they are now, which of the paths `at` exist, and the tensors of `checkpoint`.

    `checkpoint`: {"path", "root"}; its reply {"tensors": {name: [shape, dtype]}} or {"error": why}.
    With `gpus` also why a run that needs `gpu_memory` bytes on each could not have them now, and
    why not when no other run holds them; and, where there are GPUs, the torch that the job's
    python would import, which has what its `requirements` (see torchcuda) ask for.
    """
    info = os.statvfs(layout.root)
    paths = [str(path) for path in request.get("at") or []]
    facts: Dict[str, Any] = {
        "root": layout.root,
        "python": platform.python_version(),
        "disk_free": info.f_bavail * info.f_frsize,
        "inodes_free": info.f_favail if info.f_files else None,
        "there": {path: os.path.exists(os.path.expanduser(path)) for path in paths},
    }
    if request.get("gpus"):
        try:
            cards, needed = gpu.probe(), request.get("gpu_memory")
            facts["gpus"] = [card._asdict() for card in cards]
            facts["gpus_busy"] = gpu.why_not_now(layout, cards, needed)
            facts["gpus_of_others"] = gpu.why_not_to_be_had(layout, cards, needed)
        except gpu.NoAnswer as exc:
            facts["gpus_error"] = str(exc)
    if facts.get("gpus"):
        found = torchcuda.of_job(layout, request.get("requirements"))
        facts["torch"], facts["forward"] = found, torchcuda.is_forward()
    wanted = request.get("checkpoint")
    if wanted:
        facts["checkpoint"] = _checkpoint(str(wanted["path"]), wanted.get("root"))
    return facts


def _checkpoint(path: str, root: Any) -> Dict[str, Any]:
    try:
        return {"tensors": tensors.read(os.path.expanduser(path), root)}
    except tensors.Unreadable as exc:
        return {"error": str(exc)}
