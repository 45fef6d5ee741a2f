"""What hosts, and git, still know of runs: records, code, log. What cannot be had is named."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator import lawful
from orchestrator.compare import Code, CodeFile
from orchestrator.domain import Host, Run
from orchestrator.errors import OrchError, TransportError
from orchestrator.ledger.store import Ledger
from orchestrator.recorded import Hearsay, hearsay_of
from orchestrator.transport.base import Agent, End
from orchestrator.transport.replies import run_status, unlawful
from orchestrator.usecases.context import Context
from orchestrator.usecases.settle import settle
from remote import wire

ENVIRONMENT = "environment"  # the kind of the timeline's line
ENVIRONMENT_MAX = 1 << 20  # bytes; thousands of packages take a tenth of it
TEXT_MAX = 256 * 1024  # of a file whose diff is made
CONTENT_MAX = 256 * 1024 * 1024
GIT_FILES_MAX = 20_000
NAMED_MAX = 5
DEADLINE = 120.0
CODE_WITHIN = 60.0  # seconds for a run's code, looked at with signs of life


@dataclass(frozen=True, slots=True)
class Told:
    """A host's word on one run. `config`: config.json's text; `spec`: spec.json, unchecked."""

    status: Mapping[str, Any]
    config: str | None = None
    spec: Mapping[str, Any] | None = None
    environment: Mapping[str, Any] | None = None
    log: str | None = None
    log_size: int | None = None
    changed: tuple[int, tuple[str, ...]] | None = None  # files of its code: how many, the first few


class Hosts:
    """One connection a host, opened when it is first needed. Use as a context manager."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._stack = ExitStack()
        self._places: dict[tuple[str, str, Hearsay | None], Host | OrchError] = {}
        self._agents: dict[Host, Agent | OrchError] = {}

    def __enter__(self) -> Hosts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def ask(self, runs: Sequence[Run], *, log: int = 0, code: bool = False) -> dict[str, Told]:
        """run_id -> what its host says; runs of silent hosts and runs unknown there are absent."""
        found: dict[str, Told] = {}
        groups: dict[Host | None, list[Run]] = {}
        for run in runs:
            groups.setdefault(self._host(run), []).append(run)
        for mine in groups.values():
            asked = [run.run_id for run in mine]
            body = {"run_ids": asked, "log": log, "code": code}
            for each in self._ask(mine[0], body, len(mine)):
                if each.status["phase"] != "absent" and each.status["run_id"] in asked:
                    found[each.status["run_id"]] = each
        return found

    def _ask(self, run: Run, body: Mapping[str, Any], count: int) -> list[Told]:
        items: list[Told] = []
        agent = self.agent(run)
        if agent is not None:
            try:
                agent.call(
                    "evidence",
                    body,
                    deadline=DEADLINE,
                    within=DEADLINE + count * (CODE_WITHIN if body["code"] else 1.0),
                    items=count,
                    on_item=lambda item: items.append(told(item)),
                )
            except TransportError as exc:
                self._give_up(run, exc)
        return items

    def agent(self, run: Run) -> Agent | None:
        host = self._host(run)
        if host is None:
            return None
        if host not in self._agents:
            try:
                self._agents[host] = self._stack.enter_context(self._ctx.connect(host))
            except OrchError as exc:
                self._agents[host] = exc
        agent = self._agents[host]
        return None if isinstance(agent, OrchError) else agent

    def silent(self, run: Run) -> str | None:
        """Why the run's host told nothing more; None if that is not known, or it was not asked."""
        host = self._place(run)
        why = host if isinstance(host, OrchError) else self._agents.get(host)
        return why.message if isinstance(why, OrchError) else None

    def _host(self, run: Run) -> Host | None:
        host = self._place(run)
        return None if isinstance(host, OrchError) else host

    def _place(self, run: Run) -> Host | OrchError:
        """The host as the run's project describes it: another project may mean another one by the
        same name."""
        key = (run.project, run.host, hearsay_of(run.spec))
        if key not in self._places:
            try:
                self._places[key] = self._ctx.host_of(run)
            except OrchError as exc:
                self._places[key] = exc
        return self._places[key]

    def knows_project_of(self, run: Run) -> bool:
        return self._ctx.knows_project_of(run)

    def _give_up(self, run: Run, exc: OrchError) -> None:
        host = self._host(run)
        if host is not None:
            self._agents[host] = exc

    def manifests(self, run: Run, trees: Iterable[str]) -> dict[str, bytes]:
        """tree -> manifest, verified; absent for what the run's host does not have."""
        found = self._content(run, {"trees": list(trees)})
        return {name: raw for name, raw in found.items() if _is_manifest(raw, name)}

    def objects(self, run: Run, names: Iterable[str]) -> dict[str, bytes]:
        """sha256 -> bytes, verified; absent for what the run's host does not have."""
        found = self._content(run, {"objects": list(names)})
        return {name: raw for name, raw in found.items() if hashlib.sha256(raw).hexdigest() == name}

    def _content(self, run: Run, body: Mapping[str, list[str]]) -> dict[str, bytes]:
        agent = self.agent(run)
        if agent is None or not any(body.values()):
            return {}
        found: dict[str, bytearray] = {}
        lacking = {name for names in body.values() for name in names}
        last: bytearray | None = None
        try:
            for frame in agent.exchange("content", body, deadline=DEADLINE, within=DEADLINE):
                if isinstance(frame, End):
                    break
                if frame.kind == wire.DATA:
                    if last is None or len(last) + len(frame.payload) > CONTENT_MAX:
                        raise unlawful("more than any manifest holds")
                    last += frame.payload
                    continue
                name = _named(frame.json())
                if name not in lacking:  # each once, so that there is an end
                    raise unlawful("content that nobody asked for")
                lacking.remove(name)
                last = found[name] = bytearray()
        except TransportError as exc:
            self._give_up(run, exc)
            return {}
        return {name: bytes(raw) for name, raw in found.items()}


def _named(item: Any) -> str:
    """What the bytes are of that come next."""
    if not isinstance(item, dict):
        raise unlawful("an item that is none")
    return str(item.get("tree") or item.get("object"))


def _is_manifest(raw: bytes, tree: str) -> bool:
    try:
        return wire.tree_hash(raw) == tree and wire.parse_manifest(raw) is not None
    except wire.WireError:
        return False


def told(item: Any) -> Told:
    """An item of `evidence`, or another verb's status with some of its records."""
    status = run_status(item)
    spec, environment = item.get("spec"), lawful.table(item.get("environment"))
    config, log, size = item.get("config"), item.get("log"), item.get("log_size")
    return Told(
        status=status,
        config=config if isinstance(config, str) else None,
        spec=spec if isinstance(spec, dict) else None,
        environment=environment if 2 < len(repr(environment)) <= ENVIRONMENT_MAX else None,
        log=log if isinstance(log, str) else None,
        log_size=size if isinstance(size, int) else None,
        changed=_changed(item.get("changed")),
    )


def _changed(value: Any) -> tuple[int, tuple[str, ...]] | None:
    about = lawful.mapping(value)
    count, names = lawful.count(about.get("count"), 2**63), lawful.texts(about.get("files"))
    return None if count is None or names is None else (count, names[:NAMED_MAX])


def latest(ctx: Context, ledger: Ledger, run: Run, told: Told | None) -> Run:
    """The run by what its host just said of it, if it was open."""
    if told is None or not run.state.is_open:
        return run
    return settle(ledger, run, told.status, ctx.now())


# --- the environment ------------------------------------------------------------------------------


def environment_of(
    ctx: Context, ledger: Ledger, run: Run, told: Told | None
) -> Mapping[str, Any] | None:
    """What the run ran in; what a host says is in the timeline from then on."""
    for event in ledger.events(run.run_id):
        if event.kind == ENVIRONMENT:
            return event.data
    if told is None or told.environment is None:
        return None
    ledger.event(run.run_id, ctx.now(), ENVIRONMENT, told.environment)
    return told.environment


# --- code -----------------------------------------------------------------------------------------


class CodeStore:
    """The code of runs: from their hosts' stores, else from git where the tree was clean."""

    def __init__(self, hosts: Hosts, runs: Sequence[Run]) -> None:
        self._hosts = hosts
        self._runs = runs
        self._bytes: dict[str, bytes] = {}
        self.codes: dict[str, Code] = {}  # run_id -> its files
        self.missing: list[str] = []
        for run in runs:
            self._load(run)

    def _load(self, run: Run) -> None:
        for other in self._runs:
            if other.snapshot == run.snapshot and other.run_id in self.codes:
                self.codes[run.run_id] = self.codes[other.run_id]
                return
        if run.snapshot is None:
            self.missing.append(f"code of {run.run_id}: it was never sent anywhere")
            return
        raw = self._hosts.manifests(run, [run.snapshot]).get(run.snapshot)
        if raw is not None:
            self.codes[run.run_id] = {
                entry.path.decode("utf-8", "backslashreplace"): CodeFile(
                    entry.mode, entry.kind, entry.size, entry.sha256
                )
                for entry in wire.parse_manifest(raw)
            }
            return
        why = self._hosts.silent(run) or "the host does not have it any more"
        if run.git_commit and run.git_dirty is False and self._hosts.knows_project_of(run):
            blobs = git_files(Path(run.project), run.git_commit)
            if blobs is not None:
                self._keep(run, blobs)
                self.missing.append(
                    f"code of {run.run_id}: read from git commit {run.git_commit[:12]} ({why})"
                )
                return
            why += f"; git does not have commit {run.git_commit[:12]}"
        self.missing.append(f"code of {run.run_id}: {why}")

    def _keep(self, run: Run, blobs: Mapping[str, tuple[int, str, bytes]]) -> None:
        code = {}
        for path, (mode, kind, raw) in blobs.items():
            digest = hashlib.sha256(raw).hexdigest()
            self._bytes[digest] = raw
            code[path] = CodeFile(mode, kind, len(raw), digest)
        self.codes[run.run_id] = code

    def load(self, files: Iterable[CodeFile]) -> None:
        """The small ones' bytes are at hand, where any of the runs' hosts has them."""
        for run in self._runs:
            wanted = {
                file.sha256
                for file in files
                if file.size <= TEXT_MAX and file.sha256 not in self._bytes
            }
            if wanted and run.snapshot is not None:
                self._bytes.update(self._hosts.objects(run, sorted(wanted)))

    def read(self, file: CodeFile) -> bytes | None:
        return self._bytes.get(file.sha256)


def git_files(project: Path, commit: str) -> dict[str, tuple[int, str, bytes]] | None:
    """path -> (mode, kind, bytes) of the project's files in that commit; None if git cannot."""
    if not re.fullmatch("[0-9a-f]{7,64}", commit):
        return None
    base = ["git", "--no-optional-locks", "-C", str(project)]
    listing = _git([*base, "ls-tree", "-r", "-z", commit])
    if listing is None or listing.count(b"\0") > GIT_FILES_MAX:
        return None
    entries = []
    for line in listing.split(b"\0"):
        head, _, path = line.partition(b"\t")
        parts = head.split()
        if len(parts) == 3 and parts[1] == b"blob":
            entries.append((int(parts[0], 8), parts[2], path.decode("utf-8", "backslashreplace")))
    out = _git([*base, "cat-file", "--batch"], b"".join(name + b"\n" for _, name, _ in entries))
    if out is None:
        return None
    found: dict[str, tuple[int, str, bytes]] = {}
    at = 0
    for mode, _, name in entries:
        line, _, _ = out[at : at + 200].partition(b"\n")
        if line.split()[1:2] != [b"blob"]:
            return None  # a partial clone
        size = int(line.split()[2])
        start = at + len(line) + 1
        link = mode == 0o120000
        found[name] = (
            0o777 if link else mode & 0o777,
            "l" if link else "f",
            out[start : start + size],
        )
        at = start + size + 1
    return found


def _git(argv: list[str], given: bytes = b"") -> bytes | None:
    try:
        done = subprocess.run(argv, input=given, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
