"""Byte streams between a controller and an agent, which may be cut or lose an answer."""

from __future__ import annotations

import os

from orchestrator.domain import Host
from orchestrator.errors import CallTimeout, ConnectFailed
from orchestrator.transport.base import Agent
from remote import agent as remote_agent
from remote import verbs, wire
from remote.channel import Channel
from remote.layout import Layout
from tests.faults.simulation.world import Killed, Process, World


class Wire:
    """One connection: bytes up, bytes down. Cut, both ends see an end; mute, answers vanish."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.up, self.down = bytearray(), bytearray()
        self.cut = self.mute = self.hung_up = False
        self.agent: Process | None = None
        self.controller = world.current


class Pipe:
    """The controller's end."""

    def __init__(self, world: World, line: Wire) -> None:
        self._world, self._line = world, line

    def send(self, data: bytes) -> bool:
        if not self._line.cut:
            self._line.up += data
        self._world.point(f"sent {len(data)} bytes")
        return not self._line.cut

    def recv(self, count: int, timeout: float) -> bytes:
        line = self._line

        def there() -> bool:
            gone = line.agent is not None and not line.agent.alive and not line.mute
            return bool(line.down) or line.cut or gone

        if not self._world.wait(there, timeout):
            raise CallTimeout(f"host: no answer within {timeout:g} s")
        if line.cut:
            return b""
        data = bytes(line.down[:count])
        del line.down[:count]
        return data

    def closing_words(self) -> tuple[int | None, str]:
        return (None, "") if self._line.cut else (137, "")

    def close(self) -> None:
        self._line.hung_up = True


class SimTransport:
    """`run` starts an agent on the host, as sshd would."""

    def __init__(self, world: World, root: str, lines: list[Wire]) -> None:
        self._world, self._root, self._lines = world, root, lines

    def run(self, command: str) -> Pipe:
        line = Wire(self._world)
        self._lines.append(line)
        line.agent = self._world.spawn("agent", lambda: serve(self._world, self._root, line))
        return Pipe(self._world, line)

    def close(self) -> None:
        for line in self._lines:
            line.hung_up = True


class SimChannel(Channel):
    """The agent's end: the real framing over the simulated stream."""

    def __init__(self, world: World, line: Wire) -> None:
        super().__init__(0, 1)
        self._world, self.line = world, line
        self._reader = wire.FrameReader(self._read)

    def spoken(self) -> bool:
        return bool(self.line.up) or self.line.cut or self.line.hung_up

    def _read(self, count: int) -> bytes:
        self._world.wait(self.spoken, None)
        data = bytes(self.line.up[:count])
        del self.line.up[:count]
        return data

    def _write(self, data: bytes) -> None:
        if self.line.cut or self.line.hung_up:
            raise Killed  # SIGPIPE
        if not self.line.mute:
            self.line.down += data
        self._world.point(f"answered {len(data)} bytes")


def serve(world: World, root: str, line: Wire) -> None:
    """What `remote.agent.serve` does, without its forks for memory's sake."""
    channel, layout = SimChannel(world, line), Layout(root)
    assert world.current is not None
    world.current.channel = channel
    while True:
        try:
            request = channel.request()
        except wire.LinkClosed:
            return
        if request is None:
            return
        world.note(f"agent {os.getpid()}: asked to {request['verb']}")
        assert verbs.find(str(request["verb"])) is not None
        if not remote_agent._answer(layout, channel, request):
            return


def connect(world: World, root: str, host: Host, lines: list[Wire], refuse: bool) -> Agent:
    world.point("connects")
    if refuse:
        raise ConnectFailed("host: cannot connect")
    return Agent(host, SimTransport(world, root, lines), nonce=lambda: world.dice.randbytes(8))
