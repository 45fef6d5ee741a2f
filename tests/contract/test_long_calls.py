"""Calls that take long: a host that stopped taking data, one that left, one that is at work."""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.datatree import scan_data
from orchestrator.domain import Host, Run
from orchestrator.errors import CallTimeout, HostDiskFull, LinkLost
from orchestrator.ledger.store import Ledger
from orchestrator.manifest import Scan
from orchestrator.transport import process
from orchestrator.transport.base import Agent
from orchestrator.transport.process import ProcessPipe
from orchestrator.usecases import asking, fetch, sync
from orchestrator.usecases.context import Context
from orchestrator.usecases.reconcile import _listed
from remote import agent as host_agent
from remote import datasets, results, store, trees, unique, wire
from remote.channel import Channel, no_beat
from remote.layout import Layout
from tests.contract import liar
from tests.contract.liar import RUN_ID, end

HOST = Host(name="here", transport="local")


@pytest.fixture
def piped() -> Iterator[Callable[..., ProcessPipe]]:
    """Makes pipes to `python3 -c program`."""
    made: list[tuple[subprocess.Popen[bytes], ProcessPipe]] = []

    def make(program: str) -> ProcessPipe:
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        said = tempfile.TemporaryFile()  # noqa: SIM115 - the pipe closes it
        made.append((child, ProcessPipe(HOST, child, said)))
        return made[-1][1]

    yield make
    for child, pipe in made:
        child.kill()
        pipe.close()


def test_f05_a_program_that_takes_no_data_is_given_up_at_the_deadline(
    piped: Callable[..., ProcessPipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "SEND_DEADLINE", 0.2)
    pipe = piped("import time; time.sleep(600)")
    with pytest.raises(CallTimeout, match="took no data"):
        pipe.send(b"x" * (1 << 20))


def test_a_program_that_takes_data_slowly_gets_all_of_it(
    piped: Callable[..., ProcessPipe],
) -> None:
    pipe = piped(
        "import os, time\nn = 0\nwhile n < 300_000:\n    n += len(os.read(0, 10_000))\n"
        "    time.sleep(0.001)\nos.write(1, b'%d' % n)"
    )
    assert pipe.send(b"x" * 300_000)
    assert pipe.recv(100, 20) == b"300000"


def test_f01_what_is_sent_to_a_program_that_left_is_known_to_be_lost(
    piped: Callable[..., ProcessPipe],
) -> None:
    pipe = piped("import os; os.write(1, b'why')")
    assert pipe.recv(100, 20) == b"why"
    assert pipe.recv(100, 20) == b""
    assert not pipe.send(b"x" * (1 << 20))


WANTED = (wire.ITEM, {"wanted": [[0, 0]]})


class Leaving(liar.LyingPipe):
    """Hangs up after 3 MB."""

    taken = 0

    def send(self, data: bytes) -> bool:
        self.taken += len(data)
        return super().send(data) and self.taken < 3_000_000


@pytest.fixture
def large(tmp_path: Path) -> Scan:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "large").write_bytes(os.urandom(16 << 20))
    return scan_data(tmp_path / "data", tmp_path / "cache")


def test_f01_an_upload_ends_as_soon_as_the_host_has_hung_up_and_its_reason_is_told(
    large: Scan,
) -> None:
    full = {"ok": False, "error": {"kind": "HostDiskFull", "message": "no room"}}
    sent: list[int] = []
    for answer, error in ((end(full, WANTED), HostDiskFull), (liar.frames(WANTED), LinkLost)):
        transport = liar.LyingTransport(answer, Leaving)
        with Agent(HOST, transport) as agent, pytest.raises(error):
            sync.push(agent, large, dataset=True, progress=lambda done, _: sent.append(done))
    assert sent and max(sent) <= 3_000_000


def test_signs_of_life_before_a_wish_and_after_it_are_no_wish(large: Scan) -> None:
    beat = (wire.ITEM, {})
    answer = end({"ok": True, "objects": 1}, beat, beat, WANTED, beat)
    sent: list[int] = []
    with Agent(HOST, liar.LyingTransport(answer)) as agent:
        reply = sync.push(agent, large, dataset=True, progress=lambda done, _: sent.append(done))
    assert reply["objects"] == 1
    assert sent[-1] == 16 << 20


# --- the host at work -----------------------------------------------------------------------------


class Once:
    """Reads what it was given, once."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self, count: int) -> bytes:
        chunk, self._data = self._data[:count], self._data[count:]
        return chunk


class Told(Channel):
    """Keeps what is said; for it five seconds pass between any two pieces of work."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__(-1, -1)
        self._reader = wire.FrameReader(Once(wire.frame(b"n" * 8, wire.DATA, data)))
        self.items: list[Any] = []

    def _write(self, data: bytes) -> None:
        frame = wire.FrameReader(Once(data)).next()
        assert frame is not None
        if frame.kind == wire.ITEM:
            self.items.append(frame.json())

    def beat(self) -> None:
        self._spoke = -1e9
        super().beat()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "root"))
    made.ensure()
    return made


def a_tree(layout: Layout) -> tuple[bytes, str]:
    content = os.urandom(3 << 20)
    line = wire.Entry(0o644, "f", len(content), hashlib.sha256(content).hexdigest(), b"big")
    manifest = wire.encode_manifest([line.line()])
    store.put_object(layout, line.sha256, content)
    store.commit_tree(layout, manifest, wire.tree_hash(manifest))
    return manifest, wire.tree_hash(manifest)


def test_a_host_that_builds_a_tree_or_a_dataset_gives_signs_of_life(
    layout: Layout, tmp_path: Path
) -> None:
    manifest, tree = a_tree(layout)
    channel = Told()
    trees.build(layout, manifest, str(tmp_path / "tree"), channel.beat)
    assert channel.items == [{}] * len(channel.items) and len(channel.items) >= 3
    channel.items.clear()
    datasets.place(layout, manifest, tree, channel.beat)
    assert len(channel.items) >= 3


def test_a_host_that_copies_a_dataset_in_place_gives_signs_of_life(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, tree = a_tree(layout)
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # whose data is not linked
    monkeypatch.setattr(datasets, "_is_sound", lambda *_: True)
    channel = Told()
    datasets.place(layout, manifest, tree, channel.beat)
    assert len(channel.items) >= 3
    channel.items.clear()
    assert datasets.is_intact(layout, tree, channel.beat)
    assert channel.items == [{}]


def test_a_start_that_waits_for_another_of_its_config_gives_signs_of_life(layout: Layout) -> None:
    ours = {"spec": {"job": "train", "config_hash": "c1:0"}}
    held = unique.hold(layout, {**ours, "unique": "train"}, no_beat)
    channel = Told()

    def beat() -> None:
        channel.beat()
        if len(channel.items) == 2:
            os.close(held)

    os.close(unique.hold(layout, ours, beat))
    assert channel.items == [{}, {}]


def results_of(layout: Layout, here: dict[str, Any]) -> list[Any]:
    listed = wire.encode_json(here)
    channel = Told(listed)
    results.send(layout, channel, {"run_id": RUN_ID, "listed": len(listed)})
    return channel.items


def test_a_host_that_hashes_what_is_here_already_gives_signs_of_life(layout: Layout) -> None:
    run = layout.run(RUN_ID)
    os.makedirs(run.results)
    content = os.urandom(3 << 20)
    Path(run.results, "big").write_bytes(content)
    sha = hashlib.sha256(content).hexdigest()
    told = results_of(layout, {"have": {"big": [len(content), sha]}, "parts": {}})
    assert told.count({}) >= 6
    assert told[-1] == {"same": ["big"]}
    half = hashlib.sha256(content[: 1 << 20]).hexdigest()
    told = results_of(layout, {"have": {}, "parts": {"big": [1 << 20, half]}})
    assert told.count({}) >= 2
    (large,) = [item for item in told if "large" in item]
    assert large["offset"] == 1 << 20
    assert {} not in told[told.index(large) :], "a sign of life in the middle of a file"


def test_a_channel_gives_a_sign_of_life_after_a_silence_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_end, write_end = os.pipe()
    channel = Channel(-1, write_end)
    channel.beat()
    assert not select.select([read_end], [], [], 0)[0]
    monkeypatch.setattr("remote.channel.BEAT", -1.0)
    channel.beat()
    assert os.read(read_end, 100)
    os.close(read_end)
    os.close(write_end)


# --- answers larger than a frame ------------------------------------------------------------------


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> int:
    """A frame of JSON holds 60 kB, to both sides: the agent is in this process."""
    monkeypatch.setattr(wire, "JSON_MAX", 60_000)
    return 60_000


class HerePipe(liar.LyingPipe):
    """The real agent's verbs, on the folder `root`."""

    root = ""

    def send(self, data: bytes) -> bool:
        self._seen += data
        return True

    def recv(self, count: int, timeout: float) -> bytes:
        if self._seen:
            asked, self._seen = self._seen, b""
            channel = Here(asked)
            request = channel.request()
            assert request is not None
            host_agent._answer(Layout(self.root), channel, request)
            self._ready += channel.told
        return super().recv(count, timeout)


class Here(Channel):
    def __init__(self, asked: bytes) -> None:
        super().__init__(-1, -1)
        self._reader = wire.FrameReader(Once(asked))
        self.told = b""

    def _write(self, data: bytes) -> None:
        self.told += data


def here(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection made from now on leads to this folder."""
    pipe = type("Pipe", (HerePipe,), {"root": layout.root})
    monkeypatch.setattr(
        Context, "connect", lambda _ctx, host: Agent(host, liar.LyingTransport(end({}), pipe))
    )


def test_many_runs_with_large_metrics_are_settled_in_one_call(
    small_frames: int, ctx: Context, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"20261123-100000-000abc{number:02d}" for number in range(20)]
    matrix = json.dumps({"accuracy": 0.5, "note": os.urandom(4000).hex()})
    for run_id in ids:
        made = layout.run(run_id)
        os.makedirs(made.path)
        Path(made.exit).write_text(
            json.dumps({"verdict": "succeeded", "exit_code": 0, "metrics": {"text": matrix}})
        )
        Path(made.spec).write_text(json.dumps({"job": "x", "note": os.urandom(2000).hex()}))
    here(layout, monkeypatch)
    with ctx.connect(HOST) as agent:
        found = asking.statuses(agent, {"run_ids": ids})
        assert [each["phase"] for each in found] == ["finished"] * 20
        names, described = _listed(agent, ids)
        assert names == ids
        assert {each["job"] for each in described.values()} == {"x"} and len(described) == 20
    assert sum(map(len, map(json.dumps, found))) > small_frames


def test_a_fetch_tells_of_more_files_than_a_frame_can_name(
    small_frames: int, ctx: Context, ledger: Ledger, run: Run, layout: Layout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    there = layout.run(RUN_ID).results
    os.makedirs(there)
    for number in range(900):
        Path(there, str(number)).write_text(str(number))
    here(layout, monkeypatch)
    assert fetch.fetch(ctx, ledger, run, lambda _report: None)[1].new == 900
    again = fetch.fetch(ctx, ledger, run, lambda _report: None)[1]
    assert (again.new, again.same) == (0, 900)
