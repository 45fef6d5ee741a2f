"""Tell someone: a webhook (Slack-compatible or ntfy) or a command.

For a run this happens in a fork of its own: what goes wrong becomes an event, and ends nothing. The
controller asks the agent of its own machine (verb `notify`).
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any, Dict, List, Optional

from remote import events, procs, status
from remote.channel import Channel
from remote.layout import Layout, RunFiles

DEADLINE = 10.0
COMMAND_DEADLINE = 60.0
TRIES = (0.0, 2.0, 10.0)  # seconds before each try of a webhook


def send(run: RunFiles, order: Dict[str, Any], message: Dict[str, Any]) -> None:
    """Deliver `message` ({"text", "run_id", "event", ...}); a failure becomes an event."""
    for problem in deliver(order, message, run.tree):
        events.append(run, status.now(), "notify", problem)


def notify(layout: Layout, channel: Channel, request: Dict[str, Any]) -> Dict[str, Any]:
    """Deliver `message` as `order` says, commands in the folder `cwd`; what went wrong."""
    return {"problems": deliver(request["order"], request["message"], str(request["cwd"]))}


def deliver(order: Dict[str, Any], message: Dict[str, Any], cwd: str) -> List[str]:
    """What went wrong, one line for each way of telling that failed."""
    problems = []
    if order.get("webhook"):
        problem = _post(str(order["webhook"]), str(order.get("format") or "slack"), message)
        if problem:
            problems.append("the webhook did not take it: " + problem)
    if order.get("argv"):
        problem = _run(order, message, cwd)
        if problem:
            problems.append("the notify command failed: " + problem)
    return problems


def _post(url: str, form: str, message: Dict[str, Any]) -> Optional[str]:
    """What went wrong the last time; None once it was taken. The url itself is never told."""
    import urllib.request  # heavy, and only in the fork that sends

    if form == "ntfy":
        body = message["text"].encode("utf-8")
        headers = {"Content-Type": "text/plain; charset=utf-8", "Title": "orch " + message["event"]}
    else:
        body = json.dumps(message).encode("ascii")
        headers = {"Content-Type": "application/json"}
    problem = None
    for pause in TRIES:
        time.sleep(pause)
        try:
            request = urllib.request.Request(url, data=body, headers=headers)
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                answer.read(1024)
            return None
        except Exception as exc:  # whatever a server can do
            code = getattr(exc, "code", None)
            problem = "HTTP %s" % code if code else type(exc).__name__
            if code and code < 500 and code != 429:
                break
    return problem


def _run(order: Dict[str, Any], message: Dict[str, Any], cwd: str) -> Optional[str]:
    read_end, write_end = os.pipe()
    null = os.open("/dev/null", os.O_WRONLY)
    env = {key: value for key, value in os.environ.items() if key != procs.RUN_TAG}
    env.update(ORCH_EVENT=message["event"], ORCH_TEXT=message["text"])
    try:
        pid = procs.spawn(order["argv"], env, cwd, null, source=read_end)
    except OSError as exc:
        return str(exc.strerror)
    finally:
        os.close(read_end)
    # A command that does not want to read is no reason to end, as it would be for an agent.
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        os.write(write_end, json.dumps(message).encode("ascii")[:60000])  # a pipe holds this much
    except OSError:
        pass
    finally:
        os.close(write_end)
        signal.signal(signal.SIGPIPE, before)
    code = procs.wait_for(pid, COMMAND_DEADLINE)
    if code is None:
        return "it did not end within %g s" % COMMAND_DEADLINE
    return "exit code %d" % code if code else None
