"""Links that are slow, full, restarted or shared: what waits, what is told, what goes on."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import CallTimeout
from orchestrator.transport.base import Agent
from remote import wire
from tests.contract import liar
from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import Desk, job_of, until
from tests.faults.truth import MARK, marks
from tests.helpers import processes
from tests.helpers.proxy import Direction, Proxy
from tests.helpers.sshd import PrivateSshd

WAITS = "echo begun; until test -e ../go; do sleep 0.05; done; echo ended"


def test_f06_a_trickle_does_not_keep_a_call_alive() -> None:
    class Drip(liar.LyingPipe):
        def recv(self, count: int, timeout: float) -> bytes:
            time.sleep(0.05)
            if timeout < 0.05:
                raise CallTimeout("liar: no answer")
            return super().recv(1, timeout)

    answer = liar.end({"ok": True, "text": "x" * 4000})
    with Agent(liar.HOST, liar.LyingTransport(answer, Drip)) as agent:
        began = time.monotonic()
        with pytest.raises(CallTimeout):
            agent.call("status", {"run_ids": []}, deadline=1.0)
        assert time.monotonic() - began < 30


def test_f06_a_large_answer_may_take_longer_than_the_deadline_of_silence() -> None:
    class Slow(liar.LyingPipe):
        def recv(self, count: int, timeout: float) -> bytes:
            time.sleep(0.05)
            return super().recv(20_000, timeout)

    payload = os.urandom(600_000)
    answer = liar.frames((wire.DATA, payload), (wire.END, {"ok": True}))
    with Agent(liar.HOST, liar.LyingTransport(answer, Slow)) as agent:
        frames = list(agent.exchange("stream", {}, deadline=0.5))
    assert isinstance(frames[0], wire.Frame)
    assert frames[0].payload == payload


@pytest.mark.ssh
def test_f07_a_restarted_sshd_is_reconnected_to_and_the_run_does_not_notice(
    new_desk: MakeDesk, make_sshd: Callable[..., PrivateSshd]
) -> None:
    server = make_sshd()
    desk = new_desk({"waits": WAITS}, host=box(server), ssh_config=server.client_config)
    run_id = desk.submit("waits")
    tail = desk.start("tail")
    assert tail.stdout
    assert tail.stdout.readline() == "begun\n"
    leader = job_of(run_id)
    server.stop_listener()
    server.kill_sessions()
    time.sleep(0.5)  # for a while nobody listens
    server.restart()
    assert processes.is_alive(leader)
    (server.root_dir / "runs" / run_id / "go").touch()
    out, said = tail.communicate(timeout=90)
    assert (tail.returncode, out) == (0, "ended\n"), said
    assert "not affected" in said


@pytest.mark.ssh
def test_f10_one_session_a_connection_is_enough(
    new_desk: MakeDesk, make_sshd: Callable[..., PrivateSshd]
) -> None:
    server = make_sshd(config={"MaxSessions": "1"})
    desk = new_desk(host=box(server), ssh_config=server.client_config)
    desk.orch("submit", "train", "-f")
    desk.orch("fetch-results")
    assert desk.show()["accuracy"] == 0.9


@pytest.mark.ssh
def test_f10_a_host_that_drops_surplus_logins_gets_them_again_a_little_later(
    new_desk: MakeDesk, make_sshd: Callable[..., PrivateSshd]
) -> None:
    server = make_sshd(config={"MaxStartups": "1:100:1"})
    desk = new_desk({"quick": MARK}, host=box(server), ssh_config=server.client_config)
    desk.orch("submit", "quick", "-f")
    some = [desk.start("submit", "quick") for _ in range(4)]
    told = [each.communicate(timeout=120) for each in some]
    for each, (out, said) in zip(some, told, strict=True):
        assert each.returncode in (0, 6), said
        assert "Traceback" not in said
        assert out or "box" in said
    assert sum(each.returncode == 0 for each in some) >= 3, told
    until(lambda: not [row for row in desk.rows() if desk.show(row[0])["state"] != "finished"], 60)
    assert set(marks(server.root_dir).values()) == {1}


@pytest.mark.parametrize("size", [1_000, 3_000_000])
def test_f15_two_submits_of_one_tree_at_the_same_time_both_succeed(
    size: int, new_desk: MakeDesk
) -> None:
    blob = os.urandom(size)
    desk = new_desk({"sum": "sha256sum blob"}, files={"blob": blob})
    desk.orch("check", "sum")
    for number in range(2):
        blob = os.urandom(size)
        (desk.project / "blob").write_bytes(blob)
        both = [desk.start("submit", "sum", "-f") for _ in range(3)]
        told = [each.communicate(timeout=90) for each in both]
        assert [each.returncode for each in both] == [0, 0, 0], (number, told)
        digest = hashlib.sha256(blob).hexdigest()
        assert [out.split("\n")[1] for out, _ in told] == [f"{digest}  blob"] * 3


@pytest.mark.ssh
def test_f51_a_controller_that_slept_through_everything_takes_it_up_on_waking(
    proxied: Callable[..., Desk], proxy: Proxy, sshd: PrivateSshd
) -> None:
    desk = proxied({"waits": WAITS})
    run_id = desk.submit("waits")
    tail = desk.start("tail")
    assert tail.stdout
    assert tail.stdout.readline() == "begun\n"
    os.kill(tail.pid, signal.SIGSTOP)
    (sshd.root_dir / "runs" / run_id / "go").touch()
    until(lambda: (sshd.root_dir / "runs" / run_id / "exit.json").exists())
    proxy.cut_now()
    os.kill(tail.pid, signal.SIGCONT)
    out, said = tail.communicate(timeout=90)
    assert (tail.returncode, out) == (0, "ended\n"), said
    assert desk.show()["verdict"] == "succeeded"


FLOOD = """
import os
block = b"y" * 99 + b"\\n"
for _ in range(1200):
    os.write(1, block * 500)
"""


def resident(pid: int) -> int:
    """KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@pytest.mark.ssh
def test_f78_a_job_that_writes_faster_than_the_link_costs_no_memory(
    proxied: Callable[..., Desk], proxy: Proxy, sshd: PrivateSshd, tmp_path: Path
) -> None:
    desk = proxied({"flood": "python3 flood.py"}, files={"flood.py": FLOOD})
    run_id = desk.submit("flood")
    proxy.set_rate(2_000_000)
    with (tmp_path / "out").open("wb") as out:
        tail = desk.start("tail", "--raw", stdout=out)
        log = sshd.root_dir / "runs" / run_id / "log"
        until(lambda: log.stat().st_size == 60_000_000, 90)
        until(lambda: (tmp_path / "out").stat().st_size > 2_000_000, 90)
        first = resident(tail.pid)
        behind = 60_000_000 - (tmp_path / "out").stat().st_size
        until(lambda: (tmp_path / "out").stat().st_size > 8_000_000, 90)
        assert resident(tail.pid) - first < 48 << 10
        proxy.set_rate(None)
        _, said = tail.communicate(timeout=120)
    assert tail.returncode == 0, said
    assert (tmp_path / "out").stat().st_size == 60_000_000
    assert behind > 0, "the link was not slower than the job"
    assert proxy.delivered(Direction.DOWN) > 0


@pytest.mark.ssh
def test_f89_a_jump_host_and_a_proxy_command_of_the_ssh_config_are_used(
    new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path
) -> None:
    jump = sshd.host_block("jump")
    inner = sshd.host_block("inner") + "    ProxyJump jump\n"
    nc = f"ssh -F {tmp_path / 'config'} -W %h:%p jump"
    piped = sshd.host_block("piped") + f"    ProxyCommand {nc}\n"
    (tmp_path / "config").write_text(jump + inner + piped)
    for alias in ("inner", "piped"):
        before = sshd.log().count("Accepted publickey")
        host = box(sshd, ssh=alias)
        desk = new_desk(host=host, ssh_config=tmp_path / "config")
        desk.orch("submit", "train", "-f")
        assert desk.show()["accuracy"] == 0.9
        assert sshd.log().count("Accepted publickey") == before + 2
