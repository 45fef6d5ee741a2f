"""Following a run: what is shown, how it is left, and what the leaving does not do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, Desk, assert_clear, of_run, take_away, until
from tests.contract.terminal import shown
from tests.helpers import processes
from tests.helpers.cli import TRACEBACK, assert_no_traceback, orch_argv, orch_env

COUNT = "i=0; while test $i -lt 400; do i=$((i+1)); echo line $i; done"
SLOW = "echo begun; until test -e ../go; do sleep 0.05; done; echo ended; exit 3"
HOSTILE = r"printf 'a\033]52;c;ZXZpbA==\007b\033[31mred\033[0m [red]x[/red]\n'"


def go(desk: Desk, run_id: str) -> None:
    """The job SLOW of this run ends now."""
    (desk.home / ".orch" / "runs" / run_id / "go").touch()


@pytest.fixture
def counted(new_desk: MakeDesk) -> Desk:
    desk = new_desk({"count": COUNT})
    desk.submit("count")
    desk.orch("wait")
    return desk


@pytest.fixture
def slow(new_desk: MakeDesk) -> Desk:
    return new_desk({"slow": SLOW})


def test_the_last_lines_alone_or_none(counted: Desk) -> None:
    said = counted.orch("tail", "-n", "2", "--no-follow").stdout
    assert said == "line 399\nline 400\n"
    assert counted.orch("tail", "-n", "0", "--no-follow").stdout == ""
    assert len(counted.orch("tail", "-n", "9999", "--raw").stdout.splitlines()) == 400
    assert counted.orch("tail", "-n", "-1", code=2).stdout == ""


BARS = (
    r"i=0; while test $i -lt 3000; do i=$((i+1)); printf '\r%d of 3000' $i; done; printf '\r\n';"
    r"printf 'ended\r\n'; i=0; while test $i -lt 3000; do i=$((i+1)); printf 'now %d\r' $i; done"
)


@pytest.mark.parametrize("follow", ["--follow", "--no-follow"])
def test_of_the_last_lines_what_a_terminal_would_show(follow: str, new_desk: MakeDesk) -> None:
    desk = new_desk({"bars": "echo first; " + BARS, "other": "true"})
    first = desk.submit("bars")
    desk.orch("wait", first)

    def last(count: int, *more: str) -> str:
        return desk.orch("tail", first, "-n", str(count), follow, *more).stdout

    assert last(1) == "now 3000\n"
    assert last(2) == "ended\nnow 3000\n"
    assert last(4) == last(9) == "first\n3000 of 3000\nended\nnow 3000\n"
    whole = (desk.home / ".orch" / "runs" / first / "log").read_bytes()
    assert len(desk.orch("tail", first, follow).stdout.splitlines()) > 6000
    argv = [*orch_argv(["tail", first, follow, "--raw", "-n"])]
    for count, begin in (("2", whole.index(b"ended")), ("9", 0)):
        raw = subprocess.run(
            [*argv, count], cwd=desk.project, env=orch_env(desk.home), stdout=-1, check=True
        )
        assert raw.stdout == whole[begin:]
    second = desk.submit("other")
    desk.orch("wait", second)
    many = desk.orch("tail", first, second, "-n", "2", follow).stdout.splitlines()
    assert [line.partition(" | ")[2] for line in many] == ["ended", "now 3000"]


def test_a_log_that_is_gone_from_the_host_is_said(counted: Desk) -> None:
    ((first, _, _),) = counted.rows()
    second = counted.submit("count")
    counted.orch("wait")
    runs = counted.home / ".orch" / "runs"
    (runs / first / "log").unlink()
    take_away(runs / second)
    said = {first: f"{first}: its log is gone from box", second: f"{second}: its folder is gone"}
    for run_id, words in said.items():
        for more in ([], ["--no-follow"]):
            done = counted.orch("tail", run_id, *more)
            assert done.stdout == ""
            assert words in done.stderr
    done = counted.orch("tail", first, second)
    assert all(words in done.stderr for words in said.values())


@pytest.mark.parametrize("command", [["submit", "gone", "-f"], ["submit", "fifo", "-f"]])
def test_a_job_that_takes_its_directory_or_its_log_away_is_followed_to_its_end(
    command: list[str], new_desk: MakeDesk
) -> None:
    gone = "echo begun; sleep 0.2; rm -rf $ORCH_RUN_DIR; sleep 0.2"
    fifo = "echo begun; sleep 0.2; rm $ORCH_RUN_DIR/log; mkfifo $ORCH_RUN_DIR/log; exit 3"
    desk = new_desk({"gone": gone, "fifo": fifo})
    done = desk.orch(*command, code=3 if "gone" in command else 1)
    run_id = done.stdout.splitlines()[0]
    assert "begun" in done.stdout
    if "gone" in command:
        assert_clear(done, f"{run_id}: box has no such run", f"`orch reconcile {run_id}`")
        return
    assert desk.show()["exit_code"] == 3
    assert "no regular file" in desk.orch("tail", "-n", "1", "--no-follow").stdout


def test_f53_a_closed_stdout_ends_it_quietly(counted: Desk) -> None:
    argv = [*orch_argv(["tail"]), "--no-follow"]
    read, write = os.pipe()
    tail = subprocess.Popen(
        argv, cwd=counted.project, env=orch_env(counted.home), stdout=write, stderr=-1, text=True
    )
    os.close(write)
    assert os.read(read, 5) == b"line "
    os.close(read)
    _, said = tail.communicate(timeout=20)
    assert tail.returncode in (0, 141)
    assert said == ""


@pytest.mark.parametrize("many", [False, True])
def test_f53_a_reader_that_leaves_a_quiet_log_is_noticed(many: bool, new_desk: MakeDesk) -> None:
    desk = new_desk({"quiet": "echo hello; sleep 600"})
    runs = [desk.submit("quiet") for _ in range(1 + many)]
    tail = desk.start("tail", *runs)
    assert tail.stdout
    for _ in runs:
        assert tail.stdout.readline().endswith("hello\n")
    tail.stdout.close()
    assert tail.wait(timeout=20) == 141
    assert tail.stderr and tail.stderr.read() == ""
    assert {desk.show(run)["state"] for run in runs} == {"running"}
    for run in runs:
        desk.orch("cancel", run)


def test_f53_a_reader_that_leaves_a_live_log_leaves_the_run_alone(new_desk: MakeDesk) -> None:
    desk = new_desk({"chatty": "while :; do echo hello; sleep 0.02; done"})
    run_id = desk.submit("chatty")
    tail = desk.start("tail")
    assert tail.stdout
    assert tail.stdout.readline() == "hello\n"
    tail.stdout.close()
    assert tail.wait(timeout=20) in (0, 141)
    assert tail.stderr
    assert TRACEBACK not in tail.stderr.read()
    tail.stderr.close()
    assert desk.show()["state"] == "running"
    desk.orch("cancel", run_id)


@pytest.mark.parametrize("command", [["tail"], ["submit", "slow", "-f"], ["wait"]])
def test_ctrl_c_leaves_with_130_and_the_run_goes_on(slow: Desk, command: list[str]) -> None:
    if command[0] != "submit":
        slow.submit("slow")
    following = slow.start(*command)
    until(lambda: [row for row in slow.rows() if row[1] == "running"])
    if command[0] == "wait":
        until(lambda: processes.descendants(following.pid))  # it has an agent: it waits
    else:
        assert following.stdout
        while following.stdout.readline() != "begun\n":
            assert following.poll() is None
    os.killpg(following.pid, signal.SIGINT)
    out, said = following.communicate(timeout=60)
    assert following.returncode == 130, said
    assert TRACEBACK not in out + said
    ((run_id, _, _),) = slow.rows()
    assert run_id in said, f"how to come back is not said: {said!r}"
    assert of_run(run_id)
    assert slow.show()["state"] == "running"
    go(slow, run_id)
    done = slow.orch("tail", code=1)
    assert done.stdout == "begun\nended\n"


def test_a_second_look_begins_at_byte_0_again(counted: Desk) -> None:
    once = counted.orch("tail", "--raw").stdout
    assert once == counted.orch("tail", "--raw", "--no-follow").stdout
    assert once.startswith("line 1\n")


FLOOD = """
import os, time
for _ in range(15000):
    os.write(1, b"y" * 79 + b"\\n" * 500)
    time.sleep(0.001)
time.sleep(3600)
"""


def test_no_follow_shows_what_is_there_and_ends_also_while_the_job_writes(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"flood": "python3 flood.py"}, files={"flood.py": FLOOD})
    run_id = desk.submit("flood")
    log = desk.home / ".orch" / "runs" / run_id / "log"
    until(lambda: log.stat().st_size > 100_000, 60)
    done = desk.orch("tail", "--no-follow", timeout=120)
    state = desk.show()["state"]
    desk.orch("cancel", run_id)
    assert state == "running"
    assert done.stdout.startswith("yyyy")


def test_f74_what_would_steer_the_terminal_is_shown_and_raw_is_raw(new_desk: MakeDesk) -> None:
    desk = new_desk({"hostile": ["printf", HOSTILE[8:-1]]})
    desk.submit("hostile")
    desk.orch("wait")
    shown = desk.orch("tail")
    assert "\x1b" not in shown.stdout + shown.stderr
    assert "\x07" not in shown.stdout
    assert "[red]x[/red]" in shown.stdout
    raw = desk.orch("tail", "--raw").stdout
    assert "\x1b]52;c;ZXZpbA==\x07b\x1b[31mred\x1b[0m" in raw


def test_f75_bytes_that_are_no_text_arrive_whole(new_desk: MakeDesk, tmp_path: Path) -> None:
    blob = bytes(range(256)) * 700
    desk = new_desk({"blob": "cat blob"}, files={"blob": blob})
    desk.submit("blob")
    desk.orch("wait")
    with (tmp_path / "out").open("wb") as out:
        argv, env = orch_argv(["tail", "--raw"]), orch_env(desk.home)
        done = subprocess.run(argv, cwd=desk.project, env=env, stdout=out, stderr=-1, timeout=30)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == blob
    shown = desk.orch("tail").stdout
    assert all(sign.isprintable() or sign in "\n\t" for sign in shown)


def test_a_run_is_named_by_id_prefix_suffix_job_or_nothing(new_desk: MakeDesk) -> None:
    desk = new_desk({"one": "true", "two": "true"})
    first, second, third = desk.submit("one"), desk.submit("two"), desk.submit("one")
    desk.orch("wait", third)

    def named(*args: str) -> str:
        return desk.show(*args)["run_id"]

    assert named() == named("one") == named(third) == named(third[-6:]) == third
    assert named("two") == named(second) == second
    assert named(first) == named(first[-5:]) == first
    shared = first[:4]
    assert second.startswith(shared)
    done = desk.orch("show", shared, code=3)
    assert first in done.stderr
    assert second in done.stderr
    assert "orch ls" in desk.orch("show", "nosuch", code=3).stderr


def test_retry_takes_over_what_the_run_was_given(new_desk: MakeDesk) -> None:
    desk = new_desk({"train": {**TRAIN, "profiles": {"small": {"config": {"lr": 0.5}}}}})
    first = desk.submit(
        "train", "--profile", "small", "--set", "right=46", "--tag", "a=b", "--note", "n"
    )
    desk.orch("wait")
    second = desk.orch("retry", first, "-f").stdout.splitlines()[0]
    old, new = desk.show(first), desk.show(second)
    assert new["supersedes"] == first
    for key in ("config", "config_hash", "job", "tags", "host", "accuracy"):
        assert new[key] == old[key], key
    assert (old["note"], new["note"]) == ("n", None)
    assert new["config"] == {"right": 46, "lr": 0.5}


def test_wait_says_in_time_that_it_is_not_over(slow: Desk) -> None:
    run_id = slow.submit("slow")
    began = time.monotonic()
    done = slow.orch("wait", "--timeout", "1s", code=4)
    assert 0.9 < time.monotonic() - began < 30
    assert run_id in done.stderr
    go(slow, run_id)
    document = json.loads(slow.orch("wait", "--json", code=1).stdout)
    assert (document["verdict"], document["exit_code"]) == ("failed", 3)


def test_wait_says_at_once_what_it_waits_for_and_on_a_terminal_how_far_it_is(
    new_desk: MakeDesk,
) -> None:
    told = """echo '{"step": 7, "progress": 0.5}' >> "$ORCH_RESULTS_DIR/metrics.jsonl"; """
    desk = new_desk({"slow": told + SLOW})
    run_id = desk.submit("slow")
    until(lambda: desk.show()["state"] == "running")
    line = f"waiting for {run_id} on box (running)"
    waiting = desk.start("wait")
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == line + "\n"
    seen = shown(desk, ["wait"], "step 7, 50 %")
    assert seen.startswith(line + "\r\n") and "step 7, 50 %" in seen
    go(desk, run_id)
    out, said = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (1, "")
    assert f"{run_id}: failed (exit 3)" in said
    assert "\x1b" not in said and said.count("50 %") <= 1
    assert "waiting for" not in desk.orch("wait", code=1).stderr


def test_a_run_that_is_over_can_be_followed_and_waited_for_at_once(counted: Desk) -> None:
    for command in (["wait"], ["tail"], ["wait", "--timeout", "0"]):
        assert_no_traceback(counted.orch(*command))
