"""The agent's end of the byte stream: requests in, frames out."""

from __future__ import annotations

import os
import time
import zlib
from typing import Any, Callable, Dict, Iterator, Optional

from remote import wire

SLOW_LINK = 20e6  # bytes/s under which packing is worth its time
BEAT = 5.0  # seconds of work in silence after which the controller is given a sign of life


Beat = Callable[[], None]


def no_beat() -> None:
    """For work that nobody waits for."""


class Channel:
    """Frames over two descriptors. Data is packed only when the link proves slower than packing."""

    def __init__(self, input: int, output: int) -> None:
        self.input = input
        self._output = output
        self._reader = wire.FrameReader(lambda count: os.read(input, count))
        self._sent = 0
        self._spent = 0.0
        self._packing = False
        self._spoke = time.monotonic()

    def request(self) -> Optional[Dict[str, Any]]:
        """The next request; None when the controller has hung up."""
        frame = self._reader.next()
        if frame is None:
            return None
        value = frame.json()
        if frame.kind != wire.REQUEST or not isinstance(value, dict):
            raise wire.WireError("a frame that is no request")
        return value

    def payloads(self) -> Iterator[bytes]:
        """The DATA frames that follow a request, one payload at a time."""
        while True:
            frame = self._reader.next()
            if frame is None:
                raise wire.LinkClosed("the stream ended before all data came")
            if frame.kind != wire.DATA:
                raise wire.WireError("a frame that is no data")
            yield frame.payload

    def forget(self) -> None:
        """Drop what was read ahead: a fork of this process reads it, and goes on from there."""
        self._reader.forget()

    def item(self, value: Any) -> None:
        self._write(wire.json_frame(self._nonce(), wire.ITEM, value))

    def beat(self) -> None:
        """Called in the middle of long work: an empty item, if nothing was sent for a while.

        A controller that is gone ends the work here (SIGPIPE).
        """
        if time.monotonic() - self._spoke > BEAT:
            self._spoke = time.monotonic()
            self.item({})

    def end(self, value: Dict[str, Any]) -> None:
        self._write(wire.json_frame(self._nonce(), wire.END, value))

    def data(self, payload: bytes) -> None:
        if self._packing and len(payload) > 1024 and _shrinks(payload[:4096]):
            packed = zlib.compress(payload, 1)
            if len(packed) < len(payload) * 0.9:
                self._write(wire.frame(self._nonce(), wire.DATA, packed, wire.PACKED))
                return
        started = time.monotonic()
        self._write(wire.frame(self._nonce(), wire.DATA, payload))
        self._weigh(len(payload), time.monotonic() - started)

    def _weigh(self, count: int, seconds: float) -> None:
        self._sent += count
        self._spent += seconds
        if self._sent > 4 * 1024 * 1024:
            self._packing = self._sent / max(self._spent, 1e-9) < SLOW_LINK
            self._sent, self._spent = 0, 0.0

    def _nonce(self) -> bytes:
        return self._reader.nonce or b"\0" * wire.NONCE_SIZE

    def _write(self, data: bytes) -> None:
        self._spoke = time.monotonic()
        view = memoryview(data)
        while view:
            view = view[os.write(self._output, view) :]


def _shrinks(sample: bytes) -> bool:
    return len(zlib.compress(sample, 1)) < len(sample) * 0.8
