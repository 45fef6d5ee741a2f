"""Owns one run until it ends: lease, environment, spawn, wait, exit record, and the next attempt.

It holds a kernel lock for as long as it lives, so that anyone can see whether it does. The job
writes straight into the log file and its own parent, the keeper, notes how it ends: when the
supervisor dies the job does not notice. tmux or screen only show the log.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional

from remote import (
    causes,
    environment,
    events,
    files,
    gpu,
    keeper,
    procs,
    scope,
    session,
    status,
    trees,
)
from remote.aside import Aside
from remote.attempts import follows, owned_by
from remote.causes import End
from remote.layout import Layout, RunFiles

if TYPE_CHECKING:
    from remote.guards import Guards

GRACE = 10.0
QUEUE_POLL = 3.0
STUCK_POLL = 5.0
LAST_LOOK = 256  # pieces of metrics.jsonl, 64 MiB: what a job wrote just before its end
LOCK_PATIENCE = 2.0  # who looks whether the run lives holds its lock for a moment
WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Ended(Exception):
    """The run is over before or besides its job's own end."""

    def __init__(self, end: End) -> None:
        super().__init__(end.verdict)
        self.end = end


class Ending(NamedTuple):
    """How a process ended; with a signal the code is 128 + its number, as shells have it."""

    code: int
    signal: Optional[int]


class Supervisor:
    """One run's owner. `main` is the life of one; `remote.adopt` has another beginning."""

    poll: Optional[float] = None  # seconds between two looks at the job; None: the kernel tells

    def __init__(
        self, layout: Layout, run: RunFiles, order: Dict[str, Any], report: Optional[int]
    ) -> None:
        self.layout = layout
        self.run = run
        self.order = order
        self.report_fd = report
        self.deadline: Optional[float] = None
        self.gpus: List[gpu.Gpu] = []
        self.leases: List[int] = []
        self.view = "plain"
        self.aside = Aside()
        self.opener: Optional[int] = None  # the child that opens the view
        self.guards: Optional[Guards] = None
        self.grace = float(order.get("grace") or GRACE)
        self.first = run.attempt  # the earliest attempt this process owned
        self.leader: Optional[int] = None  # the job's keeper, not reaped before its tree is
        self.last: Optional[Ending] = None  # how the leader before ended
        self.log = os.open(run.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def main(self) -> None:
        """After this returns the exit records stand and every process of the run is gone."""
        self._choose_view()
        while True:
            if self.run.attempt > 1:
                self.say("attempt %d" % self.run.attempt)
            if not self._over(self._attempt()):
                return

    def _attempt(self) -> End:
        try:
            self._lease()
            path = self._environment()
            return self._stages(path)
        except Ended as ended:
            return ended.end
        except OSError as exc:
            reason = "%s: %s" % (exc.filename or "the job", exc.strerror)
            self.say(reason)
            return End("failed", "not_started", 127, None, (reason,))

    def _over(self, end: End) -> bool:
        """Write the attempt down; True when the spec wants another one, which is then `self.run`.

        Nothing is recorded while a process of it is left, e.g. one in uninterruptible sleep: it may
        still write, and holds its GPUs.
        """
        while True:
            left = self._clear_tree()
            if not left:
                break
            self.say("%d processes would not end: %s" % (len(left), left[:20]))
            time.sleep(STUCK_POLL)
        end = self._with_process(end)
        self._guard(ended=True)
        self.guards, self.grace = None, float(self.order.get("grace") or GRACE)
        done = self.run
        following = follows(self.layout, done, self.order.get("retry"), end, self._is_cancelled)
        if following is not None:
            # The marker of the next attempt is there already: nobody takes this end for the last.
            end = end._replace(reasons=(*end.reasons, "attempt %d follows" % following.attempt))
            identify(following)
        self._record(done, end)
        self._tell("end", ": ".join([end.verdict, *end.reasons[:3]]))
        if following is None:
            self._leave()
            return False
        self.run = following
        return True

    # --- before the job ---------------------------------------------------------------------------

    def _lease(self) -> None:
        most = int(self.order.get("gpus_max") or 0)
        if not most or self.leases:
            return
        least = int(self.order.get("gpus_min") or 0)
        smi, told = gpu.Smi(), ""
        while True:
            why = ""
            try:
                seen = smi.cards()
                self.gpus, self.leases = gpu.lease(
                    self.layout,
                    seen,
                    least,
                    most,
                    self.order.get("gpu_memory"),
                    self.run.run_id,
                    self.order.get("gpu_use") == "share",
                )
                return
            except gpu.Busy as exc:
                why = str(exc)
            except gpu.NoAnswer as exc:
                if not least:
                    return
                why = str(exc)
            self.report({"phase": "queued"})
            if why != told:
                told = why
                self.say("waits for %d GPU(s): %s" % (least, why))
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
                raise Ended(End("failed", "setup", reasons=("setup: %s" % exc,))) from None
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
            ORCH_ATTEMPT=str(self.run.attempt),
            CUDA_DEVICE_ORDER="PCI_BUS_ID",
            CUDA_VISIBLE_DEVICES=",".join(str(card.number) for card in self.gpus),
            PWD=self.run.tree,
        )
        return env

    # --- the job ----------------------------------------------------------------------------------

    def _stages(self, path: str) -> End:
        """The end of the first stage that failed, or of the last one."""
        env = self._job_env(path)
        limit = self.order.get("time")
        self.deadline = time.monotonic() + float(limit) if limit else None
        stages = self._stages_left()
        for index, stage in enumerate(stages):
            last = index + 1 == len(stages)
            if len(self.order["stages"]) > 1:
                self.say("stage %s" % stage["name"])
                files.write_atomic(self.run.stage, stage["name"].encode("utf-8"), durable=False)
            told = {"stage": stage["name"], "last": last}
            if index == 0:
                # Before the fork: killed right after it, we must not leave a job untold of.
                files.write_json(self.run.job, {"phase": "spawning"}, durable=False)
            pid = self.leader = keeper.spawn(
                stage["argv"], env, self.run, self.log, self.leases, told
            )
            self._started(pid)
            if index == 0 and self.run.attempt == 1:
                self.aside.do(lambda: self._leave_behind(path))
            end = self._end_of(self._wait(pid, None))
            if end.verdict != "succeeded" or last:
                return end
            self._clear_tree()
        raise AssertionError("a job has a stage")

    def _stages_left(self) -> List[Dict[str, Any]]:
        """All stages; from the second attempt on those from the one that was begun last."""
        stages: List[Dict[str, Any]] = self.order["stages"]
        begun = files.read_regular(self.run.stage, 1000) if self.run.attempt > 1 else None
        names = [stage["name"].encode("utf-8") for stage in stages]
        return stages[names.index(begun) :] if begun in names else stages

    def _end_of(self, ended: Optional[Ending]) -> End:
        assert ended is not None
        word = keeper.word(self.run) or {}
        return causes.judge(ended.code, ended.signal, bool(word.get("oom")), self.run.log)

    def _started(self, pid: int) -> None:
        """What a watcher would need to know if this process were killed; each stage anew."""
        before = files.read_json(self.run.job) or {}
        record = {
            "phase": "running",
            "pid": pid,
            "start_time": procs.start_time(pid),
            "started_at": before.get("started_at") or status.now(),
            "gpus": [card._asdict() for card in self.gpus],
            "time_left": None if self.deadline is None else self.deadline - time.monotonic(),
            "since_boot": time.clock_gettime(time.CLOCK_BOOTTIME),
        }
        self.report(record)
        files.write_json(self.run.job, record)
        self._stand_guard()

    def _stand_guard(self) -> None:
        if self.order.get("guards") and self.guards is None:
            from remote.guards import Guards  # a run without guards does not pay for them

            self.guards = Guards(self.run, self.order["guards"], self.gpus)

    def leave_login(self) -> None:
        stays = scope.leave_login(self.run.run_id)
        if stays is not None:
            self.say("a logout will end this run: %s" % stays)

    # --- the view ---------------------------------------------------------------------------------

    def _choose_view(self) -> None:
        self.view = session.choose(str(self.order.get("session") or "auto"))
        record = {"kind": self.view, "name": session.name_of(self.run.run_id)}
        files.write_json(self.run.session, record, durable=False)

    def _show(self) -> None:
        if not session.open_view(self.view, self.run, session.plain_env()):
            name = session.name_of(self.run.run_id)
            plain = {"kind": "plain", "name": name, "failed": self.view}
            files.write_json(self.run.session, plain, durable=False)

    def _close_view(self) -> None:
        """A session still being opened would stand for ever: its opener, which has a deadline of
        its own, is waited for first."""
        if self.opener is not None:
            self.aside.wait_for(self.opener)
        view = files.read_json(self.run.session)
        if view:
            session.close_view(str(view["kind"]), self.run, session.plain_env())

    def _leave_behind(self, path: str) -> None:
        """For runs to come a copy of the tree; for comparisons what this one ran in."""
        os.nice(10)
        try:
            trees.make_spare(self.layout, str(self.order["snapshot"]))
        finally:
            from remote import surroundings  # here: the supervisor stays small

            surroundings.record(self.run, path, self.gpus)

    # --- waiting ----------------------------------------------------------------------------------

    def _wait(self, pid: Optional[int], seconds: Optional[float]) -> Optional[Ending]:
        """Wait for `pid` to end, without reaping it, or for `seconds` to pass (None).

        Raises Ended when the run is cancelled, asked to end, or past its time.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            self.aside.reap()
            ended = self._ending(pid) if pid is not None else None
            if ended is not None:
                return ended
            pause = 3600.0 if self.poll is None else self.poll
            for limit in (end, self.deadline, self.guards.due if self.guards else None):
                if limit is not None:
                    pause = min(pause, limit - time.monotonic())
            info = signal.sigtimedwait(WATCHED, max(0.0, pause))
            if info is not None and info.si_signo in (signal.SIGTERM, signal.SIGINT):
                raise Ended(self._asked_to_end())
            if self.deadline is not None and time.monotonic() >= self.deadline:
                reason = "its time limit of %g s was reached" % float(self.order["time"])
                raise Ended(End("killed", "time_limit", reasons=(reason,)))
            if self.guards is not None and time.monotonic() >= self.guards.due:
                self._guard()
            if end is not None and time.monotonic() >= end:
                return None

    def _ending(self, pid: int) -> Optional[Ending]:
        """How the child ended, if it did. It stays a zombie, so that its pid stays its own."""
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if info is None:
            return None
        if info.si_code == os.CLD_EXITED:
            return Ending(info.si_status, None)
        return Ending(128 + info.si_status, info.si_status)

    def _guard(self, ended: bool = False) -> None:
        """Write down what the guards found; raises Ended when one of them ends the run."""
        if self.guards is None:
            return
        ending = None
        try:
            fired = self.guards.look(LAST_LOOK if ended else None)
        except Exception as exc:  # a guard that fails must not cost the run its owner
            self.say("the guards failed and are off: %s: %s" % (type(exc).__name__, exc))
            self.guards = None
            return
        for firing in fired:
            acts = firing.action != "warn" and not ended and ending is None
            text = firing.message
            if acts:
                self.grace = firing.grace
                reason = "a guard ended it (%s): %s" % (firing.action, text)
                ending = End("killed", "guard", reasons=(reason,))
            about = {"action": firing.action, "acted": acts, "evidence": firing.evidence}
            about["attempt"] = self.run.attempt
            events.append(self.run, status.now(), "guard", text, guard=firing.guard, **about)
            self.say("guard (%s): %s" % (firing.action if acts else "warn", text))
            self._tell("guard", text)
        self.guards.said()
        if ending is not None:
            raise Ended(ending)

    def _tell(self, event: str, text: str) -> None:
        """Notify whom the spec names, in a child that nobody waits for."""
        order = self.order.get("notify") or {}
        if event not in (order.get("events") or ()) or order.get("by") == "controller":
            return
        text = "%s (%s): %s" % (order.get("job"), self.run.run_id, text)
        message = {"text": text, "event": event, "run_id": self.run.run_id, "job": order.get("job")}
        webhook = self.order.get("webhook") or order.get("webhook")
        if str(webhook).startswith("$"):
            webhook = None  # a watcher's order is from the disk, where the address is not

        def work() -> None:
            from remote import notify

            if webhook is None and order.get("webhook"):
                problem = "the webhook was not told: only the supervisor that was killed knew it"
                events.append(self.run, status.now(), "notify", problem)
            notify.send(self.run, {**order, "webhook": webhook}, message)

        self.aside.do(work)

    def _asked_to_end(self) -> End:
        if self._is_cancelled():
            return End("cancelled", reasons=("cancelled by its user",))
        return causes.of_termination()

    def _is_cancelled(self) -> bool:
        """A cancel may have been meant for the attempt before: it was under way when that ended."""
        mine = owned_by(self.layout, self.run, self.first)
        return any(os.path.exists(run.cancel) for run in mine)

    def _wait_code(self, pid: int) -> int:
        """For the tools that make the environment: their exit code, and nothing of them left."""
        self.leader = pid
        ended = self._wait(pid, None)
        assert ended is not None
        self._clear_tree()
        return ended.code

    # --- after the job ----------------------------------------------------------------------------

    def _clear_tree(self) -> List[int]:
        """End what is left of the job, then let its first process go; pids that would not end."""
        tree = procs.Tree(self.run.run_id, self.leader, [os.getpid(), *self.aside.pids])
        left = procs.end_tree(tree, self.grace, self.aside.reap)
        if self.leader is not None and not left:
            self._reap()
        return left

    def _reap(self) -> None:
        assert self.leader is not None
        self.last = self._ending(self.leader)  # the keeper ends as the job did
        os.waitpid(self.leader, os.WNOHANG)
        self.leader = None

    def _with_process(self, end: End) -> End:
        """With the code or signal of a job that was ended for a reason of ours; the verdict stays.

        One that never began has none, whatever tool of its set-up was ended.
        """
        if self.last is None or (end.exit_code, end.signal) != (None, None):
            return end
        if (files.read_json(self.run.job) or {}).get("phase") != "running":
            return end
        code = self.last.code if self.last.signal is None else None
        return end._replace(exit_code=code, signal=self.last.signal)

    def _record(self, run: RunFiles, end: End) -> None:
        try:
            os.fsync(self.log)
        except OSError:
            end = end._replace(reasons=(*end.reasons, "the end of the log may be missing"))
        status.write_exit(run, end, status.metrics_of(run))

    def _leave(self) -> None:
        for held in self.leases:
            os.close(held)
        self._close_view()
        if self.report_fd is not None:
            self.view = "plain"
            self.report({"phase": "finished"})

    # --- telling ----------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """A line of our own in the run's log."""
        try:
            begun = b"" if ends_line(self.run.log) else b"\n"
            files.write_all(self.log, begun + ("[orch] %s\n" % text).encode("utf-8", "replace"))
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
        if self.view != "plain":
            self.opener = self.aside.do(
                self._show
            )  # after the report: a slow tmux must not delay the job


def ends_line(path: str) -> bool:
    """True for a file that is empty or ends with a line feed."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return True
        file.seek(size - 1)
        return file.read(1) == b"\n"


def detach(report: int) -> None:
    """In a fork of the agent: leave its session, its descriptors and its folder."""
    os.setsid()
    procs.let_go([report])
    os.chdir("/")
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # the agent may leave before our report


def identify(run: RunFiles, **more: Any) -> None:
    """This process is known as the attempt's owner."""
    identity = {
        "pid": os.getpid(),
        "start_time": procs.start_time(os.getpid()),
        "boot_id": procs.boot_id(),
        "agent": os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        **more,
    }
    files.write_json(run.identity, identity, durable=False)  # means nothing after a reboot


def supervise(layout: Layout, run: RunFiles, order: Dict[str, Any], report: int) -> None:
    """The life of the supervisor process; `report` is written one line and closed. Never returns.

    Called in a fork of the agent, which it leaves first.
    """
    detach(report)
    held = files.lock_within(layout.lock(run.run_id + ".lock"), LOCK_PATIENCE)
    if held is None or os.path.exists(run.exit):  # somebody has proved that we would not come
        os._exit(1)
    identify(run)
    if os.path.exists(run.cancel):
        status.write_exit(run, End("cancelled", reasons=("cancelled before it started",)), None)
        os._exit(0)
    owner = Supervisor(layout, run, order, report)
    try:
        owner.leave_login()
        owner.main()
    except Exception as exc:  # the job goes on unowned; its log says what became of its owner
        owner.say("the supervisor failed: %s: %s" % (type(exc).__name__, exc))
        os._exit(1)
    os._exit(0)
