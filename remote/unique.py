"""At most one run of a config on this host, for those who ask for it: `orch submit --unique`."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Dict

from remote import files, status
from remote.channel import Beat
from remote.errors import Refused
from remote.layout import RUN_ID, Layout


def hold(layout: Layout, request: Dict[str, Any], beat: Beat) -> int:
    """A lock on the job's config, to be kept until the run is started or refused.

    Shared among ordinary starts, so that they do not wait for each other; a unique one has it
    alone: no other run of the config is in the middle of its start then.
    """
    job, digest = _key(request)
    name = hashlib.sha256(("%s\0%s" % (job, digest)).encode("utf-8", "replace")).hexdigest()[:32]
    path = layout.lock("config-" + name)
    return files.lock_alive(path, beat, shared=not request.get("unique"))


def _key(request: Dict[str, Any]) -> Any:
    """The job's name, of a canary that of the job it is for; and the config hash."""
    spec = request.get("spec") or {}
    return request.get("unique") or spec.get("job"), spec.get("config_hash")


def refuse_second(layout: Layout, request: Dict[str, Any]) -> None:
    """Under the lock of `hold`: refused when another run of the job with that config is open here
    or has succeeded. One that was claimed and never started does not count."""
    if not request.get("unique"):
        return
    job, digest = _key(request)
    for run_id in sorted(os.listdir(layout.runs)):
        if run_id == request["run_id"] or not RUN_ID.match(run_id):
            continue
        spec = files.read_json(layout.run(run_id).spec) or {}
        if (spec.get("job"), spec.get("config_hash")) != (job, digest):
            continue
        known = status.status(layout, run_id)
        verdict = (known.get("exit") or {}).get("verdict")
        if known["phase"] in status.OPEN or verdict == "succeeded":
            word = verdict or ("queued" if known["phase"] in ("starting", "queued") else "running")
            text = "this config of %s is there already: %s (%s)" % (job, run_id, word)
            raise Refused("NotUnique", text)
