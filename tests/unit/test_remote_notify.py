"""A message to a command, whatever that command does with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from remote import notify, procs

MESSAGE = {"text": "it ended", "event": "end", "run_id": "r", "job": "j"}


def test_a_command_that_does_not_read_its_message_does_not_end_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spawn_to_its_end(*args: Any, **options: Any) -> int:
        pid = spawn(*args, **options)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return pid

    spawn = procs.spawn
    monkeypatch.setattr(procs, "spawn", spawn_to_its_end)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as the agent has it
        told = notify.deliver({"argv": ["true"]}, MESSAGE, str(tmp_path))
        ends = signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
        os._exit(0 if told == [] and ends else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_command_gets_the_message_as_one_object_and_two_variables(tmp_path: Path) -> None:
    argv = ["sh", "-c", 'cat > told; echo "$ORCH_EVENT $ORCH_TEXT" >> told; exit 3']
    assert notify.deliver({"argv": argv}, MESSAGE, str(tmp_path)) == [
        "the notify command failed: exit code 3"
    ]
    assert (tmp_path / "told").read_text().endswith('"job": "j"}end it ended\n')
