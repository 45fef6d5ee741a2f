"""Lost links, killed processes, silent hosts: what is true stays true, and is found out."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote import attempts, files, session, status, verbs
from remote.causes import End
from remote.channel import Channel
from remote.layout import Layout
from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import Desk, of_run, supervisor_of, take_away, until
from tests.contract.terminal import attached
from tests.helpers import processes
from tests.helpers.proxy import Direction, Ending, Proxy
from tests.helpers.sshd import PrivateSshd

COUNTER = """
import os, sys, time
number = 0
while not os.path.exists("../go"):
    number += 1
    sys.stdout.write(f"line {number} " + "x" * (number % 300) + "\\n")
    sys.stdout.flush()
    time.sleep(0.004)
print("the end")
"""
SLEEPER = "echo up; sleep 600 & wait"


@pytest.fixture
def sshd() -> Iterator[PrivateSshd]:
    """A server for one test: what a host holds already is not sent again."""
    with PrivateSshd() as server:
        yield server


@pytest.fixture
def proxy(sshd: PrivateSshd) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", sshd.port)) as running:
        yield running


@pytest.fixture
def proxied(
    new_desk: MakeDesk, sshd: PrivateSshd, proxy: Proxy, tmp_path: Path
) -> Callable[..., Desk]:
    """Makes a desk whose host is reached through the proxy."""

    def make(*args: object, **options: object) -> Desk:
        config = sshd.write_client_config(tmp_path / "client", port=proxy.port)
        return new_desk(*args, host=box(sshd), ssh_config=config, **options)

    return make


class Reader(threading.Thread):
    """Takes in a process's stdout as it comes."""

    def __init__(self, stream: object) -> None:
        super().__init__(daemon=True)
        self.stream, self.text = stream, ""
        self.start()

    def run(self) -> None:
        with self.stream:  # type: ignore[attr-defined]
            while chunk := os.read(self.stream.fileno(), 65536):  # type: ignore[attr-defined]
                self.text += chunk.decode()


@pytest.mark.usefixtures("over")
@pytest.mark.ssh
def test_f02_a_followed_log_survives_twenty_cuts_without_a_gap_or_a_repeat(
    proxied: Callable[..., Desk], proxy: Proxy, sshd: PrivateSshd
) -> None:
    desk = proxied({"count": "python3 count.py"}, files={"count.py": COUNTER})
    run_id = desk.submit("count")
    tail = desk.start("tail", "--raw")
    errors, reader = Reader(tail.stderr), Reader(tail.stdout)
    for number in range(20):
        seen = len(reader.text)
        # Pauses between attempts grow to 20 s on a host that is slow to let anybody in.
        until(lambda: len(reader.text) > seen + 100, 60)  # noqa: B023
        assert proxy.cut_now(Ending.RST if number % 2 else Ending.FIN) >= 1
    place = sshd.root_dir / "runs" / run_id
    (place / "go").touch()
    assert tail.wait(timeout=60) == 0, errors.text
    reader.join(10)
    errors.join(10)
    assert reader.text == (place / "log").read_text()
    assert reader.text.endswith("the end\n")
    assert "Traceback" not in errors.text
    assert "not affected" in errors.text


@pytest.mark.usefixtures("over")
@pytest.mark.ssh
def test_f01_a_sync_that_is_cut_starts_nothing_and_the_next_one_completes(
    proxied: Callable[..., Desk], proxy: Proxy
) -> None:
    blob = random.Random(1).randbytes(3_000_000)
    small = {f"pkg/m{n}.py": random.Random(n).randbytes(3000) for n in range(60)}
    desk = proxied({"sum": "cat big.bin pkg/*.py | sha256sum"}, files={"big.bin": blob, **small})
    for count in (3_000, 60_000, 200_000, 1_500_000):
        # Slow enough that what was delivered is taken in by the agent before the cut.
        proxy.set_rate(2_000_000)
        proxy.cut_after(count, Direction.UP, how=Ending.FIN)
        done = desk.orch("submit", "sum", code=6)
        assert "box" in done.stderr
    assert {row[1:] for row in desk.rows()} == {("finished", "never_started")}
    proxy.set_rate(None)
    sent = proxy.delivered(Direction.UP)
    desk.orch("submit", "sum", "-f")
    assert proxy.delivered(Direction.UP) - sent < 2_500_000, "what had arrived was sent again"
    whole = blob + b"".join(small[name] for name in sorted(small))
    assert hashlib.sha256(whole).hexdigest() in desk.orch("tail").stdout


MAKER = """
import random
for n in range(40):
    open(f"results/small{n}", "wb").write(random.Random(n).randbytes(2000))
open("results/model.bin", "wb").write(random.Random(99).randbytes(2_500_000))
"""


@pytest.mark.usefixtures("over")
@pytest.mark.ssh
def test_f03_a_fetch_that_is_cut_leaves_nothing_wrong_and_goes_on(
    proxied: Callable[..., Desk], proxy: Proxy
) -> None:
    desk = proxied({"make": "python3 make.py"}, files={"make.py": MAKER})
    run_id = desk.submit("make")
    desk.orch("wait")
    wanted = {f"small{n}": random.Random(n).randbytes(2000) for n in range(40)}
    wanted["model.bin"] = random.Random(99).randbytes(2_500_000)
    folder = desk.results("make", run_id)
    proxy.set_rate(2_000_000)  # slow enough that what was delivered has been taken in at the cut
    for count in (8_000, 90_000, 700_000, 2_000_000):
        proxy.cut_after(count, Direction.DOWN, how=Ending.FIN)
        desk.orch("fetch-results", code=6)
        for path in folder.rglob("*") if folder.exists() else ():
            if path.is_file() and not path.relative_to(folder).parts[0].startswith(".orch"):
                assert path.read_bytes() == wanted[path.name]
        assert desk.show()["fetched"] != "complete"
    proxy.set_rate(None)
    got = proxy.delivered(Direction.DOWN)
    desk.orch("fetch-results")
    assert proxy.delivered(Direction.DOWN) - got < 2_400_000, "what had arrived was sent again"
    assert {name: (folder / name).read_bytes() for name in wanted} == wanted
    assert desk.show()["fetched"] == "complete"
    again = desk.orch("fetch-results").stderr
    assert "0 files" in again or "41" in again


@pytest.mark.usefixtures("over")
@pytest.mark.ssh
def test_f09_a_start_whose_answer_is_lost_is_unknown_then_found_and_never_repeated(
    proxied: Callable[..., Desk], proxy: Proxy, sshd: PrivateSshd
) -> None:
    desk = proxied({"mark": "echo x >> $ORCH_RUN_DIR/../../marks"})
    desk.orch("submit", "mark", "-f")
    proxy.set_delay(400)
    before = set(os.listdir(sshd.root_dir / "runs"))
    submit = desk.start("submit", "mark")
    until(lambda: [n for n in os.listdir(sshd.root_dir / "runs") if n not in before], 40, 0.002)
    proxy.cut_now(Ending.RST)
    out, said = submit.communicate(timeout=60)
    proxy.set_delay(0)
    assert (submit.returncode, out) == (9, ""), said
    (lost,) = [row for row in desk.rows() if row[1] != "finished"]
    assert lost[1] == "unknown"
    assert lost[0] in said
    desk.orch("wait", lost[0])
    assert desk.show(lost[0])["verdict"] == "succeeded"
    assert (sshd.root_dir / "marks").read_text() == "x\nx\n"


@pytest.mark.ssh
@pytest.mark.slow
def test_f04_a_silent_host_is_an_error_in_time_and_changes_no_state(
    proxied: Callable[..., Desk], proxy: Proxy
) -> None:
    desk = proxied({"sleep": SLEEPER})
    run_id = desk.submit("sleep")
    before = desk.show(run_id)
    proxy.freeze()
    both = [desk.start("cancel", run_id), desk.start("show", "--json")]
    began = time.monotonic()
    told = [each.communicate(timeout=90) for each in both]
    assert time.monotonic() - began < 65
    assert [each.returncode for each in both] == [6, 0], told
    assert "box" in told[0][1]
    assert "Traceback" not in told[0][1] + told[1][1]
    assert {row[1] for row in desk.rows()} == {"running"}
    proxy.freeze(False)
    after = desk.show(run_id)
    assert after["state"] == before["state"] == "running"
    desk.orch("cancel", run_id)


@pytest.mark.ssh
@pytest.mark.sessions
def test_f18_a_killed_tmux_server_takes_the_view_and_not_the_run(
    new_desk: MakeDesk, sshd: PrivateSshd
) -> None:
    if not sshd.private_home:
        pytest.skip("would end the caller's own tmux: needs an account of its own")
    host = box(sshd, session="tmux")
    desk = new_desk({"sleep": SLEEPER}, host=host, ssh_config=sshd.client_config)
    run_id = desk.submit("sleep")
    until(lambda: f"orch-{run_id}" in sshd.run("tmux ls").stdout)
    servers = [
        pid for pid in processes.owned_by(sshd.uid) if processes.name_of(pid).startswith("tmux")
    ]
    assert processes.end(servers) == []
    assert sshd.run("tmux ls").returncode != 0
    assert desk.show()["state"] == "running"
    assert len(of_run(run_id)) >= 2
    assert "up" in attached(desk, "up")
    assert f"orch-{run_id}" in sshd.run("tmux ls").stdout
    desk.orch("cancel", run_id)
    assert f"orch-{run_id}" not in sshd.run("tmux ls").stdout


@pytest.mark.ssh
@pytest.mark.sessions
@pytest.mark.parametrize("kind", ["tmux", "screen"])
def test_the_session_of_a_run_whose_directory_was_taken_away_is_closed(
    kind: str, new_desk: MakeDesk, sshd: PrivateSshd
) -> None:
    host = box(sshd, session=kind)
    desk = new_desk({"sleep": SLEEPER}, host=host, ssh_config=sshd.client_config)
    run_id = desk.submit("sleep")
    listed = f"{kind} -ls" if kind == "screen" else "tmux ls"
    until(lambda: f"orch-{run_id}" in sshd.run(listed).stdout)
    folder = sshd.root_dir / "runs" / run_id
    owner = supervisor_of(folder)
    take_away(folder)
    processes.end([owner, *of_run(run_id)])
    until(lambda: not of_run(run_id))
    desk.orch("reconcile", run_id)
    assert desk.show(run_id)["verdict"] == "lost"
    assert f"orch-{run_id}" not in sshd.run(listed).stdout


@pytest.mark.sessions
def test_a_session_that_was_opened_while_its_run_ended_does_not_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMUX_TMPDIR", str(tmp_path))
    layout = Layout(str(tmp_path / "root"))
    layout.ensure()
    run = layout.attempt("20261123-100000-000abcde", 1)
    os.mkdir(run.path)
    attempts.mark_begun(run)
    Path(run.log).touch()
    files.write_json(run.session, {"kind": "tmux", "name": session.name_of(run.run_id)})
    owned = files.try_lock(layout.lock(run.run_id + ".lock"))
    assert owned is not None

    def open_view(*args: Any) -> bool:
        status.write_exit(run, End("succeeded", None, 0), None)
        session.close(run)
        os.close(owned)
        return really_open(*args)

    really_open = session.open_view
    monkeypatch.setattr(session, "open_view", open_view)
    told = verbs.view(layout, Channel(-1, -1), {"run_id": run.run_id})
    stands = session.is_open("tmux", run, session.plain_env())
    session.close(run)
    assert (told["phase"], told["view"], told["argv"][0]) == ("finished", None, "tail")
    assert not stands
