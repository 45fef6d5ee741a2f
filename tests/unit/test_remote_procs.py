"""Whose process is it, and is it gone: real processes, real pids."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote import procs
from tests.helpers import processes

PYTHON = sys.executable


@pytest.fixture
def run_id() -> Iterator[str]:
    name = "test-" + secrets.token_hex(6)
    yield name
    processes.end(processes.with_environment("ORCH_RUN_ID", name))


def spawn(run_id: str, code: str, log: Path) -> int:
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        env = {"ORCH_RUN_ID": run_id, "PATH": os.environ["PATH"]}
        return procs.spawn([PYTHON, "-c", code], env, "/", fd)
    finally:
        os.close(fd)


def until(true: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def test_what_hinders_a_spawn_is_told_whatever_it_is(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        for argv, said in ((["sh", "a\0b"], "null byte"), (["/no/such"], "No such file")):
            with pytest.raises(OSError, match=said):
                procs.spawn(argv, {}, "/", log.fileno())


def test_f17_a_process_is_known_by_pid_and_start_time_and_not_by_pid_alone() -> None:
    born = procs.start_time(os.getpid())
    assert born == processes.start_time(os.getpid())
    assert procs.is_same(os.getpid(), born)
    assert not procs.is_same(os.getpid(), born + 1)


@pytest.mark.parametrize("pid", [0, 1, -1, "7", None, True, 1.5, 2**31])
def test_f28_a_hostile_pid_is_nobody_and_is_never_signalled(pid: object) -> None:
    assert not procs.is_same(pid, 0)
    if isinstance(pid, int):
        procs.send(min(pid, 1), signal.SIGKILL)


def test_f25_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([PYTHON, "-c", "import time; time.sleep(30)"])
    born = procs.start_time(child.pid)
    assert procs.is_same(child.pid, born)
    child.kill()
    until(lambda: not procs.is_same(child.pid, born))
    child.wait()


def test_a_name_with_parentheses_and_spaces_does_not_confuse(tmp_path: Path) -> None:
    code = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'a) R 1 (b', 0, 0, 0); "
    child = subprocess.Popen(
        [PYTHON, "-c", code + "print(1, flush=True); time.sleep(30)"], stdout=-1
    )
    assert child.stdout
    child.stdout.readline()
    assert procs.start_time(child.pid) == processes.start_time(child.pid)
    child.kill()
    child.communicate()


def test_a_spawned_process_has_a_session_and_a_null_stdin_and_inherits_no_file(
    run_id: str, tmp_path: Path
) -> None:
    with (tmp_path / "lock").open("w") as mine:
        code = "import os; print(os.getsid(0) == os.getpid(), os.read(0, 1), os.getcwd()); "
        code += "print([os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)]); "
        code += f"print(os.path.exists('/proc/self/fd/{mine.fileno()}'))"
        pid = spawn(run_id, code, tmp_path / "log")
        assert os.waitpid(pid, 0)[1] == 0, (tmp_path / "log").read_text()
    log = str(tmp_path / "log")
    said = (tmp_path / "log").read_text().splitlines()
    assert said == ["True b'' /", str(["/dev/null", log, log]), "False"]


def test_an_exec_that_fails_is_an_error_here_and_leaves_no_child(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        procs.spawn(["/no/such/program"], {}, "/", 2)
    with pytest.raises(OSError):
        procs.spawn([PYTHON], {}, str(tmp_path / "absent"), 2)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


TREES = {
    "plain": "import time; time.sleep(60)",
    "setsid": "import os, time; os.fork() or os.setsid(); time.sleep(60)",
    "double fork": (
        "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork(): os._exit(0)\n"
        "time.sleep(60)"
    ),
    "ignores TERM": (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.fork(); time.sleep(60)"
    ),
    "stopped": "import os, signal, time; os.kill(os.getpid(), signal.SIGSTOP); time.sleep(60)",
    "forks as it ends": (
        "import os, signal, time\n"
        "def again(*_):\n if os.fork(): os._exit(0)\n"
        "signal.signal(15, again)\nwhile True: time.sleep(60)"
    ),
}


@pytest.mark.parametrize("kind", TREES)
def test_f24_a_tree_of_any_kind_is_ended_to_the_last_process(
    kind: str, run_id: str, tmp_path: Path
) -> None:
    spawn(run_id, TREES[kind], tmp_path / "log")
    time.sleep(0.3)
    assert procs.tagged(run_id)
    assert procs.end_tree(procs.Tree(run_id), 0.5, reap) == []
    assert processes.with_environment("ORCH_RUN_ID", run_id) == []


UNTAGGED = {
    "in the leader's session": "import os, time; time.sleep(60)",
    "in a session of its own, below the leader": "import os, time; os.setsid(); time.sleep(60)",
}


@pytest.mark.parametrize("kind", UNTAGGED)
def test_a_child_without_the_tag_is_ended_with_its_leader(
    kind: str, run_id: str, tmp_path: Path
) -> None:
    code = "import os, sys, time\nif os.fork() == 0: os.execve(sys.executable, ['py', '-c', "
    code += f"{UNTAGGED[kind]!r}], {{}})\ntime.sleep(60)"
    leader = spawn(run_id, code, tmp_path / "log")
    until(lambda: len(processes.descendants(leader)) == 1)
    (child,) = processes.descendants(leader)
    until(lambda: processes.with_environment("ORCH_RUN_ID", run_id) == [leader])
    try:
        assert procs.end_tree(procs.Tree(run_id, leader), 0.5) == []
        assert not processes.is_alive(child)
    finally:
        processes.end([child])
        reap()


def test_another_runs_processes_are_left_alone(run_id: str, tmp_path: Path) -> None:
    other = spawn(run_id + "x", TREES["plain"], tmp_path / "log")
    born = procs.start_time(other)
    spawn(run_id, TREES["plain"], tmp_path / "log")
    time.sleep(0.2)
    procs.end_tree(procs.Tree(run_id), 1.0, reap)
    assert procs.is_same(other, born)
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)


def test_f40_a_tool_that_ignores_term_is_not_waited_for() -> None:
    before = set(processes.descendants(os.getpid()))
    began = time.monotonic()
    sleeper = [PYTHON, "-c", "import signal, time; signal.signal(15, 1); time.sleep(30)"]
    assert procs.run_quiet(sleeper, dict(os.environ), 0.5) is None
    assert procs.capture(sleeper, 0.5) is None
    assert time.monotonic() - began < 25
    until(lambda: (reap(), set(processes.descendants(os.getpid())) <= before)[1])


def test_capture_gives_output_of_what_succeeded_and_nothing_of_what_failed() -> None:
    assert procs.capture(["/bin/sh", "-c", "echo hi"], 5) == b"hi\n"
    assert procs.capture(["/bin/sh", "-c", "echo hi; exit 3"], 5) is None
    assert procs.capture(["/no/such/tool"], 5) is None
    assert procs.ask(["/bin/sh", "-c", "echo hi >&2; exit 3"], 5) == (3, b"hi\n")
    assert procs.ask(["/no/such/tool"], 5) == (127, b"No such file or directory")


def test_which_ignores_folders_and_files_that_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "a" / "tool").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tool").write_text("x")
    assert procs.which("tool", f"{tmp_path}/a:{tmp_path}/b") is None
    (tmp_path / "b" / "tool").chmod(0o755)
    assert procs.which("tool", f"{tmp_path}/a:{tmp_path}/b") == f"{tmp_path}/b/tool"


LET_GO = """
import fcntl, os, resource
from remote import procs
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
low, high = os.pipe()
kept, other = (fcntl.fcntl(high, fcntl.F_DUPFD, number) for number in (2000, 3000))
procs.let_go([kept])
os.fstat(kept)
for number in (low, high, other):
    try:
        os.fstat(number)
    except OSError:
        continue
    os._exit(number)
"""


def test_a_fork_lets_go_of_descriptors_whatever_their_number() -> None:
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([PYTHON, "-c", LET_GO], cwd=root, check=False).returncode == 0
