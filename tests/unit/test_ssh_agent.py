from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orchestrator.transport import ssh_keys


def test_an_agent_that_does_not_answer_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_keys, "ANSWER", 0.1)
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        with pytest.raises(TimeoutError):
            ssh_keys.Agent(path)
    with pytest.raises(ConnectionRefusedError):
        ssh_keys.Agent(path)
