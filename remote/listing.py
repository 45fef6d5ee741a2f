"""A model's tensors, listed by the job's own command where and as the job would run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from typing import Any, Dict, Optional, Sequence

from remote import files, session, store, torchcuda, trees
from remote.channel import Channel
from remote.errors import Damaged
from remote.layout import Layout

SAID_MAX = 32 * 1024 * 1024
ERROR_MAX = 4096


def listing(layout: Layout, channel: Channel, request: Dict[str, Any]) -> Dict[str, Any]:
    """{"said": what `argv` prints in a copy of `tree`}, or {"error": why}.

    It runs with the python that a job would get, the text `config` at $ORCH_CONFIG and no GPU, for
    `seconds` at most; nothing of it stays. {"need": "tree"}: the code is not here. {"unmade":
    true}: the environment for `requirements` (see torchcuda) is still to be made.
    """
    try:
        manifest = store.manifest_of(layout, str(request["tree"]))
    except FileNotFoundError:
        return {"need": "tree"}
    found = torchcuda.place_for(layout, request.get("requirements"))
    if found is None:
        return {"unmade": True}
    folder = tempfile.mkdtemp(prefix="listing-", dir=layout.parts)
    try:
        trees.build(layout, manifest, os.path.join(folder, "tree"))
        files.write_atomic(
            os.path.join(folder, "config.json"), str(request["config"]).encode("utf-8"), False
        )
        env = {**session.plain_env(), **(request.get("env") or {}), "CUDA_VISIBLE_DEVICES": ""}
        env["PATH"], env["ORCH_CONFIG"] = found, os.path.join(folder, "config.json")
        return _said(request["argv"], env, folder, float(request["seconds"]))
    except Damaged:
        return {"need": "tree"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _said(argv: Sequence[str], env: Dict[str, str], folder: str, seconds: float) -> Dict[str, Any]:
    out, err = os.path.join(folder, "out"), os.path.join(folder, "err")
    with open(out, "wb") as said, open(err, "wb") as complaint:
        try:
            child = subprocess.Popen(
                argv, env=env, cwd=os.path.join(folder, "tree"), stdin=subprocess.DEVNULL,
                stdout=said, stderr=complaint, start_new_session=True,
            )  # fmt: skip
        except OSError as exc:
            return {"error": "%s: %s" % (argv[0], exc.strerror)}
        try:
            code: Optional[int] = child.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(child)
    if code is None:
        return {"error": "it did not end within %g s" % seconds}
    if code:
        last = _tail(err).strip().splitlines()
        return {"error": "exit code %d: %s" % (code, last[-1] if last else "")}
    raw = files.read_regular(out, SAID_MAX)
    if raw is None or len(raw) > SAID_MAX:
        return {"error": "it prints more than %d MiB" % (SAID_MAX >> 20)}
    return {"said": raw.decode("utf-8", "replace")}


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Whatever it started is gone with it."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def _tail(path: str) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - ERROR_MAX))
        return file.read().decode("utf-8", "replace")
