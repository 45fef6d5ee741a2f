"""Runs the ledger does not know, from their directories on the hosts; a ledger made of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator import lawful, names
from orchestrator.domain import Host, Run, RunState
from orchestrator.errors import LedgerError, OrchError, UsageError
from orchestrator.ledger.files import KEEP
from orchestrator.ledger.reader import Place
from orchestrator.ledger.store import Ledger
from orchestrator.recorded import Hearsay, found, hash_matches, told
from orchestrator.transport.sshargs import address
from orchestrator.usecases.context import Context
from orchestrator.usecases.hosts import known_hosts, named_hosts

TEXT_MAX = 4096
COMMIT = re.compile(r"[0-9a-f]{7,64}")


def described_run(run_id: str, host: str, about: Any) -> Run | None:
    """The run as its submit described it on the host; None for what is no such description.

    The host is not trusted: every field has its type, or its default, and none is an order.
    """
    about = lawful.mapping(about)
    if not names.is_run_id(run_id):
        return None
    job, project, digest = (_text(about.get(key)) for key in ("job", "project", "config_hash"))
    created, config = lawful.moment(about.get("created_at")), about.get("config")
    if not (job and project and created and digest):
        return None
    if not isinstance(config, dict) or not lawful.is_plain(config):
        return None
    try:
        names.recorded_job(job)
    except UsageError:
        return None
    if not Path(project).is_absolute():
        return None
    supersedes, commit = _text(about.get("supersedes")), _text(about.get("git_commit"))
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
        overrides=lawful.table(about.get("overrides")),
        findings=tuple(f for f in lawful.items(about.get("findings")) if isinstance(f, dict)),
        forced=about.get("forced") is True,
        snapshot=_text(about.get("snapshot")),
        data=_texts(about.get("data")),
        git_commit=commit if commit and COMMIT.fullmatch(commit) else None,
        git_dirty=about["git_dirty"] if isinstance(about.get("git_dirty"), bool) else None,
        supersedes=supersedes if supersedes != run_id else None,
        tags=_texts(about.get("tags")),
        note=_text(about.get("note")),
        spec=told(about.get("recorded"))[0],
    )


def found_run(
    ctx: Context, asked: Host, run_id: str, about: Any, projects: Collection[str]
) -> Run | None:
    """`described_run`, marked as found on the host `asked`.

    It is of the project it names if that is one of `projects`, which are known here. A project that
    only the host names has no say: the run's host is then the one that was asked, as it was asked.
    """
    run = described_run(run_id, asked.name, about)
    if run is None:
        return None
    known = run.project in projects
    name = _name_in(ctx, run.project, asked, _text(about.get("host"))) if known else None
    if odd := told(about.get("recorded"))[1]:
        ctx.say(f"{run_id}: what {asked.name} has of its {', '.join(odd)} is not lawful: left out")
    if hash_matches(run) is False:
        ctx.say(
            f"{run_id}: the config.json that {asked.name} has of it does not give its config hash "
            f"{run.config_hash[:15]}: left out"
        )
        run = replace(run, config={})
    mark = Hearsay(foreign=not known, host=asked if name is None else None)
    return replace(run, host=name or asked.name, spec=found(run.spec, mark))


def _name_in(ctx: Context, project: str, asked: Host, said: str | None) -> str | None:
    """The name by which the project means the host that was asked, best the one the run was
    submitted under."""
    for name in filter(None, (said, asked.name)):
        with contextlib.suppress(OrchError):
            named = ctx.host_in(project, name)
            if _address(named) == _address(asked):
                return named.name
    return None


def _address(host: Host) -> tuple[str, ...]:
    where = "" if host.is_local else host.ssh or host.name
    return (host.transport, where, host.root)


def _text(value: Any) -> str | None:
    return lawful.whole_text(value, TEXT_MAX)


def _texts(value: Any) -> dict[str, str]:
    return {key: item for key, item in lawful.table(value).items() if isinstance(item, str)}


def fresh_ledger(ctx: Context) -> tuple[Ledger, list[Place]]:
    """The ledger, opened; a damaged one is put aside first, and a new one made.

    With it where the runs are that are, or can still be read, in the old one.
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


def known_projects(ctx: Context, places: Sequence[Place]) -> set[str]:
    """The project called from, and those of runs that were submitted from here."""
    here = ctx.project_or_none()
    known = {place.project for place in places if place.project is not None}
    return known if here is None else {*known, str(here)}


def whom_to_ask(ctx: Context, places: Sequence[Place]) -> Asked:
    """The hosts that somebody named, and those of the runs at `places`."""
    hosts = named_hosts(ctx)
    for place in places:
        try:
            named = place.project and ctx.host_in(place.project, place.host)
            hosts += [host for host in (place.asked or named,) if host]
        except OrchError as exc:
            ctx.say(f"{place.host} of {place.project} is not asked: {exc.message}")
    asked = tuple(dict.fromkeys(hosts))
    covered = {word for host in asked for word in (host.name, address(host).name)}
    aliases = [host.name for host, source in known_hosts(ctx) if source == "ssh config"]
    return Asked(asked, tuple(name for name in aliases if name not in covered))
