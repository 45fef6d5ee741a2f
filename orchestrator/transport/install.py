"""The agent's sources to a host, where they lie in a folder named by their hash."""

from __future__ import annotations

import hashlib
import json
import re
import time
from importlib import resources

from orchestrator import errors
from orchestrator.domain import Host
from orchestrator.paths import RemoteLayout
from orchestrator.transport.pipe import Pipe, Transport
from orchestrator.transport.preface import PREFACE, refuse_shell, silence
from orchestrator.transport.refusals import HINTS
from remote import wire

INSTALL_DEADLINE = 60.0  # seconds
# Nothing of the host's own python set-up; and names of files, arguments and environments are UTF-8
# whatever the login's locale says.
PYTHON_FLAGS = "-ISXutf8"


def agent_files() -> dict[str, str]:
    """Relative path -> text of everything that makes up the agent."""
    found = {}
    for item in resources.files("remote").iterdir():
        if item.name.endswith(".py"):
            text = item.read_text(encoding="utf-8")
            found["__main__.py" if item.name == "__main__.py" else "remote/" + item.name] = text
    return dict(sorted(found.items()))


_DIGEST: list[str] = []


def agent_digest() -> str:
    """Names the agent on the host: other sources, another folder."""
    if not _DIGEST:
        text = json.dumps(agent_files(), sort_keys=True).encode("utf-8")
        _DIGEST.append(hashlib.sha256(text).hexdigest()[:16])
    return _DIGEST[0]


# Each file is on the disk before the folder has its name: a crash may not leave an agent that
# looks complete and is not. One that is there is replaced unless it is what it should be.
INSTALLER = """
import json, os, shutil, sys, time
def is_whole(folder, files):
    try:
        for name, text in files.items():
            with open(os.path.join(folder, name), "rb") as file:
                if file.read() != text.encode("utf-8"):
                    return False
    except OSError:
        return False
    return True
def synced(path, flags, data=b""):
    fd = os.open(path, flags, 0o600)
    while data:
        data = data[os.write(fd, data):]
    os.fsync(fd)
    os.close(fd)
def clean(folder):
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if ".making." in name and os.stat(path).st_mtime < time.time() - 86400:
            shutil.rmtree(path, ignore_errors=True)
def install(order):
    if sys.version_info < (3, 8):
        return "old %d.%d" % sys.version_info[:2]
    os.umask(0o077)
    final, files = os.path.expanduser(order["folder"]), order["files"]
    if is_whole(final, files):
        return "whole"
    making = "%s.making.%d" % (final, os.getpid())
    os.makedirs(os.path.join(making, "remote"), exist_ok=True)
    for name, text in files.items():
        path = os.path.join(making, name)
        synced(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, text.encode("utf-8"))
    synced(os.path.join(making, "remote"), os.O_RDONLY)
    synced(making, os.O_RDONLY)
    try:
        if os.path.isdir(final) and not is_whole(final, files):
            os.rename(final, making + ".damaged")
        os.rename(making, final)
    except OSError:
        if not is_whole(final, files):
            raise
    synced(os.path.dirname(final), os.O_RDONLY)
    clean(os.path.dirname(final))
    return "done"
try:
    answer = install(json.loads(sys.stdin.buffer.readline().decode("utf-8")))
except Exception as exc:
    answer = "failed %s" % exc
sys.stdout.write("\\norch-install %s\\n" % answer)
"""
# The first line that is a number tells the length of what follows it; before it lies PREFACE.
BOOT = "import sys;f=sys.stdin.buffer;exec(f.read(int(next(l for l in f if l[:1].isdigit()))))"


def install(transport: Transport, host: Host) -> bool:
    """The agent's sources lie complete in their folder on the host; False: they did before.

    HostUnfit says why they cannot.
    """
    order = {
        "folder": str(RemoteLayout.of(host.root).agent(agent_digest())),
        "files": agent_files(),
    }
    program = INSTALLER.encode("utf-8")
    text = json.dumps(order).encode("ascii")
    pipe = transport.run(f"exec {host.python} {PYTHON_FLAGS} -c '{BOOT}'")
    try:
        pipe.send(PREFACE + b"%d\n" % len(program) + program + text + b"\n")
        answer = _installer_answer(host, pipe)
    finally:
        pipe.close()
    if answer in ("done", "whole"):
        return answer == "done"
    if answer.startswith("old "):
        raise errors.HostUnfit(
            f"{host.name}: `{host.python}` is python {answer[4:]}; the agent needs >= 3.8",
            hint="set `python:` for this host in orch.yaml to a newer one",
        )
    if "No space left" in answer or "Disk quota" in answer:
        raise errors.HostDiskFull(
            f"{host.name}: the agent could not be installed: {answer[7:]}",
            hint=HINTS["HostDiskFull"],
        )
    if "Permission denied" in answer or "Read-only file system" in answer:
        raise errors.HostUnfit(
            f"{host.name}: the agent could not be installed: {answer[7:]}",
            hint=f"orch keeps everything under `{host.root}` there, which must be a folder that "
            "its user may write in: set `root:` for this host in orch.yaml, or mend it there",
        )
    raise errors.HostUnfit(
        f"{host.name}: the agent could not be installed: {answer[7:]}",
        hint=f"`{host.python}` there must be a python >= 3.8; set `python:` for this host in "
        "orch.yaml if it is another",
    )


def _installer_answer(host: Host, pipe: Pipe) -> str:
    seen = b""
    end = time.monotonic() + INSTALL_DEADLINE
    while time.monotonic() < end and len(seen) < 2 * wire.NOISE_MAX:
        found = re.search(rb"\norch-install ([^\n]*)\n", seen)
        if found:
            return found.group(1).decode("utf-8", "replace")
        try:
            chunk = pipe.recv(65536, INSTALL_DEADLINE)
        except errors.CallTimeout:
            raise silence(host, pipe, INSTALL_DEADLINE) from None
        if not chunk:
            break
        seen += chunk
    code, words = pipe.closing_words()
    refuse_shell(host, code)
    if code is None:
        raise errors.LinkLost(
            f"{host.name}: the connection ended while the agent was being installed",
            hint="nothing was started; run the command again",
        )
    return f"failed exit status {code}: {words.strip()[:300] or 'it said nothing'}"
