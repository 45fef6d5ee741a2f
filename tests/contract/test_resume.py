"""Attempts: a run goes on in its own directory, by hand or because its spec asks for it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, Desk, of_run, supervisor_of, until
from tests.helpers import processes

# Fails until it finds what its first attempt left behind.
TWICE = """
import os, sys
attempt = os.environ["ORCH_ATTEMPT"]
print("this is attempt", attempt, end="", flush=True)
if not os.path.exists("results/checkpoint"):
    open("results/checkpoint", "w").write("half way")
    sys.exit(9)
print(" from", open("results/checkpoint").read())
exec(open("work.py").read())
"""
COUNTED = 'echo "attempt $ORCH_ATTEMPT"; echo x >> ../starts; '
RETRY = {"on": [{"exit": [75]}], "max": 2}


def folder(desk: Desk, run_id: str) -> Path:
    return desk.home / ".orch" / "runs" / run_id


def starts(desk: Desk, run_id: str) -> int:
    return len((folder(desk, run_id) / "starts").read_text().split())


def verdicts(desk: Desk, run_id: str) -> dict[str, str]:
    """The exit records of all attempts."""
    found = sorted(folder(desk, run_id).glob("exit*.json"))
    return {path.name: json.loads(path.read_text())["verdict"] for path in found}


@pytest.fixture
def twice(new_desk: MakeDesk) -> tuple[Desk, str]:
    """A desk, and a run on it that failed and can go on."""
    job = {**TRAIN, "command": "python3 twice.py"}
    desk = new_desk({"twice": job}, files={"twice.py": TWICE})
    desk.orch("submit", "twice", "-f", code=1)
    return desk, desk.rows()[0][0]


def test_a_resumed_run_goes_on_where_its_job_left_off(twice: tuple[Desk, str]) -> None:
    desk, run_id = twice
    before = desk.show(run_id)
    assert (before["verdict"], before["exit_code"], before["attempt"]) == ("failed", 9, 1)
    out = desk.orch("resume", run_id, "-f").stdout
    assert out.startswith(run_id + "\n")
    shown = desk.show(run_id)
    assert (shown["verdict"], shown["accuracy"], shown["outcome"]) == ("succeeded", 0.9, "ok")
    assert (shown["attempt"], shown["exit_code"], shown["cause"]) == (2, 0, None)
    assert shown["snapshot"] == before["snapshot"]
    assert verdicts(desk, run_id) == {"exit.json": "failed", "exit.2.json": "succeeded"}
    log = desk.orch("tail", run_id).stdout
    assert "this is attempt 1\n[orch] attempt 2\nthis is attempt 2 from half way\n" in log
    assert len(desk.rows()) == 1
    assert "resuming" in [event["kind"] for event in shown["events"]]


def test_what_goes_on_or_has_succeeded_or_never_started_is_not_resumed(
    twice: tuple[Desk, str],
) -> None:
    desk, run_id = twice
    desk.orch("resume", run_id, "-f")
    done = desk.orch("resume", run_id, code=5)
    assert "succeeded" in done.stderr
    assert "orch retry" in done.stderr
    desk.spec("sleep", {"command": "sleep 600"})
    going = desk.submit("sleep")
    assert "has not ended" in desk.orch("resume", going, code=5).stderr
    desk.orch("cancel", going)
    desk.orch("resume", "nosuch", code=3)
    assert desk.show(run_id)["attempt"] == 2


def test_a_cancelled_run_can_go_on_and_is_cancelled_again(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": COUNTED + "sleep 600"})
    run_id = desk.submit("sleep")
    until((folder(desk, run_id) / "starts").exists)
    desk.orch("cancel", run_id)
    desk.orch("resume", run_id)
    until(lambda: starts(desk, run_id) == 2)
    assert desk.show(run_id)["state"] == "running"
    desk.orch("cancel", run_id)
    assert verdicts(desk, run_id) == {"exit.json": "cancelled", "exit.2.json": "cancelled"}
    assert of_run(run_id) == []


def test_a_resume_right_after_the_end_waits_for_a_slow_session_to_close(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    tmux = tmp_path / "bin" / "tmux"
    tmux.parent.mkdir()
    tmux.write_text("#!/bin/sh\ntest $1 != kill-session || exec sleep 4\n")
    tmux.chmod(0o755)
    fails = {"command": COUNTED + "exit 1"}
    desk = new_desk({"fails": fails}, host={"transport": "local", "session": "tmux"})
    desk.env["PATH"] = f"{tmux.parent}:{os.environ['PATH']}"
    run_id = desk.submit("fails")
    desk.orch("wait", run_id, code=1)
    desk.orch("resume", run_id)
    desk.orch("wait", run_id, code=1)
    assert verdicts(desk, run_id) == {"exit.json": "failed", "exit.2.json": "failed"}
    assert starts(desk, run_id) == 2


def test_two_resumes_at_once_make_one_attempt(new_desk: MakeDesk) -> None:
    desk = new_desk({"fails": COUNTED + "sleep 0.5; exit 1"})
    desk.orch("submit", "fails", "-f", code=1)
    ((run_id, _, _),) = desk.rows()
    both = [desk.start("resume", run_id) for _ in range(2)]
    codes = sorted(each.wait(timeout=30) for each in both)
    for each in both:
        each.communicate()
    assert codes in ([0, 0], [0, 5])
    desk.orch("wait", run_id, code=1)
    assert starts(desk, run_id) == desk.show(run_id)["attempt"] == 2


def test_a_resume_asks_for_the_secrets_again_and_starts_nothing_without(
    new_desk: MakeDesk,
) -> None:
    job = {"command": COUNTED + 'test "$TOKEN" = new', "secrets": ["TOKEN"]}
    desk = new_desk({"secret": job})
    desk.orch("submit", "secret", "-f", code=1, TOKEN="old")
    ((run_id, _, _),) = desk.rows()
    assert "TOKEN" in desk.orch("resume", run_id, code=5).stderr
    assert desk.show(run_id)["attempt"] == 1
    desk.orch("resume", run_id, "-f", TOKEN="new")
    assert desk.show(run_id)["verdict"] == "succeeded"
    for path in folder(desk, run_id).rglob("*.json"):
        assert '"old"' not in path.read_text()


def test_later_stages_go_on_without_the_ones_that_were_through(new_desk: MakeDesk) -> None:
    stages = {
        "prepare": {"command": "echo preparing; echo x >> ../prepared"},
        "train": {"command": "test -e ../ok || { touch ../ok; exit 4; }", "needs": ["prepare"]},
    }
    desk = new_desk({"two": {"stages": stages}})
    desk.orch("submit", "two", "-f", code=1)
    ((run_id, _, _),) = desk.rows()
    desk.orch("resume", run_id, "-f")
    assert (folder(desk, run_id) / "prepared").read_text() == "x\n"


# --- what the attempt before has changed ----------------------------------------------------------

SPOILS = """
import json, os, sys
print("lr is", json.load(open(os.environ["ORCH_CONFIG"]))["lr"], flush=True)
if os.environ["ORCH_ATTEMPT"] == "1":
    json.dump({"right": 45, "lr": 99}, open(os.environ["ORCH_CONFIG"], "w"))
    print("import this", file=open("lib.py", "a"))
    print("new", file=open("beside.py", "w"))
    sys.exit(75)
exec(open("work.py").read())
"""
SPOILER = {**TRAIN, "command": "python3 spoils.py"}


@pytest.mark.parametrize("by", ["resume", "retry"])
def test_a_later_attempt_has_the_config_of_the_first_and_tells_of_changed_code(
    by: str, new_desk: MakeDesk
) -> None:
    spec = {**SPOILER, "retry": RETRY} if by == "retry" else SPOILER
    desk = new_desk({"spoiler": spec}, files={"spoils.py": SPOILS, "lib.py": "pass\n"})
    desk.orch("submit", "spoiler", "-f", code=0 if by == "retry" else 1)
    ((run_id, _, _),) = desk.rows()
    config = "config.json was changed since the start; attempt 2 has it as it was sent"
    code = "1 file of its code is not as sent: lib.py"
    if by == "resume":
        said = desk.orch("resume", run_id, "-f").stderr
        assert f"{run_id}: {config}" in said and f"{run_id}: {code}" in said
    log = desk.orch("tail", run_id).stdout
    assert log.count("lr is 0.0001\n") == 2
    assert f"[orch] {config}\n[orch] {code}\n" in log
    shown = desk.orch("show", run_id).stdout
    assert config in shown and code in shown
    assert desk.show(run_id)["accuracy"] == 0.9
    told = desk.orch("ledger", "verify", code=11).stdout
    assert "1 file of its code differs from what was sent: lib.py" in told
    assert "another config" not in told


def test_an_attempt_that_would_read_other_data_does_not_follow(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").write_text("good")
    spoil = "cd -P $ORCH_DATA/set; chmod 600 train; echo leak > train; exit 75"
    data = {"set": {"from": str(tmp_path / "data")}}
    desk = new_desk({"leaks": {"command": spoil, "data": data, "retry": RETRY}})
    out = desk.orch("submit", "leaks", "-f", code=1).stdout
    shown = desk.show()
    assert (shown["attempt"], shown["verdict"], shown["exit_code"]) == (1, "failed", 75)
    why = "no attempt follows: its data 'set' was changed on the host since"
    assert why in shown["outcome_reasons"] and f"[orch] {why}\n" in out


def test_a_cache_that_a_job_left_beside_its_data_hinders_no_attempt(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").write_text("good")
    data = {"set": {"from": str(tmp_path / "data")}}
    work = (
        'cd -P $ORCH_DATA/set; ls; chmod 700 .; echo x > cache; test "$ORCH_ATTEMPT" = 2 || exit 75'
    )
    desk = new_desk({"caches": {"command": work, "data": data, "retry": RETRY}})
    assert "cache\n" in desk.orch("submit", "caches", "-f").stdout
    assert desk.show()["attempt"] == 2
    again = desk.orch("submit", "caches", "--force", "-f")  # another run has the data as sent
    assert again.stdout.count("cache\n") == 1 and "is whole again there" in again.stderr


# --- because the spec asks ------------------------------------------------------------------------


def test_a_spec_may_ask_for_more_attempts_after_an_exit_code(new_desk: MakeDesk) -> None:
    job = {"command": COUNTED + "exit 75", "retry": RETRY}
    desk = new_desk({"again": job})
    out = desk.orch("submit", "again", "-f", code=1).stdout
    ((run_id, _, _),) = desk.rows()
    for number in (1, 2, 3):
        assert f"attempt {number}\n" in out
    shown = desk.show(run_id)
    assert (shown["attempt"], shown["verdict"], shown["exit_code"]) == (3, "failed", 75)
    assert starts(desk, run_id) == 3
    assert list(verdicts(desk, run_id).values()) == ["failed"] * 3


def test_another_exit_code_or_success_ends_it(new_desk: MakeDesk) -> None:
    second = 'test "$ORCH_ATTEMPT" = 2 || exit 75'
    jobs = {
        "other": {"command": COUNTED + "exit 74", "retry": RETRY},
        "second": {"command": COUNTED + second, "retry": RETRY},
    }
    desk = new_desk(jobs)
    desk.orch("submit", "other", "-f", code=1)
    desk.orch("submit", "second", "-f")
    (other, _, _), (then, _, _) = desk.rows()
    assert (starts(desk, other), starts(desk, then)) == (1, 2)
    assert desk.show(then)["verdict"] == "succeeded"


def test_cuda_out_of_memory_counts_as_oom(new_desk: MakeDesk) -> None:
    told = "echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB'; exit 1"
    desk = new_desk({"cuda": {"command": COUNTED + told, "retry": {"on": ["oom"], "max": 1}}})
    desk.orch("submit", "cuda", "-f", code=1)
    ((run_id, _, _),) = desk.rows()
    shown = desk.show(run_id)
    assert (shown["attempt"], shown["verdict"], shown["cause"]) == (2, "failed", "cuda_oom")


def test_a_cancel_is_the_end_whatever_the_spec_asks(new_desk: MakeDesk) -> None:
    trap = "trap 'exit 75' TERM; " + COUNTED + "sleep 600 & wait"
    desk = new_desk({"again": {"command": trap, "retry": RETRY}})
    run_id = desk.submit("again")
    until((folder(desk, run_id) / "starts").exists)
    desk.orch("cancel", run_id)
    assert verdicts(desk, run_id) == {"exit.json": "cancelled"}
    assert starts(desk, run_id) == 1


@pytest.mark.parametrize("command", ["reconcile", "wait"])
def test_a_lost_run_goes_on_when_its_spec_asks(command: str, new_desk: MakeDesk) -> None:
    text = COUNTED + 'test "$ORCH_ATTEMPT" = 2 || sleep 600'
    desk = new_desk({"lost": {"command": text, "retry": {"on": ["lost"], "max": 1}}})
    run_id = desk.submit("lost")
    place = folder(desk, run_id)
    until((place / "starts").exists)
    keeper = json.loads((place / "job.json").read_text())["pid"]
    # The supervisor first, or it would see the others go; the keeper before it can note the end.
    processes.end([supervisor_of(place)])
    processes.end([keeper])
    processes.end(of_run(run_id))
    desk.orch(command, run_id)
    desk.orch("wait", run_id)
    assert verdicts(desk, run_id) == {"exit.json": "lost", "exit.2.json": "succeeded"}
    assert starts(desk, run_id) == 2


@pytest.mark.parametrize(
    ("retry", "word"),
    [
        ({"on": ["lost"]}, "max"),
        ({"on": [], "max": 1}, "empty"),
        ({"on": ["success"], "max": 1}, "one of"),
        ({"on": [{"exit": [0]}], "max": 1}, "1 to 255"),
        ({"on": [{"exit": ["75"]}], "max": 1}, "1 to 255"),
        ({"on": ["oom"], "max": 0}, "1 to 100"),
        ({"on": ["oom"], "max": True}, "1 to 100"),
        ({"when": ["oom"], "max": 1}, "unknown key"),
    ],
)
def test_a_retry_that_makes_no_sense_is_an_error_with_its_line(
    retry: dict[str, object], word: str, new_desk: MakeDesk
) -> None:
    desk = new_desk({"bad": {"command": "true", "retry": retry}})
    done = desk.orch("check", "bad", code=2)
    assert word in done.stderr
    assert "jobs/bad.yaml:" in done.stderr
