"""How much a run has written, and how much room is left."""

from __future__ import annotations

import os
from typing import Any, Dict

from remote import files, results, status
from remote.channel import Channel
from remote.layout import Layout


def usage(layout: Layout, channel: Channel, request: Dict[str, Any]) -> Dict[str, Any]:
    """`bytes` in the run's result folder, whatever a fetch would leave out; `free` beside it."""
    run = layout.run(str(request["run_id"]))
    spec = files.read_json(run.spec) or {}
    root = status.results_root(run, str(spec.get("results_dir") or "results"))
    found = (each.info for each in results.walk(root, []))
    size = sum(info.st_blocks * 512 for info in found if info is not None)
    return {"bytes": size, "free": files.free_bytes(layout.root), "there": os.path.isdir(root)}
