"""Rows about getting code to a host and a job started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.measure import Compared, Pair, Result, Row, Way, in_pairs, seconds_of
from tests.bench.world import ROOT, Site, World

BOTH = (Way.LOOPBACK, Way.FAR)


def unchanged(world: World, row: Row, way: Way, pairs: int) -> Sequence[Result]:
    site = world.site(way)
    files = world.sizes.tree_files
    project = world.project("unchanged", files=files, size=files * 3_000)
    found = in_pairs(
        lambda: site.submit_to_first_line(project, "stamp"),
        lambda: site.by_hand_to_first_line(project, f"mine/unchanged-{way.name}"),
        pairs,
        warm=2,
    )
    return [row.compared(way, found)]


def first(world: World, row: Row, way: Way, pairs: int) -> Sequence[Result]:
    site = world.site(way)
    project = _large(world)
    folder = world.sshd.home / "mine" / "first"

    def ours() -> float:
        _forget(world, site, agent_too=True)
        return site.submit_to_first_line(project, "stamp")

    def theirs() -> float:
        world.quiet()
        shutil.rmtree(folder, ignore_errors=True)
        return seconds_of(lambda: site.rsync(f"{project}/", "gpu:mine/first/"))

    return [row.compared(way, in_pairs(ours, theirs, pairs))]


def first_part(world: World, row: Row, way: Way, pairs: int) -> Sequence[Result]:
    site = world.site(way)
    project = _large(world)
    folder = world.sshd.home / "mine" / "first"
    site.submit(project, "stamp")  # the agent is on the host afterwards

    def ours() -> float:
        world.quiet()
        _forget(world, site, agent_too=False)
        argv = [sys.executable, "-m", "tests.bench.syncpart", str(project), str(site.home)]
        done = subprocess.run(
            argv,
            cwd=ROOT,
            env=site.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        # Files no older than the clock's grain are not kept there: then there is none.
        (site.home / "hashes").unlink(missing_ok=True)
        return float(done.stdout)

    def theirs() -> float:
        world.quiet()
        shutil.rmtree(folder, ignore_errors=True)
        return seconds_of(lambda: site.rsync(f"{project}/", "gpu:mine/first/"))

    return [row.compared(way, in_pairs(ours, theirs, pairs))]


def one_changed(world: World, row: Row, way: Way, pairs: int) -> Sequence[Result]:
    site = world.site(way)
    project = _large(world)
    folder = f"mine/changed-{way.name}"
    changing = sorted(project.glob("pkg*/*.py"))[world.sizes.sync_files // 2]
    by_hand: list[float] = []

    def ours() -> float:
        _edit(changing)
        return site.submit_to_first_line(project, "stamp")

    def theirs() -> float:
        seconds = seconds_of(lambda: site.rsync(f"{project}/", f"gpu:{folder}/"))
        _edit(changing)
        by_hand.append(site.by_hand_to_first_line(project, folder))
        return seconds

    found = in_pairs(ours, theirs, pairs, warm=2)
    started = [Pair(pair.ours, hand) for pair, hand in zip(found, by_hand[2:], strict=True)]
    also = Compared(row.work, "the same, `ssh tmux new -d` after it", way, None, started)
    return [row.compared(way, found), also]


def _large(world: World) -> Path:
    return world.project("large", files=world.sizes.sync_files, size=world.sizes.sync_bytes)


def _edit(path: Path) -> None:
    """One line of the file is another; its size stays."""
    lines = path.read_text().splitlines(keepends=True)
    lines[0] = f"# {os.urandom(64).hex()}"[: len(lines[0]) - 1] + "\n"
    path.write_text("".join(lines))


def _forget(world: World, site: Site, *, agent_too: bool) -> None:
    """The host has nothing of any project, and this side knows nothing of the host."""
    world.quiet()
    for name in ("store", "runs", *(["agent"] if agent_too else [])):
        shutil.rmtree(site.root / name, ignore_errors=True)
    shutil.rmtree(site.home / "state", ignore_errors=True)


ROWS = (
    Row(
        "submit-unchanged",
        "`orch submit`, {tree_files:,} files, unchanged: to the job's first line",
        "`rsync -a` + `ssh tmux new -d`: to the command's first line",
        {Way.LOOPBACK: 0.70, Way.FAR: 0.50},
        unchanged,
        "Start of the command to the time the job itself wrote (`date`). Ours: python's start, "
        "spec, preflight, git's state, ledger, one connection. Theirs: two connections, tmux's "
        "server running already. The code was sent by an earlier run, which also left a spare tree "
        "on the host, as every run does in the second after its start.",
    ),
    Row(
        "first-sync",
        "first submit of {sync_files:,} files, {sync_bytes:,} bytes: to the job's first line",
        "`rsync -a` to an empty folder",
        dict.fromkeys(BOTH, 1.1),
        first,
        "The whole submit against the transfer alone: ours also installs the agent, makes the "
        "ledger, hashes every file with no cache, writes store *and* run tree, and starts the job.",
    ),
    Row(
        "first-sync-part",
        "the same, the sync alone: connect, scan without a cache, send, commit",
        "`rsync -a` to an empty folder",
        dict.fromkeys(BOTH, 1.1),
        first_part,
        "Ours in a process that has done its imports; the agent is on the host. Theirs whole.",
    ),
    Row(
        "one-changed",
        "`orch submit`, one changed file of {sync_files:,}: to the job's first line",
        "`rsync -a`",
        dict.fromkeys(BOTH, 0.8),
        one_changed,
        "The whole submit against the transfer alone; the second line adds the start by hand.",
    ),
)
