"""Runs the ledger does not know, from their directories on the hosts; a ledger made of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import names
from orchestrator.clock import parse_iso
from orchestrator.domain import Host, Run, RunState
from orchestrator.errors import LedgerError, OrchError
from orchestrator.ledger.files import KEEP
from orchestrator.ledger.store import Ledger
from orchestrator.transport.sshargs import address
from orchestrator.usecases.context import Context
from orchestrator.usecases.hosts import known_hosts

TEXT_MAX = 4096


def described_run(run_id: str, host: str, about: Any) -> Run | None:
    """The run as its submit described it on the host; None for what is no such description.

    The host is not trusted: every field has its type, or its default.
    """
    if not isinstance(about, dict) or not names.is_run_id(run_id):
        return None
    job, project = _text(about.get("job")), _text(about.get("project"))
    created, digest = _text(about.get("created_at")), _text(about.get("config_hash"))
    config = about.get("config")
    if not (job and project and created and digest and isinstance(config, dict)):
        return None
    try:
        names.job_name(job)
        parse_iso(created)
    except (OrchError, ValueError):
        return None
    if not Path(project).is_absolute() or not _is_finite(config):
        return None
    supersedes = _text(about.get("supersedes"))
    return Run(
        run_id=run_id,
        job=job,
        project=project,
        state=RunState.UNKNOWN,
        config_hash=digest,
        config=config,
        host=host,
        created_at=created,
        profile=_text(about.get("profile")),
        overrides=_table(about.get("overrides")),
        findings=tuple(f for f in _list(about.get("findings")) if isinstance(f, dict)),
        forced=about.get("forced") is True,
        snapshot=_text(about.get("snapshot")),
        data={k: v for k, v in _table(about.get("data")).items() if isinstance(v, str)},
        git_commit=_text(about.get("git_commit")),
        git_dirty=about["git_dirty"] if isinstance(about.get("git_dirty"), bool) else None,
        supersedes=supersedes if supersedes != run_id else None,
        tags={k: v for k, v in _table(about.get("tags")).items() if isinstance(v, str)},
        note=_text(about.get("note")),
        spec=_table(about.get("recorded")),
    )


def host_name(ctx: Context, asked: Host, about: Any) -> str:
    """The name under which the run was submitted, if that still means the host that was asked."""
    told = _text(about.get("host")) if isinstance(about, dict) else None
    try:
        named = ctx.host(told) if told else asked
    except OrchError:
        return asked.name
    same = (named.transport, named.ssh, named.root) == (asked.transport, asked.ssh, asked.root)
    return named.name if same else asked.name


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= TEXT_MAX else None


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) and _is_finite(value) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) and _is_finite(value) else []


def _is_finite(value: Any) -> bool:
    """No NaN and no infinity anywhere in a JSON value."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if isinstance(value, list) else True


def fresh_ledger(ctx: Context) -> tuple[Ledger, list[tuple[str, str]]]:
    """The ledger, opened; a damaged one is put aside first, and a new one made.

    With it the (host, project) of the runs that are, or can still be read, in the old one.
    """
    path = ctx.layout.ledger
    try:
        ledger = Ledger.open(path)
        return ledger, ledger.places()
    except LedgerError as exc:
        damaged = exc.hint == KEEP or "another program" in exc.message
        if not path.is_file() or not damaged:
            raise
        fault = exc.message.replace("; nothing was changed", "")
    places = Ledger.salvaged_places(path)
    aside = _free_name(path)
    for end in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    ctx.say(f"{fault}; it is kept as {aside}, and a new one is made")
    return Ledger.open(path), places


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom a rebuild asks, and the SSH aliases that nothing says runs were sent to."""

    hosts: tuple[Host, ...]
    not_asked: tuple[str, ...] = ()


def whom_to_ask(ctx: Context, places: Sequence[tuple[str, str]]) -> Asked:
    """The hosts that orch.yaml and config.yaml name, and those of the runs at `places`."""
    known = known_hosts(ctx)
    hosts = [host for host, source in known if source != "ssh config"]
    for name, project in places:
        try:
            hosts.append(ctx.host_in(project, name))
        except OrchError as exc:
            ctx.say(f"{name} of {project} is not asked: {exc.message}")
    asked = tuple(dict.fromkeys(hosts))
    covered = {word for host in asked for word in (host.name, address(host).name)}
    aliases = [host.name for host, source in known if source == "ssh config"]
    return Asked(asked, tuple(name for name in aliases if name not in covered))
