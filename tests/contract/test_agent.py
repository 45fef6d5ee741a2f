"""The agent called directly: at most one start per id, deadlines, evidence, old promises."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.datatree import scan_data
from orchestrator.domain import Host
from orchestrator.errors import CallTimeout, OrchError, PreflightRefused, UsageError
from orchestrator.manifest import Scan
from orchestrator.paths import ssh_config
from orchestrator.transport.base import Agent, End
from orchestrator.transport.local import LocalTransport
from orchestrator.transport.ssh import SshTransport
from orchestrator.usecases import sync
from orchestrator.usecases.asking import statuses
from remote import status as host_status
from remote import wire
from remote.layout import Layout
from tests.contract.desk import end_all, of_run, supervisor_of, until
from tests.helpers import processes
from tests.helpers.sshd import PrivateSshd

LOOK = """
echo started >> $ORCH_RUN_DIR/../starts
for i in 1 2 3 4 5 6 7 8 9 10; do test -e a/file && test -e b || { echo GONE; exit 9; }; sleep 0.03
done
"""


class Box:
    """This machine as a host of its own, below `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.host = Host(name="box", transport="local", session="plain")
        self.runs = home / ".orch" / "runs"

    def agent(self) -> Agent:
        env = {"HOME": str(self.home), "PATH": os.environ["PATH"]}
        return Agent(self.host, LocalTransport(self.host, env))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Box]:
    (tmp_path / "home").mkdir()
    yield Box(tmp_path / "home")
    end_all(tmp_path / "home")


@pytest.fixture
def tree(tmp_path: Path) -> Scan:
    folder = tmp_path / "tree"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "file").write_text("x")
    (folder / "b").write_text("y")
    for number in range(150):
        (folder / f"f{number}").write_text(str(number) * 500)
    return scan_data(folder, tmp_path / "cache.json")


def body(tree: Scan, run_id: str, command: str, **order: Any) -> dict[str, Any]:
    stages = [{"name": "main", "argv": ["sh", "-c", command]}]
    return {
        "run_id": run_id,
        "tree": tree.tree,
        "tree_bytes": tree.size,
        "config": "{}\n",
        "spec": {"results_dir": "results", "metrics_file": "results/metrics.json"},
        "order": {"stages": stages, "env": {}, "secrets": {}, "results_dir": "results",
                  "session": "plain", **order},
        "data": [],
    }  # fmt: skip


def pushed(place: Box, tree: Scan) -> None:
    with place.agent() as agent:
        sync.push(agent, tree, dataset=False, progress=lambda _sent, _total: None)


def start(place: Box, request: dict[str, Any]) -> dict[str, Any]:
    with place.agent() as agent:
        return agent.call("start", request)


def ended(place: Box, run_id: str) -> dict[str, Any]:
    with place.agent() as agent:
        return agent.call("wait", {"run_id": run_id, "timeout": 20})


@pytest.mark.parametrize("round_", range(6))
def test_f49_two_controllers_with_one_id_make_one_start_with_its_whole_tree(
    round_: int, place: Box, tree: Scan
) -> None:
    pushed(place, tree)
    run_id = "same-run-id"
    barrier = threading.Barrier(3)
    told: list[Any] = []

    def one(pause: float) -> None:
        with place.agent() as agent:
            agent.call("status", {"run_ids": []})
            barrier.wait()
            time.sleep(pause)
            try:
                told.append(agent.call("start", body(tree, run_id, LOOK))["phase"])
            except OrchError as error:
                told.append(error)

    threads = [threading.Thread(target=one, args=(n * round_ * 0.004,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    final = ended(place, run_id)
    assert (place.runs / "starts").read_text() == "started\n"
    log = (place.runs / run_id / "log").read_text()
    assert (final["exit"]["verdict"], log) == ("succeeded", ""), told
    assert not [one for one in told if isinstance(one, Exception)], told


def test_f47_a_start_repeated_later_reports_and_does_not_start(place: Box, tree: Scan) -> None:
    pushed(place, tree)
    request = body(tree, "once-only-1", "echo x >> $ORCH_RUN_DIR/../starts")
    assert "already" not in start(place, request)
    ended(place, "once-only-1")
    again = start(place, request)
    assert (again["already"], again["phase"]) == (True, "finished")
    assert (place.runs / "starts").read_text() == "x\n"


def test_f45_a_claim_that_never_started_is_begun_again_and_a_cancelled_one_is_not(
    place: Box, tree: Scan
) -> None:
    pushed(place, tree)
    for run_id in ("claimed-only-1", "claimed-only-2"):
        (place.runs / run_id / "tree" / "half").mkdir(parents=True)
    with place.agent() as agent:
        found = statuses(agent, {"run_ids": ["claimed-only-1", "claimed-only-2"]})
        assert [one["phase"] for one in found] == ["claimed", "claimed"]
        agent.call("cancel", {"run_id": "claimed-only-2", "patience": 5})
        for run_id in ("claimed-only-1", "claimed-only-2"):
            agent.call("start", body(tree, run_id, LOOK))
    assert ended(place, "claimed-only-1")["exit"]["verdict"] == "succeeded"
    assert ended(place, "claimed-only-2")["exit"]["verdict"] == "cancelled"
    assert (place.runs / "starts").read_text() == "started\n"


def test_a_tree_the_host_lacks_is_asked_for_and_nothing_is_claimed(place: Box, tree: Scan) -> None:
    assert start(place, body(tree, "needs-tree-1", "true")) == {"ok": True, "need": "tree"}
    assert os.listdir(place.runs) == []


def test_data_the_host_lacks_is_asked_for_by_name(place: Box, tree: Scan) -> None:
    pushed(place, tree)
    request = body(tree, "needs-data-1", "true")
    request["data"] = [{"name": "sst2", "tree": "s1:" + "0" * 64}]
    assert start(place, request) == {"ok": True, "need": "data", "names": ["sst2"]}
    request["data"] = [{"name": "there", "at": "/no/such/place"}]
    with pytest.raises(PreflightRefused, match="/no/such/place"):
        start(place, request)
    assert os.listdir(place.runs) == []


@pytest.mark.parametrize("run_id", ["../../x", "", "a/b", "\x00", "x" * 300, "UPPER-case"])
@pytest.mark.parametrize("verb", ["status", "cancel", "stream", "results", "wait", "view"])
def test_f79_an_unsafe_run_id_is_refused_and_the_agent_goes_on(
    verb: str, run_id: str, place: Box
) -> None:
    request = {"run_ids": [run_id]} if verb == "status" else {"run_id": run_id}
    with place.agent() as agent:
        with pytest.raises(UsageError):
            agent.call(verb, request)
        assert agent.call("status", {"run_ids": []})["ok"] is True


def test_an_unknown_verb_and_a_request_without_fields_are_errors_in_words(place: Box) -> None:
    with place.agent() as agent, pytest.raises(OrchError) as caught:
        agent.call("explode", {})
    assert "explode" in caught.value.message
    for verb in ("start", "sync", "status", "results"):
        with place.agent() as agent, pytest.raises(OrchError):
            agent.call(verb, {})


def test_f16_a_restart_of_the_host_is_a_proof_that_the_run_is_over(
    place: Box, tree: Scan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pushed(place, tree)
    start(place, body(tree, "rebooted-1", "sleep 600"))
    run = place.runs / "rebooted-1"
    processes.end([supervisor_of(run), *of_run("rebooted-1")])
    (tmp_path / "boot").write_text("another-boot")
    monkeypatch.setenv("ORCH_BOOT_ID_FILE", str(tmp_path / "boot"))
    found = host_status.status(Layout(str(place.home / ".orch")), "rebooted-1")
    assert (found["phase"], found["exit"]["verdict"]) == ("finished", "lost")
    assert "restarted" in found["exit"]["reasons"][0]


IDENTITIES = ["", "{}", '{"pid": 1}', '{"pid": 0, "start_time": 0}', '{"pid": "x"}', "torn{"]


@pytest.mark.parametrize("content", [*IDENTITIES, '{"pid": -1, "start_time": 5}'])
def test_f28_a_torn_or_hostile_identity_file_signals_nobody(
    content: str, place: Box, tree: Scan
) -> None:
    pushed(place, tree)
    start(place, body(tree, "identity-1", "sleep 600 & wait"))
    run = place.runs / "identity-1"
    processes.end([supervisor_of(run)])
    (run / "supervisor.json").write_text(content)
    with place.agent() as agent:
        (found,) = statuses(agent, {"run_ids": ["identity-1"]})
        assert (found["phase"], found.get("adopted")) in (("running", True), ("starting", None))
        if found["phase"] == "running":
            after = agent.call("cancel", {"run_id": "identity-1", "patience": 10})
            assert after["exit"]["verdict"] == "cancelled"
    processes.end(of_run("identity-1"))


def test_f17_a_recycled_pid_is_not_the_supervisor(place: Box, tree: Scan) -> None:
    pushed(place, tree)
    start(place, body(tree, "recycled-1", "sleep 600"))
    run = place.runs / "recycled-1"
    processes.end([supervisor_of(run), *of_run("recycled-1")])
    known = json.loads((run / "supervisor.json").read_text())
    (run / "supervisor.json").write_text(json.dumps({**known, "pid": os.getpid()}))
    with place.agent() as agent:
        found = agent.call("wait", {"run_id": "recycled-1", "timeout": 20})
    assert (found["exit"]["verdict"], found["exit"]["signal"]) == ("killed", signal.SIGKILL)


def streamed(agent: Agent, request: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """(the reply to `stream`, the items before it)"""
    *frames, last = agent.exchange("stream", request)
    assert isinstance(last, End)
    found = [frame for frame in frames if isinstance(frame, wire.Frame)]
    return last.body, [frame.json() for frame in found if frame.kind == wire.ITEM]


def test_f73_a_log_cut_short_or_replaced_is_marked_and_shown_from_its_start(
    place: Box, tree: Scan
) -> None:
    pushed(place, tree)
    start(place, body(tree, "rotated-1", "echo one; sleep 600"))
    log = place.runs / "rotated-1" / "log"
    until(lambda: log.read_text() == "one\n")
    with place.agent() as agent:
        first, items = streamed(agent, {"run_id": "rotated-1"})
        (place_of,) = [item for item in items if "file" in item]
        os.truncate(log, 0)
        log.write_text("new")
        request = {"run_id": "rotated-1", "offset": first["offset"], "file": place_of["file"]}
        again, items = streamed(agent, request)
        assert [item for item in items if "truncated" in item.get("marker", "")]
        assert again["offset"] == 3
        agent.call("cancel", {"run_id": "rotated-1", "patience": 10})


@pytest.mark.ssh
def test_f05_a_frozen_host_is_a_timeout_and_the_connection_is_dropped(
    sshd: PrivateSshd, tmp_path: Path
) -> None:
    env = {"ORCH_SSH_CONFIG": str(sshd.client_config)}
    host = dataclasses.replace(Host(name=sshd.alias), root=str(sshd.root_dir))

    def connected() -> Agent:
        transport = SshTransport.open(host, ssh_config(env), tmp_path / "pinned", tmp_path)
        return Agent(host, transport)

    with connected() as agent:
        agent.call("status", {"run_ids": []})
        frozen = sshd.session_pids()
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(CallTimeout):
                agent.call("status", {"run_ids": []}, deadline=1.0)
            assert time.monotonic() - began < 30
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
    with connected() as agent:
        assert agent.call("status", {"run_ids": []}, deadline=10.0)["ok"] is True
