"""`orch tensorboard`: event files come over by a fetch, and again while the run goes on."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, assert_clear, until

STUB = """#!/bin/sh
printf '%s\\n' "$@" > "$HOME/argv"
exit 3
"""
# Half of the points, and the other half when it is told to go on.
JOB = """
import os, shutil, time
out = os.path.join(os.environ["ORCH_RESULTS_DIR"], "events.out.tfevents.1.box")
shutil.copy("first.events", out)
while not os.path.exists(os.path.join(os.environ["ORCH_RUN_DIR"], "go")):
    time.sleep(0.1)
shutil.copy("whole.events", out)
time.sleep(600)
"""


def with_tool(desk: Desk, script: str) -> None:
    """The desk's PATH has this `tensorboard` first."""
    tools = desk.home / "bin"
    tools.mkdir()
    (tools / "tensorboard").write_text(script)
    (tools / "tensorboard").chmod(0o755)
    desk.env["PATH"] = f"{tools}:/usr/local/bin:/usr/bin:/bin"


def test_the_program_is_started_on_the_fetched_results_and_its_code_passed_on(desk: Desk) -> None:
    desk.spec("train", {"command": "touch results/events.out.tfevents.1.box"})
    with_tool(desk, STUB)
    run = desk.submit("train")
    desk.orch("wait")
    desk.orch("tensorboard", "--port", "7000", code=3)
    argv = (desk.home / "argv").read_text().split("\n")
    assert argv[:2] == ["--logdir_spec", f"{run}:{desk.results('train', run)}"]
    assert "--host=127.0.0.1" in argv and "--port=7000" in argv
    assert desk.show(run)["fetched"] == "complete"
    desk.orch("tensorboard", code=3)
    kinds = [event["kind"] for event in desk.show(run)["events"]]
    assert kinds.count("fetched") == 1


def test_results_that_are_fetched_in_part_are_shown_and_it_is_said(desk: Desk) -> None:
    desk.spec("train", {"command": "echo 1 > results/events.out.tfevents.1.box"})
    with_tool(desk, STUB)
    run = desk.submit("train")
    desk.orch("wait")
    desk.orch("fetch-results")
    (desk.results("train", run) / "events.out.tfevents.1.box").write_text("mine, and longer")
    done = desk.orch("tensorboard", code=3)
    assert "changed here" in done.stderr
    assert "what is here is shown" in done.stderr


def test_without_event_files_or_the_program_it_says_what_to_do(desk: Desk) -> None:
    run = desk.submit("train")
    desk.orch("wait")
    desk.env["PATH"] = "/usr/bin:/bin"
    assert_clear(desk.orch("tensorboard", code=2), "pip install tensorboard")
    with_tool(desk, STUB)
    assert_clear(desk.orch("tensorboard", code=3), run, "no TensorBoard event files")
    assert not (desk.home / "argv").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_points_written_while_it_is_open_are_shown(new_desk: MakeDesk, tmp_path: Path) -> None:
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    files = {"job.py": JOB, **event_files(writer, tmp_path)}
    desk = new_desk({"train": "python3 job.py"}, files=files)
    desk.env["PATH"] = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    assert shutil.which("tensorboard", path=desk.env["PATH"])
    run = desk.submit("train")
    there = desk.home / ".orch" / "runs" / run
    until(lambda: list(there.glob("results/*tfevents*")))
    port = free_port()
    shown = desk.start("tensorboard", "--port", str(port))
    try:
        until(lambda: len(points(port, run)) == 3, seconds=240, every=1)
        (there / "go").touch()
        until(lambda: len(points(port, run)) == 6, seconds=240, every=1)
    finally:
        shown.send_signal(signal.SIGINT)
        _, said = shown.communicate(timeout=60)
    assert shown.returncode == 0 and "TensorBoard was ended" in said
    assert desk.show(run)["state"] == "running"
    desk.orch("cancel", run)


def event_files(writer: Any, folder: Path) -> dict[str, bytes]:
    """Six points of `loss`, and the first three of them."""
    from tensorboard.compat.proto import event_pb2, summary_pb2

    made = writer.EventFileWriter(str(folder / "events"))
    texts = []
    for step in range(6):
        value = summary_pb2.Summary.Value(tag="loss", simple_value=float(step))
        made.add_event(event_pb2.Event(step=step, summary=summary_pb2.Summary(value=[value])))
        made.flush()
        (path,) = (folder / "events").iterdir()
        texts.append(path.read_bytes())
    made.close()
    return {"first.events": texts[2], "whole.events": texts[5]}


def points(port: int, run: str) -> list[Any]:
    url = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run={run}/.&tag=loss"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return list(json.load(answer))
    except (OSError, ValueError):
        return []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
