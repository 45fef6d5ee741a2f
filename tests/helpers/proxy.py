"""A TCP proxy that behaves as badly as a network, exactly and repeatably.

It stands before a server on this machine and can delay (a queue: throughput stays), throttle,
cut after exactly n bytes, swallow one direction, freeze and refuse. Kernel tools for this
(netem, packet filters) need root and modules that test machines lack.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TypeVar

from tests.helpers.forwarding import TICK_S, Direction, Ending, Link, Weather, cancel

__all__ = ["Direction", "Ending", "Proxy"]

T = TypeVar("T")


class Proxy:
    """Listens on 127.0.0.1:`port` from `start` to `stop` and forwards to `target`.

    delay_ms, jitter_ms: per direction; order is kept. rate: bytes a second, per connection and
    direction. fragment: pieces of random size arrive one by one. seed: of jitter and fragments.
    Settings may be changed at any time, from any thread; they hold for bytes read from then on.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        delay_ms: float = 0,
        jitter_ms: float = 0,
        rate: float | None = None,
        fragment: bool = False,
        seed: int = 0,
    ) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        self._weather = Weather(random.Random(seed), fragment)
        self._links: set[Link] = set()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.set_delay(delay_ms, jitter_ms)
        self.set_rate(rate)

    # -- life -------------------------------------------------------------------------------

    def start(self) -> Proxy:
        """The port is open."""
        self._thread.start()
        self.accept()
        return self

    def stop(self) -> None:
        """Port and connections are closed and the thread has ended."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            self.refuse()
            self.cut_now(Ending.RST)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Proxy:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- weather ----------------------------------------------------------------------------

    def set_delay(self, ms: float, jitter_ms: float = 0) -> None:
        """Each byte arrives `ms` (plus up to `jitter_ms`) after it was sent, either way."""
        for way in self._weather.ways.values():
            way.delay_s, way.jitter_s = ms / 1000, jitter_ms / 1000

    def set_rate(self, rate: float | None) -> None:
        """At most `rate` bytes a second pass in each direction of a connection."""
        for way in self._weather.ways.values():
            way.rate = rate

    def cut_after(
        self, count: int, direction: Direction, *, how: Ending = Ending.FIN, times: int = 1
    ) -> None:
        """The next `times` connections to get there end when `count` bytes were delivered.

        Counted from each connection's own beginning: exactly `count` bytes of `direction` reach
        the other end. A connection that has passed more already is cut before its next byte.
        """
        way = self._weather.ways[direction]
        way.cut_after, way.cut_ending = count, how
        way.cut_times = times

    def cut_now(self, how: Ending = Ending.RST) -> int:
        """All connections are closed; how many there were."""
        return self._call(self._cut_all(how))

    def swallow(self, direction: Direction, on: bool = True) -> None:
        """Bytes of this direction are taken and never arrive: a one-way loss."""
        self._weather.ways[direction].swallow = on

    def freeze(self, on: bool = True) -> None:
        """A black hole: everything stays open, no byte moves, no new connection is served."""
        self._weather.frozen = on

    def refuse(self) -> None:
        """New connections are refused by the kernel; open ones go on."""
        self._call(self._close_listener())

    def accept(self) -> None:
        """New connections are taken, on the same port as before."""
        self._call(self._open_listener())

    # -- counts -----------------------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        """Where clients connect."""
        return ("127.0.0.1", self.port)

    @property
    def open_connections(self) -> int:
        """Connections that are being forwarded now."""
        return sum(link.forwards for link in list(self._links))

    def delivered(self, direction: Direction) -> int:
        """Bytes handed to the other end so far, over all connections."""
        return self._weather.ways[direction].delivered

    def wait_until(self, true: Callable[[Proxy], bool], deadline_s: float = 10.0) -> None:
        """`true(self)` holds; TimeoutError if it does not in time."""
        until = time.monotonic() + deadline_s
        while not true(self):
            if time.monotonic() > until:
                raise TimeoutError(f"after {deadline_s} s: {self._weather.ways}")
            time.sleep(TICK_S)

    # -- inside the thread --------------------------------------------------------------------

    def _call(self, work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open_listener(self) -> None:
        if self._listener is not None:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(256)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._accepting = self._loop.create_task(self._accept_all(listener))

    async def _close_listener(self) -> None:
        if self._listener is None or self._accepting is None:
            return
        await cancel(self._accepting)
        self._listener.close()
        self._listener = None

    async def _accept_all(self, listener: socket.socket) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            self.connections += 1
            link = Link(client, self._weather)
            self._links.add(link)
            link.task = self._loop.create_task(self._serve(link))

    async def _serve(self, link: Link) -> None:
        try:
            await self._weather.while_frozen()
            await link.serve(self.target)
        finally:
            self._links.discard(link)

    async def _cut_all(self, how: Ending) -> int:
        links = list(self._links)
        forwarded = sum(link.forwards for link in links)
        for link in links:
            link.ending = how
            if link.task is not None:
                await cancel(link.task)
            # A task cancelled before its first step has closed nothing.
            link.close()
            self._links.discard(link)
        return forwarded
