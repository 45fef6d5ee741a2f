"""The words of `orch` as types. Pure: nothing here reads a file, a clock or an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class RunState(str, Enum):
    """Where a run is. Only evidence from its host moves it; silence never does."""

    INTENT = "intent"
    SYNCED = "synced"
    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    UNKNOWN = "unknown"

    @property
    def is_open(self) -> bool:
        return self is not RunState.FINISHED


class Verdict(str, Enum):
    """How the process ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KILLED = "killed"
    OOM = "oom"
    CANCELLED = "cancelled"
    LOST = "lost"
    NEVER_STARTED = "never_started"


class Outcome(str, Enum):
    """What the result is worth, apart from how the process ended."""

    UNVERIFIED = "unverified"
    OK = "ok"
    DEGENERATE = "degenerate"
    BELOW_TARGET = "below_target"
    INVALID_RESULT = "invalid_result"

    @property
    def passes(self) -> bool:
        return self in (Outcome.OK, Outcome.UNVERIFIED)


class Fetched(str, Enum):
    NONE = "none"
    PARTIAL = "partial"
    COMPLETE = "complete"


class Severity(str, Enum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a preflight check noticed. `ours` and `reference` are JSON values or None."""

    severity: Severity
    rule: str
    message: str
    key: str | None = None
    ours: Any = None
    reference: Any = None
    waived: str | None = None  # the recorded reason, when the finding was waived

    @property
    def refuses(self) -> bool:
        return self.severity is Severity.ERROR and self.waived is None


@dataclass(frozen=True, slots=True)
class Host:
    """An SSH target or the embedded host `local`. `root` may start with `~/`."""

    name: str
    ssh: str | None = None  # [user@]host[:port]; None: `name` is an alias in ~/.ssh/config
    python: str = "python3"
    root: str = "~/.orch"
    session: str = "auto"  # auto | tmux | screen | plain
    transport: str = "ssh"  # ssh | openssh | local
    backend: str = "direct"  # the only one there is

    @property
    def is_local(self) -> bool:
        return self.transport == "local"


# --- the ledger's view ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Session:
    kind: str  # tmux | screen | plain
    name: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What a result file says, once checked. `accuracy` is finite or None."""

    outcome: Outcome
    reasons: tuple[str, ...] = ()
    accuracy: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    confusion_matrix: tuple[tuple[int, ...], ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """The host's account of a run's end. `metrics` holds metrics.json's raw bytes, unparsed."""

    verdict: Verdict
    exit_code: int | None = None
    signal: int | None = None
    started_at: str | None = None
    ended_at: str | None = None
    reasons: tuple[str, ...] = ()
    metrics: bytes | None = None
    metrics_error: str | None = None  # why the host could not send a metrics file that is there
    cause: str | None = None  # one word, e.g. "oom", "cuda_oom", "reboot"
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Run:
    """One row of the ledger. Times are ISO 8601 UTC; `project` is the project root's path."""

    run_id: str
    job: str
    project: str
    state: RunState
    config_hash: str
    config: Mapping[str, Any]
    host: str
    created_at: str
    verdict: Verdict | None = None
    exit_code: int | None = None
    signal: int | None = None
    outcome: Outcome | None = None
    outcome_reasons: tuple[str, ...] = ()
    profile: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Mapping[str, Any], ...] = ()
    forced: bool = False
    snapshot: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)  # name -> content hash
    git_commit: str | None = None
    git_dirty: bool | None = None
    session: Session | None = None
    started_at: str | None = None
    ended_at: str | None = None
    last_seen_at: str | None = None
    accuracy: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    confusion_matrix: Sequence[Sequence[int]] = ()
    labels: tuple[str, ...] = ()
    results_path: str | None = None
    fetched: Fetched = Fetched.NONE
    supersedes: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    spec: Mapping[str, Any] = field(
        default_factory=dict
    )  # what later commands need (expect, results, retry)
    attempt: int = 1
    cause: str | None = None

    @property
    def never_ran(self) -> bool:
        """Whether no attempt of it ever began: it takes no run's place, and none takes its."""
        return self.verdict is Verdict.NEVER_STARTED and self.attempt == 1

    @property
    def reached_no_host(self) -> bool:
        """Whether it is over before any host told of it: none has a log or a folder of it."""
        told = self.session or self.started_at or self.last_seen_at
        return self.verdict is Verdict.NEVER_STARTED and not told


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a run's timeline."""

    run_id: str
    seq: int
    at: str
    kind: str
    data: Mapping[str, Any]
