"""Small projects for tests: `orch.yaml`, jobs and files, as a git repository or a plain folder."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

JobText = str | list[str] | Mapping[str, Any]

IDENTITY = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]


def make_project(
    root: Path,
    jobs: Mapping[str, JobText],
    *,
    orch_yaml: Mapping[str, Any] | None = None,
    files: Mapping[str, str | bytes] | None = None,
    git: bool = True,
) -> Path:
    """`root` is a project with these jobs; return it.

    A job is a command (a string for the shell, a list for argv) or the whole spec as a mapping.
    files: further files by relative path. git: everything is committed, the tree is clean.
    """
    (root / "jobs").mkdir(parents=True)
    write_yaml(root / "orch.yaml", orch_yaml or {})
    for name, job in jobs.items():
        spec = job if isinstance(job, Mapping) else {"command": job}
        write_yaml(root / "jobs" / f"{name}.yaml", spec)
    for name, content in (files or {}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    if git:
        (root / ".gitignore").write_text("results/\n")
        run_git(root, "init", "-q", "-b", "main")
        commit_all(root, "begin")
    return root


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """`path` holds `content` in the given order; an empty mapping gives an empty file."""
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False) if content else "")


def commit_all(root: Path, message: str) -> str:
    """Everything not ignored is committed; return the commit's id."""
    run_git(root, "add", "-A")
    run_git(root, *IDENTITY, "commit", "-q", "--allow-empty", "-m", message)
    return run_git(root, "rev-parse", "HEAD").strip()


def run_git(root: Path, *args: str) -> str:
    """The output of git in `root`; raises with what git said if it fails."""
    done = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"git {' '.join(args)}: {done.stderr}"
    return done.stdout
