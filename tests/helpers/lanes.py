"""Lanes: groups of tests that need something a machine may lack, and how to find out."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.helpers import machine
from tests.helpers.programs import find_program


def _missing(programs: Iterable[str]) -> str | None:
    absent = [name for name in programs if find_program(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def _ssh() -> str | None:
    accounts = ["useradd", "userdel"] if os.geteuid() == 0 else []
    return _missing(["sshd", "ssh", "ssh-keygen", *accounts])


def _root() -> str | None:
    if os.geteuid() != 0:
        return "not root"
    if (missing := _missing(["unshare", "mount", "useradd", "ip"])) is not None:
        return missing
    # Root in a container may lack the right to mount and to make namespaces.
    done = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, timeout=20)
    return None if done.returncode == 0 else "root, but not allowed to make namespaces"


def _torch() -> str | None:
    absent = [name for name in ("torch", "numpy") if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)} (the `jobs` extra)" if absent else None


def _data() -> str | None:
    place = os.environ.get("ORCH_DATA")
    if not place:
        return "ORCH_DATA is not set"
    return None if (Path(place) / "sst2").is_dir() else f"no sst2/ in ORCH_DATA ({place})"


@functools.cache  # asked again after the tests' HOME has been replaced
def find_python38() -> Path | None:
    """A python3.8 that runs, from PATH or from pyenv's versions; None if there is none.

    Each candidate is run: pyenv leaves a `python3.8` in PATH that only prints an error.
    """
    folders = [Path(d) for d in os.environ.get("PATH", "").split(os.pathsep) if d]
    roots = [folder.parent for folder in folders if folder.name == "shims"]
    roots.append(Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")))
    installed = [p for root in roots for p in root.glob("versions/3.8*/bin/python3.8")]
    on_path = [folder / "python3.8" for folder in folders]
    for candidate in [*on_path, *sorted(installed)]:
        if os.access(candidate, os.X_OK) and _version(candidate) == "3.8":
            return candidate
    return None


def _version(python: Path) -> str:
    argv = [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20).stdout.strip()


def _py38() -> str | None:
    return None if find_python38() else "no working python3.8 in PATH or ~/.pyenv/versions"


def _tracing() -> str | None:
    if (missing := _missing(["strace"])) is not None:
        return missing
    done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, timeout=20)
    return None if done.returncode == 0 else "strace may not trace here"


# The programs of `make mlflow-venv`.
MLFLOW = Path(__file__).resolve().parents[2] / ".venv" / "mlflow" / "bin"


def _mlflow() -> str | None:
    return None if (MLFLOW / "mlflow").exists() else "no MLflow server (`make mlflow-venv`)"


# Marker -> why the lane cannot run here, or None when it can.
PROBES: dict[str, Callable[[], str | None]] = {
    "ssh": _ssh,
    "root": _root,
    "sessions": lambda: _missing(["tmux", "screen"]),
    "shells": lambda: _missing(["fish", "tcsh", "zsh"]),
    "torch": _torch,
    "data": _data,
    "mlflow": _mlflow,
    "py38": _py38,
    "tracing": _tracing,
    "logins": machine.why_not,
    "slow": lambda: None,
}
