"""Runs that need GPUs, on a host whose nvidia-smi is the test's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, assert_clear, supervisor_of, take_away, until
from tests.helpers import processes

IDLE = "0, GPU-a, NVIDIA H100, 4, 81559, 0, 570.86"
BUSY = "0, GPU-a, NVIDIA H100, 40000, 81559, 99, 570.86"
HELD: dict[str, Any] = {
    "command": 'echo "card $CUDA_VISIBLE_DEVICES"; until test -e ../go; do sleep 0.05; done',
    "resources": {"gpus": 1},
}


class Cards:
    """What nvidia-smi prints from now on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def say(self, text: str, code: int = 0) -> None:
        new = self.folder / "new"
        new.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n")
        new.chmod(0o755)
        new.rename(self.folder / "nvidia-smi")


@pytest.fixture
def cards(tmp_path: Path) -> Cards:
    return Cards(tmp_path / "cards")


@pytest.fixture
def desk(new_desk: MakeDesk, cards: Cards) -> Desk:
    desk = new_desk({"held": HELD})
    desk.env["PATH"] = f"{cards.folder}:{os.environ['PATH']}"
    return desk


def folder(desk: Desk, run_id: str) -> Path:
    return desk.home / ".orch" / "runs" / run_id


def log(desk: Desk, run_id: str) -> str:
    path = folder(desk, run_id) / "log"
    return path.read_text() if path.exists() else ""


def test_f37_a_busy_card_is_waited_for_and_the_log_says_so(desk: Desk, cards: Cards) -> None:
    cards.say(BUSY)
    run_id = desk.submit("held", "--queue")
    assert desk.show(run_id)["state"] == "queued"
    until(lambda: "waits for 1 GPU(s): GPU 0 is in use by others" in log(desk, run_id))
    cards.say(IDLE)
    until(lambda: "card 0" in log(desk, run_id), 30)
    (folder(desk, run_id) / "go").touch()
    desk.orch("wait", run_id)


def test_f38_runs_that_wait_for_a_card_get_it_in_the_order_they_came(
    desk: Desk, cards: Cards
) -> None:
    cards.say(IDLE)
    desk.spec("marks", {**HELD, "command": 'echo "$ORCH_RUN_ID" >> "$ORCH_RUN_DIR/../../marks"'})
    first = desk.submit("held")
    later = []
    for _ in range(4):
        later.append(desk.submit("marks"))
        until(lambda: "waits for 1 GPU(s): GPU 0 is" in log(desk, later[-1]))
    (folder(desk, first) / "go").touch()
    for run_id in later:
        desk.orch("wait", run_id)
    assert (desk.home / ".orch" / "marks").read_text().split() == later
    assert not list((desk.home / ".orch" / "locks").glob("turn-*"))


def test_a_run_that_waits_and_lost_its_directory_is_cancelled(desk: Desk, cards: Cards) -> None:
    cards.say(BUSY)
    run_id = desk.submit("held", "--queue")
    owner = supervisor_of(folder(desk, run_id))
    until(lambda: "waits for 1 GPU(s)" in log(desk, run_id))
    take_away(folder(desk, run_id))
    desk.orch("cancel", run_id)
    assert not processes.is_alive(owner)
    assert desk.show(run_id)["verdict"] == "cancelled"


def test_f23_f38_the_lease_outlives_a_killed_supervisor_as_long_as_the_job_does(
    desk: Desk, cards: Cards
) -> None:
    cards.say(IDLE)
    first = desk.submit("held")
    until(lambda: "card 0" in log(desk, first))
    processes.end([supervisor_of(folder(desk, first))])
    second = desk.submit("held")
    until(lambda: "GPU 0 is leased by another run" in log(desk, second))
    (folder(desk, first) / "go").touch()
    until(lambda: "card 0" in log(desk, second), 30)
    (folder(desk, second) / "go").touch()
    desk.orch("wait", second)


def test_f37_a_card_that_others_use_refuses_the_start_and_names_the_ways_on(
    desk: Desk, cards: Cards
) -> None:
    cards.say(BUSY)
    done = desk.orch("submit", "held", code=5)
    assert_clear(done, "box", "GPU 0 is in use by others", "was not started", "--share", "--queue")
    assert [row[2] for row in desk.rows()] == ["never_started"]
    assert not any((desk.home / ".orch" / "runs").iterdir())
    desk.orch("submit", "held", "--share", "--queue", code=2)


MAY: dict[str, Any] = {**HELD, "resources": {"gpus": "0-1"}}


def test_f37_a_run_that_may_do_without_takes_a_card_where_there_is_one(
    desk: Desk, cards: Cards
) -> None:
    desk.spec("may", MAY)
    cards.say(BUSY)
    without = "`resources.gpus: 0` runs it without a GPU"
    assert_clear(desk.orch("submit", "may", code=5), "GPU 0 is in use by others", without)
    told = desk.orch("check", "may", "--host", "box", code=5).stdout
    assert f"the run needs 1 GPU(s); GPU 0 is in use by others; {without}" in told
    shared = desk.submit("may", "--share")
    until(lambda: "card 0" in log(desk, shared))
    second = desk.submit("may")
    assert desk.show(second)["state"] == "queued"
    told = desk.orch("check", "may", "--host", "box").stdout
    assert "the run would wait for 1 GPU(s): GPU 0 is in use by others" in told
    cards.say(IDLE)
    told = desk.orch("check", "may", "--host", "box").stdout
    assert "the run would wait for 1 GPU(s): GPU 0 is leased by another run" in told
    (folder(desk, shared) / "go").touch()
    until(lambda: "card 0" in log(desk, second), 30)
    (folder(desk, second) / "go").touch()
    desk.orch("wait", second)


def test_f37_check_refuses_what_a_submit_would(desk: Desk, cards: Cards) -> None:
    desk.spec("two", {**HELD, "resources": {"gpus": 2}})
    cards.say(IDLE + "\n" + BUSY.replace("0, GPU-a", "1, GPU-b"))
    told = "the run needs 2 GPU(s); GPU 1 is in use by others"
    assert told in desk.orch("check", "two", "--host", "box", code=5).stdout
    assert told in desk.orch("submit", "two", code=5).stderr


def test_f37_with_share_a_run_computes_beside_others_if_its_memory_fits(
    desk: Desk, cards: Cards
) -> None:
    cards.say(BUSY)
    run_id = desk.submit("held", "--share")
    until(lambda: "card 0" in log(desk, run_id))
    desk.spec("big", {**HELD, "resources": {"gpus": 1, "gpu_memory": "60GiB"}})
    waiting = desk.submit("big", "--share")
    until(lambda: "GPU 0 is too full" in log(desk, waiting))
    desk.orch("cancel", waiting)
    (folder(desk, run_id) / "go").touch()
    desk.orch("wait", run_id)


def test_f37_a_card_that_is_busy_with_a_run_of_ours_is_queued_for(desk: Desk, cards: Cards) -> None:
    cards.say(IDLE)
    first = desk.submit("held")
    until(lambda: "card 0" in log(desk, first))
    cards.say(BUSY)
    second = desk.submit("held")
    assert desk.show(second)["state"] == "queued"
    cards.say(IDLE)
    (folder(desk, first) / "go").touch()
    until(lambda: "card 0" in log(desk, second), 30)
    (folder(desk, second) / "go").touch()
    desk.orch("wait", second)
