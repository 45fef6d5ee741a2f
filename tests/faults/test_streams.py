"""Streams over links that break: nothing lost or repeated, nothing wrong under a final name."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.domain import Host, Run
from orchestrator.errors import OrchError, TransportError
from orchestrator.ledger.store import Ledger
from orchestrator.transport.base import Agent
from orchestrator.transport.local import LocalTransport
from orchestrator.transport.process import ProcessPipe
from orchestrator.usecases import fetch
from orchestrator.usecases.context import Context
from remote import wire
from remote.wire import JOURNAL, PARTS
from tests.contract import liar
from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, until
from tests.helpers.cli import TRACEBACK
from tests.helpers.proxy import Direction, Ending, Proxy
from tests.helpers.sshd import PrivateSshd

# --- the log --------------------------------------------------------------------------------------

NOISY = """
import os, random
chance = random.Random(7)
for _ in range({size} >> 16):
    os.write(1, chance.randbytes(1 << 16))
while not os.path.exists("../go"):
    __import__("time").sleep(0.05)
"""


class Cutter(threading.Thread):
    """Cuts each of the proxy's connections somewhere, `times` in all, alternating FIN and RST."""

    def __init__(self, proxy: Proxy, times: int, average: int) -> None:
        super().__init__(daemon=True)
        self.proxy, self.times, self.average = proxy, times, average
        self.cuts = 0
        self.over = threading.Event()

    def run(self) -> None:
        chance = random.Random(3)
        first = self.proxy.connections
        while not self.over.is_set() and self.cuts < self.times:
            count = chance.randint(self.average // 2, self.average * 3 // 2)
            ending = Ending.RST if self.cuts % 2 else Ending.FIN
            self.proxy.cut_after(count, Direction.DOWN, how=ending)
            seen = first + self.cuts + 1
            while self.proxy.connections <= seen and not self.over.wait(0.005):
                pass
            self.cuts = self.proxy.connections - first - 1


@pytest.mark.ssh
def test_f02_forced_reconnects_lose_no_byte_and_repeat_none(
    proxied: Callable[..., Desk], proxy: Proxy, sshd: PrivateSshd, tmp_path: Path, full: bool
) -> None:
    size, times = (100 << 20, 1000) if full else (3 << 20, 25)
    desk = proxied({"noisy": "python3 noisy.py"}, files={"noisy.py": NOISY.format(size=size)})
    run_id = desk.submit("noisy")
    place = sshd.root_dir / "runs" / run_id
    until(lambda: (place / "log").stat().st_size == size, 120)
    cutter = Cutter(proxy, times, size // times)
    cutter.start()
    with (tmp_path / "out").open("wb") as out, (tmp_path / "said").open("wb") as said:
        tail = desk.start("tail", "--raw", stdout=out, stderr=said)
        until(lambda: (tmp_path / "out").stat().st_size >= size, 3000 if full else 240, every=0.5)
        cutter.over.set()
        cutter.join()
        proxy.cut_after(0, Direction.DOWN, times=0)
        (place / "go").touch()
        assert tail.wait(timeout=120) == 0, (tmp_path / "said").read_text()[-2000:]
    assert TRACEBACK not in (tmp_path / "said").read_text()
    got = (tmp_path / "out").read_bytes()
    assert len(got) == size
    assert hashlib.sha256(got).digest() == hashlib.sha256((place / "log").read_bytes()).digest()
    assert cutter.cuts >= times * 3 // 4
    print(f"{cutter.cuts} reconnects over {size >> 20} MB: 0 bytes lost, 0 repeated")


# --- results --------------------------------------------------------------------------------------

MAKER = """
import random
for n in range(30):
    open(f"results/small{n}", "wb").write(random.Random(n).randbytes(3000))
open("results/empty", "wb").close()
open("results/large.bin", "wb").write(random.Random(98).randbytes(1_300_000))
open("results/model.bin", "wb").write(random.Random(99).randbytes(700_000))
"""


class CutTransport(LocalTransport):
    """A real agent, whose first `limit` bytes arrive and then the end does. Counts what came."""

    def __init__(self, host: Host, home: Path, limit: int | None) -> None:
        import os

        super().__init__(host, {"HOME": str(home), "PATH": os.environ["PATH"]})
        self.limit, self.got = limit, b""

    def run(self, command: str) -> ProcessPipe:
        pipe = super().run(command)
        read = pipe.recv

        def recv(count: int, timeout: float) -> bytes:
            left = count if self.limit is None else min(count, self.limit - len(self.got))
            data = read(left, timeout) if left else b""
            self.got += data
            return data

        pipe.recv = recv  # type: ignore[method-assign]
        return pipe


def borders_of(stream: bytes) -> list[tuple[int, int, int]]:
    """(where a frame ends, its kind, the bytes it carries) for each whole frame."""
    found, at = [], 0
    while at + wire.HEADER.size <= len(stream):
        kind, length = wire.HEADER.unpack(stream[at : at + wire.HEADER.size])[2::3][:2]
        at += wire.HEADER.size + length
        if at <= len(stream):
            found.append((at, kind, length))
    return found


def carried(stream: bytes) -> int:
    return sum(length for _, kind, length in borders_of(stream) if kind == wire.DATA)


@pytest.fixture
def made(new_desk: MakeDesk) -> Desk:
    desk = new_desk({"make": "python3 make.py"}, files={"make.py": MAKER})
    desk.submit("make")
    desk.orch("wait")
    return desk


@pytest.fixture
def fetching(
    made: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[Path, CutTransport, OrchError | None]]]:
    """Fetches into a project of its own each `number`, over a stream of at most `limit` bytes."""
    env = {"HOME": str(made.home), "ORCH_HOME": str(made.home / "state" / "orch")}
    ctx = Context(env, made.project, liar.SystemClock(), lambda _text: None)
    ledger = Ledger.open(ctx.layout.ledger)
    run = ledger.runs()[0]
    host = Host(name="box", transport="local", session="plain")

    def fetched(number: int, limit: int | None) -> tuple[Path, CutTransport, OrchError | None]:
        project = tmp_path / f"project{number}"
        project.mkdir(exist_ok=True)
        transport = CutTransport(host, made.home, limit)
        monkeypatch.setattr(Context, "host_of", lambda _ctx, _run: host)
        monkeypatch.setattr(Context, "connect", lambda _ctx, _host: Agent(host, transport))
        there = _moved(run, project)
        monkeypatch.setattr(ledger, "get", lambda _run_id: there)
        try:
            fetch.fetch(ctx, ledger, there, lambda _report: None)
        except OrchError as error:
            return project / "results" / "make" / run.run_id, transport, error
        return project / "results" / "make" / run.run_id, transport, None

    yield fetched
    ledger.close()


def _moved(run: Run, project: Path) -> Run:
    import dataclasses

    return dataclasses.replace(run, project=str(project))


def wrong_under_final_names(folder: Path, wanted: dict[str, bytes]) -> list[str]:
    return [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and not {JOURNAL, PARTS} & set(path.relative_to(folder).parts)
        if path.read_bytes() != wanted[path.name]
    ]


def test_f03_a_fetch_cut_at_every_frame_border_goes_on_where_it_was(
    made: Desk, fetching: Callable[..., tuple[Path, CutTransport, OrchError | None]], full: bool
) -> None:
    there = made.home / ".orch" / "runs" / made.rows()[0][0] / "results"
    wanted = {path.name: path.read_bytes() for path in there.iterdir()}
    folder, whole, error = fetching(0, None)
    assert error is None
    assert wrong_under_final_names(folder, wanted) == []
    borders = borders_of(whole.got)
    largest = max(length for _, kind, length in borders if kind == wire.DATA)
    total = carried(whole.got)
    assert total >= sum(map(len, wanted.values()))
    cuts = sorted({at + by for at, _, _ in borders[:-1] for by in (-1, 0, 1)})
    worst = 0
    for number, limit in enumerate(cuts if full else cuts[::2], start=1):
        folder, first, error = fetching(number, limit)
        assert isinstance(error, TransportError), (limit, error)
        if folder.exists():
            assert wrong_under_final_names(folder, wanted) == [], limit
        folder, second, error = fetching(number, None)
        assert error is None, (limit, error)
        assert wrong_under_final_names(folder, wanted) == [], limit
        assert {path.name for path in folder.iterdir()} - {JOURNAL} == wanted.keys(), limit
        worst = max(worst, carried(first.got) + carried(second.got) - total)
        assert worst <= largest, f"cut at {limit}: {worst} bytes were sent again"
    print(f"{len(cuts)} cuts at {len(borders)} frames: {worst} bytes of whole frames twice")
