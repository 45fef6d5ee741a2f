"""What a run runs in, written down once beside it: python, its packages, the GPUs, the driver.

Evidence for a later comparison of two runs. Nothing waits for it and nothing depends on it.
"""

from __future__ import annotations

import json
import os
import platform
from typing import Any, Dict, List, Sequence

from remote import files, procs
from remote.gpu import Gpu
from remote.layout import RunFiles

DEADLINE = 60.0
LISTING_MAX = 1 << 20
# Names and versions are read off the folders' names: opening each package's metadata takes seconds
# on a slow disk. Only of a name without a version it is opened.
PROBE = """
import json, os, re, sys
found = {}
def said(info):
    path = os.path.join(info, "PKG-INFO") if os.path.isdir(info) else info
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return (re.search("^Version: *([^ \\n]{1,99})", file.read(65536), re.M) or ["", ""])[1]
    except OSError:
        return ""
for folder in reversed(sys.path):
    try:
        names = os.listdir(folder or ".")
    except OSError:
        continue
    for name in names:
        stem, _, kind = name.rpartition(".")
        if kind not in ("dist-info", "egg-info"):
            continue
        package, version = (stem.split("-") + [""])[:2]
        if not version and kind == "egg-info":
            version = said(os.path.join(folder or ".", name))
        if package and version:
            found[re.sub("[-_.]+", "-", package).lower()] = version
print(json.dumps({"version": ".".join(map(str, sys.version_info[:3])),
                  "implementation": sys.implementation.name,
                  "executable": sys.executable, "packages": found}))
"""


def record(run: RunFiles, path: str, cards: Sequence[Gpu]) -> None:
    """`environment.json` stands beside the run; `path` is the PATH of its job."""
    files.write_json(run.environment, {**_machine(cards), "python": _python(path)}, durable=False)


def _machine(cards: Sequence[Gpu]) -> Dict[str, Any]:
    about = os.uname()
    gpus: List[Dict[str, Any]] = [{"name": card.name, "memory": card.total} for card in cards]
    return {
        "hostname": about.nodename,
        "system": "%s %s %s" % (about.sysname, about.release, about.machine),
        "libc": " ".join(platform.libc_ver()),
        "cpus": len(os.sched_getaffinity(0)),
        "gpus": gpus,
        "driver": cards[0].driver if cards else None,
    }


def _python(path: str) -> Dict[str, Any]:
    """The first python on the job's PATH, and what is installed for it."""
    for name in ("python", "python3"):
        tool = procs.which(name, path)
        if tool is None:
            continue
        said = procs.capture([tool, "-c", PROBE], DEADLINE, LISTING_MAX)
        try:
            value = json.loads((said or b"").decode("utf-8"))
        except ValueError:
            return {"error": "%s did not tell" % tool}
        return value if isinstance(value, dict) else {"error": "%s told nonsense" % tool}
    return {"error": "no python on the job's PATH"}
