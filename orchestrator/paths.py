"""All path arithmetic of the controller. Pure: the environment is a parameter."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PROJECT_FILE = "orch.yaml"


@dataclass(frozen=True, slots=True)
class LocalLayout:
    """Where the controller keeps its own state (`ORCH_HOME`)."""

    home: Path

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> LocalLayout:
        if env.get("ORCH_HOME"):
            return cls(Path(env["ORCH_HOME"]).expanduser().absolute())
        if env.get("XDG_STATE_HOME"):
            return cls(Path(env["XDG_STATE_HOME"]).absolute() / "orch")
        return cls(home_of(env) / ".local" / "state" / "orch")

    @property
    def ledger(self) -> Path:
        return self.home / "ledger.db"

    @property
    def known_hosts(self) -> Path:
        """Keys pinned by `orch host trust`; the user's own known_hosts is never written."""
        return self.home / "known_hosts"

    def inflight(self, run_id: str) -> Path:
        """Locked by the command that is about to start the run."""
        return self.home / "inflight" / run_id

    def telling(self, run_id: str) -> Path:
        """Locked by the command that tells of the run's end."""
        return self.home / "inflight" / f"{run_id}.told"

    def hash_cache(self, tree: Path) -> Path:
        return self.home / "cache" / ("hashes-" + _short(str(tree)))

    def host_cache(self, host: str, project: Path) -> Path:
        """The manifest this project last had accepted on that host."""
        return self.home / "cache" / ("host-" + _short(f"{host}\0{project}") + ".manifest")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def home_of(env: Mapping[str, str]) -> Path:
    return Path(env.get("HOME") or Path.home())


def ssh_config(env: Mapping[str, str]) -> Path:
    if env.get("ORCH_SSH_CONFIG"):
        return Path(env["ORCH_SSH_CONFIG"]).expanduser()
    return home_of(env) / ".ssh" / "config"


def results_of(project: Path, job: str, run_id: str) -> Path:
    return project / "results" / job / run_id


@dataclass(frozen=True, slots=True)
class RemoteLayout:
    """Where things lie on a host, as the remote command names them; its shell expands `~`."""

    root: PurePosixPath

    @classmethod
    def of(cls, root: str) -> RemoteLayout:
        return cls(PurePosixPath(root))

    def agent(self, digest: str) -> PurePosixPath:
        return self.root / "agent" / digest
