"""What a run's owner says: lines in the run's log, one report to its agent, news to whom the spec
names."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Optional, Sequence

from remote import events, files, procs, status
from remote.aside import Aside
from remote.layout import RunFiles

NAMED_MAX = 10


class Voice:
    """`log` is the descriptor on which the job writes too; `report` goes to the agent, which may
    be gone (None: nobody waits for it)."""

    def __init__(
        self, run: RunFiles, order: Dict[str, Any], report: Optional[int], aside: Aside
    ) -> None:
        self.log = os.open(run.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._path = run.log
        self._order = order
        self._report = report
        self._aside = aside

    def say(self, text: str) -> None:
        """A line of our own in the run's log."""
        try:
            begun = b"" if ends_line(self._path) else b"\n"
            files.write_all(self.log, begun + ("[orch] %s\n" % text).encode("utf-8", "replace"))
        except OSError:
            pass

    def outlived(self, run: RunFiles, pids: Sequence[int]) -> None:
        """In the log and among the events: which processes the job left behind, to be ended now."""
        named = ["%s (pid %d)" % (procs.name_of(pid), pid) for pid in pids[:NAMED_MAX]]
        if named:
            named += ["%d more" % (len(pids) - NAMED_MAX)] if len(pids) > NAMED_MAX else []
            told = "left running by the job when it ended, so ended now: " + ", ".join(named)
            self.say(told)
            events.append(run, status.now(), "leftover", told)

    def changed(self, run: RunFiles, told: str) -> None:
        """In the log and among the events: what is not as it was sent."""
        self.say(told)
        events.append(run, status.now(), "changed", told, attempt=run.attempt)

    def report(self, value: Dict[str, Any]) -> bool:
        """Tell the agent that started us, once; False if it was told before."""
        if self._report is None:
            return False
        try:
            files.write_all(self._report, json.dumps(value).encode("ascii") + b"\n")
        except OSError:
            pass
        os.close(self._report)
        self._report = None
        return True

    def notify(self, run: RunFiles, event: str, text: str) -> None:
        """Tell whom the spec names, in a child that nobody waits for."""
        order = self._order.get("notify") or {}
        if event not in (order.get("events") or ()) or order.get("by") == "controller":
            return
        text = "%s (%s): %s" % (order.get("job"), run.run_id, text)
        text = text.encode("utf-8", "replace").decode("utf-8")  # a label may be half a pair
        message = {"text": text, "event": event, "run_id": run.run_id, "job": order.get("job")}
        webhook = self._order.get("webhook") or order.get("webhook")
        if str(webhook).startswith("$"):
            webhook = None  # a watcher's order is from the disk, where the address is not

        def work() -> None:
            from remote import notify

            if webhook is None and order.get("webhook"):
                problem = "the webhook was not told: only the supervisor that was killed knew it"
                events.append(run, status.now(), "notify", problem)
            notify.send(run, {**order, "webhook": webhook}, message)

        self._aside.do(work)


def ends_line(path: str) -> bool:
    """True for a file that is empty or ends with a line feed, and where there is none."""
    fd = files.open_regular(path)
    if fd is None:
        return True
    with open(fd, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return True
        file.seek(size - 1)
        return file.read(1) == b"\n"
