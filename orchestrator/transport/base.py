"""One agent, one byte stream, framed calls. What differs between hosts is behind `Pipe`."""

from __future__ import annotations

import math
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from orchestrator import errors
from orchestrator.domain import Host
from orchestrator.paths import RemoteLayout
from orchestrator.transport.install import PYTHON_FLAGS, agent_digest, install
from orchestrator.transport.pipe import Pipe, Transport
from orchestrator.transport.preface import PREFACE, refuse_shell, silence
from orchestrator.transport.refusals import refusal
from orchestrator.transport.replies import unlawful
from remote import wire

Body = Mapping[str, Any]

CALL_DEADLINE = 60.0  # seconds of silence after which a call is given up
BEGIN_WITHIN = 60.0  # seconds until the agent's first sign of life, whatever the call may take
GREETING = wire.Frame(wire.ITEM, b"{}")
LOOK_EVERY = 1.0  # seconds of waiting after which a caller that wants to may look around
STREAM_DEADLINE = 45.0  # a stream sends something at least every 10 s
RATE_MIN = 1024  # bytes/s: what trickles in more slowly counts as silence
RATE_WHOLE = 16 * 1024  # bytes/s: a whole answer may take that much longer for what it holds


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
        self._look: Callable[[], None] | None = None
        self._left = math.inf  # seconds that may still be spent waiting for this call's frames
        self._fresh = True  # no answer has come yet: the agent may not be there
        self._heard = False  # of an agent, over this pipe

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
        within: float | None = None,
        items: int = 0,
        on_item: Callable[[Any], None] = lambda _item: None,
        on_beat: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """One request, its data after it, one reply: `within` seconds (None: `deadline`) in all.

        Items in between go to `on_item`, `items` at most; empty ones are signs of life, which may
        come about once a second.
        """
        whole = deadline if within is None else within
        beats = 60 + whole
        for frame in self.exchange(verb, body, data, deadline=deadline, within=whole):
            if isinstance(frame, End):
                return frame.body
            item = frame.json() if frame.kind == wire.ITEM else None
            is_beat = item == {}
            items, beats = items - (not is_beat), beats - is_beat
            if items < 0 or beats < 0:
                self._drop()
                raise unlawful("more than was asked for")
            if is_beat:
                on_beat()
            else:
                on_item(item)
        raise AssertionError("exchange ends with End or raises")

    def exchange(
        self,
        verb: str,
        body: Body,
        data: Iterable[bytes] = (),
        *,
        deadline: float = CALL_DEADLINE,
        within: float = math.inf,
        look: Callable[[], None] | None = None,
    ) -> Iterator[wire.Frame | End]:
        """ITEM and DATA frames as they come, at last one End. An error reply is raised.

        `deadline`: seconds of silence; `within`: of waiting in all, and more for many bytes. `look`
        is called in each second in which nothing comes, and may end it by an exception.
        """
        self._deadline, self._left, self._look = deadline, within, look
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
                    raise refusal(self.host, reply.get("error"))
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
            if not self._pipe.send(packed):
                return

    def send_data(self, chunk: bytes) -> bool:
        """Data in the middle of a call, in frames of lawful size, packed when that pays.

        False: the host has hung up, and there is only its answer to be read.
        """
        assert self._pipe is not None
        return all(self._pipe.send(self._data_frame(piece)) for _, piece in _pieces([chunk]))

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
        agent = layout.agent(agent_digest())
        command = f"exec {self.host.python} {PYTHON_FLAGS} {agent} {layout.root}"
        self._pipe = self._transport.run(command)
        pipe = self._pipe
        self._reader = wire.FrameReader(
            lambda count: self._receive(pipe, count), self._nonce_source()
        )
        self._fresh, self._heard = True, False
        pipe.send(PREFACE)

    def _receive(self, pipe: Pipe, count: int) -> bytes:
        """Bytes of the frame that is due: they buy it time, but no more than they are worth."""
        began = time.monotonic()
        left = min(self._give_up - began, self._left)
        data = self._wait(pipe, count, max(0.0, round(left, 1)))
        now = time.monotonic()
        self._left += len(data) / RATE_WHOLE - (now - began)
        later = now + self._deadline
        self._give_up = min(later, self._give_up + len(data) / RATE_MIN)
        return data

    def _wait(self, pipe: Pipe, count: int, seconds: float) -> bytes:
        left = seconds
        while self._look is not None and left > LOOK_EVERY:
            try:
                return pipe.recv(count, LOOK_EVERY)
            except errors.CallTimeout:
                left -= LOOK_EVERY
                self._look()
        try:
            return pipe.recv(count, left)
        except errors.CallTimeout:
            raise errors.CallTimeout(f"{self.host.name}: no answer within {seconds:g} s") from None

    def _next(self) -> wire.Frame:
        assert self._reader is not None
        patience = self._deadline if self._heard else min(self._deadline, BEGIN_WITHIN)
        self._give_up = time.monotonic() + patience
        try:
            frame = self._reader.next()
        except errors.CallTimeout:
            if self._heard:
                raise
            assert self._pipe is not None
            raise silence(self.host, self._pipe, patience) from None
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
        greeted, self._fresh, self._heard = not self._heard and frame == GREETING, False, True
        return self._next() if greeted else frame

    def _install_after_failure(self) -> None:
        assert self._pipe is not None and self._reader is not None
        code, words = self._pipe.closing_words()
        words = (words.strip() or self._reader.noise.decode("utf-8", "replace").strip())[:400]
        self._drop()
        refuse_shell(self.host, code)
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
            f"{self.host.name}: the host did not run the agent (exit status {code}): "
            + (words or "it said nothing"),
            hint="its login may be restricted, or a start-up file there (.bashrc) ends it; try "
            "`ssh` to it by hand",
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


def _pieces(data: Iterable[bytes]) -> list[tuple[int, bytes]]:
    size = wire.DATA_MAX
    return [(wire.DATA, item[at : at + size]) for item in data for at in range(0, len(item), size)]


class End:
    """The reply's body, complete."""

    __slots__ = ("body",)

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
