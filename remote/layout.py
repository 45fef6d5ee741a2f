"""Every path under the host's root, in one place."""

from __future__ import annotations

import hashlib
import os
import re
import stat

from remote import files

RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{7,63}\Z")
HEX = re.compile(r"[0-9a-f]{64}\Z")

OUTER = {"store", "data", "envs", "runs", "locks"}
INNER = {"objects", "parts", "trees", "spares"}


class BadName(Exception):
    """A name from the wire that may not become a path."""


class Unsafe(Exception):
    """A folder that another user owns or could have prepared."""


class Layout:
    """Paths under `root`; `ensure()` makes the folders, private to their owner."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.store = os.path.join(root, "store")
        self.objects = os.path.join(self.store, "objects")
        self.parts = os.path.join(self.store, "parts")
        self.trees = os.path.join(self.store, "trees")
        self.spares = os.path.join(self.store, "spares")
        self.data = os.path.join(root, "data")
        self.envs = os.path.join(root, "envs")
        self.runs = os.path.join(root, "runs")
        self.locks = os.path.join(root, "locks")

    def ensure(self) -> None:
        if self._is_whole():
            return
        inner = (self.objects, self.parts, self.trees, self.spares)
        for path in (*inner, self.data, self.envs, self.runs, self.locks):
            os.makedirs(path, 0o700, exist_ok=True)
        os.chmod(self.root, 0o700)

    def _is_whole(self) -> bool:
        """Asked at each request, hence by two looks instead of one a folder."""
        try:
            return OUTER.issubset(os.listdir(self.root)) and INNER.issubset(os.listdir(self.store))
        except FileNotFoundError:
            return False

    def object(self, sha256: str) -> str:
        return os.path.join(self.objects, sha256[:2], sha256)

    def part(self, sha256: str) -> str:
        return os.path.join(self.parts, sha256)

    def tree(self, tree: str) -> str:
        return os.path.join(self.trees, tree_name(tree))

    def spare(self, tree: str) -> str:
        return os.path.join(self.spares, tree_name(tree))

    def dataset(self, tree: str) -> str:
        return os.path.join(self.data, tree_name(tree))

    def seal(self, tree: str) -> str:
        return self.dataset(tree) + ".seal"

    def lock(self, name: str) -> str:
        """Where the kernel lock of that name lies: on a file system with dependable locks."""
        if files.filesystem(self.root) == "local":
            return os.path.join(self.locks, name)
        digest = hashlib.sha256(self.root.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return os.path.join(local_dir(), digest + "-" + name)

    def run(self, run_id: str) -> "RunFiles":
        """The files of the run's latest attempt."""
        run = self.attempt(run_id, 1)
        while True:
            later = RunFiles(run.path, run_id, run.attempt + 1)
            if not (os.path.exists(later.started) or os.path.exists(later.exit)):
                return run
            run = later

    def attempt(self, run_id: str, attempt: int) -> "RunFiles":
        if not RUN_ID.match(run_id):
            raise BadName("not a run id: %r" % run_id[:80])
        return RunFiles(os.path.join(self.runs, run_id), run_id, attempt)


def tree_name(tree: str) -> str:
    prefix, _, digest = tree.partition(":")
    if prefix != "s1" or not HEX.match(digest):
        raise BadName("not a tree hash: %r" % tree[:80])
    return digest


class RunFiles:
    """The files of one attempt of one run. A run directory is made once and never reused.

    What tells of one attempt has its number in its name from the second on (`exit.2.json`): the
    records of an attempt are never moved, replaced or written by another one.
    """

    def __init__(self, path: str, run_id: str, attempt: int = 1) -> None:
        self.path = path
        self.run_id = run_id
        self.attempt = attempt
        below = path + "/"  # made often, and joining twenty paths takes a while
        self.tree = below + "tree"
        self.results = below + "results"
        self.data = below + "data"
        self.log = below + "log"
        self.config = below + "config.json"
        self.spec = below + "spec.json"
        self.order = below + "order.json"  # what to start, without secrets' values
        self.stage = below + "stage"  # the stage begun last
        self.environment = below + "environment.json"  # may be absent
        self.session = below + "session.json"
        self.events = below + "events.jsonl"
        self.synced = below + "synced"  # the tree and what else a resume needs is on the disk
        self.reserve = below + "reserve"  # freed so that a full disk can hold `exit`
        number = "" if attempt == 1 else ".%d" % attempt
        self.started = below + "started" + number  # by O_EXCL: at most one start
        self.identity = below + "supervisor%s.json" % number
        self.job = below + "job%s.json" % number
        self.ended = below + "ended%s.json" % number  # the keeper's word, see keeper
        self.cancel = below + "cancel" + number
        self.exit = below + "exit%s.json" % number


def local_dir() -> str:
    """A private folder on host-local disk, for locks when the root is on a network file system."""
    path = "/tmp/orch-%d" % os.getuid()
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise Unsafe("%s is not a private folder of this user" % path)
    return path
