"""One private sshd with a slow link before it, and the programs of both sides, run as users do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.bench.measure import Way
from tests.helpers import processes
from tests.helpers.cli import orch_env
from tests.helpers.project import commit_all, make_project, run_git
from tests.helpers.sshd import MARK, PrivateSshd

ROOT = Path(__file__).resolve().parents[2]
DELAY_MS = 50.0
DEADLINE = 600.0
STAMP = "date +%s.%N"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work the rows are given."""

    tree_files: int = 2_000
    sync_files: int = 5_000
    sync_bytes: int = 25_000_000
    lines: int = 1_000
    log_bytes: int = 200_000_000
    large_files: int = 3
    large_bytes: int = 300_000_000
    small_files: int = 5_000
    small_bytes: int = 25_000_000
    runs: tuple[int, ...] = (10, 100_000)
    idle_s: float = 30.0


FULL = Sizes()
QUICK = Sizes(
    log_bytes=40_000_000,
    large_bytes=60_000_000,
    lines=300,
    idle_s=5.0,
)
TINY = Sizes(20, 30, 60_000, 20, 200_000, 3, 300_000, 20, 20_000, (2, 20), 0.3)


class World:
    """Use it in a `with`; nothing is left of it afterwards."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.sshd = PrivateSshd(alias="gpu")
        self._links: list[subprocess.Popen[str]] = []
        self._sites: dict[Way, Site] = {}

    def __enter__(self) -> World:
        self.folder = Path(tempfile.mkdtemp(prefix="orch-bench-"))
        self.sshd.start()
        self.hand("mkdir -p mine; tmux -f /dev/null new -d -s kept 'sleep 100000'")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for link in self._links:
            link.communicate(timeout=20)  # the end of its stdin ends it
        self.sshd.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def hand(self, command: str) -> str:
        """What a command said that was run on the host without either side's program."""
        done = self.sshd.run(command, timeout=DEADLINE)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def site(self, way: Way) -> Site:
        """The host as seen from one distance; made at the first call."""
        if way not in self._sites:
            port = self._far_port() if way is Way.FAR else None
            home = self.folder / way.name
            config = self.sshd.write_client_config(home / ".ssh", port=port)
            self._sites[way] = Site(self, home, config)
        return self._sites[way]

    def project(self, name: str, *, files: int, size: int) -> Path:
        """A project of that many files with the job `stamp`; the same one at the next call."""
        root = self.folder / "projects" / name
        if not root.exists():
            elsewhere = None if self.sshd.private_home else self.sshd.root_dir
            make_tree(root, files=files, size=size, orch_root=elsewhere)
        return root

    def _far_port(self) -> int:
        argv = [sys.executable, "-m", "tests.bench.delay", str(self.sshd.port), str(DELAY_MS)]
        link = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._links.append(link)
        assert link.stdout is not None
        return int(link.stdout.readline())

    def quiet(self) -> None:
        """Nothing that a measurement started on the host runs any more."""

        def left() -> list[int]:
            alive = processes.with_environment(MARK, self.sshd.token)
            return [pid for pid in alive if not processes.name_of(pid).startswith(("tmux", "sle"))]

        wait_until(lambda: not left(), "the host to come to rest")
        wait_until(lambda: not self.sshd.session_pids(), "the sessions to end")


class Site:
    """Commands of both sides against the host, each with a connection of its own."""

    def __init__(self, world: World, home: Path, config: Path) -> None:
        self.world = world
        self.home = home
        self.config = config
        self.root = world.sshd.root_dir
        self.env = orch_env(home, {"ORCH_SSH_CONFIG": str(config)})
        self.env["PATH"] = f"{Path(sys.executable).parent}:{self.env['PATH']}"

    # -- ours -----------------------------------------------------------------------------------

    def orch(self, project: Path, *args: str) -> str:
        """The stdout of `orch ARGS` in the project; it must succeed."""
        done = subprocess.run(
            ["orch", *args],
            cwd=project,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, f"orch {args}: {done.returncode}: {done.stderr}"
        return done.stdout

    def submit(self, project: Path, job: str) -> str:
        """The id of a run that was started."""
        return self.orch(project, "submit", job, "--host", "gpu").strip()

    def log_of(self, run_id: str) -> Path:
        return self.root / "runs" / run_id / "log"

    def submit_to_first_line(self, project: Path, job: str) -> float:
        """Seconds from the start of the command to the time the job wrote as its first line."""
        self.world.quiet()
        begun = time.time()
        run_id = self.submit(project, job)
        seconds = first_stamp(self.log_of(run_id)) - begun
        self.world.quiet()
        return seconds

    # -- theirs ---------------------------------------------------------------------------------

    def ssh(self, *command: str) -> list[str]:
        """An argv that runs `command` on the host."""
        return ["ssh", "-F", str(self.config), "-T", "gpu", *command]

    def rsync(self, source: str, target: str) -> None:
        """`rsync -a` over the same sshd; the code's tree without what orch leaves out as well."""
        leave = ["--exclude=.git", "--exclude=/results"]
        shell = f"ssh -F {self.config}"
        self.run(["rsync", "-a", *leave, "-e", shell, source, target])

    def run(self, argv: Sequence[str]) -> None:
        """The command succeeded."""
        done = subprocess.run(
            argv, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE
        )
        assert done.returncode == 0, (argv, done.stderr)

    def by_hand_to_first_line(self, project: Path, folder: str) -> float:
        """rsync, then a command in a new tmux session, to the time that command wrote."""
        self.world.quiet()
        stamp = self.world.sshd.home / "stamp"
        stamp.unlink(missing_ok=True)
        begun = time.time()
        self.rsync(f"{project}/", f"gpu:{folder}/")
        self.run(self.ssh(f"tmux new -d -c ~/{folder} 'date +%s.%N > ~/stamp'"))
        seconds = first_stamp(stamp) - begun
        self.world.quiet()
        return seconds


def first_stamp(path: Path) -> float:
    """The first line of the file, once it is there: seconds since the epoch."""
    found: list[float] = []

    def look() -> bool:
        try:
            line, ended, _ = path.read_text().partition("\n")
        except FileNotFoundError:
            return False
        if ended:
            found.append(float(line))
        return bool(ended)

    wait_until(look, f"a first line in {path}")
    return found[0]


def wait_until(true: Callable[[], object], what: str, deadline_s: float = 60.0) -> None:
    """`true()` holds; TimeoutError names what did not come."""
    until = time.monotonic() + deadline_s
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(f"no {what} within {deadline_s:g} s")
        time.sleep(0.01)


def make_tree(root: Path, *, files: int, size: int, orch_root: Path | None) -> Path:
    """A project of `files` source-like files of `size` bytes in all, committed to git.

    orch_root: where orch keeps its files on the host, when that is not the login's own home.
    """
    content: dict[str, str | bytes] = {}
    each = max(1, size // files)
    for number in range(files):
        words = f"value_{number} = {number}  # {os.urandom(24).hex()}\n"
        text = (words * (each // len(words) + 1))[: each - 1] + "\n"
        content[f"pkg{number % 50:02}/module_{number:05}.py"] = text
    host = {"hosts": {"gpu": {"root": str(orch_root)}}} if orch_root else {}
    make_project(root, {"stamp": STAMP}, orch_yaml=host, files=content, git=False)
    # Files as new as git's index would be read again by every `git status`.
    past = time.time() - 3600
    for path in root.rglob("*"):
        os.utime(path, (past, past))
    (root / ".gitignore").write_text("results/\n")
    run_git(root, "init", "-q", "-b", "main")
    commit_all(root, "begin")
    return root


def write_job(project: Path, name: str, program: str, *args: str) -> None:
    """`jobs/name.yaml` runs the program, which lies in the project's root, with these arguments."""
    (project / f"{name}.py").write_text(program.lstrip())
    words = ", ".join(json.dumps(word) for word in ("python3", f"{name}.py", *args))
    (project / "jobs" / f"{name}.yaml").write_text(f"command: [{words}]\n")
