"""The python environment a run asks for (`setup.requirements`), cached by content.

If the host's own python already satisfies the file it is used as it is; else a virtual environment
is made once under `envs/` and shared by every run that asks for the same: for the same contents of
the file and of all that it includes.
"""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

from remote import files, procs, satisfied
from remote.layout import Layout, RunFiles

COMPLETE = "complete"  # stands in an environment once all of it was installed


class SetupFailed(Exception):
    """The environment could not be made; the run's log says why."""


class Maker(NamedTuple):
    """The run for which an environment is made, by its supervisor."""

    run: RunFiles
    log: int
    say: Callable[[str], None]
    waited: Callable[[int], int]  # waits for a process; its exit code
    pause: Callable[[], None]  # a moment; it raises when the run is to end, as `waited` does

    def code_of(self, argv: Sequence[str], output: int, held: Sequence[int] = ()) -> int:
        """The exit code of a tool in the run's tree. It carries the run's tag, and holds the locks
        `held` as long as it lives, also when its supervisor was killed."""
        env = {**_tool_env(), procs.RUN_TAG: self.run.run_id}
        return self.waited(procs.spawn(argv, env, self.run.tree, output, keep=held))


def prepare(layout: Layout, wanted: Sequence[str], maker: Maker) -> str:
    """The folder to put first on PATH, in which `python` has what is asked for.

    `wanted`: the requirements file, then those that it includes; paths inside the run's tree.
    """
    texts = []
    for name in wanted:
        with open(os.path.join(maker.run.tree, name), "rb") as file:
            texts.append(file.read())
    if _is_satisfied(wanted[0], maker):
        return shim(layout, sys.executable)
    place = place_of(layout, texts)
    guard = _lock(layout, place, wanted[0], maker)
    try:
        if not os.path.exists(os.path.join(place, COMPLETE)):
            _make(place, wanted[0], maker, guard)
    finally:
        os.close(guard)
    return os.path.join(place, "bin")


def made_for(layout: Layout, texts: Sequence[bytes]) -> Optional[str]:
    """The `bin` of the environment that was made for files of these contents, if it was."""
    place = place_of(layout, texts)
    return os.path.join(place, "bin") if os.path.exists(os.path.join(place, COMPLETE)) else None


def all_made(layout: Layout) -> List[str]:
    """The `bin` of every environment that was made here."""
    found = glob.glob(os.path.join(glob.escape(layout.envs), "*", COMPLETE))
    return [os.path.join(os.path.dirname(each), "bin") for each in sorted(found)]


def place_of(layout: Layout, texts: Sequence[bytes]) -> str:
    """Where the environment for files of these contents is, or would be made. Machines that share
    a home have one each: their locks do not reach each other, nor need their pythons be alike."""
    shared = files.filesystem(layout.root) != "local"
    own = [word.encode() for word in procs.machine().values()] if shared else []
    seed = b"\0".join([sys.executable.encode(), sys.version.encode(), *own, *texts])
    return os.path.join(layout.envs, hashlib.sha256(seed).hexdigest())


def _is_satisfied(requirements: str, maker: Maker) -> bool:
    null = os.open("/dev/null", os.O_WRONLY)
    try:
        code = maker.code_of(satisfied.command(requirements), null)
    finally:
        os.close(null)
    if code == satisfied.CANNOT_TELL:
        words = "%s has no pip to tell whether it has what %s asks for"
        maker.say(words % (sys.executable, requirements))
    return code == 0


def _lock(layout: Layout, place: str, requirements: str, maker: Maker) -> int:
    """The lock under which the environment is made; others may be at it."""
    path = layout.lock("env-" + os.path.basename(place)[:32])
    told = False
    while True:
        held = files.try_lock(path)
        if held is not None:
            return held
        if not told:
            maker.say("waits for the environment for %s: another run makes it" % requirements)
            told = True
        maker.pause()


def _make(place: str, requirements: str, maker: Maker, guard: int) -> None:
    maker.say("making the environment for %s (once for this content)" % requirements)
    steps: List[List[str]] = [
        [sys.executable, "-m", "venv", "--clear", place],
        [place + "/bin/python", "-m", "pip", "install", "--quiet", "-r", requirements],
    ]
    for step in steps:
        code = maker.code_of(step, maker.log, [guard])
        if code != 0:
            what = "python3 -m venv" if step is steps[0] else "pip install -r " + requirements
            raise SetupFailed("%s ended with exit code %d; the log has its words" % (what, code))
    files.sync_tree(place)  # or a crash could leave a complete one of empty files
    files.write_atomic(os.path.join(place, COMPLETE), b"")
    maker.say("the environment is ready")


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
        if files.read_regular(path, 4096) != script or not os.access(path, os.X_OK):
            os.makedirs(folder, 0o700, exist_ok=True)
            files.write_atomic(path, script, durable=False, mode=0o700)
    return folder


def search_path(folder: Optional[str], layout: Layout, python: str) -> str:
    """PATH of a job: the prepared environment first; a `python` at the end if there was none."""
    path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    if folder:
        return folder + ":" + path
    if procs.which("python", path) is None:
        return path + ":" + shim(layout, python)
    return path
