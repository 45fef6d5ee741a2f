from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from orchestrator.usecases import fetch

OLD, NEW = "20261101-000000-aaaaaaaa", "20261102-000000-aaaaaaaa"


def test_two_commands_that_fetch_at_once_leave_latest_at_the_newer_run(tmp_path: Path) -> None:
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)  # the other command has looked, and is about to rename
    context: Any = SimpleNamespace(say=lambda text: None)
    older = threading.Thread(target=fetch._point_latest, args=(context, tmp_path / OLD))
    older.start()
    older.join(0.2)
    os.symlink(NEW, tmp_path / "latest")
    os.close(other)
    older.join(10)
    assert os.readlink(tmp_path / "latest") == NEW
    assert os.listdir(tmp_path) == ["latest"]
