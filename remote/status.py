"""What is known of a run, from evidence only.

A run has ended when its exit record exists. Without one it has ended only if that can be proved:
another boot, or a free lock and no process that carries its tag. The proof is then written down as
the exit record, so that it is found once and never argued again.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Dict, Optional, Tuple

from remote import causes, files, keeper, procs, session
from remote.causes import End
from remote.layout import Layout, RunFiles

EXIT_MAX = 8 * 1024 * 1024  # bytes of an exit record: what is larger is neither written nor read
OPEN = ("starting", "queued", "running", "unowned")  # phases of a run that was started and goes on
START_GRACE = 15.0  # seconds between the start marker and a supervisor that holds its lock


def now() -> str:
    """ISO 8601, UTC, microseconds. For display; nothing is decided by it."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + ".%06dZ" % (
        int(seconds * 1e6) % 1000000
    )


def status(layout: Layout, run_id: str) -> Dict[str, Any]:
    """`phase` is absent | claimed | starting | queued | running | unowned | finished, of the run's
    latest attempt. `machine`: the name of another one that has this root too, and on which the
    attempt was started; `phase` is then what its records say, since nothing here can prove an end.
    `exit`: the record of one that is finished; null with `exit_fault`, why it can never be read, or
    null alone where it cannot be read now.
    `place`: this machine and this root, which alone can say that they do not have a run.
    """
    run = layout.run(run_id)
    report: Dict[str, Any] = {"run_id": run_id, "phase": "absent", "host_time": now()}
    report["place"] = {**procs.machine(), "root": layout.root}
    if not os.path.isdir(run.path):
        return report
    run, report["phase"] = _latest(layout, run)
    report["attempt"] = run.attempt
    away = other_machine(layout, run)
    if away is not None:
        report["machine"] = away
    job = files.read_json(run.job) or {}
    report["started_at"] = job.get("started_at")
    report["gpus"] = job.get("gpus")
    report["session"] = files.read_json(run.session)
    try:
        report["log_size"] = os.stat(run.log).st_size
    except OSError:
        report["log_size"] = 0
    if os.path.exists(run.events):
        from remote import events  # only where there are any

        report["events"] = events.read(run)
    if report["phase"] == "finished":
        report["exit"], fault = exit_record(run)
        if fault is not None:
            report["exit_fault"] = fault
    elif (files.read_json(run.identity) or {}).get("adopted_at"):
        report["adopted"] = True
    return report


def exit_record(run: RunFiles) -> Tuple[Optional[Dict[str, Any]], Optional[str]]:
    """The attempt's exit record, which is written whole or not at all. Else None, and what is wrong
    with what stands in its place; None for that too where the disk does not hand it out."""
    try:
        raw = files.read_regular(run.exit, EXIT_MAX)
    except OSError:
        raw = None
    if raw is None:
        return None, None
    if len(raw) > EXIT_MAX:
        return None, "it is larger than %d MiB" % (EXIT_MAX >> 20)
    try:
        record = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        record = None
    return (record, None) if isinstance(record, dict) else (None, "it is damaged")


def _latest(layout: Layout, run: RunFiles) -> Tuple[RunFiles, str]:
    """The run's latest attempt and its phase. An attempt whose exit record is there was the latest
    only if no marker of another is there now: the marker comes before the record."""
    while True:
        phase = _phase(layout, run)
        if phase != "finished":
            return run, phase
        latest = layout.run(run.run_id)
        if latest.attempt == run.attempt:
            return run, phase
        run = latest


def _phase(layout: Layout, run: RunFiles) -> str:
    if os.path.exists(run.exit):
        return "finished"
    lock = layout.lock(run.run_id + ".lock")
    if files.is_locked(lock):
        job = files.read_json(run.job)
        return "running" if job and job.get("phase") == "running" else "queued"
    if not os.path.exists(run.started):
        return "claimed"
    return _unlocked(layout, run, lock)


def _unlocked(layout: Layout, run: RunFiles, lock: str) -> str:
    """Started, yet nobody holds the lock and no exit record was there a moment ago."""
    if other_machine(layout, run) is not None:
        job = files.read_json(run.job) or {}
        return "running" if job.get("phase") == "running" else "queued"
    started = files.read_json(run.started) or {}
    same_boot = started.get("boot_id") == procs.boot_id()
    identity = files.read_json(run.identity)
    if same_boot:
        if identity and procs.is_same(identity.get("pid"), identity.get("start_time")):
            return "running"  # the lock is gone, its holder is not: a lock file was swept away
        if identity is None and 0 <= _age(started) < START_GRACE:
            return "starting"
    # Under the lock: a supervisor that comes up after all must find the record, or we find it.
    held = files.try_lock(lock)
    if held is None:
        return _phase(layout, run)
    try:
        if os.path.exists(run.exit):
            return "finished"
        if same_boot and tree_of(run).living():
            return "unowned"
        _record_loss(run, same_boot)
        return "finished"
    finally:
        os.close(held)


def other_machine(layout: Layout, run: RunFiles) -> Optional[str]:
    """The name of the machine on which the attempt was started, if that is not this one: several
    may have one home, and copies of one image one id. None also when nothing tells."""
    started = files.read_json(run.started) or {}
    there, here = started.get("machine"), procs.machine()
    if not isinstance(there, dict) or there == here:
        return None
    if started.get("boot_id") == procs.boot_id() or files.filesystem(layout.root) == "local":
        return None  # a new name or id of this very machine
    return str(there.get("name"))


def tree_of(run: RunFiles) -> procs.Tree:
    """The processes of a run that is not this process's own child."""
    job = files.read_json(run.job) or {}
    leads = procs.is_same(job.get("pid"), job.get("start_time"))
    return procs.Tree(run.run_id, int(job["pid"]) if leads else None, [os.getpid()])


def _age(started: Dict[str, Any]) -> float:
    """Seconds since this start marker of the present boot was set."""
    since = started.get("since_boot")
    return procs.since_boot() - since if isinstance(since, (int, float)) else START_GRACE


def _record_loss(run: RunFiles, same_boot: bool) -> None:
    metrics = metrics_of(run)
    if same_boot:  # before the record: after it a next attempt may open a session of that name
        session.close(run)
    write_exit(run, end_without_supervisor(run, same_boot), metrics)


def end_without_supervisor(run: RunFiles, same_boot: bool = True) -> End:
    """How an attempt ended that nobody watched to its end: by its keeper's word, if it left one."""
    word = keeper.word(run)
    job = files.read_json(run.job)
    if word is None and job is None:
        told = "the host accepted the run but its job was not started"
        return End("never_started", reasons=(told,))
    shut_down = not same_boot and word is not None and word.get("signal") is not None
    if word is not None and not shut_down:
        code, number = int(word["code"]), word.get("signal")
        end = causes.judge(code, number, bool(word.get("oom")), run.log)
        if word.get("last") or end.verdict != "succeeded":
            told = "its supervisor was gone when it ended"
            return end._replace(reasons=(*end.reasons, told))
        told = "stage %s succeeded; its supervisor was killed and nobody started the next one"
        return End("lost", "supervisor_lost", reasons=(told % word.get("stage"),))
    if not same_boot:
        told = "the host was restarted while the run was going"
        return End("lost", "reboot", reasons=(told,))
    told = "its supervisor and all of its processes are gone, and left no exit record"
    if job is not None and job.get("phase") != "running":
        told = "its supervisor was killed in the moment its job was started"
    return End("lost", "supervisor_lost", reasons=(told,))


def write_exit(
    run: RunFiles, end: End, metrics: Optional[Dict[str, Any]], ended_at: Optional[str] = None
) -> bool:
    """Write the exit record unless there is one; True if this one stands. Survives a full disk."""
    job = files.read_json(run.job) or {}
    reasons = list(end.reasons)
    record = {
        "run_id": run.run_id,
        "attempt": run.attempt,
        "verdict": end.verdict,
        "cause": end.cause,
        "exit_code": end.exit_code,
        "signal": end.signal,
        "reasons": reasons,
        "started_at": job.get("started_at"),
        "ended_at": ended_at or now(),
        "boot_id": procs.boot_id(),
        "metrics": metrics,
    }
    raw = _encode(record)
    if len(raw) > EXIT_MAX:
        words = "the metrics take more than %d MiB in the run's exit record, so they are not in it"
        record["metrics"] = {"error": words % (EXIT_MAX >> 20)}
        raw = _encode(record)
    try:
        return files.write_once(run.exit, raw)
    except OSError as exc:
        if not files.is_full(exc):
            raise
    files.remove(run.reserve)
    try:
        return files.write_once(run.exit, raw)
    except OSError as exc:
        if not files.is_full(exc):
            raise
    record["metrics"] = None
    record["reasons"] = [*reasons, "the disk is full: metrics were not recorded"]
    return files.write_once(run.exit, _encode(record))


def _encode(record: Dict[str, Any]) -> bytes:
    """UTF-8, in which text is not longer than it was; what of a path has no characters stays
    escaped."""
    text = json.dumps(record, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")


METRICS_MAX = 4 * 1024 * 1024


def results_root(run: RunFiles, results_dir: str) -> str:
    """Where the results are: the run's own folder, or one the job put, or linked to, in its place
    in the tree."""
    inside = os.path.join(run.tree, results_dir)
    own = os.path.realpath(inside) == os.path.realpath(run.results)
    return inside if os.path.isdir(inside) and not own else run.results


def metrics_of(run: RunFiles) -> Optional[Dict[str, Any]]:
    """{"text": ...} of the job's metrics file, or {"error": ...}; None when there is none."""
    spec = files.read_json(run.spec) or {}
    name = str(spec.get("metrics_file") or "results/metrics.json")
    folder = str(spec.get("results_dir") or "results")
    relative = os.path.relpath(name, folder)
    try:
        raw = files.read_regular(os.path.join(results_root(run, folder), relative), METRICS_MAX)
    except OSError as exc:
        return {"error": "%s cannot be read: %s" % (name, exc.strerror)}
    if raw is None:
        return None
    if len(raw) > METRICS_MAX:
        words = "%s is larger than %d MiB; a matrix of so many classes belongs in a file of its own"
        return {"error": words % (name, METRICS_MAX >> 20)}
    try:
        return {"text": raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {"error": "%s is not UTF-8" % name}


def view_state(run: RunFiles) -> Dict[str, Any]:
    """The session as recorded, and whether it stands now."""
    known = files.read_json(run.session) or {"kind": "plain", "name": session.name_of(run.run_id)}
    env = session.plain_env()
    return {**known, "open": session.is_open(str(known["kind"]), run, env)}
