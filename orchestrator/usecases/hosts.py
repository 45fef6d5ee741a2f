"""Hosts: which there are, whether they can be trusted, whether they will do."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.checks import cuda
from orchestrator.clock import parse_iso
from orchestrator.domain import Host
from orchestrator.errors import OrchError, UsageError
from orchestrator.paths import home_of, ssh_config
from orchestrator.transport.connect import check_name
from orchestrator.usecases.context import Context
from orchestrator.usecases.hostclock import SKEW_MAX

LOW_DISK = 5 << 30
LOW_INODES = 10_000


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `orch doctor`. `exit_code` is what a failed one means for the command."""

    level: Literal["ok", "warn", "fail"]
    name: str
    text: str
    exit_code: int = 6


def known_hosts(ctx: Context) -> list[tuple[Host, str]]:
    """(host, where it is described), `local` first; SSH aliases last."""
    found = _described(ctx)
    if ssh_config(ctx.env).exists():
        from orchestrator.transport.ssh_names import aliases

        for name in aliases(ssh_config(ctx.env), home_of(ctx.env)):
            found.setdefault(name, (Host(name=name), "ssh config"))
    return list(found.values())


def named_hosts(ctx: Context) -> list[Host]:
    """`local` and the hosts that somebody named for orch: under `hosts` or as the default one in
    orch.yaml or config.yaml, or in ORCH_HOST. An SSH alias by itself is none of them."""
    from orchestrator.projectfile import load_project, resolve_host

    user, project = (load_project(root, ctx.env) for root in (None, ctx.project_or_none()))
    chosen = (project.default_host, user.default_host, ctx.env.get("ORCH_HOST"))
    defaults = [resolve_host(name, project, ctx.env) for name in chosen if name]
    return list(dict.fromkeys([*(host for host, _ in _described(ctx).values()), *defaults]))


def _described(ctx: Context) -> dict[str, tuple[Host, str]]:
    """Name -> (host, the file that describes it): `local`, config.yaml's, orch.yaml's."""
    from orchestrator.projectfile import LOCAL, load_project

    found: dict[str, tuple[Host, str]] = {"local": (LOCAL, "embedded")}
    for name, host in load_project(None, ctx.env).hosts.items():
        found[name] = (host, "config.yaml")
    for name, host in load_project(ctx.project_or_none(), ctx.env).hosts.items():
        if found.get(name, (None,))[0] != host:
            found[name] = (host, "orch.yaml")
    return found


@dataclass(frozen=True, slots=True)
class Listed:
    """A host, the file that names it, and whether its key is known; None: it has none to know."""

    host: Host
    source: str
    default: bool
    trusted: bool | None


def listed_hosts(ctx: Context) -> list[Listed]:
    """`known_hosts`, with the one that is meant when none is named, and the trust in each."""
    found = known_hosts(ctx)
    config = ssh_config(ctx.env)
    if ctx.env.get("ORCH_SSH_CONFIG") and not config.exists():
        ctx.say(f"ORCH_SSH_CONFIG names {config}, which does not exist: no host of it is listed")
    default = None
    with suppress(UsageError):
        default = ctx.host(None)
    trusted = _trusted(ctx, [host for host, _ in found if not host.is_local])
    return [Listed(host, source, host == default, trusted.get(host)) for host, source in found]


def _trusted(ctx: Context, hosts: Sequence[Host]) -> dict[Host, bool]:
    if not hosts:
        return {}
    from orchestrator.transport.ssh_names import are_known

    def tell(exc: UsageError) -> None:
        ctx.say(f"{exc.message}; {exc.hint}")

    home = home_of(ctx.env)
    return are_known(hosts, ssh_config(ctx.env), ctx.layout.known_hosts, home, tell)


def trust(ctx: Context, name: str, confirm: Callable[[str, str], bool]) -> tuple[str, bool]:
    """(what is true of the host's key now, whether that is trust). `confirm(name, fingerprint)`
    decides of a key that nobody vouches for yet."""
    from orchestrator.transport.ssh import offered_key

    host = ctx.host(name)
    if host.is_local:
        raise UsageError(f"{name} is the embedded host; it has no host key")
    check_name(host, ctx.env)
    pinned = ctx.layout.known_hosts
    home = home_of(ctx.env)
    known_as, shown, line, known_in = offered_key(host, ssh_config(ctx.env), pinned, home)
    if known_in is not None:
        return f"{shown} is known already, by {known_in}; nothing is to be done", True
    before = _lines(pinned)
    if line in before:
        return f"{shown} is pinned", True
    if any(item.split(" ")[0] == known_as for item in before):
        ctx.say(f"{name}: ANOTHER key is pinned for it; replace it only if you know why it changed")
    if not confirm(known_as, shown):
        return f"{shown} was NOT pinned", False
    _pin(pinned, known_as, line)
    return f"{shown} is pinned", True


def _pin(pinned: Path, known_as: str, line: str) -> None:
    """`line` is the only one of that host in the file. Under a lock: what another `host trust` has
    pinned since it was read, stays."""
    pinned.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with pinned.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = [item for item in _lines(pinned) if item.split(" ")[0] != known_as]
        tmp = pinned.with_suffix(".new")
        tmp.write_text("".join([*kept, line]), encoding="utf-8")
        tmp.chmod(0o600)
        tmp.replace(pinned)


def _lines(path: Path) -> list[str]:
    """Each with its line feed, which an editor may have left off the last."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [line + "\n" for line in text.splitlines()]


def doctor(ctx: Context, name: str | None) -> tuple[Host, list[Check]]:
    """What would bite later, found now. A host that cannot be reached is one failed check."""
    host = ctx.host(name)
    try:
        check_name(host, ctx.env)
        with ctx.connect(host) as agent:
            facts = agent.call("doctor", {"session": host.session}, deadline=90.0)
    except OrchError as exc:
        hint = (exc.hint or "").replace(f"`orch doctor {host.name}`", "this command")
        text = exc.message + (f"; {hint}" if hint else "")
        return host, [Check("fail", "connection", text, exc.exit_code)]
    return host, [Check("ok", "connection", _reached(host, facts)), *_judge(ctx, host, facts)]


def _reached(host: Host, facts: Mapping[str, Any]) -> str:
    way = "embedded, no SSH" if host.is_local else "SSH"
    return f"{way}; user {facts.get('user')}, {facts.get('system')}"


def _judge(ctx: Context, host: Host, facts: Mapping[str, Any]) -> list[Check]:
    python = facts.get("python") or {}
    checks = [Check("ok", "python", f"{python.get('version')} at {python.get('path')}")]
    checks += [_environments(facts), _session(host, facts), _logout(facts)]
    checks += [_disk(facts), _filesystem(facts), _clock(ctx, facts), _gpus(facts)]
    return [*checks, *_driver(facts)]


def _environments(facts: Mapping[str, Any]) -> Check:
    if facts.get("venv") and facts.get("pip"):
        return Check("ok", "environments", "python can make virtual environments")
    return Check(
        "warn", "environments",
        "python has no venv or no pip: jobs with `setup: requirements` need them "
        "(Debian: python3-venv)",
    )  # fmt: skip


def _session(host: Host, facts: Mapping[str, Any]) -> Check:
    """What a run would be started in, held against the host's `session:`."""
    wanted, there = host.session, facts.get("session")
    if there == wanted == "plain":
        return Check("ok", "session", "plain, as its `session:` says: `attach` shows the log")
    if there == "plain":
        return Check("warn", "session", "no tmux and no screen: runs work, `attach` shows the log")
    if wanted not in ("auto", there):
        text = f"no {wanted}, which its `session:` names: runs are started in {there}"
        return Check("warn", "session", text)
    return Check("ok", "session", f"{there}")


def _logout(facts: Mapping[str, Any]) -> Check:
    if not facts.get("kill_user_processes"):
        return Check("ok", "logout", "processes outlive the login")
    kills = "logind kills what a login leaves running (KillUserProcesses=yes)"
    if not facts.get("linger"):
        return Check(
            "fail", "logout",
            f"{kills}, so runs end at logout; `loginctl enable-linger` lets them have a scope of "
            "their own, or have KillExcludeUsers in logind.conf name this user",
        )  # fmt: skip
    stays = facts.get("stays_in_login")
    if stays:
        return Check(
            "fail", "logout",
            f"{kills}, and a run cannot leave the login: {stays}; have KillExcludeUsers in "
            "logind.conf name this user",
        )  # fmt: skip
    return Check("ok", "logout", f"{kills}; runs outlive it, each in a scope of its own")


def _disk(facts: Mapping[str, Any]) -> Check:
    free, inodes = facts.get("disk_free") or 0, facts.get("inodes_free")
    text = f"{free / (1 << 30):.1f} GiB free under {facts.get('root')}"
    if inodes is not None and inodes < LOW_INODES:
        return Check("warn", "disk", f"{text}, only {inodes} inodes")
    return Check("warn" if free < LOW_DISK else "ok", "disk", text)


def _filesystem(facts: Mapping[str, Any]) -> Check:
    kind, denied = facts.get("filesystem"), facts.get("denied")
    if denied:
        told = "; ".join(map(str, denied)) if isinstance(denied, list) else denied
        hint = "make these places that you may write in, or name another `root:` in orch.yaml"
        return Check("fail", "file system", f"runs cannot be kept there: {told}; {hint}")
    if kind == "local":
        return Check("ok", "file system", "local; kernel locks work")
    return Check("warn", "file system", f"{kind}: locks are kept under /tmp on the host instead")


def _clock(ctx: Context, facts: Mapping[str, Any]) -> Check:
    try:
        skew = (parse_iso(str(facts.get("host_time"))) - ctx.clock.now()).total_seconds()
    except ValueError:
        return Check("warn", "clock", "the host told no lawful time")
    if abs(skew) > SKEW_MAX:
        return Check("warn", "clock", f"{skew:+.0f} s off ours; order is kept, times look odd")
    near = abs(skew) < 0.1  # what a round trip can hide
    return Check("ok", "clock", "as ours" if near else f"{skew:+.1f} s off ours")


def _gpus(facts: Mapping[str, Any]) -> Check:
    cards = facts.get("gpus")
    if isinstance(cards, dict):
        return Check("warn", "gpu", str(cards.get("error")))
    if not cards:
        tools = facts.get("tools")
        there = isinstance(tools, Mapping) and tools.get("nvidia-smi")
        why = "nvidia-smi lists none" if there else "no nvidia-smi"
        return Check("ok", "gpu", f"none ({why})")
    lines = []
    for card in cards:
        used, total = card.get("used"), card.get("total")
        memory = "memory unknown"
        if used is not None and total is not None:
            memory = f"{(total - used) >> 20} of {total >> 20} MiB free now"
        driver = f", driver {card['driver']}" if card.get("driver") else ""
        lines.append(f"{card.get('number')}: {card.get('name')}, {memory}{driver}")
    return Check("ok", "gpu", "; ".join(lines))


def _driver(facts: Mapping[str, Any]) -> Iterator[Check]:
    """Whether each torch of the host would see its GPUs; nothing where there is none of either."""
    cards = facts.get("gpus")
    if not isinstance(cards, list) or not cards or not isinstance(cards[0], Mapping):
        return
    driver, forward = str(cards[0].get("driver")), bool(facts.get("forward"))
    for torch in filter(None, map(cuda.torch_of, facts.get("torch") or [])):
        found = cuda.check(
            driver, torch, host="the host", needs_gpu=True, asked=False, forward=forward
        )
        for finding in found:
            yield Check("warn", "driver", finding.message)
        if not found:
            yield Check("ok", "driver", f"{driver} runs {torch}")
