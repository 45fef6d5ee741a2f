"""The log as a stream: what is there is sent once, however fast the job writes meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote import causes, lastlines, stream, streams, voice
from remote.channel import Channel
from remote.layout import Layout, RunFiles

THERE = b"what is there\n" * 20_000


class Busy(Channel):
    """A channel; each time the log gets on by a piece the job has written as much."""

    def __init__(self, log: Path, control: int) -> None:
        super().__init__(control, -1)
        self.log = log
        self.sent = b""
        self.items: list[Any] = []

    def item(self, value: Any) -> None:
        self.items.append(value)

    def data(self, payload: bytes) -> None:
        self.sent += payload
        assert len(self.sent) <= 10 * len(THERE), "it reads as fast as the job writes, for ever"
        with self.log.open("ab") as file:
            file.write(bytes(len(payload)))


@pytest.fixture
def silent() -> Iterator[int]:
    """What a controller that says nothing is read from."""
    control, theirs = os.pipe()
    yield control
    os.close(control)
    os.close(theirs)


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    found = Layout(str(tmp_path)).attempt("writing-1", 1)
    os.makedirs(found.path)
    os.mkdir(tmp_path / "locks")
    Path(found.started).write_text('{"boot_id": "another"}')
    Path(found.log).write_bytes(THERE)
    return found


def one(layout: Layout, channel: Busy, body: dict[str, Any]) -> int:
    return int(stream.stream(layout, channel, {"run_id": "writing-1", **body})["offset"])


def many(layout: Layout, channel: Busy, body: dict[str, Any]) -> int:
    streams.streams(layout, channel, {"runs": [{"run_id": "writing-1", **body}]})
    return int(next(item["offset"] for item in channel.items if "ended" in item))


@pytest.mark.parametrize("asked", [one, many])
@pytest.mark.parametrize(("body", "begin"), [({}, 0), ({"offset": 5}, 5), ({"lines": 2}, -28)])
def test_without_follow_the_log_ends_where_it_ended_when_it_was_asked_for(
    asked: Callable[[Layout, Busy, dict[str, Any]], int],
    body: dict[str, Any], begin: int, run: RunFiles, silent: int, tmp_path: Path,
) -> None:  # fmt: skip
    channel = Busy(Path(run.log), silent)
    assert asked(Layout(str(tmp_path)), channel, body) == len(THERE)
    assert channel.sent == THERE[begin:]


class Eventful(Busy):
    """A channel; with the first piece of the log something happens to the run's directory."""

    def __init__(self, run: RunFiles, control: int, event: Callable[[RunFiles], None]) -> None:
        super().__init__(Path(run.log), control)
        self.run, self.event = run, event

    def item(self, value: Any) -> None:
        super().item(value)
        assert self.items.count({}) < 50, "it goes on for ever"

    def data(self, payload: bytes) -> None:
        self.sent += payload
        if len(self.sent) == len(THERE):
            self.event(self.run)


def follow(run: RunFiles, layout: Layout, channel: Channel, how: str) -> dict[str, Any]:
    body = {"run_id": run.run_id, "follow": True}
    if how == "one":
        return stream.stream(layout, channel, body)
    streams.streams(layout, channel, {"runs": [body], "follow": True})
    assert isinstance(channel, Eventful)
    return next(item["ended"] for item in channel.items if "ended" in item)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEARTBEAT", "EVIDENCE_EVERY", "PROGRESS_EVERY"):
        monkeypatch.setattr(stream, name, 0.02)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["one", "many"])
def test_following_ends_when_the_runs_directory_is_taken_away(
    how: str, run: RunFiles, silent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"run_id": run.run_id, "phase": "running"}
    monkeypatch.setattr(
        stream.adopt, "owned_status",
        lambda _layout, _id: known if os.path.isdir(run.path) else {**known, "phase": "absent"},
    )  # fmt: skip
    layout = Layout(str(tmp_path))
    channel = Eventful(run, silent, lambda run: shutil.rmtree(run.path))
    assert follow(run, layout, channel, how)["phase"] == "absent"
    assert channel.sent == THERE


def to_fifo(run: RunFiles) -> None:
    os.remove(run.log)
    os.mkfifo(run.log)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["one", "many"])
def test_a_log_that_became_a_fifo_is_said_and_waited_for_by_nobody(
    how: str, run: RunFiles, silent: int, tmp_path: Path
) -> None:
    layout = Layout(str(tmp_path))

    def event(run: RunFiles) -> None:
        to_fifo(run)
        Path(run.exit).write_text("{}")

    channel = Eventful(run, silent, event)
    assert follow(run, layout, channel, how)["phase"] == "finished"
    assert sum("no regular file" in str(item.get("marker")) for item in channel.items) == 1
    assert lastlines.last_lines(run.log, 3, False) == (0, [])
    assert causes.in_log(run.log) == []
    assert voice.ends_line(run.log)
