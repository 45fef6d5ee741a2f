"""Process identity, spawning, and ending a whole tree. Linux /proc; stdlib only.

A pid alone is never trusted: pids are reused. (boot id, pid, start time) names a process for good,
and `ORCH_RUN_ID` in its environment tells to which run it belongs, however it was started.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

from remote.errors import Damaged

RUN_TAG = "ORCH_RUN_ID"


def boot_id() -> str:
    path = os.environ.get("ORCH_BOOT_ID_FILE", "/proc/sys/kernel/random/boot_id")
    try:
        with open(path, "r") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


def machine() -> Dict[str, str]:
    """This machine, whatever it boots: {"id": machine-id(5), else the host name; "name": the host
    name}."""
    name = os.uname().nodename
    path = os.environ.get("ORCH_MACHINE_ID_FILE", "/etc/machine-id")
    try:
        with open(path, "r") as file:
            return {"id": file.read().strip() or name, "name": name}
    except OSError:
        return {"id": name, "name": name}


def since_boot() -> float:
    """Seconds of the clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def start_time(pid: int) -> Optional[int]:
    """Start time in clock ticks since boot (proc(5), field 22); None for no such process."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def _stat(pid: int) -> Optional[List[bytes]]:
    """The fields of /proc/PID/stat from the state (field 3) on."""
    if pid <= 1:
        return None
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            text = file.read()
    except OSError:
        return None
    return text[text.rindex(b")") + 2 :].split()


def is_same(pid: object, started: object) -> bool:
    """True if `pid` still is the process that started at `started`, and no zombie."""
    if not isinstance(pid, int) or not isinstance(started, int) or pid <= 1:
        return False
    fields = _stat(pid)
    return fields is not None and int(fields[19]) == started and fields[0] not in (b"Z", b"X")


class Tree:
    """The living processes of one run, however they were started.

    One belongs to it if its environment carries the run's tag, if it is in the session that the
    job's first process, `leader`, leads, if it descends from it, or if it once did: what was
    seen is remembered with its start time. `leader` must not have been reaped, or its pid could be
    another's by now. A process that left the session, dropped its environment and lost its parent
    before anyone looked is not found.
    """

    def __init__(
        self, run_id: str, leader: Optional[int] = None, exclude: Sequence[int] = ()
    ) -> None:
        self._tag = ("%s=%s" % (RUN_TAG, run_id)).encode("ascii")
        self._leader = leader
        self._exclude = set(exclude)
        self._seen: Dict[int, int] = {}

    def living(self) -> List[int]:
        """Their pids. Empty only if two scans in a row were: one alone can miss a process whose
        parent forked it behind the scan and ended before the scan came by."""
        return self._scan() or self._scan()

    def _scan(self) -> List[int]:
        table = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) > 1 and int(name) not in self._exclude:
                fields = _stat(int(name))
                if fields is not None and fields[0] not in (b"Z", b"X"):
                    table[int(name)] = fields
        return [pid for pid, fields in table.items() if self._belongs(pid, fields, table)]

    def _belongs(self, pid: int, fields: List[bytes], table: Dict[int, List[bytes]]) -> bool:
        started = int(fields[19])
        if self._seen.get(pid) == started:
            return True
        if self._is_below_leader(pid, fields, table) or self._tag in _environ(pid):
            self._seen[pid] = started
            return True
        return False

    def _is_below_leader(
        self, pid: int, fields: List[bytes], table: Dict[int, List[bytes]]
    ) -> bool:
        if self._leader is None:
            return False
        if int(fields[3]) == self._leader:
            return True
        for _ in range(64):
            if pid == self._leader:
                return True
            if pid not in table:
                return False
            pid = int(table[pid][1])
        return False


def _environ(pid: int) -> List[bytes]:
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def name_of(pid: int) -> str:
    """The kernel's short name of the process, "?" when it is gone."""
    try:
        with open("/proc/%d/comm" % pid, "rb") as file:
            name = file.read().decode("utf-8", "replace").rstrip("\n")
    except OSError:
        return "?"
    return "".join(char if char.isprintable() else "?" for char in name)


def run_of(pid: int) -> Optional[str]:
    """The run whose tag the process carries; None without one, or where it may not be read."""
    mark = ("%s=" % RUN_TAG).encode("ascii")
    for entry in _environ(pid):
        if entry.startswith(mark):
            return entry[len(mark) :].decode("ascii", "replace")[:64]
    return None


def tagged(run_id: str) -> List[int]:
    """Living pids of this user whose environment carries the run's tag."""
    return Tree(run_id).living()


def in_child(work: Callable[[], None]) -> None:
    """Do `work` in a fork, so that the memory it needs is gone with it; raise what it raised."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        told: List[object] = []
        try:
            work()
        except Damaged as exc:
            told = ["Damaged", exc.count]
        except OSError as exc:
            told = ["OSError", exc.errno, exc.strerror, os.fsdecode(exc.filename or "")]
        except Exception as exc:
            told = ["Error", "%s: %s" % (type(exc).__name__, exc)]
        finally:
            os.write(write_end, json.dumps(told).encode("ascii"))
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    problem = json.loads(answer.decode("ascii")) if answer else ["Error", "a child was killed"]
    if problem[:1] == ["Damaged"]:
        raise Damaged(int(problem[1]))
    if problem[:1] == ["OSError"]:
        raise OSError(*problem[1:])
    if problem:
        raise RuntimeError(problem[1])


def which(name: str, path: Optional[str] = None) -> Optional[str]:
    for folder in (path if path is not None else os.environ.get("PATH", "")).split(":"):
        full = os.path.join(folder or ".", name)
        if os.path.isfile(full) and os.access(full, os.X_OK):
            return full
    return None


def spawn(
    argv: Sequence[str],
    env: Dict[str, str],
    cwd: str,
    output: int,
    own_session: bool = True,
    source: Optional[int] = None,
    keep: Sequence[int] = (),
) -> int:
    """Start `argv` in a session (or only a process group) of its own; returns its pid.

    stdin is `source`, or /dev/null; stdout and stderr both go to `output`; of all else only `keep`
    is inherited. An exec that fails raises OSError here.
    """
    return begin(argv[0], lambda: _become(argv, env, cwd, output, own_session, source, keep))


def begin(name: str, work: Callable[[], None]) -> int:
    """Do `work` in a fork, which does not return from it; the fork's pid.

    Waits until `work` has closed its descriptors, by exec or by hand. What it raised before that is
    an OSError here, of `name`.
    """
    read_end, write_end = os.pipe()  # close-on-exec: an empty read means that exec succeeded
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except Exception as exc:
            os.write(write_end, _failure(exc))
        finally:
            os._exit(127)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        failure = pipe.read()
    if failure:
        os.waitpid(pid, 0)
        code, text = json.loads(failure.decode("ascii"))
        raise OSError(code, text, name)
    return pid


def _failure(exc: Exception) -> bytes:
    if isinstance(exc, OSError):
        told = [exc.errno or 0, exc.strerror or type(exc).__name__]
    else:  # e.g. of a word that the kernel cannot be given
        told = [errno.EINVAL, "%s: %s" % (type(exc).__name__, exc)]
    return json.dumps(told).encode("ascii")


def _become(
    argv: Sequence[str],
    env: Dict[str, str],
    cwd: str,
    output: int,
    own_session: bool,
    source: Optional[int],
    keep: Sequence[int],
) -> None:
    if own_session:
        os.setsid()
    else:
        os.setpgid(0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.dup2(os.open("/dev/null", os.O_RDONLY) if source is None else source, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for kept in keep:
        os.set_inheritable(kept, True)
    os.chdir(cwd)
    os.execvpe(argv[0], list(argv), env)


def let_go(keep: Sequence[int] = ()) -> None:
    """In a fork: no descriptor but `keep` stays open, so that it holds no lock of its parent's and
    keeps no pipe open; 0, 1 and 2 lead nowhere."""
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    first = 3
    for kept in sorted(keep):
        os.closerange(first, kept)
        first = kept + 1
    last = max(int(number) for number in os.listdir("/proc/self/fd"))
    os.closerange(first, last + 1)


def run_quiet(argv: Sequence[str], env: Dict[str, str], deadline: float) -> Optional[int]:
    """Run a small tool with no output; its exit code, or None when it did not end in `deadline` s.

    A tool that hangs is killed but not waited for: one in uninterruptible sleep must not hold us.
    """
    null = os.open("/dev/null", os.O_WRONLY)
    try:
        pid = spawn(argv, env, "/", null)
    except OSError:
        return 127
    finally:
        os.close(null)
    return wait_for(pid, deadline)


def capture(
    argv: Sequence[str], deadline: float, limit: int = 1 << 20, stuck: Optional[List[int]] = None
) -> Optional[bytes]:
    """What a small tool printed; None if it is absent, failed, or took longer than `deadline` s."""
    said = ask(argv, deadline, limit, stuck)
    return said.text if said.code == 0 else None


class Said(NamedTuple):
    code: Optional[int]  # None: it took too long; 127: it could not be run
    text: bytes  # of stdout and stderr; of a tool that could not be run why


def ask(
    argv: Sequence[str], deadline: float, limit: int = 1 << 20, stuck: Optional[List[int]] = None
) -> Said:
    """How a small tool ended within `deadline` s, and what it printed.

    One that does not even end when it is killed is left to itself; its pid is added to `stuck`.
    """
    read_end, write_end = os.pipe()
    try:
        pid = spawn(argv, dict(os.environ), "/", write_end)
    except OSError as exc:
        os.close(read_end)
        return Said(127, (exc.strerror or "").encode("utf-8"))
    finally:
        os.close(write_end)
    end = time.monotonic() + deadline
    parts: List[bytes] = []
    try:
        while sum(map(len, parts)) < limit:
            ready, _, _ = select.select([read_end], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(read_end, 65536) if ready else None
            if chunk == b"":
                break
            if chunk is None:
                _abandon(pid, stuck)
                return Said(None, b"".join(parts))
            parts.append(chunk)
    finally:
        os.close(read_end)
    code = wait_for(pid, max(0.1, end - time.monotonic()))
    if code is None:
        _abandon(pid, stuck)
    return Said(code, b"".join(parts))


def _abandon(pid: int, stuck: Optional[List[int]]) -> None:
    send(pid, signal.SIGKILL)
    if wait_for(pid, 0.5) is None and stuck is not None:
        stuck.append(pid)


def wait_for(pid: int, deadline: float) -> Optional[int]:
    end = time.monotonic() + deadline
    pause = 0.001
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        if time.monotonic() >= end:
            send(pid, signal.SIGKILL)
            return None
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def send(pid: int, number: int) -> None:
    """Signal one process; a pid of 0, 1 or below is refused, one that is gone is fine."""
    if pid <= 1:
        return
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def end_tree(tree: Tree, grace: float, reap: Callable[[], None] = lambda: None) -> List[int]:
    """TERM, `grace` seconds, then KILL; the pids that would not go within 5 s of KILL."""
    for pid in tree.living():
        send(pid, signal.SIGTERM)
        send(pid, signal.SIGCONT)  # a stopped process does not act on TERM
    end = time.monotonic() + grace
    pause = 0.01
    while time.monotonic() < end:
        reap()
        if not tree.living():
            return []
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)
    end = time.monotonic() + 5.0
    while True:
        left = tree.living()
        if not left or time.monotonic() >= end:
            return left
        for pid in left:
            send(pid, signal.SIGKILL)
        reap()
        time.sleep(0.02)
