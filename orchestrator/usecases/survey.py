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
from orchestrator.transport.replies import words
from orchestrator.usecases import modellisting, ready
from orchestrator.usecases.context import Context
from orchestrator.wording import size

SURVEY_DEADLINE = 90.0  # nvidia-smi, a python to start, perhaps pip: each has its own deadline
LOW_INODES = 10_000
HEADROOM = 64 << 20
RULE = "host"


# --- the host as it is now ------------------------------------------------------------------------


def host_findings(ctx: Context, spec: JobSpec, host: Host) -> list[Finding]:
    """What speaks against this run on this host now. Asks the host once."""
    facts = _asked(ctx, spec, host)
    return [*_room(spec, host, facts), *_gpus(spec, host, facts), *_taken(spec, facts),
            *_driver(spec, host, facts), *_data(spec, host, facts)]  # fmt: skip


def gpu_findings(ctx: Context, spec: JobSpec, host: Host, gpu_use: str) -> list[Finding]:
    """What a start does not look at itself: whether the host's GPUs are large enough, and whether
    the job's torch would see them. A job that wants none costs nothing."""
    if not spec.resources.gpus_max:
        return []
    facts = _asked(ctx, spec, host)
    if not facts.get("gpus"):
        return []  # the start refuses a run that must have one, in words of its own
    taken = _taken(spec, facts, gpu_use, Severity.WARNING)
    return [*_gpus(spec, host, facts), *taken, *_driver(spec, host, facts)]


def _asked(ctx: Context, spec: JobSpec, host: Host) -> Mapping[str, Any]:
    body: dict[str, Any] = {
        "at": [source.at for source in data_for(spec) if source.at is not None],
        "gpus": True,
        "gpu_memory": spec.resources.gpu_memory,
    }
    if spec.requirements:
        body["requirements"] = list(ready.requirements(ctx, spec).items())
    with ctx.connect(host) as agent:
        return agent.call("survey", body, deadline=SURVEY_DEADLINE)


def _finding(severity: Severity, key: str, message: str) -> Finding:
    return Finding(severity, RULE, message, key=key)


def _room(spec: JobSpec, host: Host, facts: Mapping[str, Any]) -> Iterator[Finding]:
    free, inodes = facts.get("disk_free"), facts.get("inodes_free")
    needed = (spec.resources.disk or 0) + HEADROOM
    if isinstance(free, int) and free < needed:
        has, wants = size(free), size(needed)
        told = f"{has} are free on {host.name}, the run needs {wants}"
        yield _finding(Severity.ERROR, "resources.disk", told)
    if isinstance(inodes, int) and inodes < LOW_INODES:
        told = f"only {inodes} inodes are free on {host.name}"
        yield _finding(Severity.WARNING, "resources.disk", told)


def _gpus(spec: JobSpec, host: Host, facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the host has GPUs for the run at all."""
    needs = spec.resources
    if needs.gpus_max and facts.get("gpus_error"):
        told = f"{host.name}: {facts['gpus_error']}{_without(spec)}"
        yield _finding(Severity.ERROR, "resources.gpus", told)
        return
    large = _large(spec, facts)
    if large < _least(spec, facts):
        told = f"the run needs {_wanted(spec, facts)}, {host.name} has {large}{_without(spec)}"
        yield _finding(Severity.ERROR, "resources.gpus", told)


def _taken(
    spec: JobSpec,
    facts: Mapping[str, Any],
    gpu_use: str = "alone",
    refusal: Severity = Severity.ERROR,
) -> Iterator[Finding]:
    """Whether they are free now: a start is refused for what others use, and waits for runs."""
    cards, least = len(_cards(facts)), _least(spec, facts)
    if gpu_use == "share" or _large(spec, facts) < least:
        return
    others, busy = (words(facts.get(key) or []) for key in ("gpus_of_others", "gpus_busy"))
    wanted = _wanted(spec, facts)
    if gpu_use == "alone" and cards - len(others) < least:
        told = f"the run needs {wanted}; {'; '.join(others)}{_without(spec)}"
        yield _finding(refusal, "resources.gpus", told)
    elif cards - len(busy) < least:
        told = f"the run would wait for {wanted}: {'; '.join(busy)}"
        yield _finding(Severity.WARNING, "resources.gpus", told)


def _cards(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [card for card in facts.get("gpus") or [] if isinstance(card, Mapping)]


def _least(spec: JobSpec, facts: Mapping[str, Any]) -> int:
    """`0-1` is one where the host has one."""
    needs = spec.resources
    return needs.gpus_min or min(needs.gpus_max, len(_cards(facts)), 1)


def _wanted(spec: JobSpec, facts: Mapping[str, Any]) -> str:
    memory = spec.resources.gpu_memory
    return f"{_least(spec, facts)} GPU(s)" + (f" of {memory >> 20} MiB" if memory else "")


def _without(spec: JobSpec) -> str:
    """The way on for a run that may do without."""
    return "" if spec.resources.gpus_min else "; `resources.gpus: 0` runs it without a GPU"


def _large(spec: JobSpec, facts: Mapping[str, Any]) -> int:
    """How many GPUs are large enough; what is unknown is not."""
    totals = [card.get("total") for card in _cards(facts) if isinstance(card.get("used"), int)]
    needed = spec.resources.gpu_memory or 0
    return sum(isinstance(total, int) and total >= needed for total in totals)


def _driver(spec: JobSpec, host: Host, facts: Mapping[str, Any]) -> Iterator[Finding]:
    cards = _cards(facts)
    if cards and spec.resources.gpus_max:
        yield from cuda.check(
            str(cards[0].get("driver")), cuda.torch_of(facts.get("torch")), host=host.name,
            needs_gpu=spec.resources.gpus_min > 0, asked=spec.requirements is not None,
            forward=bool(facts.get("forward")),
        )  # fmt: skip


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
    with ctx.connect(host if wanted.on_host and host else ctx.host("local")) as agent:
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
