"""What only the host can tell before a run: room, GPUs, data, the file it starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.checks import checkpoint as fitting
from orchestrator.checks import cuda
from orchestrator.checks.checkpoint import NoTensors, TensorInfo, tensors_of
from orchestrator.domain import Finding, Host, Severity
from orchestrator.jobspec import JobSpec
from orchestrator.spec import data_for
from orchestrator.transport.base import Agent
from orchestrator.usecases import modellisting
from orchestrator.usecases.context import Context
from orchestrator.usecases.modellisting import LOCAL
from orchestrator.wording import counted

SURVEY_DEADLINE = 90.0  # nvidia-smi, a python to start, perhaps pip: each has its own deadline
LOW_INODES = 10_000
HEADROOM = 64 << 20
RULE = "host"


# --- the host as it is now ------------------------------------------------------------------------


def host_findings(ctx: Context, spec: JobSpec, host: Host) -> list[Finding]:
    """What speaks against this run on this host now. Asks the host once."""
    facts = _asked(ctx, spec, host)
    return [*_secrets(ctx, spec), *_room(spec, host, facts), *_gpus(spec, host, facts),
            *_driver(spec, host, facts), *_data(spec, host, facts)]  # fmt: skip


def gpu_findings(ctx: Context, spec: JobSpec, host: Host) -> list[Finding]:
    """What a start does not look at itself: whether the host's GPUs are large enough, and whether
    the job's torch would see them. A job that wants none costs nothing."""
    if not spec.resources.gpus_max:
        return []
    facts = _asked(ctx, spec, host)
    if not facts.get("gpus"):
        return []  # the start refuses a run that must have one, in words of its own
    return [*_gpus(spec, host, facts), *_driver(spec, host, facts)]


def _asked(ctx: Context, spec: JobSpec, host: Host) -> Mapping[str, Any]:
    body: dict[str, Any] = {
        "at": [source.at for source in data_for(spec) if source.at is not None],
        "gpus": True,
    }
    if spec.requirements:
        body["requirements"] = modellisting.requirements(ctx, spec)
    with ctx.connect(host) as agent:
        return agent.call("survey", body, deadline=SURVEY_DEADLINE)


def _finding(severity: Severity, key: str, message: str) -> Finding:
    return Finding(severity, RULE, message, key=key)


def _secrets(ctx: Context, spec: JobSpec) -> Iterator[Finding]:
    for name in spec.secrets:
        if ctx.env.get(name) is None:
            yield _finding(Severity.ERROR, "secrets", f"{name} is not set in this shell")


def _room(spec: JobSpec, host: Host, facts: Mapping[str, Any]) -> Iterator[Finding]:
    free, inodes = facts.get("disk_free"), facts.get("inodes_free")
    needed = (spec.resources.disk or 0) + HEADROOM
    if isinstance(free, int) and free < needed:
        told = f"{free / 1e9:.1f} GB are free on {host.name}, the run needs {needed / 1e9:.1f} GB"
        yield _finding(Severity.ERROR, "resources.disk", told)
    if isinstance(inodes, int) and inodes < LOW_INODES:
        told = f"only {inodes} inodes are free on {host.name}"
        yield _finding(Severity.WARNING, "resources.disk", told)


def _gpus(spec: JobSpec, host: Host, facts: Mapping[str, Any]) -> Iterator[Finding]:
    needs = spec.resources
    if not needs.gpus_min:
        return
    if facts.get("gpus_error"):
        yield _finding(Severity.ERROR, "resources.gpus", f"{host.name}: {facts['gpus_error']}")
        return
    cards = [card for card in facts.get("gpus") or [] if isinstance(card, Mapping)]
    large = [card for card in cards if _memory(card, "total") >= (needs.gpu_memory or 0)]
    free = [card for card in large if _memory(card, "free") >= (needs.gpu_memory or 1 << 30)]
    wanted = counted(needs.gpus_min, "GPU")
    if needs.gpu_memory:
        wanted += f" of {needs.gpu_memory >> 20} MiB"
    if len(large) < needs.gpus_min:
        told = f"the run needs {wanted}, {host.name} has {len(large)}"
        yield _finding(Severity.ERROR, "resources.gpus", told)
    elif len(free) < needs.gpus_min:
        now = ", ".join(f"{c.get('number')}: {_memory(c, 'free') >> 20} MiB free" for c in large)
        told = f"the run would wait for {wanted}: {now}"
        yield _finding(Severity.WARNING, "resources.gpus", told)


def _driver(spec: JobSpec, host: Host, facts: Mapping[str, Any]) -> Iterator[Finding]:
    cards = [card for card in facts.get("gpus") or [] if isinstance(card, Mapping)]
    if cards and spec.resources.gpus_max:
        yield from cuda.check(
            str(cards[0].get("driver")), cuda.torch_of(facts.get("torch")), host=host.name,
            needs_gpu=spec.resources.gpus_min > 0, asked=spec.requirements is not None,
            forward=bool(facts.get("forward")),
        )  # fmt: skip


def _memory(card: Mapping[str, Any], what: str) -> int:
    used, total = card.get("used"), card.get("total")
    if not isinstance(total, int) or not isinstance(used, int):
        return 0
    return total if what == "total" else total - used


def _data(spec: JobSpec, host: Host, facts: Mapping[str, Any]) -> Iterator[Finding]:
    there = facts.get("there") or {}
    for source in data_for(spec):
        if source.at is not None and not there.get(source.at):
            told = f"data `{source.name}`: {source.at} does not exist on {host.name}"
            yield _finding(Severity.ERROR, f"data.{source.name}", told)


# --- the file to start from -----------------------------------------------------------------------


def checkpoint_findings(ctx: Context, spec: JobSpec, host: Host | None) -> list[Finding]:
    """How much of the model the spec's checkpoint would fill.

    The header is read where the file lies; without a host a file that lies there is only named.
    """
    wanted = spec.checkpoint
    if wanted is None:
        return []
    if wanted.on_host and host is None:
        told = f"{wanted.file} lies on the host: name one with --host to have it measured"
        return [Finding(Severity.INFO, fitting.RULE, told, key=fitting.RULE)]
    path = wanted.file if wanted.on_host else str(ctx.project() / wanted.file)
    with ctx.connect(host if wanted.on_host and host else LOCAL) as agent:
        told_there = _tensors(agent, path, wanted.root)
    model = modellisting.model(ctx, spec, wanted, host, _tensors)
    if isinstance(model, str):
        return [Finding(Severity.INFO, fitting.RULE, model, key=fitting.RULE)]
    if isinstance(told_there, str):
        message = f"{wanted.file}: {told_there}"
        return [
            Finding(Severity.ERROR, fitting.RULE, message, key=fitting.RULE, waived=wanted.waive)
        ]
    file = fitting.renamed(told_there, wanted.strip, wanted.add)
    return fitting.check(model, file, least=wanted.least, shown=wanted.file, waive=wanted.waive)


def _tensors(agent: Agent, path: str, root: str | None) -> dict[str, TensorInfo] | str:
    """The tensors in the file, or why they cannot be told."""
    reply = agent.call("survey", {"checkpoint": {"path": path, "root": root}})
    told = reply.get("checkpoint")
    if not isinstance(told, Mapping) or "tensors" not in told:
        return str(told.get("error"))[:300] if isinstance(told, Mapping) else "no answer"
    try:
        return tensors_of(told["tensors"])
    except NoTensors:
        return "it holds no tensors by name (is it a whole pickled model?)"
