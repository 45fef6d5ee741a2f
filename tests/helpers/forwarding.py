"""One proxied connection: how its bytes are held back, cut, swallowed and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import fcntl
import random
import socket
import struct
import termios
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

CHUNK = 64 * 1024
QUEUE_LIMIT = 32 * 1024 * 1024  # bytes on their way per direction before reading pauses
TICK_S = 0.002
FLUSH_DEADLINE_S = 5.0
LINGER_S = 1.0


class Direction(enum.Enum):
    """Which way bytes travel."""

    UP = "client to server"
    DOWN = "server to client"


class Ending(enum.Enum):
    """How the end of a connection looks from both sides."""

    FIN = "an orderly end of file"
    RST = "connection reset"


class CutHere(Exception):
    """The connection delivered the last byte it was allowed to."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.value)
        self.ending = ending


@dataclass(slots=True)
class Way:
    """What happens to bytes of one direction, over all connections, and how many passed."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    rate: float | None = None
    swallow: bool = False
    cut_after: int = 0
    cut_times: int = 0
    cut_ending: Ending = Ending.FIN
    delivered: int = 0


@dataclass(slots=True)
class Weather:
    """The settings all connections share; changed from outside while they run."""

    randomness: random.Random
    fragment: bool
    frozen: bool = False
    ways: dict[Direction, Way] = field(default_factory=lambda: {way: Way() for way in Direction})

    async def while_frozen(self) -> None:
        """Returns when nothing is frozen."""
        while self.frozen:
            await asyncio.sleep(TICK_S)


class Link:
    """An accepted connection and its twin to the server."""

    def __init__(self, client: socket.socket, weather: Weather) -> None:
        self.client = client
        self.server = socket.socket()
        self.weather = weather
        self.ending = Ending.RST
        self.forwards = True
        self.task: asyncio.Task[None] | None = None
        self._passed = dict.fromkeys(Direction, 0)
        for end in (self.client, self.server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def serve(self, target: tuple[str, int]) -> None:
        """Both directions were forwarded until both ended or one was cut; both ends are closed."""
        try:
            await asyncio.get_running_loop().sock_connect(self.server, target)
            await _together(*[self._forward(direction) for direction in Direction])
            self.ending = Ending.FIN
        except CutHere as cut:
            self.ending = cut.ending
        except OSError:
            self.ending = Ending.RST
        finally:
            self.forwards = False
            try:
                await self._say_end()
            finally:
                self.close()

    def close(self) -> None:
        """Both ends are closed, by a reset if that is the ending."""
        for end in (self.client, self.server):
            if self.ending is Ending.RST and end.fileno() >= 0:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()

    def _ends(self, direction: Direction) -> tuple[socket.socket, socket.socket]:
        """(source, destination) of a direction."""
        pair = (self.client, self.server)
        return pair if direction is Direction.UP else (pair[1], pair[0])

    async def _forward(self, direction: Direction) -> None:
        """Read and write run apart, so that a delay holds bytes back without slowing them."""
        lane = _Lane()
        await _together(self._read(direction, lane), self._write(direction, lane))

    async def _read(self, direction: Direction, lane: _Lane) -> None:
        loop = asyncio.get_running_loop()
        way = self.weather.ways[direction]
        source, _ = self._ends(direction)
        due = 0.0
        while True:
            await self.weather.while_frozen()
            while lane.waiting > QUEUE_LIMIT:
                await asyncio.sleep(TICK_S)
            data = await loop.sock_recv(source, CHUNK)
            jitter = self.weather.randomness.random() * way.jitter_s
            due = max(due, loop.time() + way.delay_s + jitter)
            lane.waiting += len(data)
            lane.queue.put_nowait((due, data))
            if not data:
                return

    async def _write(self, direction: Direction, lane: _Lane) -> None:
        loop = asyncio.get_running_loop()
        _, destination = self._ends(direction)
        while True:
            due, data = await lane.queue.get()
            await asyncio.sleep(due - loop.time())
            await self.weather.while_frozen()
            if not data:
                destination.shutdown(socket.SHUT_WR)
                return
            lane.waiting -= len(data)
            if not self.weather.ways[direction].swallow:
                await self._deliver(direction, memoryview(data))

    async def _deliver(self, direction: Direction, data: memoryview) -> None:
        """The bytes are sent, up to the cut; raises CutHere there, after they have left."""
        loop = asyncio.get_running_loop()
        way = self.weather.ways[direction]
        _, destination = self._ends(direction)
        while data:
            await self.weather.while_frozen()
            size = self._piece(way, len(data))
            armed = way.cut_times > 0
            if armed:
                size = min(size, max(0, way.cut_after - self._passed[direction]))
            await loop.sock_sendall(destination, data[:size])
            data = data[size:]
            self._passed[direction] += size
            way.delivered += size
            if armed and self._passed[direction] >= way.cut_after:
                way.cut_times -= 1
                await _flushed(destination)
                raise CutHere(way.cut_ending)
            await asyncio.sleep(size / way.rate if way.rate else 0)

    def _piece(self, way: Way, size: int) -> int:
        if self.weather.fragment:
            size = self.weather.randomness.randint(1, min(size, 4096))
        # Small steps, or a slow link would look like a stalled one.
        return min(size, max(1, int(way.rate * 0.02))) if way.rate else size

    async def _say_end(self) -> None:
        """After FIN, what the ends still send is taken for a while: closing on it would reset."""
        if self.ending is Ending.RST:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + LINGER_S
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_WR)
        for end in (self.client, self.server):
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                while await asyncio.wait_for(loop.sock_recv(end, CHUNK), until - loop.time()):
                    pass


class _Lane:
    """Bytes of one direction that have been read and not yet sent."""

    __slots__ = ("queue", "waiting")

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self.waiting = 0


async def cancel(task: asyncio.Task[None]) -> None:
    """The task has ended."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """All have ended; the first error cancels the others and is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _flushed(end: socket.socket) -> None:
    """The other end's kernel has all bytes; a reset before that would take some back."""
    until = time.monotonic() + FLUSH_DEADLINE_S
    while time.monotonic() < until:
        unsent = struct.unpack("i", fcntl.ioctl(end, termios.TIOCOUTQ, b"\0" * 4))[0]
        if unsent == 0:
            return
        await asyncio.sleep(TICK_S)
