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
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from remote import causes, environment, files, gpu, procs, session, status, trees
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


class Ending(NamedTuple):
    """How a process ended; with a signal the code is 128 + its number, as shells have it."""

    code: int
    signal: Optional[int]


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
        self.helpers: List[int] = []
        self.leader: Optional[int] = None  # the job's first process, not reaped before its tree is
        self.oom_before = causes.oom_kills()
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
        # Before the fork: killed right after it, we must not leave a job of which nothing tells.
        files.write_json(self.run.job, {"phase": "spawning"}, durable=False)
        for index, stage in enumerate(stages):
            if len(stages) > 1:
                self.say("stage %s" % stage["name"])
            pid = self.leader = procs.spawn(stage["argv"], env, self.run.tree, self.log)
            if index == 0:
                self._started(pid)
                self._leave_behind(path)
            ended = self._wait(pid, None)
            assert ended is not None
            code, number = ended
            if code != 0 or number is not None or index + 1 == len(stages):
                break
            self._clear_tree()
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
        if self.view == "plain" or self._fork_helper():
            return
        try:
            _quiet_child()
            if not session.open_view(self.view, self.run, session.plain_env()):
                name = session.name_of(self.run.run_id)
                plain = {"kind": "plain", "name": name, "failed": self.view}
                files.write_json(self.run.session, plain, durable=False)
        finally:
            os._exit(0)

    def _leave_behind(self, path: str) -> None:
        """For runs to come a copy of the tree; for comparisons what this one ran in."""
        if self._fork_helper():
            return
        try:
            _quiet_child()
            os.nice(10)
            try:
                trees.make_spare(self.layout, str(self.order["snapshot"]))
            finally:
                from remote import surroundings  # here: the supervisor stays small

                surroundings.record(self.run, path, self.gpus)
        finally:
            os._exit(0)

    def _fork_helper(self) -> bool:
        """True in the supervisor, False in the child that does the work."""
        pid = os.fork()
        if pid:
            self.helpers.append(pid)
        return bool(pid)

    # --- waiting ----------------------------------------------------------------------------------

    def _wait(self, pid: Optional[int], seconds: Optional[float]) -> Optional[Ending]:
        """Wait for `pid` to end, without reaping it, or for `seconds` to pass (None).

        Raises Ended when the run is cancelled, asked to end, or past its time.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            self._reap_helpers()
            ended = _ended(pid) if pid is not None else None
            if ended is not None:
                return ended
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

    def _wait_code(self, pid: int) -> int:
        """For the tools that make the environment: their exit code, and nothing of them left."""
        self.leader = pid
        ended = self._wait(pid, None)
        assert ended is not None
        self._clear_tree()
        return ended.code

    def _reap_helpers(self) -> None:
        for pid in list(self.helpers):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.helpers.remove(pid)

    # --- after the job ----------------------------------------------------------------------------

    def _clear_tree(self) -> List[int]:
        """End what is left of the job, then let its first process go; pids that would not end."""
        grace = float(self.order.get("grace") or GRACE)
        tree = procs.Tree(self.run.run_id, self.leader, [os.getpid(), *self.helpers])
        left = procs.end_tree(tree, grace, self._reap_helpers)
        if self.leader is not None:
            os.waitpid(self.leader, os.WNOHANG)
            self.leader = None
        return left

    def _verdict(self, code: Optional[int], number: Optional[int]) -> Tuple[str, List[str]]:
        if self.ending is not None:
            return self.ending.verdict, [self.ending.reason]
        if code == 0:
            return "succeeded", []
        if (number == signal.SIGKILL or code == 137) and causes.oom_kills() > self.oom_before:
            return "oom", ["the kernel killed it: its memory limit was reached"]
        reasons = causes.in_log(self.run.log)
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


def _ended(pid: int) -> Optional[Ending]:
    """How the child ended, if it did. It stays a zombie, so that its pid stays its own."""
    info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if info is None:
        return None
    if info.si_code == os.CLD_EXITED:
        return Ending(info.si_status, None)
    return Ending(128 + info.si_status, info.si_status)


def supervise(layout: Layout, run: RunFiles, order: Dict[str, Any], report: int) -> None:
    """The life of the supervisor process; `report` is written one line and closed. Never returns.

    Called in a fork of the agent: it leaves the agent's session and descriptors first.
    """
    _detach(report)
    held = files.try_lock(layout.lock(run.run_id + ".lock"))
    if held is None or os.path.exists(run.exit):  # somebody has proved that we would not come
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


def _detach(report: int) -> None:
    """Out of the agent's session; of its descriptors only `report` is left."""
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, report)
    os.closerange(report + 1, 1024)
    os.chdir("/")
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # the agent may leave before our report
