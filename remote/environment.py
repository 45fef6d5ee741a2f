"""The python environment a run asks for (`setup.requirements`), cached by content.

If the host's own python already satisfies the file it is used as it is; else a virtual environment
is made once under `envs/` and shared by every run that asks for the same file.
"""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from typing import Callable, Dict, List, Optional

from remote import files, procs
from remote.layout import Layout

COMPLETE = "complete"  # stands in an environment once all of it was installed


class SetupFailed(Exception):
    """The environment could not be made; the run's log says why."""


def prepare(
    layout: Layout,
    requirements: str,
    log: int,
    cwd: str,
    say: Callable[[str], None],
    waited: Callable[[int], int],
) -> str:
    """The folder to put first on PATH, in which `python` has what the file asks for.

    `requirements` is a path inside `cwd`. `waited(pid)` waits for a process and returns its code.
    """
    with open(os.path.join(cwd, requirements), "rb") as file:
        text = file.read()
    env = _tool_env()
    null = os.open("/dev/null", os.O_WRONLY)
    try:
        if waited(procs.spawn(dry_run(requirements), env, cwd, null)) == 0:
            return shim(layout, sys.executable)
    finally:
        os.close(null)
    place = place_of(layout, text)
    guard = files.lock(place + ".lock")
    try:
        if not os.path.exists(os.path.join(place, COMPLETE)):
            _make(place, requirements, log, cwd, env, say, waited)
    finally:
        os.close(guard)
    return os.path.join(place, "bin")


def dry_run(requirements: str) -> List[str]:
    """A command that succeeds when this very python has all that the file asks for."""
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--quiet"]
    return [*pip, "-r", requirements]


def made_for(layout: Layout, text: bytes) -> Optional[str]:
    """The `bin` of the environment that was made for a file with this content, if it was."""
    place = place_of(layout, text)
    return os.path.join(place, "bin") if os.path.exists(os.path.join(place, COMPLETE)) else None


def all_made(layout: Layout) -> List[str]:
    """The `bin` of every environment that was made here."""
    found = glob.glob(os.path.join(glob.escape(layout.envs), "*", COMPLETE))
    return [os.path.join(os.path.dirname(each), "bin") for each in sorted(found)]


def place_of(layout: Layout, text: bytes) -> str:
    """Where the environment for a file with this content is, or would be made."""
    seed = b"\0".join([sys.executable.encode(), sys.version.encode(), text])
    return os.path.join(layout.envs, hashlib.sha256(seed).hexdigest())


def _make(
    place: str,
    requirements: str,
    log: int,
    cwd: str,
    env: Dict[str, str],
    say: Callable[[str], None],
    waited: Callable[[int], int],
) -> None:
    say("making the environment for %s (once for this content)" % requirements)
    steps: List[List[str]] = [
        [sys.executable, "-m", "venv", "--clear", place],
        [place + "/bin/python", "-m", "pip", "install", "--quiet", "-r", requirements],
    ]
    for step in steps:
        code = waited(procs.spawn(step, env, cwd, log))
        if code != 0:
            what = "python3 -m venv" if step is steps[0] else "pip install -r " + requirements
            raise SetupFailed("%s ended with exit code %d; the log has its words" % (what, code))
    files.sync_tree(place)  # or a crash could leave a complete one of empty files
    files.write_atomic(os.path.join(place, COMPLETE), b"")
    say("the environment is ready")


def _tool_env() -> Dict[str, str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    env["PIP_NO_INPUT"] = "1"
    return env


def shim(layout: Layout, python: str) -> str:
    """A folder whose `python` and `python3` are this very interpreter.

    Many hosts have no `python`, and a link into a virtual environment would lose its packages.
    """
    folder = os.path.join(layout.envs, "shim-" + hashlib.sha256(python.encode()).hexdigest()[:16])
    script = ('#!/bin/sh\nexec "%s" "$@"\n' % python).encode()
    for name in ("python", "python3"):
        path = os.path.join(folder, name)
        if files.read_regular(path, 4096) != script:
            os.makedirs(folder, 0o700, exist_ok=True)
            files.write_atomic(path, script, durable=False)
            os.chmod(path, 0o700)
    return folder


def search_path(folder: Optional[str], layout: Layout, python: str) -> str:
    """PATH of a job: the prepared environment first; a `python` at the end if there was none."""
    path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    if folder:
        return folder + ":" + path
    if procs.which("python", path) is None:
        return path + ":" + shim(layout, python)
    return path
