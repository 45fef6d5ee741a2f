"""Causes of death, from what a host's files tell."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from remote import causes, logind

KILL = (128 + signal.SIGKILL, signal.SIGKILL)


def judged(tmp_path: Path, log: bytes, code: int, number: int | None, oom: bool = False) -> list:
    (tmp_path / "log").write_bytes(log)
    end = causes.judge(code, number, oom, str(tmp_path / "log"))
    return [end.verdict, end.cause, end.exit_code, end.signal]


@pytest.mark.parametrize(
    ("log", "code", "number", "oom", "expected"),
    [
        (b"", 0, None, False, ["succeeded", None, 0, None]),
        (b"", 0, None, True, ["succeeded", None, 0, None]),
        (b"", 3, None, False, ["failed", "exit", 3, None]),
        (b"", *KILL, False, ["killed", "signal", None, 9]),
        (b"", *KILL, True, ["oom", "oom", None, 9]),
        (b"", 137, None, True, ["oom", "oom", 137, None]),
        (b"", 139, signal.SIGSEGV, True, ["killed", "signal", None, 11]),
        (b"RuntimeError: CUDA out of memory.", 1, None, False, ["failed", "cuda_oom", 1, None]),
        (b"OSError: [Errno 28] No space left on device", 1, None, False,
         ["failed", "disk_full", 1, None]),
        (b"Disk quota exceeded", 1, None, False, ["failed", "disk_full", 1, None]),
        (b"CUDA out of memory" + b"x" * 70_000, 1, None, False, ["failed", "exit", 1, None]),
    ],
)  # fmt: skip
def test_f22_f42_an_end_has_a_verdict_and_a_cause(
    log: bytes, code: int, number: int | None, oom: bool, expected: list, tmp_path: Path
) -> None:
    assert judged(tmp_path, log, code, number, oom) == expected


def test_f29_a_full_disk_is_the_cause_when_the_log_cannot_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((*real[:4], 0, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    assert judged(tmp_path, b"epoch 1", 1, None) == ["failed", "disk_full", 1, None]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with logind: no lingering, nobody killed at logout, this process in login 12."""
    (tmp_path / "sessions").mkdir()
    (tmp_path / "sessions" / "12").write_text("UID=1000\nSTATE=active\n")
    (tmp_path / "linger").mkdir()
    (tmp_path / "cgroup").write_text("0::/user.slice/user-1000.slice/session-12.scope\n")
    for name, file in (("SESSIONS", "sessions"), ("LINGER", "linger")):
        monkeypatch.setattr(logind, name, str(tmp_path / file))
    monkeypatch.setattr(logind, "FOLDERS", (str(tmp_path), str(tmp_path / "vendor")))
    monkeypatch.setattr(logind, "CGROUP", str(tmp_path / "cgroup"))
    (tmp_path / "logind.conf").write_text("[Login]\n#KillUserProcesses=yes\n")
    return tmp_path


def test_f21_who_ended_the_supervisor_is_told_by_logind_files(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert causes.of_termination().cause == "terminated"
    (host / "logind.conf.d").mkdir()
    (host / "logind.conf.d" / "kill.conf").write_text("[Login]\nKillUserProcesses = yes\n")
    assert logind.kills_at_logout("ada") is True
    assert logind.kills_at_logout("root") is False
    monkeypatch.setattr(logind, "user_name", lambda: "ada")
    monkeypatch.setattr(causes, "LOGIND_LATE", 0.1)
    assert causes.of_termination().cause == "terminated", "the login is still open"
    (host / "sessions" / "12").write_text("STATE=closing\n")
    assert causes.of_termination().cause == "logout"
    (host / "sessions" / "12").unlink()
    assert causes.of_termination().cause == "logout"
    (host / "cgroup").write_text("0::/user.slice/user-1000.slice/user@1000.service/x.scope\n")
    assert causes.of_termination().cause == "terminated"


def test_f21_lingering_is_a_file_of_the_users_name(host: Path) -> None:
    assert logind.lingers("ada") is False
    (host / "linger" / "ada").touch()
    assert logind.lingers("ada") is True


def test_f21_the_vendors_settings_hold_where_the_hosts_own_say_nothing_else(host: Path) -> None:
    def written(place: str, value: str) -> bool | None:
        path = host / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"[Login]\nKillUserProcesses={value}\n")
        return logind.kills_at_logout("ada")

    (host / "logind.conf").unlink()
    assert written("vendor/logind.conf", "yes") is True
    assert written("logind.conf", "no") is False, "one main file counts, the host's own"
    assert written("vendor/logind.conf.d/50-kill.conf", "yes") is True, "after any main file"
    assert written("logind.conf.d/10-keep.conf", "no") is True, "by name, wherever it lies"
    assert written("logind.conf.d/50-kill.conf", "no") is False, "in place of the vendor's"
    assert written("vendor/logind.conf.d/60-kill.txt", "yes") is False, "no .conf"


@pytest.mark.parametrize(
    ("line", "killed"),
    [
        ("KillExcludeUsers=ada root", False),
        ("KillOnlyUsers=bob", False),
        ("KillOnlyUsers=ada", True),
    ],
)
def test_f21_users_may_be_named_as_exceptions(line: str, killed: bool, host: Path) -> None:
    (host / "logind.conf").write_text(f"[Login]\nKillUserProcesses=yes\n{line}\n")
    assert logind.kills_at_logout("ada") is killed
