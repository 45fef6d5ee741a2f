"""`orch ls` with filters, `orch tag` and `orch note`, on real runs."""

from __future__ import annotations

import json

from tests.contract.desk import Desk, assert_clear


def test_runs_are_labelled_afterwards_and_found_by_it(desk: Desk) -> None:
    good, bad = desk.submit("train", "--tag", "a=1"), desk.submit("train", "--set", "right=40")
    for run in (good, bad):
        desk.orch("wait", run, code=None)
    assert desk.orch("tag", good, "b=2").stdout == "a=1\nb=2\n"
    assert json.loads(desk.orch("tag", good, "-d", "a", "--json").stdout)["tags"] == {"b": "2"}
    assert desk.orch("tag", good).stdout == "b=2\n"
    assert desk.orch("note", bad, "why \x1b[31mbad").stdout == "why \\x1b[31mbad\n"
    assert [event["kind"] for event in desk.show(good)["events"]].count("tagged") == 2

    def ids(*args: str) -> list[str]:
        return [run["run_id"] for run in json.loads(desk.orch("ls", "--json", *args).stdout)]

    assert ids("--tag", "b=2") == [good]
    assert ids("--where", "accuracy > 0.8 and config.right == 45") == [good]
    assert ids("--outcome", "below_target", "--since", "1h") == [bad]
    assert ids("--sort", "-accuracy") == [good, bad]
    assert ids("--sort", "accuracy", "-n", "1") == [bad]
    assert ids("--state", "running") == []
    told = desk.orch("ls", "--columns", "run,config.right,nothing")
    assert told.stdout.splitlines()[0].split() == ["RUN", "config.right"]
    assert "`nothing`" in told.stderr
    told = desk.orch("ls", "--columns", "nothing,note", "--job", "train", "--outcome", "ok")
    assert told.stdout == "" and "`nothing`" in told.stderr and "`note`" in told.stderr


def test_tags_given_at_once_are_all_there(desk: Desk) -> None:
    run = desk.submit("train")
    desk.orch("wait", run)
    at_once = [desk.start("tag", run, f"t{number}={number}") for number in range(6)]
    for process in at_once:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out
    assert desk.show(run)["tags"] == {f"t{number}": str(number) for number in range(6)}


def test_a_label_that_cannot_be_is_refused_and_changes_nothing(desk: Desk) -> None:
    run = desk.submit("train")
    desk.orch("wait")
    assert "no `=`" in desk.orch("tag", run, "a", code=2).stderr
    assert_clear(desk.orch("tag", run, "a=1", "-d", "a", code=2), "both set and deleted")
    assert_clear(desk.orch("tag", run, "-d", "absent", code=3), "absent")
    assert_clear(desk.orch("note", run, "x" * 5000, code=2), "5000 characters")
    assert_clear(desk.orch("ls", "--where", "accuracy >", code=2), "position")
    assert_clear(desk.orch("ls", "--state", "runing", code=2), "running")
    assert desk.show(run)["tags"] == {} and desk.show(run)["note"] is None


def test_a_name_that_nothing_here_has_is_told_with_what_was_meant(desk: Desk) -> None:
    run = desk.submit("train")
    desk.orch("wait", run)
    for option, name, told in (
        ("--host", "bxo", "no host here is called `bxo`; did you mean `box`?"),
        ("--job", "trian", "no job here is called `trian`; did you mean `train`?"),
        ("--host", "zzz", "no host here is called `zzz`; known are box, local"),
        ("--job", "train,zzz", "no job here is called `zzz`; known are train"),
    ):
        done = desk.orch("ls", option, name, "--json")
        assert done.stderr == told + "\n"
        assert len(json.loads(done.stdout)) == ("train" in name)
    for known in (["--host", "local"], ["--job", "train", "--state", "lost"], ["--host", "box"]):
        assert desk.orch("ls", *known).stderr == ""
