"""Which torch a job's python would import, and the CUDA it was built for: read, not imported.

Importing torch takes seconds and may touch the GPUs; its `version.py` says both in four lines.
"""

from __future__ import annotations

import glob
import json
import os
import sys
import tempfile
from typing import Any, Dict, List, Optional, Sequence, Tuple

from remote import environment, procs, satisfied, wire
from remote.layout import Layout

DEADLINE = 20.0
# A job's `setup.requirements` and the files that it includes: (path in the project, text) of each.
Requirements = Optional[Sequence[Tuple[str, str]]]
# A toolkit's own newer libcuda beside an older driver: NVIDIA's forward compatibility.
FORWARD = "/usr/local/cuda*/compat/libcuda.so.1"
PROBE = r"""
import ast, importlib.util, json, os, re, sys
found = {"python": sys.executable}
spec = importlib.util.find_spec("torch")
for place in (spec.submodule_search_locations or ()) if spec else ():
    try:
        with open(os.path.join(place, "version.py"), encoding="utf-8") as file:
            text = file.read(65536)
    except (OSError, ValueError):
        continue
    for name, value in re.findall(r"^(__version__|cuda|hip)\b[^=\n]*=\s*(.*?)\s*$", text, re.M):
        try:
            found[name.strip("_")] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            pass
print(json.dumps(found))
"""


def of_job(layout: Layout, requirements: Requirements) -> Optional[Dict[str, Any]]:
    """{"python", "version", "cuda", "hip"} of the python that a job here would run.

    None: there is no torch, or the environment is still to be made, so that nobody knows.
    """
    path = place_for(layout, requirements)
    return None if path is None else _first(path)


def place_for(layout: Layout, requirements: Requirements) -> Optional[str]:
    """PATH of a job with these requirements; None while its environment is still to be made."""
    folder: Optional[str] = None
    if requirements:
        texts = [text.encode("utf-8") for _, text in requirements]
        folder = environment.made_for(layout, texts)
        if folder is None and _satisfies(requirements):
            folder = environment.shim(layout, sys.executable)
        if folder is None:
            return None
    return environment.search_path(folder, layout, sys.executable)


def of_host(layout: Layout) -> List[Dict[str, Any]]:
    """The same of this host's python and of each environment that was made here."""
    found = [_first(environment.search_path(None, layout, sys.executable))]
    found += [_told(os.path.join(made, "python")) for made in environment.all_made(layout)]
    return [each for each in found if each is not None]


def is_forward() -> bool:
    """Whether a libcuda newer than the driver may be in use."""
    return bool(glob.glob(FORWARD))


def _first(path: str) -> Optional[Dict[str, Any]]:
    tools = [tool for tool in (procs.which(name, path) for name in ("python", "python3")) if tool]
    return _told(tools[0]) if tools else None


def _told(python: str) -> Optional[Dict[str, Any]]:
    try:
        value = json.loads((procs.capture([python, "-c", PROBE], DEADLINE) or b"").decode("utf-8"))
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("version"), str) else None


def _satisfies(requirements: Sequence[Tuple[str, str]]) -> bool:
    """Whether this very python has all that the files ask for."""
    with tempfile.TemporaryDirectory(prefix="orch-") as folder:
        for name, text in requirements:
            wire.check_path(name.encode("utf-8"))
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(text.encode("utf-8"))
        first = os.path.join(folder, requirements[0][0])
        return procs.capture(satisfied.command(first), DEADLINE) is not None
