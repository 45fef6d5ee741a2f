"""One agent, one byte stream, framed calls. What differs between hosts is behind `Pipe`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import resources
from typing import Any, Protocol

from orchestrator import errors, names
from orchestrator.domain import Host
from orchestrator.paths import RemoteLayout
from remote import wire

Body = Mapping[str, Any]

CALL_DEADLINE = 60.0  # seconds of silence after which a call is given up
STREAM_DEADLINE = 45.0  # a stream sends something at least every 10 s
RATE_MIN = 1024  # bytes/s: what trickles in more slowly counts as silence


class Pipe(Protocol):
    """A running remote command: bytes in, bytes out."""

    def send(self, data: bytes) -> None:
        """All of `data` is on its way, or LinkLost."""

    def recv(self, count: int, timeout: float) -> bytes:
        """1 to `count` bytes; b"" at the end; CallTimeout after `timeout` seconds of nothing."""

    def closing_words(self) -> tuple[int | None, str]:
        """After the end: the command's exit status and the start of its stderr."""

    def close(self) -> None: ...


class Transport(Protocol):
    """A way to one host. `run` starts the one constant command; nothing else is ever run."""

    def run(self, command: str) -> Pipe: ...

    def close(self) -> None: ...


class Agent:
    """Calls to the agent of one host over one connection; it is installed when it is missing.

    Any error of the library underneath has become one of `orchestrator.errors` here. A call ends
    with its END frame or with an error; silence past `deadline` seconds is an error too.
    """

    def __init__(
        self,
        host: Host,
        transport: Transport,
        *,
        nonce: Callable[[], bytes] = lambda: os.urandom(wire.NONCE_SIZE),
    ) -> None:
        self.host = host
        self._transport = transport
        self._nonce_source = nonce
        self._pipe: Pipe | None = None
        self._reader: wire.FrameReader | None = None
        self._last: list[tuple[int, bytes]] = []
        self._deadline = CALL_DEADLINE
        self._give_up = 0.0  # when the frame that is due counts as not coming
        self._fresh = True

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        self._transport.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def call(
        self,
        verb: str,
        body: Body,
        data: Iterable[bytes] = (),
        *,
        deadline: float = CALL_DEADLINE,
        on_item: Callable[[Any], None] = lambda _item: None,
    ) -> dict[str, Any]:
        """One request, its data after it, one reply. Items in between go to `on_item`."""
        for frame in self.exchange(verb, body, data, deadline=deadline):
            if isinstance(frame, End):
                return frame.body
            if frame.kind == wire.ITEM:
                on_item(frame.json())
        raise AssertionError("exchange ends with End or raises")

    def exchange(
        self,
        verb: str,
        body: Body,
        data: Iterable[bytes] = (),
        *,
        deadline: float = CALL_DEADLINE,
    ) -> Iterator[wire.Frame | End]:
        """ITEM and DATA frames as they come, at last one End. An error reply is raised."""
        self._deadline = deadline
        try:
            yield from self._exchange(verb, body, data)
        except wire.LinkClosed:
            self._drop()
            raise errors.LinkLost(
                f"{self.host.name}: the connection ended before the answer to `{verb}` was complete"
            ) from None
        except wire.TooNoisy as exc:
            self._drop()
            raise errors.FrameGarbled(
                f"{self.host.name}: its login prints {exc} of the agent",
                hint="look at the start-up files there (.bashrc, config.fish): what they print "
                "without a terminal belongs nowhere",
            ) from None
        except wire.WireError as exc:
            self._drop()
            raise errors.FrameGarbled(
                f"{self.host.name}: {exc}", hint="nothing was concluded from it; run it again"
            ) from None
        except errors.TransportError:
            self._drop()
            raise

    def _exchange(self, verb: str, body: Body, data: Iterable[bytes]) -> Iterator[wire.Frame | End]:
        self._last = [(wire.REQUEST, self._request(verb, body)), *_pieces(data)]
        if self._pipe is None:
            self._open()
        self._send_last()
        while True:
            frame = self._next()
            if frame.kind == wire.END:
                reply = frame.json()
                if not isinstance(reply, dict):
                    raise wire.WireError("an answer that is no object")
                if reply.get("ok") is not True:
                    raise self._refusal(reply.get("error"))
                yield End(reply)
                return
            if frame.kind not in (wire.ITEM, wire.DATA):
                raise wire.WireError("a frame of a kind that no host may send")
            if frame.kind == wire.ITEM:
                frame.json()  # here, where what is no JSON becomes an error of ours
            yield frame

    def _request(self, verb: str, body: Body) -> bytes:
        return wire.encode_json({"protocol": wire.PROTOCOL, "verb": verb, **body})

    def _send_last(self) -> None:
        """The whole call, which is sent again if the agent had to be installed first."""
        assert self._pipe is not None
        for kind, payload in self._last:
            packed = self._data_frame(payload) if kind == wire.DATA else self._frame(kind, payload)
            self._pipe.send(packed)

    def send_data(self, chunk: bytes) -> None:
        """Data in the middle of a call, in frames of lawful size, packed when that pays."""
        assert self._pipe is not None
        for _, piece in _pieces([chunk]):
            self._pipe.send(self._data_frame(piece))

    def _data_frame(self, piece: bytes) -> bytes:
        # A sample tells whether packing pays: tokenised or random bytes do not shrink.
        if len(piece) > 4096 and len(zlib.compress(piece[:4096], 1)) < 3300:
            return self._frame(wire.DATA, zlib.compress(piece, 1), wire.PACKED)
        return self._frame(wire.DATA, piece)

    def _frame(self, kind: int, payload: bytes, flags: int = 0) -> bytes:
        assert self._reader is not None and self._reader.nonce is not None
        return wire.frame(self._reader.nonce, kind, payload, flags)

    def _open(self) -> None:
        layout = RemoteLayout.of(self.host.root)
        command = f"exec {self.host.python} -IS {layout.agent(agent_digest())} {layout.root}"
        self._pipe = self._transport.run(command)
        pipe = self._pipe
        self._reader = wire.FrameReader(
            lambda count: self._receive(pipe, count), self._nonce_source()
        )
        self._fresh = True

    def _receive(self, pipe: Pipe, count: int) -> bytes:
        """Bytes of the frame that is due: they buy it time, but no more than they are worth."""
        left = self._give_up - time.monotonic()
        data = pipe.recv(count, max(0.0, round(left, 1)))
        later = time.monotonic() + self._deadline
        self._give_up = min(later, self._give_up + len(data) / RATE_MIN)
        return data

    def _next(self) -> wire.Frame:
        assert self._reader is not None
        self._give_up = time.monotonic() + self._deadline
        try:
            frame = self._reader.next()
        except wire.LinkClosed:
            if not self._fresh:
                raise
            frame = None
        if frame is None and self._fresh:
            # The very first answer is missing: the agent was not there, or this is no such host.
            self._install_after_failure()
            return self._next()
        if frame is None:
            raise wire.LinkClosed
        self._fresh = False
        return frame

    def _install_after_failure(self) -> None:
        assert self._pipe is not None and self._reader is not None
        code, words = self._pipe.closing_words()
        words = (words.strip() or self._reader.noise.decode("utf-8", "replace").strip())[:400]
        self._drop()
        if code is None or code < 0 or code > 128:  # killed: it may have done what it was asked to
            raise wire.LinkClosed
        if code == 127 or (code != 2 and "not found" in words):
            raise errors.HostUnfit(
                f"{self.host.name}: there is no `{self.host.python}` on the host ({words})",
                hint="install python >= 3.8 there, or set `python:` for this host in orch.yaml",
            )
        absent = code == 2 or "can't open file" in words or "can't find" in words
        self._install(None if absent else self._failure(code, words))
        self._open()
        self._send_last()
        self._fresh = False

    def _failure(self, code: int, words: str) -> errors.OrchError:
        if "Traceback" in words:  # it ran, so here too
            return errors.HostFailed(f"{self.host.name}: its agent failed (exit status {code})")
        return errors.HostUnfit(
            f"{self.host.name}: the host did not run the agent (exit status {code}): {words}",
            hint="its login may be restricted; try `ssh` to it by hand",
        )

    def _install(self, otherwise: errors.OrchError | None) -> None:
        """The agent is there now and was not, or was damaged; else `otherwise` is raised."""
        try:
            made = install(self._transport, self.host)
        except errors.TransportError:
            if otherwise is None:
                raise
            raise otherwise from None
        if otherwise is not None and not made:
            raise otherwise

    def _drop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _refusal(self, error: Any) -> errors.OrchError:
        if not isinstance(error, dict):
            raise wire.WireError("a refusal without a reason")
        kind, message = str(error.get("kind"))[:80], str(error.get("message"))[:2000]
        known, hint = REFUSALS.get(kind, errors.HostFailed), HINTS.get(kind)
        named = names.run_id_in(message)
        if hint is not None and named is not None:
            hint = hint.replace("RUN", named)
        return known(f"{self.host.name}: {message}", hint=hint)


def _pieces(data: Iterable[bytes]) -> list[tuple[int, bytes]]:
    size = wire.DATA_MAX
    return [(wire.DATA, item[at : at + size]) for item in data for at in range(0, len(item), size)]


class End:
    """The reply's body, complete."""

    __slots__ = ("body",)

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body


REFUSALS: Mapping[str, type[errors.OrchError]] = {
    "HostDiskFull": errors.HostDiskFull,
    "HostReadOnly": errors.HostDiskFull,
    "NoRoom": errors.PreflightRefused,
    "NoData": errors.PreflightRefused,
    "GpuBusy": errors.GpuBusy,
    "GpuInUse": errors.GpuBusy,
    "NotUnique": errors.PreflightRefused,
    "UsageError": errors.UsageError,
    "FrameGarbled": errors.FrameGarbled,
    "AgentMismatch": errors.HostUnfit,
    "NotResumable": errors.PreflightRefused,
    "Elsewhere": errors.HostUnfit,
    "HostError": errors.HostFailed,
}
HINTS: Mapping[str, str] = {
    "HostDiskFull": "free space there (`orch doctor` shows it) and run the command again",
    "NoRoom": "free space there (`orch doctor` shows it), or ask for less in `resources.disk`",
    "NoData": "put it there, or name another place in the job's file",
    "HostReadOnly": "nothing can be written there; look at its mounts and its kernel log",
    "GpuBusy": "`orch gpus` shows the hosts' GPUs",
    "GpuInUse": "`orch gpus` shows who uses them; `--queue` waits, `--share` runs beside them",
    "NotUnique": "`orch show RUN` tells of it; without `--unique` a second run is made",
    "NotFound": "put it there, or name another place in the job's file",
    "NotResumable": "`orch retry RUN` makes a new run of the job",
    "Elsewhere": "reach that machine by a name of its own: here nothing tells whether it lives",
}


# --- installing the agent -------------------------------------------------------------------------


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
BOOT = "import sys;exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"


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
    pipe = transport.run(f"exec {host.python} -IS -c '{BOOT}'")
    try:
        pipe.send(b"%d\n" % len(program) + program + text + b"\n")
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
    raise errors.HostUnfit(
        f"{host.name}: the agent could not be installed: {answer[7:]}",
        hint=f"`{host.python}` there must be a python >= 3.8; set `python:` for this host in "
        "orch.yaml if it is another",
    )


def _installer_answer(host: Host, pipe: Pipe) -> str:
    seen = b""
    end = time.monotonic() + CALL_DEADLINE
    while time.monotonic() < end and len(seen) < 2 * wire.NOISE_MAX:
        found = re.search(rb"\norch-install ([^\n]*)\n", seen)
        if found:
            return found.group(1).decode("utf-8", "replace")
        chunk = pipe.recv(65536, CALL_DEADLINE)
        if not chunk:
            break
        seen += chunk
    code, words = pipe.closing_words()
    if code is None:
        raise errors.LinkLost(
            f"{host.name}: the connection ended while the agent was being installed",
            hint="nothing was started; run the command again",
        )
    return f"failed exit status {code}: {words.strip()[:300]}"
