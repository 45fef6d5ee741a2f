"""`orch gpus` and `orch top`, on hosts whose nvidia-smi is the test's."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import TRAIN, Desk, until
from tests.contract.test_gpus import HELD
from tests.helpers.cli import orch_argv, orch_env
from tests.helpers.sshd import PrivateSshd

CARDS = """#!/bin/sh
case "$1" in
--query-gpu*)
echo "0, GPU-a, NVIDIA X, 4, 24576, 0, 550.1"
echo "1, GPU-b, NVIDIA X, 20000, 24576, 97, 550.1"
;;
*) echo "GPU-b, {pid}, 19000, /usr/bin/python3" ;;
esac
"""
NASTY = {
    "command": "printf 'step \\033[2J\\033]0;title\\007 end\\n'; "
    'echo \'{"step": 7, "loss": 0.25, "progress": 0.5}\' >> results/metrics.jsonl; '
    "until test -e ../go; do sleep 0.05; done"
}


def put(folder: Path) -> None:
    """nvidia-smi in that folder shows two cards, the second used by the process that tests."""
    folder.mkdir(exist_ok=True)
    tool = folder / "nvidia-smi"
    tool.write_text(CARDS.replace("{pid}", str(os.getpid())))
    tool.chmod(0o755)


@pytest.fixture
def desk(new_desk: MakeDesk, tmp_path: Path) -> Desk:
    put(tmp_path / "cards")
    made = new_desk({"held": HELD, "nasty": NASTY})
    made.env["PATH"] = f"{tmp_path / 'cards'}:{os.environ['PATH']}"
    return made


def gpus(desk: Desk, *args: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """Host -> its object in the document."""
    document = json.loads(desk.orch("gpus", "--json", *args, code=code).stdout)
    return {each["host"]: each for each in document}


def top(desk: Desk) -> dict[str, Any]:
    return json.loads(desk.orch("top", "--json").stdout)


def go(desk: Desk, run_id: str) -> None:
    (desk.home / ".orch" / "runs" / run_id / "go").touch()
    desk.orch("wait", run_id)


def test_gpus_names_the_run_that_leases_a_card_and_the_strangers_on_another(desk: Desk) -> None:
    run_id = desk.submit("held")
    until(lambda: desk.show(run_id)["state"] == "running")
    first, second = gpus(desk, "box")["box"]["gpus"]
    lease = {"run_id": run_id, "job": "held", "project": str(desk.project), "known": True}
    assert (first["index"], first["uuid"], first["lease"]) == (0, "GPU-a", lease)
    assert (second["memory_used"], second["utilization"]) == (20000 << 20, 97)
    (stranger,) = second["processes"]
    assert (stranger["pid"], stranger["memory"]) == (os.getpid(), 19000 << 20)
    assert (second["lease"], stranger["run_id"]) == (None, None)
    shown = desk.orch("gpus", "box").stdout
    assert f"{run_id} (held)" in shown
    assert f"/usr/bin/python3 (pid {os.getpid()}, 18.6 GiB)" in shown
    go(desk, run_id)
    assert gpus(desk, "box")["box"]["gpus"][0]["lease"] is None


@pytest.mark.ssh
def test_gpus_over_ssh_says_the_same(new_desk: MakeDesk, sshd: PrivateSshd) -> None:
    put(sshd.bin_dir)
    try:
        far = new_desk({"held": HELD}, host=box(sshd), ssh_config=sshd.client_config)
        run_id = far.submit("held")
        until(lambda: far.show(run_id)["state"] == "running")
        assert gpus(far, "box")["box"]["gpus"][0]["lease"]["run_id"] == run_id
        far.orch("cancel", run_id)
    finally:
        (sshd.bin_dir / "nvidia-smi").unlink()


@pytest.mark.ssh
def test_a_silent_host_is_a_row_with_words_and_hides_no_other(new_desk: MakeDesk) -> None:
    desk = new_desk()
    (desk.project / "orch.yaml").write_text(
        "hosts: {box: {transport: local}, dead: {ssh: 'nobody@127.0.0.1:1'}}\n"
    )
    told = gpus(desk)
    assert (told["box"]["reached"], told["box"]["error"]) == (True, None)
    assert (told["dead"]["reached"], told["dead"]["gpus"]) == (False, None)
    assert "local" in told
    assert "dead" in desk.orch("gpus").stdout
    desk.orch("gpus", "dead", code=6)


def test_no_nvidia_smi_is_said_and_one_that_fails_is_not_taken_for_no_gpu(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    desk = new_desk()
    empty = tmp_path / "empty"
    empty.mkdir()
    desk.env["PATH"] = str(empty)
    assert "no GPU (no nvidia-smi)" in desk.orch("gpus", "box").stdout
    assert gpus(desk, "box")["box"]["gpus"] == []
    (empty / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (empty / "nvidia-smi").chmod(0o755)
    told = gpus(desk, "box")["box"]
    assert told["gpus"] is None
    assert "failed (exit code 9)" in told["error"]


def test_top_without_a_terminal_prints_runs_gpus_and_what_ended_once(desk: Desk) -> None:
    ended = desk.submit("held")
    until(lambda: desk.show(ended)["state"] == "running")
    go(desk, ended)
    run_id = desk.submit("nasty")
    until(lambda: top(desk)["runs"][0]["progress"] == {"step": 7, "loss": 0.25, "progress": 0.5})
    told = top(desk)
    assert [run["run_id"] for run in told["runs"]] == [run_id]
    assert [run["run_id"] for run in told["ended"]] == [ended]
    assert {host["host"] for host in told["hosts"]} == {"local", "box"}
    shown = desk.orch("top").stdout
    assert "50 % step 7 loss 0.25" in shown
    assert "step \\x1b[2J\\x1b]0;title\\x07 end" in shown
    assert "\x1b" not in shown
    assert ended in shown
    assert "NVIDIA X" in shown
    go(desk, run_id)


@pytest.mark.parametrize(("key", "code"), [(b"q", 0), (b"\x03", 130)])
def test_top_on_a_narrow_terminal_fits_and_a_key_leaves_the_runs_alone(
    desk: Desk, key: bytes, code: int
) -> None:
    run_id = desk.submit("nasty")
    seen, ended = on_terminal(desk, run_id.encode(), key)
    assert ended == code, seen
    assert b"\x1b]0;title" not in seen
    lines = seen.decode(errors="replace").replace("\x1b[H", "\r\n").split("\r\n")
    plain = [line.rstrip() for line in lines if "\x1b" not in line]
    assert any(run_id in line for line in plain)
    assert max(map(len, plain)) <= 60
    assert desk.show(run_id)["state"] == "running"
    go(desk, run_id)


@pytest.mark.parametrize("columns", [80, 60])
def test_top_shows_what_a_result_is_worth_however_narrow_the_terminal(
    new_desk: MakeDesk, columns: int
) -> None:
    chance = {**TRAIN, "config": {"right": 25}}
    desk = new_desk({"mdlm-pretrained-fixed": chance, "killed": "kill -15 $$"})
    run_id = desk.submit("mdlm-pretrained-fixed")
    desk.orch("wait", run_id, code=7)
    desk.orch("submit", "killed", "-f", code=1)
    seen, _ = on_terminal(desk, b"killed", b"q", columns, 24)
    lines = seen.decode(errors="replace").replace("\x1b[H", "\r\n").split("\r\n")
    line = next(line for line in lines if line.startswith(run_id))
    assert "succeeded" in line and "degenerate" in line
    assert ("50.0 %" in line) and ("mdlm-pretra" in line) is (columns == 80)
    assert len(line.rstrip()) <= columns


def test_top_on_a_terminal_that_takes_no_control_sequence_prints_once(desk: Desk) -> None:
    run_id = desk.submit("held")
    until(lambda: desk.show(run_id)["state"] == "running")
    seen, ended = on_terminal(desk, b"no such word", b"", term="dumb")
    assert ended == 0
    assert run_id.encode() in seen and b"\x1b" not in seen
    go(desk, run_id)


def on_terminal(
    desk: Desk, word: bytes, key: bytes, columns: int = 60, lines: int = 20, term: str = "xterm"
) -> tuple[bytes, int]:
    """What `orch top` drew on the terminal until it left; `key` is typed once it showed `word`."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(desk.project)
        env = {**orch_env(desk.home, desk.env), "TERM": term, "COLUMNS": str(columns),
               "LINES": str(lines)}  # fmt: skip
        os.execve(orch_argv([])[0], orch_argv(["top"]), env)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    seen, typed, end = b"", False, time.monotonic() + 60
    while time.monotonic() < end:
        if word in seen and not typed:
            os.write(terminal, key)
            typed = True
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                break
    else:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return seen, os.waitstatus_to_exitcode(status)
