"""A recorded run brought to its host: code and data that it lacks, then the one start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.background import Background
from orchestrator.domain import Run
from orchestrator.ledger.store import Ledger
from orchestrator.manifest import Scan
from orchestrator.transport.base import Agent
from orchestrator.transport.replies import unlawful, words
from orchestrator.usecases import datasets, ready, startorder, sync
from orchestrator.usecases.context import Context
from orchestrator.usecases.plan import Plan
from orchestrator.usecases.settle import settle
from orchestrator.wording import size

START_WITHIN = 3600.0  # seconds in which the host may copy a large tree, with signs of life


@dataclass(slots=True)
class Start:
    """How far the start of a run got. `sent`: the host may have begun it. `taken`: it said so, and
    no error on this side can mean any more that it was refused."""

    sent: bool = False
    taken: bool = False


def deliver(ctx: Context, plan: Plan, ledger: Ledger, run: Run, began: Start) -> tuple[Run, Agent]:
    """Connect and read the tree at the same time; then content, then the start."""
    connecting = Background(lambda: ctx.connect(plan.host))
    try:
        content = plan.content or read_content(ctx, plan)
    except BaseException:
        connecting.discard(lambda agent: agent.close())
        raise
    agent = connecting.result()
    try:
        return _start(ctx, plan, ledger, run, agent, content, began), agent
    except BaseException:
        agent.close()
        raise


def read_content(ctx: Context, plan: Plan) -> ready.Content:
    """The project's files and the data as they are now."""
    code = ready.code(ctx, plan.project, plan.spec, plan.listing, plan.max_file)
    content = ready.Content(code, datasets.scans(ctx, plan.data))
    ready.tell_left_out(ctx, (*code.skipped, *plan.left_out))
    return content


def _start(
    ctx: Context,
    plan: Plan,
    ledger: Ledger,
    run: Run,
    agent: Agent,
    content: ready.Content,
    began: Start,
) -> Run:
    scan, data = content.code, content.data
    remembered = ctx.layout.host_cache(plan.host.name, plan.project)
    old = scan.manifest if content.sent else _read(remembered)
    body = startorder.body(plan, run, scan, data)
    attached: list[bytes] = []
    if old is None:
        _push(ctx, agent, scan, "code")
    elif old != scan.manifest:
        change = sync.inline_change(scan, old)
        if change is None:
            _push(ctx, agent, scan, "code")
        else:
            delta, objects = change
            body = {**body, "base": _tree(old), "delta": len(delta)}
            attached = [delta, *objects]
    reply = _start_call(agent, body, attached, began)
    for _ in range(3):
        if not reply.get("need"):
            break
        began.sent = False  # nothing was claimed: the same request may come again
        if reply["need"] == "tree":
            _push(ctx, agent, scan, "code")
        else:
            for name in words(reply.get("names")):
                if name not in data:
                    raise unlawful(f"a wish for data {name[:80]!r}, which the job does not have")
                pushed = _push(ctx, agent, data[name], f"data {name}", dataset=True)
                if pushed.get("replaced"):
                    ctx.say(f"data {name} had been changed on {run.host} and is whole again there")
        body = {key: value for key, value in body.items() if key not in ("base", "delta")}
        reply = _start_call(agent, body, [], began)
    began.taken = True
    hashes = {name: item.tree for name, item in data.items()}
    ledger.synced(run.run_id, ctx.now(), scan.tree, hashes)
    started = settle(ledger, ledger.get(run.run_id), reply, ctx.now())
    _remember(remembered, scan.manifest)
    return started


def _start_call(
    agent: Agent, body: Mapping[str, Any], attached: list[bytes], began: Start
) -> dict[str, Any]:
    began.sent = True
    return agent.call("start", body, attached, within=START_WITHIN)


def _push(
    ctx: Context, agent: Agent, scan: Scan, what: str, dataset: bool = False
) -> dict[str, Any]:
    shown = 0

    def progress(sent: int, total: int) -> None:
        nonlocal shown
        if total > (8 << 20) and sent * 10 // total > shown:
            shown = sent * 10 // total
            ctx.say(f"sending {what}: {size(sent)} of {size(total)}")

    return sync.push(agent, scan, dataset=dataset, progress=progress)


def _tree(manifest: bytes) -> str:
    from remote import wire

    return wire.tree_hash(manifest)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _remember(path: Path, manifest: bytes) -> None:
    """Best effort: without it the next submit only sends its manifest again."""
    tmp = path.with_suffix(f".tmp{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        tmp.write_bytes(manifest)
        os.replace(tmp, path)
    except OSError:
        pass
