"""The log as a stream: what is there is sent once, however fast the job writes meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote import stream, streams
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
