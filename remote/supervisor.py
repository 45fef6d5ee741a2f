"""Owns one run until it ends: lease, environment, spawn, wait, exit record, and the next attempt.

It holds a kernel lock for as long as it lives, so that anyone can see whether it does. The job
writes straight into the log file and its own parent, the keeper, notes how it ends: when the
supervisor dies the job does not notice. tmux or screen only show the log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from remote import (
    causes,
    environment,
    files,
    gpu,
    keeper,
    leader,
    ownership,
    preparation,
    procs,
    scope,
    status,
    trees,
)
from remote.aside import Aside
from remote.attempts import Attempt, asked_for, begin_next, owned_by
from remote.causes import End
from remote.layout import Layout, RunFiles
from remote.leader import Ending
from remote.view import View
from remote.voice import Voice

if TYPE_CHECKING:
    from remote.sentry import Sentry

QUEUE_POLL = 3.0
SETUP_POLL = 1.0
STUCK_POLL = 5.0
TOUCH_EVERY = 3600.0


class Ended(Exception):
    """The run is over before or besides its job's own end."""

    def __init__(self, end: End) -> None:
        super().__init__(end.verdict)
        self.end = end


class Supervisor:
    """One run's owner. `main` is the life of one; `remote.adopt` has another beginning."""

    def __init__(
        self, layout: Layout, attempt: Attempt, order: Dict[str, Any], report: Optional[int]
    ) -> None:
        self.layout = layout
        self.attempt = attempt
        self.order = order
        self.gpus: List[gpu.Gpu] = []
        self.leases: List[int] = []
        self.aside = Aside()
        self.view = View(attempt.run, self.aside)
        self.voice = Voice(attempt.run, order, report, self.aside)
        self.first = attempt.run.attempt  # the earliest that this process owned
        self.touch_at = time.monotonic() + TOUCH_EVERY

    @property
    def run(self) -> RunFiles:
        return self.attempt.run

    def main(self) -> None:
        """After this returns the exit records stand and every process of the run is gone."""
        self.view.choose(str(self.order.get("session") or "auto"))
        self.live(self._fresh)

    def live(self, first: Callable[[], End]) -> None:
        """The rest of the run's life, whose present attempt ends as `first` tells."""
        end = first()
        while self._over(end):
            end = self._fresh()

    def _fresh(self) -> End:
        """The end of an attempt that is begun here."""
        try:
            if self.run.attempt > 1:
                self.voice.say("attempt %d" % self.run.attempt)
                self._hold_to_what_was_sent()
            self._lease()
            return self._stages(self._environment())
        except Ended as ended:
            return ended.end
        except environment.SetupFailed as exc:
            return End("failed", "setup", reasons=("setup: %s" % exc,))
        except OSError as exc:
            reason = "%s: %s" % (exc.filename or "the job", exc.strerror)
            self.voice.say(reason)
            return End("failed", "not_started", 127, None, (reason,))

    def _over(self, end: End) -> bool:
        """Write the attempt down; True when the spec wants another, then `self.attempt`.

        Nothing is recorded while a process of it is left, e.g. one in uninterruptible sleep: it may
        still write, and holds its GPUs.
        """
        while True:
            left = self._clear_tree()
            if not left:
                break
            self.voice.say("%d processes would not end: %s" % (len(left), left[:20]))
            time.sleep(STUCK_POLL)
        done = self.run
        end = self.attempt.leader.told_in(end, done)
        if self.attempt.sentry is not None:
            self.attempt.sentry.look(ended=True)
        end, following = self._next(done, end)
        if following is None:
            self._let_go()  # before the record, which may have to wait
        self._record(done, end)
        self.voice.notify(done, "end", ": ".join([end.verdict, *end.reasons[:3]]))
        if following is None:
            self._leave()
            return False
        self.attempt = Attempt(following, self.order)
        return True

    def _next(self, done: RunFiles, end: End) -> Tuple[End, Optional[RunFiles]]:
        """The end of `done` with a word of the attempt that follows, and that, begun, if the spec
        wants one, its data is still the same, and it can be begun."""
        if not asked_for(self.order.get("retry"), end, done.attempt) or self._is_cancelled():
            return end, None
        try:
            self._check_data(done)
            following = None if self._is_cancelled() else begin_next(self.layout, done)
        except OSError as exc:
            full = files.is_full(exc)
            why = files.full_words(exc, self.layout.root) if full else files.words(exc)
            told = "no attempt follows: %s" % why
            self.voice.say(told)
            return end._replace(reasons=(*end.reasons, told)), None
        if following is None:
            return end, None
        # Its marker is there now: who finds this end looks for one, and knows it is not the last.
        ownership.identify(following)
        told = "attempt %d follows" % following.attempt
        return end._replace(reasons=(*end.reasons, told)), following

    def _check_data(self, done: RunFiles) -> None:
        """OSError where its data is not what was sent."""

        def look() -> None:
            from remote import drift  # in a child: a large dataset has a large manifest

            for name in drift.changed_data(self.layout, done):
                raise OSError(0, "its data %r was changed on the host since" % name)

        try:
            procs.in_child(look)
        except RuntimeError:
            raise OSError(0, "its data could not be checked") from None

    # --- before the job ---------------------------------------------------------------------------

    def _hold_to_what_was_sent(self) -> None:
        """The config is as it was at first; what else an attempt before has changed is told."""
        from remote import drift

        def tell_code() -> None:
            paths = drift.changed_code(self.layout, self.run)
            if paths:
                self.voice.changed(self.run, drift.words(paths))

        if drift.restore_config(self.run):
            told = "config.json was changed since the start; attempt %d has it as it was sent"
            self.voice.changed(self.run, told % self.run.attempt)
        with contextlib.suppress(RuntimeError):  # killed, for memory perhaps: it was to tell only
            procs.in_child(tell_code)

    def _lease(self) -> None:
        if not self.leases:
            self.gpus, self.leases = preparation.lease(
                self.layout, self.run, self.order, self.voice.say, self._queue
            )

    def _queue(self) -> None:
        self._report({"phase": "queued"})
        self._wait(None, QUEUE_POLL)

    def _environment(self) -> str:
        if self.order.get("requirements"):
            self._report({"phase": "queued", "why": "its environment is being made"})
        voice = self.voice
        maker = environment.Maker(self.run, voice.log, voice.say, self._wait_code, self._pause)
        return preparation.search_path(self.layout, self.order, maker)

    def _report(self, value: Dict[str, Any]) -> None:
        if self.voice.report(value):
            self.view.open()

    def _pause(self) -> None:
        self._wait(None, SETUP_POLL)

    def _wait_code(self, pid: int) -> int:
        """For the tools that make the environment: their exit code, and nothing of them left."""
        self.attempt.leader.pid = pid
        ended = self._wait(pid, None)
        assert ended is not None
        self._clear_tree()
        return ended.code

    # --- the job ----------------------------------------------------------------------------------

    def _stages(self, path: str) -> End:
        """The end of the first stage that failed, or of the last one."""
        env = preparation.variables(self.run, self.order, path, self.gpus)
        limit = self.order.get("time")
        self.attempt.deadline = time.monotonic() + float(limit) if limit else None
        stages = preparation.stages_left(self.run, self.order["stages"])
        for index, stage in enumerate(stages):
            last = index + 1 == len(stages)
            if len(self.order["stages"]) > 1:
                self.voice.say("stage %s" % stage["name"])
                files.write_atomic(self.run.stage, stage["name"].encode("utf-8"), durable=False)
            told = {"stage": stage["name"], "last": last}
            if index == 0:
                # Before the fork: killed right after it, we must not leave a job untold of.
                spawning = leader.spawning(self.gpus, self._time_left())
                files.write_json(self.run.job, spawning, durable=False)
            pid = self.attempt.leader.pid = keeper.spawn(
                stage["argv"], env, self.run, self.voice.log, self.leases, told
            )
            self._started(pid)
            if index == 0 and not os.path.exists(self.run.synced):
                self.aside.do(lambda: self._leave_behind(path))
            end = self._end_of(self._wait(pid, None))
            if end.verdict != "succeeded" or last:
                return end
            self._clear_tree()
        raise AssertionError("a job has a stage")

    def _end_of(self, ended: Optional[Ending]) -> End:
        assert ended is not None
        self._tell_outlived()
        word = keeper.word(self.run) or {}
        return causes.judge(ended.code, ended.signal, bool(word.get("oom")), self.run.log)

    def _tell_outlived(self) -> None:
        self.voice.outlived(self.run, self.attempt.leader.outlived(self.run.run_id, self.aside))

    def _started(self, pid: int) -> None:
        record = leader.record(self.run, pid, self.gpus, self._time_left())
        self._report(record)
        files.write_json(self.run.job, record)
        self._stand_guard()

    def _time_left(self) -> Optional[float]:
        deadline = self.attempt.deadline
        return None if deadline is None else deadline - time.monotonic()

    def _stand_guard(self) -> None:
        if self.order.get("guards") and self.attempt.sentry is None:
            from remote.sentry import Sentry  # a run without guards does not pay for them

            self.attempt.sentry = Sentry(self.run, self.order["guards"], self.gpus, self.voice)

    def leave_login(self) -> None:
        stays = scope.leave_login(self.run.run_id)
        if stays is not None:
            self.voice.say("a logout will end this run: %s" % stays)

    def _leave_behind(self, path: str) -> None:
        """What the run needs to go on after a crash is on the disk. Of its first attempt also, for
        runs to come, a copy of the tree, and for comparisons what it ran in."""
        os.nice(10)
        try:
            files.sync_tree(self.run.tree)
            for record in (self.run.config, self.run.spec, self.run.order):
                files.sync_dir(record)
            files.write_once(self.run.synced, b"")
        finally:
            if self.run.attempt == 1:
                self._leave_copies(path)

    def _leave_copies(self, path: str) -> None:
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
        attempt = self.attempt
        while True:
            self.aside.reap()
            self._touch_locks()
            ended = attempt.leader.ending(pid) if pid is not None else None
            if ended is not None:
                if ended.code != 0 and causes.is_logout():
                    raise Ended(self._asked_to_end())  # the job may go before us
                return ended
            pause = TOUCH_EVERY if attempt.leader.poll is None else attempt.leader.poll
            sentry = attempt.sentry
            for limit in (end, attempt.deadline, sentry.due if sentry else None):
                if limit is not None:
                    pause = min(pause, limit - time.monotonic())
            info = signal.sigtimedwait(ownership.WATCHED, max(0.0, pause))
            if info is not None and info.si_signo in (signal.SIGTERM, signal.SIGINT):
                raise Ended(self._asked_to_end())
            if attempt.deadline is not None and time.monotonic() >= attempt.deadline:
                reason = "its time limit of %g s was reached" % float(self.order["time"])
                attempt.grace = attempt.to_leave
                raise Ended(End("killed", "time_limit", reasons=(reason,)))
            if sentry is not None and time.monotonic() >= sentry.due:
                self._guard(sentry)
            if end is not None and time.monotonic() >= end:
                return None

    def _touch_locks(self) -> None:
        """Where they lie in /tmp, what was not touched for days may be swept away there, and then
        another run could hold them too."""
        if time.monotonic() < self.touch_at:
            return
        self.touch_at = time.monotonic() + TOUCH_EVERY
        for name in (self.run.run_id + ".lock", *map(gpu.lock_name, self.gpus)):
            files.touch(self.layout.lock(name))

    def _guard(self, sentry: Sentry) -> None:
        ending = sentry.look()
        if ending is not None:
            end, self.attempt.grace = ending
            raise Ended(end)

    def _asked_to_end(self) -> End:
        self.attempt.grace = self.attempt.to_leave
        if self._is_cancelled():
            return End("cancelled", reasons=("cancelled by its user",))
        return causes.of_termination()

    def _is_cancelled(self) -> bool:
        """A cancel may have been meant for the attempt before: it was under way when that ended."""
        mine = owned_by(self.layout, self.run, self.first)
        return any(os.path.exists(run.cancel) for run in mine)

    # --- after the job ----------------------------------------------------------------------------

    def _clear_tree(self) -> List[int]:
        return self.attempt.leader.clear(self.run.run_id, self.aside, self.attempt.grace)

    def _record(self, run: RunFiles, end: End) -> None:
        """The exit record stands. Where it cannot be written (others keep the disk full, a file
        server is away) it is tried until it can: without it the run would be taken for lost."""
        try:
            os.fsync(self.voice.log)
        except OSError:
            end = end._replace(reasons=(*end.reasons, "the end of the log may be missing"))
        ended_at, told = status.now(), False
        while True:
            try:
                status.write_exit(run, end, status.metrics_of(run), ended_at)
                return
            except FileNotFoundError:  # its folder was taken away
                raise
            except OSError as exc:
                if not told:
                    self.voice.say("its end cannot be written down yet: %s" % files.words(exc))
                told = True
            self.aside.reap()
            time.sleep(STUCK_POLL)

    def _let_go(self) -> None:
        """Others may have the GPUs."""
        while self.leases:
            os.close(self.leases.pop())

    def _leave(self) -> None:
        self.view.close()
        self.voice.report({"phase": "finished"})


def supervise(layout: Layout, run: RunFiles, order: Dict[str, Any], report: int) -> None:
    """The life of the supervisor process; `report` is written one line and closed. Never returns.

    Called in a fork of the agent, which it leaves first.
    """
    if not ownership.take(layout, run, report):
        os._exit(1)
    if os.path.exists(run.cancel):
        status.write_exit(run, End("cancelled", reasons=("cancelled before it started",)), None)
        os._exit(0)
    supervisor = Supervisor(layout, Attempt(run, order), order, report)
    try:
        supervisor.leave_login()
        supervisor.main()
    except Exception as exc:  # the job goes on unowned; its log says what became of its owner
        supervisor.voice.say("the supervisor failed: %s: %s" % (type(exc).__name__, exc))
        os._exit(1)
    os._exit(0)
