"""Following many runs of this host over one channel: sshd allows few of them on a connection."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Optional

from remote import adopt, stream
from remote.channel import Channel
from remote.layout import Layout

TURN = 16  # pieces of one log before the next log's turn


class _Followed:
    """One run among many; `known` is None until it was looked at."""

    def __init__(self, layout: Layout, request: Dict[str, Any], follow: bool) -> None:
        self.run = layout.run(str(request["run_id"]))
        self.reader = stream.LogReader(self.run, request, follow)
        self.known: Optional[Dict[str, Any]] = None
        self.is_through = False

    def is_over(self) -> bool:
        return self.known is not None and self.known["phase"] in ("finished", "absent")


def streams(layout: Layout, channel: Channel, request: Dict[str, Any]) -> Dict[str, Any]:
    """Send the logs of `runs`, each from its `offset` (or its last `lines`); with `follow` until
    every one of them has ended.

    {"run": index} says whose the frames after it are, until the next such item. {"ended": status,
    "offset": reached} closes one run. Any word from the controller ends it all.
    """
    follow = bool(request.get("follow"))
    followed = [_Followed(layout, each, follow) for each in request["runs"]]
    teller = _Teller(channel)
    watch = stream.Watch([each.run for each in followed], channel.input)
    try:
        detached = _follow(layout, channel, followed, teller, watch, follow)
    finally:
        watch.close()
        for each in followed:
            each.reader.close()
    return {"detached": detached}


class _Teller(Channel):
    """The channel, on which each frame is preceded by whose it is when that changes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._told: Optional[int] = None
        self.whose = 0

    def item(self, value: Any) -> None:
        self._tell()
        self._channel.item(value)

    def data(self, payload: bytes) -> None:
        self._tell()
        self._channel.data(payload)

    def _tell(self) -> None:
        if self._told != self.whose:
            self._told = self.whose
            self._channel.item({"run": self.whose})


def _follow(
    layout: Layout,
    channel: Channel,
    followed: List[_Followed],
    teller: _Teller,
    watch: "stream.Watch",
    follow: bool,
) -> bool:
    """True when the controller spoke before all was sent."""
    spoke = checked = time.monotonic()
    while True:
        moved = False
        late = time.monotonic() - checked > stream.EVIDENCE_EVERY
        for index, each in enumerate(followed):
            if each.is_through:
                continue
            teller.whose = index
            # The state first: what a run wrote before it ended is then read before it is closed.
            if each.known is None or (follow and (late or os.path.exists(each.run.exit))):
                _look(layout, each, teller)
            read = 0
            while read < TURN and each.reader.read(teller):
                read += 1
            moved = moved or read > 0
            if read == 0 and (each.is_over() or not follow):
                each.is_through = moved = True
                teller.item({"ended": each.known, "offset": each.reader.offset})
        if late:
            checked = time.monotonic()
        if all(each.is_through for each in followed):
            return False
        if watch.wait(0.0 if moved else stream.PROGRESS_EVERY):
            return True
        if moved:
            spoke = time.monotonic()
        elif time.monotonic() - spoke > stream.HEARTBEAT:
            channel.item({})
            spoke = time.monotonic()


def _look(layout: Layout, each: _Followed, teller: _Teller) -> None:
    before = each.known
    each.known = adopt.owned_status(layout, each.run.run_id)
    each.run = layout.run(each.run.run_id)
    news = before is None or stream.state_of(before) != stream.state_of(each.known)
    if news and not each.is_over():
        teller.item({"status": each.known})
