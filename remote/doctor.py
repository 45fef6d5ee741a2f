"""Facts about this host that decide whether runs will do well on it."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any, Dict, List, Optional

from remote import files, gpu, logind, procs, scope, session, status, torchcuda
from remote.channel import Channel
from remote.layout import Layout


def doctor(layout: Layout, channel: Channel, request: Dict[str, Any]) -> Dict[str, Any]:
    """Plain values only; what could not be found out is None. `session`: as the host's entry
    has it, and as a start is told too."""
    info = os.statvfs(layout.root)
    cards = _gpus()
    return {
        "system": platform.platform(),
        "python": {"version": platform.python_version(), "path": sys.executable},
        "root": layout.root,
        "filesystem": files.filesystem(layout.root),
        "denied": _denied(layout),
        "disk_free": info.f_bavail * info.f_frsize,
        "inodes_free": info.f_favail if info.f_files else None,
        "tools": {name: procs.which(name) for name in ("tmux", "screen", "git", "nvidia-smi")},
        "session": session.choose(str(request.get("session") or "auto")),
        "linger": logind.lingers(logind.user_name()),
        "kill_user_processes": logind.kills_at_logout(logind.user_name()),
        "login_scope": logind.login() is not None,
        "stays_in_login": _stays_in_login(),
        "gpus": cards,
        "torch": torchcuda.of_host(layout) if cards else [],
        "forward": torchcuda.is_forward(),
        "user": logind.user_name(),
        "shell": os.environ.get("SHELL"),
        "cpus": os.cpu_count(),
        "memory": _memory(),
        "pip": procs.capture([sys.executable, "-m", "pip", "--version"], 10.0) is not None,
        "venv": procs.capture([sys.executable, "-c", "import ensurepip"], 10.0) is not None,
        "runs": len(os.listdir(layout.runs)),
        "host_time": status.now(),  # last: the controller compares it with its own clock
    }


def _denied(layout: Layout) -> List[str]:
    """What a run does with files there and is not let do now; nothing is left of the trial."""
    locks = os.path.dirname(layout.lock("doctor"))
    found = []
    for folder in (layout.runs, layout.objects, locks):
        try:
            _try_files(os.path.join(folder, "doctor.making.%d" % os.getpid()))
        except OSError as exc:
            found.append(files.words(exc))
    return found


def _try_files(folder: str) -> None:
    os.mkdir(folder, 0o700)
    try:
        path = os.path.join(folder, "file")
        if not (files.write_once(path, b"") and not files.write_once(path, b"")):
            raise OSError(0, "a file that is to be written once was written twice", path)
        files.write_atomic(path, b"1")
        held = files.try_lock(path)
        if held is None:
            raise OSError(0, "a new file is locked", path)
        os.close(held)
        os.symlink("file", os.path.join(folder, "link"))
        os.rename(path, path + ".moved")
        os.unlink(path + ".moved")
    finally:
        files.remove_tree(folder)


def _stays_in_login() -> Optional[str]:
    """Why a run would not get out of the login that is ended with it; tried in a child."""
    if not scope.is_needed():
        return None

    def try_it() -> None:
        why = scope.leave_login("doctor")
        if why is not None:
            raise OSError(0, why)

    try:
        procs.in_child(try_it)
    except OSError as exc:
        return str(exc.strerror)
    return None


def _gpus() -> Any:
    try:
        return [card._asdict() for card in gpu.probe()]
    except gpu.NoAnswer as exc:
        return {"error": str(exc)}


def _memory() -> Any:
    try:
        with open("/proc/meminfo", "r") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
