"""Many runs followed at once: over one channel, line by line, nothing lost or repeated."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.manylogs import LONGEST, _Lines
from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import Desk, until
from tests.contract.test_faults import Reader
from tests.helpers.cli import orch_argv, orch_env
from tests.helpers.proxy import Ending, Proxy
from tests.helpers.sshd import PrivateSshd

COUNT = "i=0; while test $i -lt {0}; do i=$((i+1)); echo {1} line $i; done"
HELD = "echo {0} begun; until test -e ../go; do sleep 0.05; done; echo {0} through"


def folder(desk: Desk, run_id: str) -> Path:
    return desk.home / ".orch" / "runs" / run_id


def lines_of(out: str, label: str) -> list[str]:
    return [line.partition(" | ")[2] for line in out.splitlines() if line.startswith(label)]


def test_every_line_stands_behind_its_runs_name_and_the_worst_end_counts(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"one": COUNT.format(3000, "one"), "three": COUNT.format(3, "3") + "; exit 3"})
    first, second = desk.submit("one"), desk.submit("three")
    done = desk.orch("tail", first, second, first, code=1)
    assert lines_of(done.stdout, f"one {first[-5:]}  ") == [f"one line {n}" for n in range(1, 3001)]
    assert lines_of(done.stdout, f"three {second[-5:]}") == [f"3 line {n}" for n in range(1, 4)]
    assert len(done.stdout.splitlines()) == 3003
    assert f"{first}: succeeded" in done.stderr
    assert f"{second}: failed (exit 3)" in done.stderr
    some = desk.orch("tail", first, second, "-n", "2", "--no-follow").stdout
    assert sorted(line.partition(" | ")[2] for line in some.splitlines()) == [
        "3 line 2", "3 line 3", "one line 2999", "one line 3000",
    ]  # fmt: skip


def test_it_goes_on_until_the_last_of_them_has_ended_and_ctrl_c_leaves(new_desk: MakeDesk) -> None:
    desk = new_desk({"a": HELD.format("a"), "b": HELD.format("b")})
    first, second = desk.submit("a"), desk.submit("b")
    tail = desk.start("tail", first, second)
    errors, reader = Reader(tail.stderr), Reader(tail.stdout)
    until(lambda: "a begun" in reader.text and "b begun" in reader.text)
    (folder(desk, first) / "go").touch()
    until(lambda: "a through" in reader.text)
    until(lambda: f"{first}: succeeded" in errors.text)
    assert tail.poll() is None
    tail.send_signal(signal.SIGINT)
    assert tail.wait(timeout=60) == 130
    errors.join(60)
    assert "the runs go on" in errors.text
    assert desk.show(second)["state"] == "running"
    (folder(desk, second) / "go").touch()
    desk.orch("tail", first, second)


@pytest.mark.ssh
@pytest.mark.usefixtures("over")
def test_f02_f10_twelve_runs_over_one_channel_survive_cuts(
    new_desk: MakeDesk, make_sshd: Callable[..., PrivateSshd], tmp_path: Path
) -> None:
    """More than sshd allows sessions for on one connection."""
    job = (
        'i=0; until test -e ../../go; do i=$((i+1)); echo "$ORCH_RUN_ID line $i"; sleep 0.02; done'
    )
    server = make_sshd(config={"MaxSessions": "2"})
    with Proxy(("127.0.0.1", server.port)) as proxy:
        config = server.write_client_config(tmp_path / "client", port=proxy.port)
        desk = new_desk({"count": job}, host=box(server), ssh_config=config)
        runs = [desk.submit("count") for _ in range(12)]
        tail = desk.start("tail", *runs)
        errors, reader = Reader(tail.stderr), Reader(tail.stdout)
        for number in range(6):
            seen = len(reader.text)
            until(lambda: len(reader.text) > seen + 3000, 60)  # noqa: B023
            proxy.cut_now(Ending.RST if number % 2 else Ending.FIN)
        (server.root_dir / "runs" / "go").touch()
        assert tail.wait(timeout=90) == 0, errors.text
        reader.join(10)
    for run_id in runs:
        told = lines_of(reader.text, f"count {run_id[-5:]}")
        assert "\n".join(told) + "\n" == (server.root_dir / "runs" / run_id / "log").read_text()


# --- lines of any length --------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_f76_a_long_line_is_shown_in_marked_pieces_whose_sum_is_the_line(
    size: int, raw: bool
) -> None:
    text = ("é" * 100_000 + "\n" + "short\n" + "x" * (2 * LONGEST + 5)).encode()
    lines = _Lines(raw)
    told = [line for at in range(0, len(text), size) for line in lines.feed(text[at : at + size])]
    told += lines.rest()
    assert all(len(line) <= LONGEST + 1 for line in told)
    for line in told:
        line.decode()
    joined = b"".join(line[:-1] if line.endswith(b"\\") else line + b"\n" for line in told)
    assert joined == text + b"\n"


@pytest.mark.slow
@pytest.mark.parametrize("many", [False, True])
def test_f76_one_line_of_a_gigabyte_needs_no_memory(
    many: bool, new_desk: MakeDesk, tmp_path: Path
) -> None:
    size = 1 << 30
    command = f"head -c {size} /dev/zero | tr '\\0' 'y'"
    desk = new_desk({"long": command, "other": "echo other"})
    run_id, other = desk.submit("long"), desk.submit("other")
    desk.orch("wait", run_id, timeout=120)
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    runs = [run_id, other] if many else [run_id]
    argv = [sys.executable, "-c", code, *orch_argv(["tail", *runs])]
    done = subprocess.run(
        argv, cwd=desk.project, env=orch_env(desk.home), capture_output=True, text=True, timeout=200
    )
    returned, peak = map(int, done.stdout.split())
    assert returned == 0, done.stderr
    assert peak < 120_000, f"{peak} kB"
    assert f"{run_id}: succeeded" in done.stderr
