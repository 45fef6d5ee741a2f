"""Claim a run id, lay out its directory, start its supervisor: at most once."""

from __future__ import annotations

import json
import os
import select
import shutil
import time
from typing import Any, Dict, List, Optional

from remote import attempts, datasets, files, gpu, status, store, supervisor, trees, unique, wire
from remote.channel import Beat, Channel
from remote.errors import HEADROOM, Damaged, Refused, before_any_change
from remote.layout import Layout, RunFiles

REPORT_DEADLINE = 20.0


def start(layout: Layout, channel: Channel, request: Dict[str, Any]) -> Dict[str, Any]:
    """Start the run unless its id was started before; the reply is its status.

    `{"need": "tree"}` or `{"need": "data", "names": [...]}` instead when content is missing; then
    nothing was claimed and the same request may come again after a sync.
    """
    run = layout.attempt(str(request["run_id"]), 1)
    with before_any_change(lambda: is_decided(run)):
        return _start(layout, channel, request, run)


def _start(
    layout: Layout, channel: Channel, request: Dict[str, Any], run: RunFiles
) -> Dict[str, Any]:
    delta = _receive_delta(layout, channel, request)
    if is_decided(run):
        return {**status.status(layout, run.run_id), "already": True}
    try:
        store.manifest_of(layout, str(request["tree"]))
    except FileNotFoundError:
        return {"need": "tree"}
    lacking = _lacking_data(layout, request, channel.beat)
    if lacking:
        return {"need": "data", "names": lacking}
    check_host(layout, request["order"], int(request.get("tree_bytes") or 0))
    # Two controllers may hold the same run id: the second waits here and finds it started.
    claim = layout.lock(run.run_id + ".claim")
    guard, config = files.lock_alive(claim, channel.beat), None
    try:
        if is_decided(run):
            return {**status.status(layout, run.run_id), "already": True}
        config = unique.hold(layout, request, channel.beat)
        unique.refuse_second(layout, request)
        refuse_busy(layout, request["order"])
        if not _claimed(layout, run, request, delta, channel.beat):
            return {"need": "tree"}
        return launch(layout, run, {**request["order"], "snapshot": request["tree"]})
    finally:
        if config is not None:
            os.close(config)
        if is_decided(run):  # whoever comes now is told so without the lock
            files.remove(claim)
        os.close(guard)


def is_decided(run: RunFiles) -> bool:
    """The attempt was started, or it was proven and written down that it never will be."""
    return os.path.exists(run.started) or os.path.exists(run.exit)


def _claimed(
    layout: Layout, run: RunFiles, request: Dict[str, Any], delta: bytes, beat: Beat
) -> bool:
    try:
        return _claim(layout, run, request, delta, beat)
    except OSError as exc:
        told = files.full_words(exc, layout.root) if files.is_full(exc) else None  # while it is so
        _withdraw(run)
        if told is None:
            raise
        raise Refused("HostDiskFull", told) from None


def _receive_delta(layout: Layout, channel: Channel, request: Dict[str, Any]) -> bytes:
    """A small change rides along with the request: its lines, then the new objects' bytes."""
    size = int(request.get("delta") or 0)
    if not size:
        return b""
    stream = store.ByteStream(channel.payloads())
    delta = stream.take(size)
    added = [wire.parse_line(line[1:]) for line in wire.split_manifest(delta) if line[:1] == b"+"]
    sent = {}
    for entry in added:
        if entry.sha256 not in sent:
            sent[entry.sha256] = stream.take(entry.size)
    try:
        old = store.manifest_of(layout, str(request["base"]))
    except FileNotFoundError:
        return b""
    indexes = [(index, 0) for index, entry in enumerate(added) if entry.sha256 in sent]
    for index, _ in indexes:
        content = sent.pop(added[index].sha256, None)
        if content is not None:
            replay = store.ByteStream(iter([content]))
            store.receive(layout, added, [(index, 0)], replay)
    store.commit_tree(layout, wire.apply_delta(old, delta), str(request["tree"]))
    return delta


def _lacking_data(layout: Layout, request: Dict[str, Any], beat: Beat) -> List[str]:
    lacking = []
    for item in request.get("data") or []:
        if item.get("tree") and not datasets.is_intact(layout, item["tree"], beat):
            lacking.append(item["name"])
        elif item.get("at") and not os.path.exists(os.path.expanduser(item["at"])):
            message = "data %r: %s does not exist on the host" % (item["name"], item["at"])
            raise Refused("NoData", message)
    return lacking


def check_host(layout: Layout, order: Dict[str, Any], more: int) -> None:
    """Refused when there is no room for `more` bytes and what the run needs, or too few GPUs."""
    needed = more + int(order.get("disk") or 0) + HEADROOM
    free = files.free_bytes(layout.root)
    if free < needed:
        text = "%s are free under %s on the host, the run needs %s"
        has, wants = files.size(free), files.size(needed)
        raise Refused("NoRoom", text % (has, layout.root, wants))
    if order.get("gpus_max"):
        least, seen = int(order.get("gpus_min") or 0), len(_cards(order))
        if seen < least:
            text = "the run needs %d GPU(s), nvidia-smi on the host shows %d"
            raise Refused("GpuBusy", text % (least, seen))


def refuse_busy(layout: Layout, order: Dict[str, Any]) -> None:
    """Refused when others use so many GPUs that waiting for runs of ours would not do."""
    if not order.get("gpus_max") or order.get("gpu_use") != "alone":
        return
    cards = _cards(order)
    least = gpu.must_have(order, len(cards))
    reasons = gpu.why_not_to_be_had(layout, cards, order.get("gpu_memory"))
    if len(cards) - len(reasons) < least:
        text = "the run needs %d GPU(s); %s%s"
        raise Refused("GpuInUse", text % (least, "; ".join(reasons), _without(order)))


def _cards(order: Dict[str, Any]) -> List[gpu.Gpu]:
    try:
        return gpu.probe()
    except gpu.NoAnswer as exc:
        text = "%s: its GPUs cannot be judged free%s"
        raise Refused("GpuBusy", text % (exc, _without(order))) from None


def _without(order: Dict[str, Any]) -> str:
    """The way on for a run that may do without."""
    return "" if order.get("gpus_min") else "; `resources.gpus: 0` runs it without a GPU"


def _claim(
    layout: Layout, run: RunFiles, request: Dict[str, Any], delta: bytes, beat: Beat
) -> bool:
    """The run directory with its tree, config and empty log; False when the store was damaged."""
    try:
        os.mkdir(run.path, 0o700)
    except FileExistsError:
        shutil.rmtree(run.tree, ignore_errors=True)  # claimed before, never started: begin again
    try:
        tree, base = str(request["tree"]), str(request.get("base") or "")
        trees.take(layout, tree, base, delta, run.tree, beat)
    except Damaged:
        shutil.rmtree(run.tree, ignore_errors=True)
        files.remove(layout.tree(tree))
        _withdraw(run)
        return False
    _lay_results(run, str(request["order"]["results_dir"]))
    _lay_data(layout, run, request)
    files.write_atomic(run.config, request["config"].encode("utf-8"), durable=False)
    files.write_json(run.spec, request["spec"], durable=False)
    # Of the config a copy: the job has config.json, and a later attempt is to have it as it was.
    order = {**request["order"], "snapshot": request["tree"], "config": request["config"]}
    order.pop("webhook", None)
    order["secrets_named"] = sorted(order.pop("secrets", None) or {})
    files.write_json(run.order, order, durable=False)
    attempts.lay_reserve(run)
    return True


def _lay_results(run: RunFiles, results_dir: str) -> None:
    """The run's results folder, seen from the job's working directory under the spec's name."""
    os.makedirs(run.results, 0o700, exist_ok=True)
    seen = os.path.join(run.tree, results_dir)
    os.makedirs(os.path.dirname(seen), 0o700, exist_ok=True)
    if not os.path.lexists(seen):
        os.symlink(os.path.relpath(run.results, os.path.dirname(seen)), seen)


def _lay_data(layout: Layout, run: RunFiles, request: Dict[str, Any]) -> None:
    os.makedirs(run.data, 0o700, exist_ok=True)
    for item in request.get("data") or []:
        target = layout.dataset(item["tree"]) if item.get("tree") else item["at"]
        if item.get("file"):  # the data is this one file, which has the folder for itself
            target = os.path.join(target, item["file"])
        link = os.path.join(run.data, item["name"])
        if not os.path.lexists(link):
            os.symlink(os.path.expanduser(target), link)


def _withdraw(run: RunFiles) -> None:
    """Undo a claim of ours that never reached the start marker."""
    if not os.path.exists(run.started):
        shutil.rmtree(run.path, ignore_errors=True)


def launch(layout: Layout, run: RunFiles, order: Dict[str, Any]) -> Dict[str, Any]:
    """Start the attempt unless it was started before; the reply is the run's status."""
    if not attempts.mark_begun(run):
        return {**status.status(layout, run.run_id), "already": True}
    report = _first_report(_fork_supervisor(layout, run, order))
    known = status.status(layout, run.run_id)
    if report and known["phase"] in ("queued", "starting"):
        # The job was spawned a moment ago; its record is still on its way to the disk.
        known.update({key: report[key] for key in ("phase", "started_at") if key in report})
    return known


def _fork_supervisor(layout: Layout, run: RunFiles, order: Dict[str, Any]) -> int:
    """The descriptor on which the new supervisor reports."""
    report_read, report_write = os.pipe()
    if os.fork() == 0:
        # Forked, not executed anew: an interpreter's start-up is time the job would wait.
        try:
            supervisor.supervise(layout, run, order, report_write)
        finally:
            os._exit(1)
    os.close(report_write)
    return report_read


def _first_report(pipe: int) -> Optional[Dict[str, Any]]:
    """What the supervisor says first; None if it ended or stayed silent (its files tell then)."""
    end = time.monotonic() + REPORT_DEADLINE
    text = b""
    try:
        while b"\n" not in text:
            ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(pipe, 65536) if ready else b""
            if not chunk:
                return None
            text += chunk
    finally:
        os.close(pipe)
    value = json.loads(text.split(b"\n")[0].decode("utf-8"))
    return value if isinstance(value, dict) else None
