"""Owns one run until it ends: lease, environment, spawn, wait, exit record.

It is the only waiter of the job. It holds a kernel lock for as long as it lives, so that anyone can
see whether it does. The job writes straight into the log file: when the supervisor dies the job
does not notice. tmux or screen only show that file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

from remote import environment, files, gpu, procs, session, status, store
from remote.layout import Layout, RunFiles

GRACE = 10.0
QUEUE_POLL = 3.0
WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Ended(Exception):
    """The run is over before or besides its job's own end: (verdict, reason)."""

    def __init__(self, verdict: str, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason


class Supervisor:
    def __init__(self, layout: Layout, run: RunFiles, order: Dict[str, Any], report: int) -> None:
        self.layout = layout
        self.run = run
        self.order = order
        self.report_fd: Optional[int] = report
        self.deadline: Optional[float] = None
        self.gpus: List[gpu.Gpu] = []
        self.leases: List[int] = []
        self.ending: Optional[Ended] = None
        self.view = "plain"
        self.oom_before = oom_kills()
        self.log = os.open(run.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def main(self) -> None:
        """After this returns the exit record stands and every process of the run is gone."""
        reasons: List[str] = []
        code: Optional[int] = None
        number: Optional[int] = None
        try:
            self._choose_view()
            self._lease()
            path = self._environment()
            code, number = self._stages(path)
        except Ended as ended:
            self.ending = ended
        except OSError as exc:
            self.ending = Ended("failed", "%s: %s" % (exc.filename or "the job", exc.strerror))
            self.say(self.ending.reason)
            code = 127
        left = self._clear_tree()
        if left:
            reasons.append("%d processes would not end: %s" % (len(left), left[:20]))
        verdict, why = self._verdict(code, number)
        reasons = why + reasons
        self._finish(verdict, code, number, reasons)

    # --- before the job ---------------------------------------------------------------------------

    def _lease(self) -> None:
        most = int(self.order.get("gpus_max") or 0)
        if not most:
            return
        least = int(self.order.get("gpus_min") or 0)
        while True:
            try:
                held = gpu.lease(self.layout, least, most, self.order.get("gpu_memory"))
            except gpu.NoAnswer:
                held = None if least else ([], [])
            if held is not None:
                self.gpus, self.leases = held
                return
            self.report({"phase": "queued"})
            self._wait(None, QUEUE_POLL)

    def _environment(self) -> str:
        requirements = self.order.get("requirements")
        folder = self.order.get("path_first")
        if requirements:
            self.report({"phase": "queued", "why": "its environment is being made"})
            try:
                folder = environment.prepare(
                    self.layout, requirements, self.log, self.run.tree, self.say, self._wait_code
                )
            except environment.SetupFailed as exc:
                raise Ended("failed", "setup: %s" % exc) from None
        return environment.search_path(folder, self.layout, sys.executable)

    def _job_env(self, path: str) -> Dict[str, str]:
        env = {key: value for key, value in session.plain_env().items() if key != "TERM"}
        env.update(self.order.get("env") or {})
        env.update(self.order.get("secrets") or {})
        env.update(
            PATH=path,
            ORCH_RUN_ID=self.run.run_id,
            ORCH_RUN_DIR=self.run.path,
            ORCH_RESULTS_DIR=self.run.results,
            ORCH_CONFIG=self.run.config,
            ORCH_DATA=self.run.data,
            CUDA_DEVICE_ORDER="PCI_BUS_ID",
            CUDA_VISIBLE_DEVICES=",".join(str(card.number) for card in self.gpus),
            PWD=self.run.tree,
        )
        return env

    # --- the job ----------------------------------------------------------------------------------

    def _stages(self, path: str) -> Tuple[int, Optional[int]]:
        """(exit code, signal) of the first stage that failed, or of the last one."""
        env = self._job_env(path)
        limit = self.order.get("time")
        self.deadline = time.monotonic() + float(limit) if limit else None
        stages = self.order["stages"]
        code, number = 0, None
        for index, stage in enumerate(stages):
            if len(stages) > 1:
                self.say("stage %s" % stage["name"])
            pid = procs.spawn(stage["argv"], env, self.run.tree, self.log)
            if index == 0:
                self._started(pid)
                self._leave_spare()
            code, number = self._wait_status(pid)
            if code != 0 or number is not None:
                break
        return code, number

    def _started(self, pid: int) -> None:
        record = {
            "phase": "running",
            "pid": pid,
            "start_time": procs.start_time(pid),
            "started_at": status.now(),
            "gpus": [card._asdict() for card in self.gpus],
        }
        self.report(record)
        files.write_json(self.run.job, record)

    def _choose_view(self) -> None:
        self.view = session.choose(str(self.order.get("session") or "auto"))
        record = {"kind": self.view, "name": session.name_of(self.run.run_id)}
        files.write_json(self.run.session, record, durable=False)

    def _open_view(self) -> None:
        """Built in a child and after the first report: a slow tmux must not delay the job."""
        if self.view == "plain" or os.fork() != 0:
            return
        try:
            _quiet_child()
            if not session.open_view(self.view, self.run, session.plain_env()):
                name = session.name_of(self.run.run_id)
                plain = {"kind": "plain", "name": name, "failed": self.view}
                files.write_json(self.run.session, plain, durable=False)
        finally:
            os._exit(0)

    def _leave_spare(self) -> None:
        if os.fork() == 0:
            try:
                _quiet_child()
                os.nice(10)
                store.make_spare(self.layout, str(self.order["snapshot"]))
            finally:
                os._exit(0)

    # --- waiting ----------------------------------------------------------------------------------

    def _wait(self, pid: Optional[int], seconds: Optional[float]) -> Optional[int]:
        """Wait for `pid` to end (its wait status) or for `seconds` to pass (None).

        Raises Ended when the run is cancelled, asked to end, or past its time.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            status_word = _reap(pid)
            if status_word is not None:
                return status_word
            pause = 3600.0
            for limit in (end, self.deadline):
                if limit is not None:
                    pause = min(pause, limit - time.monotonic())
            info = signal.sigtimedwait(WATCHED, max(0.0, pause))
            if info is not None and info.si_signo in (signal.SIGTERM, signal.SIGINT):
                raise self._asked_to_end()
            if self.deadline is not None and time.monotonic() >= self.deadline:
                limit_text = "its time limit of %g s was reached" % float(self.order["time"])
                raise Ended("killed", limit_text)
            if end is not None and time.monotonic() >= end:
                return None

    def _asked_to_end(self) -> Ended:
        if os.path.exists(self.run.cancel):
            return Ended("cancelled", "cancelled by its user")
        return Ended("killed", "its supervisor was asked to end (shutdown or logout?)")

    def _wait_status(self, pid: int) -> Tuple[int, Optional[int]]:
        word = self._wait(pid, None)
        assert word is not None
        if os.WIFSIGNALED(word):
            return 128 + os.WTERMSIG(word), os.WTERMSIG(word)
        return os.WEXITSTATUS(word), None

    def _wait_code(self, pid: int) -> int:
        return self._wait_status(pid)[0]

    # --- after the job ----------------------------------------------------------------------------

    def _clear_tree(self) -> List[int]:
        grace = GRACE if self.ending is None else float(self.order.get("grace") or GRACE)
        _, left = procs.end_tree(self.run.run_id, grace, [os.getpid()], _reap_all)
        return left

    def _verdict(self, code: Optional[int], number: Optional[int]) -> Tuple[str, List[str]]:
        if self.ending is not None:
            return self.ending.verdict, [self.ending.reason]
        if code == 0:
            return "succeeded", []
        if (number == signal.SIGKILL or code == 137) and oom_kills() > self.oom_before:
            return "oom", ["the kernel killed it: its memory limit was reached"]
        reasons = causes_in(self.run.log)
        if number is not None:
            return "killed", ["signal %d ended it" % number, *reasons]
        return "failed", ["exit code %s" % code, *reasons]

    def _finish(
        self, verdict: str, code: Optional[int], number: Optional[int], reasons: List[str]
    ) -> None:
        try:
            os.fsync(self.log)
        except OSError:
            reasons = [*reasons, "the end of the log may be missing"]
        metrics = status.metrics_of(self.run)
        if number is not None or (self.ending is not None and self.ending.verdict != "failed"):
            code = None
        status.write_exit(self.run, verdict, code, number, reasons, metrics)
        for held in self.leases:
            os.close(held)
        view = files.read_json(self.run.session)
        if view:
            session.close_view(str(view["kind"]), self.run, session.plain_env())
        if self.report_fd is not None:
            self.view = "plain"
            self.report({"phase": "finished"})

    # --- telling ----------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """A line of our own in the run's log."""
        try:
            files.write_all(self.log, ("[orch] %s\n" % text).encode("utf-8", "replace"))
        except OSError:
            pass

    def report(self, value: Dict[str, Any]) -> None:
        """Tell the agent that started us, once; it may be gone."""
        if self.report_fd is None:
            return
        try:
            files.write_all(self.report_fd, json.dumps(value).encode("ascii") + b"\n")
        except OSError:
            pass
        os.close(self.report_fd)
        self.report_fd = None
        self._open_view()


def _quiet_child() -> None:
    """A forked helper must not be taken for the supervisor: it lets go of every inherited lock."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, 1024)


def _reap(wanted: Optional[int]) -> Optional[int]:
    """Collect ended children; the wait status of `wanted` if it was among them."""
    found = None
    while True:
        try:
            pid, word = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == wanted:
            found = word


def _reap_all() -> None:
    _reap(None)


def oom_kills() -> int:
    """How often the kernel killed for memory in this cgroup (v2 memory.events, v1 oom_control)."""
    try:
        with open("/proc/self/cgroup", "r") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return 0
    for _, controllers, path in lines:
        if controllers == "":
            name = "/sys/fs/cgroup%s/memory.events" % path
        elif "memory" in controllers.split(","):
            name = "/sys/fs/cgroup/memory%s/memory.oom_control" % path
        else:
            continue
        count = _oom_line(name)
        if count is not None:
            return count
    return 0


def _oom_line(name: str) -> Optional[int]:
    try:
        with open(name, "r") as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


CAUSES = (
    (b"CUDA out of memory", "the log says: CUDA out of memory"),
    (b"torch.OutOfMemoryError", "the log says: CUDA out of memory"),
    (b"No space left on device", "the log says: no space left on device"),
    (b"NCCL error", "the log says: NCCL error"),
)


def causes_in(log: str) -> List[str]:
    """Well-known causes of death named in the last 64 KiB of the log."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            tail = file.read(65536)
    except OSError:
        return []
    found: List[str] = []
    for pattern, words in CAUSES:
        if pattern in tail and words not in found:
            found.append(words)
    return found


def supervise(layout: Layout, run: RunFiles, order: Dict[str, Any], report: int) -> None:
    """The life of the supervisor process; `report` is written one line and closed. Never returns.

    Called in a fork of the agent: it leaves the agent's session and descriptors first.
    """
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, report)
    os.closerange(report + 1, 1024)
    os.chdir("/")
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # the agent may leave before our report
    held = files.try_lock(layout.lock(run.run_id + ".lock"))
    if held is None:
        os._exit(1)
    identity = {
        "pid": os.getpid(),
        "start_time": procs.start_time(os.getpid()),
        "boot_id": procs.boot_id(),
        "agent": os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
    }
    files.write_json(run.identity, identity, durable=False)  # means nothing after a reboot
    if os.path.exists(run.cancel):
        status.write_exit(run, "cancelled", None, None, ["cancelled before it started"], None)
        os._exit(0)
    owner = Supervisor(layout, run, order, report)
    try:
        owner.main()
    except Exception as exc:  # the job goes on unowned; its log says what became of its owner
        owner.say("the supervisor failed: %s: %s" % (type(exc).__name__, exc))
        os._exit(1)
    os._exit(0)
