"""Agents of two builds on one host: each run keeps the agent that started it."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.datatree import scan_data
from orchestrator.domain import Host
from orchestrator.errors import HostUnfit, LinkLost
from orchestrator.manifest import Scan
from orchestrator.transport import install
from orchestrator.transport.base import Agent
from orchestrator.transport.local import LocalTransport
from orchestrator.usecases import sync
from orchestrator.usecases.asking import statuses
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
    old = install.agent_digest()
    files = {name: text + "\n# another build\n" for name, text in install.agent_files().items()}
    monkeypatch.setattr(install, "agent_files", lambda: files)
    monkeypatch.setattr(install, "_DIGEST", [])
    assert install.agent_digest() != old
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
        (told,) = statuses(second, {"run_ids": ["older-agent-1"]})
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
    assert sorted(os.listdir(home / ".orch" / "agent")) == sorted([old, install.agent_digest()])
    until(lambda: not any(map(of_run, ("older-agent-1", "older-agent-2", "newer-agent-1"))))


def test_f36_an_agent_that_speaks_another_protocol_is_refused_in_words(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.errors import HostUnfit

    with agent(home) as connection:
        connection.call("status", {"run_ids": []})
        monkeypatch.setattr(wire, "PROTOCOL", 99)
        with pytest.raises(HostUnfit, match="box"):
            connection.call("status", {"run_ids": []})


def test_a_half_installed_agent_is_not_used(home: Path) -> None:
    making = home / ".orch" / "agent" / (install.agent_digest() + ".making.1")
    (making / "remote").mkdir(parents=True)
    (making / "__main__.py").write_text("raise SystemExit(9)")
    with agent(home) as connection:
        assert connection.call("status", {"run_ids": []})["ok"] is True


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


def damaged(home: Path, name: str, content: bytes) -> Path:
    """The installed agent, of which one file has other bytes since."""
    with agent(home) as connection:
        connection.call("status", {"run_ids": []})
    folder = home / ".orch" / "agent" / install.agent_digest()
    assert (folder / name).stat().st_size > 0
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", ["__main__.py", "remote/wire.py", "remote/agent.py"])
@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"def torn(\n"])
def test_an_agent_that_lost_bytes_in_a_crash_is_replaced(
    name: str, content: bytes, home: Path
) -> None:
    folder = damaged(home, name, content)
    for _ in range(2):
        with agent(home) as connection:
            assert connection.call("status", {"run_ids": []})["ok"] is True
    texts = {path: (folder / path).read_text(encoding="utf-8") for path in install.agent_files()}
    assert texts == install.agent_files()


def test_an_agent_that_fails_with_sound_files_is_not_replaced(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {**install.agent_files(), "__main__.py": "raise SystemExit(7)\n"}
    monkeypatch.setattr(install, "agent_files", lambda: files)
    monkeypatch.setattr(install, "_DIGEST", [])
    with agent(home) as connection, pytest.raises(LinkLost):  # just installed
        connection.call("status", {"run_ids": []})
    place = home / ".orch" / "agent" / install.agent_digest() / "__main__.py"
    inode = place.stat().st_ino
    with agent(home) as connection, pytest.raises(HostUnfit, match="exit status 7"):
        connection.call("status", {"run_ids": []})
    assert place.stat().st_ino == inode


def test_leftovers_of_installers_that_were_ended_are_removed_after_a_day(home: Path) -> None:
    place = home / ".orch" / "agent"
    for name, age in (
        ("old.making.1", 90000),
        ("new.making.1", 0),
        ("old.making.2.damaged", 90000),
    ):
        (place / name / "remote").mkdir(parents=True)
        os.utime(place / name, (time.time() - age, time.time() - age))
    with agent(home) as connection:
        connection.call("status", {"run_ids": []})
    assert sorted(os.listdir(place)) == sorted(["new.making.1", install.agent_digest()])


def run_installer(order: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = SimpleNamespace(buffer=io.BytesIO(json.dumps(order).encode() + b"\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    umask = os.umask(0o077)
    try:
        exec(install.INSTALLER, {})
    finally:
        os.umask(umask)


def test_an_agent_that_another_command_installed_meanwhile_is_never_moved_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "agent" / "abc"
    files = {"__main__.py": "a", "remote/wire.py": "b"}
    moved: list[str] = []
    fsync, rename = os.fsync, os.rename

    def another_is_faster(fd: int) -> None:
        fsync(fd)
        for name, text in files.items():
            (final / name).parent.mkdir(parents=True, exist_ok=True)
            (final / name).write_text(text)

    def note(old: str, new: str) -> None:
        moved.append(old)
        rename(old, new)

    monkeypatch.setattr(os, "fsync", another_is_faster)
    monkeypatch.setattr(os, "rename", note)
    run_installer({"folder": str(final), "files": files}, monkeypatch)
    assert str(final) not in moved
    assert (final / "remote" / "wire.py").read_text() == "b"


def test_every_byte_of_an_agent_is_on_the_disk_before_its_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "agent" / "abc"
    order = {"folder": str(final), "files": {"__main__.py": "a", "remote/wire.py": "b"}}
    synced: set[str] = set()
    seen: list[set[str]] = []
    fsync, rename = os.fsync, os.rename

    def note(fd: int) -> None:
        fsync(fd)
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))

    def look(old: str, new: str) -> None:
        seen.append({os.path.relpath(path, old) for path in synced})
        rename(old, new)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", look)
    run_installer(order, monkeypatch)
    assert seen == [{".", "remote", "__main__.py", "remote/wire.py"}]
    assert str(final.parent) in synced
    assert (final / "remote" / "wire.py").read_text() == "b"
