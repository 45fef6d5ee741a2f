"""What git says of a project: which files are its own, on which commit it is, and whether clean."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError

DEADLINE = 60.0  # seconds
_CLOSED = re.compile(rb"^warning: could not open directory '(.+?/)': ", re.MULTILINE | re.DOTALL)
_LISTING = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]


@dataclass(frozen=True, slots=True)
class GitState:
    commit: str | None
    dirty: bool | None


class GitListing:
    """git's two answers, asked for at once and read later, so that they cost no waiting."""

    def __init__(self, root: Path) -> None:
        self._root = root
        status = ["-c", "status.renames=false", "-c", "diff.renames=false", "status"]
        status += ["--porcelain=v2", "--branch", "-z", "--untracked-files=all", "--", "."]
        self._listing = _start(root, _LISTING)
        self._status = _start(root, status)

    def paths(self) -> list[bytes] | None:
        """Relative to the root; None outside of a repository. A folder that git could not read is
        named itself, with a slash behind it, as a repository inside is.

        UsageError in one of which git tells nothing: what it ignores would be sent with the rest.
        """
        try:
            return _paths(self._root, self._listing)
        except UsageError:
            if self._status is not None:
                self._status.kill()
                self._status.communicate()
            raise

    def tracked(self, folder: str) -> list[bytes]:
        """The files in this folder that git tracks, as far as it tells."""
        out, _ = _finish(_start(self._root, ["ls-files", "-z", "--cached", "--", folder]))
        return [path for path in (out or b"").split(b"\0") if path]

    def state(self, travel: Callable[[Iterable[bytes]], bool] = any) -> GitState:
        """Dirty: some of the project's files that git says are changed `travel`."""
        out, _ = _finish(self._status)
        if out is None:
            return GitState(None, None)
        commit, changed = None, []
        for line in out.split(b"\0"):
            if line.startswith(b"# branch.oid "):
                oid = line[13:].decode("ascii", "replace")
                commit = None if oid == "(initial)" else oid
            elif line and not line.startswith(b"#"):
                changed.append(_changed(line))
        if not changed:
            return GitState(commit, False)
        start = len(_prefix(self._root))
        return GitState(commit, travel([path[start:] for path in changed]))


_FIELDS = {b"1": 8, b"u": 10, b"?": 1}  # before the path, in a line of git-status(1) porcelain v2


def _changed(line: bytes) -> bytes:
    return line.split(b" ", _FIELDS.get(line[:1], 0))[-1]


def _prefix(root: Path) -> bytes:
    """What git puts before the paths of a project that is a folder of its repository."""
    here, top = root.resolve(), _repository(root)
    return b"" if top in (None, here) else os.fsencode(here.relative_to(top)) + b"/"


def paths_of(root: Path) -> list[bytes] | None:
    """`GitListing.paths`, of a repository in another one."""
    return _paths(root, _start(root, _LISTING))


def _paths(root: Path, asked: subprocess.Popen[bytes] | None) -> list[bytes] | None:
    out, words = _finish(asked)
    if out is not None:
        return sorted({path for path in out.split(b"\0") if path}.union(_closed(root, words)))
    repository = _repository(root)
    if repository is None:
        return None
    raise UsageError(
        f"{root} is in a git repository, and git does not tell which files it ignores: {words}",
        hint=f"mend that (`git -C {root} status` shows it), or move {repository}/.git away: "
        "then everything is sent but what .orchignore names",
    )


def _closed(root: Path, words: str) -> list[bytes]:
    """The folders that git's warnings say it could not open."""
    found = _CLOSED.findall(os.fsencode(words))
    start = len(_prefix(root)) if found else 0
    named = [path[start:] for path in found]
    for path in named:
        if not os.path.lexists(os.fsencode(root) + b"/" + path):  # git shows odd letters as `?`
            raise UsageError(
                f"{root}: git could not read a folder there: {' '.join(words.split())[:400]}",
                hint="make it readable, or have git ignore it",
            )
    return named


def _start(root: Path, words: list[str]) -> subprocess.Popen[bytes] | None:
    argv = ["git", "--no-optional-locks", "--literal-pathspecs", "-C", str(root), *words]
    try:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except OSError:
        return None


def _finish(process: subprocess.Popen[bytes] | None) -> tuple[bytes | None, str]:
    """What it printed, and its warnings; or None and why."""
    if process is None:
        return None, "it is not installed here"
    try:
        out, err = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None, f"it did not end within {DEADLINE:g} s"
    if process.returncode == 0:
        return out, os.fsdecode(err)
    words = " ".join(err.decode("utf-8", "replace").split())[:400]
    return None, words or f"it ended with exit code {process.returncode}"


def _repository(root: Path) -> Path | None:
    """The folder at or above `root` whose `.git` git would use, up to the next mount point."""
    here = root.resolve()
    for folder in (here, *here.parents):
        with contextlib.suppress(OSError):
            if folder.stat().st_dev != here.stat().st_dev:
                return None
            found = folder / ".git"
            if found.is_file() or any(found.iterdir()):
                return folder
    return None
