"""Agents of two builds on one host: each run keeps the agent that started it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.datatree import scan_data
from orchestrator.domain import Host
from orchestrator.manifest import Scan
from orchestrator.transport import base
from orchestrator.transport.base import Agent
from orchestrator.transport.local import LocalTransport
from orchestrator.usecases import sync
from remote import wire
from tests.contract.desk import end_all, of_run, until

WAIT = "echo up; until test -e ../go; do sleep 0.02; done; echo through"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "home"
    place.mkdir()
    yield place
    end_all(place)


@pytest.fixture
def tree(tmp_path: Path) -> Scan:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("x")
    return scan_data(tmp_path / "tree", tmp_path / "cache.json")


def agent(home: Path) -> Agent:
    host = Host(name="box", transport="local", session="plain")
    return Agent(host, LocalTransport(host, {"HOME": str(home), "PATH": os.environ["PATH"]}))


def another_build(monkeypatch: pytest.MonkeyPatch) -> str:
    """From now on the controller carries an agent of other sources; its old digest."""
    old = base.agent_digest()
    files = {name: text + "\n# another build\n" for name, text in base.agent_files().items()}
    monkeypatch.setattr(base, "agent_files", lambda: files)
    monkeypatch.setattr(base, "_DIGEST", [])
    assert base.agent_digest() != old
    return old


def start(connection: Agent, tree: Scan, run_id: str) -> None:
    sync.push(connection, tree, dataset=False, progress=lambda _sent, _total: None)
    stages = [{"name": "main", "argv": ["sh", "-c", WAIT]}]
    order = {"stages": stages, "results_dir": "results", "session": "plain"}
    spec = {"results_dir": "results", "metrics_file": "results/metrics.json"}
    body = {"run_id": run_id, "tree": tree.tree, "config": "{}\n", "spec": spec, "order": order}
    assert connection.call("start", body)["phase"] in ("running", "queued")


def test_f36_a_run_of_an_older_agent_is_followed_and_ended_by_a_newer_one(
    home: Path, tree: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent(home) as first:
        for run_id in ("older-agent-1", "older-agent-2"):
            start(first, tree, run_id)
    old = another_build(monkeypatch)
    with agent(home) as second:
        told = second.call("status", {"run_ids": ["older-agent-1"]})["runs"][0]
        assert told["phase"] == "running"
        start(second, tree, "newer-agent-1")
        assert (
            second.call("cancel", {"run_id": "older-agent-2", "patience": 10})["exit"]["verdict"]
            == "cancelled"
        )
        for run_id in ("older-agent-1", "newer-agent-1"):
            (home / ".orch" / "runs" / run_id / "go").touch()
            ended = second.call("wait", {"run_id": run_id, "timeout": 10})
            assert ended["exit"]["verdict"] == "succeeded"
    assert sorted(os.listdir(home / ".orch" / "agent")) == sorted([old, base.agent_digest()])
    until(lambda: not any(map(of_run, ("older-agent-1", "older-agent-2", "newer-agent-1"))))


def test_f36_an_agent_that_speaks_another_protocol_is_refused_in_words(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.errors import HostUnfit

    with agent(home) as connection:
        connection.call("hello", {})
        monkeypatch.setattr(wire, "PROTOCOL", 99)
        with pytest.raises(HostUnfit, match="box"):
            connection.call("hello", {})


def test_a_half_installed_agent_is_not_used(home: Path) -> None:
    making = home / ".orch" / "agent" / (base.agent_digest() + ".making.1")
    (making / "remote").mkdir(parents=True)
    (making / "__main__.py").write_text("raise SystemExit(9)")
    with agent(home) as connection:
        assert connection.call("hello", {})["protocol"] == wire.PROTOCOL


def test_a_tree_has_the_name_it_always_had() -> None:
    """Snapshots in ledgers and on hosts are named so: a change here orphans them."""
    line = wire.Entry(0o644, "f", 2, "0" * 64, b"a b\xff").line()
    assert line == b"644 f 2 " + b"0" * 64 + b" a b\xff"
    manifest = wire.encode_manifest([line])
    assert wire.tree_hash(manifest) == (
        "s1:77618d69febeefa35e14eae6cbc113d85a8a14dc86d27e41cb31cb4a41678a65"
    )


def test_frames_look_as_they_always_did() -> None:
    """Agents stay on hosts for as long as their runs go on."""
    packed = wire.json_frame(b"12345678", wire.END, {"ok": True})
    assert packed.hex() == "6f5263313132333435363738040000000000000ba7d45f907b226f6b223a747275657d"
