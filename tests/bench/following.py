"""Rows about a log on its way to the screen."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.measure import Compared, Pair, Result, Row, Way, in_pairs, percentile
from tests.bench.world import Site, World, wait_until, write_job

TALKER = """
import os, sys, time
count, pause, go = int(sys.argv[1]), float(sys.argv[2]), os.path.expanduser(sys.argv[3])
print("ready", flush=True)
while not os.path.exists(go):
    time.sleep(0.02)
due = time.monotonic() + 0.5
for number in range(count):
    time.sleep(max(0.0, due - time.monotonic()))
    due += pause
    os.write(1, b"%d %.9f step=%d loss=2.345 lr=3.0e-4\\n" % (number, time.time(), number))
print("over", flush=True)
time.sleep(1.0)
"""

WRITER = """
import random, sys
left, step, rng = int(sys.argv[1]), 0, random.Random(1)
while left > 0:
    block = []
    for _ in range(2000):
        step += 1
        block.append("2026-01-01 00:00:00,%03d INFO train: step %d/1000000 loss %.4f lr %.3e "
                     "grad_norm %.3f tokens/s %d\\n" % (step % 1000, step, rng.random() * 3,
                     rng.random() * 1e-3, rng.random(), rng.randrange(90000, 99999)))
    text = "".join(block)[:left]
    left -= len(text)
    sys.stdout.write(text)
"""
PAUSE = 0.01


def lines(world: World, row: Row, way: Way, pairs: int) -> Sequence[Result]:
    site = world.site(way)
    count = world.sizes.lines
    project = world.project("following", files=5, size=5_000)
    write_job(project, "talker", TALKER, str(count), str(PAUSE), "~/go")
    middles: list[Pair] = []
    turn: list[list[float]] = []

    def ours() -> float:
        run_id = _talking(world, site, project)
        turn.append(_watch(world, site, ["orch", "tail", run_id], project, count))
        return percentile(turn[-1], 0.99)

    def theirs() -> float:
        run_id = _talking(world, site, project)
        argv = site.ssh(f"tail -n +1 -F {site.log_of(run_id)}")
        late = _watch(world, site, argv, project, count)
        middles.append(Pair(percentile(turn[-1], 0.5), percentile(late, 0.5)))
        return percentile(late, 0.99)

    found = in_pairs(ours, theirs, pairs, warm=0)
    also = Compared("the same, the median line", row.against, way, None, middles)
    return [row.compared(way, found), also]


def _talking(world: World, site: Site, project: Path) -> str:
    """A run that waits for the word to begin."""
    world.quiet()
    (world.sshd.home / "go").unlink(missing_ok=True)
    return site.submit(project, "talker")


def _watch(world: World, site: Site, argv: list[str], project: Path, count: int) -> list[float]:
    """Seconds from writing to arrival of each of `count` lines, read from a pipe."""
    process = subprocess.Popen(
        argv,
        cwd=project,
        env=site.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    with process:
        try:
            return _arrivals(world, process, count)
        finally:
            process.kill()


def _arrivals(world: World, process: subprocess.Popen[bytes], count: int) -> list[float]:
    assert process.stdout is not None
    late: list[float] = []
    rest = b""
    while len(late) < count:
        chunk = process.stdout.read(65536)
        now = time.time()
        assert chunk, f"the follower ended after {len(late)} lines"
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line == b"ready":
                (world.sshd.home / "go").touch()
            elif line[:1].isdigit():
                late.append(now - float(line.split()[1]))
    return late


def long_log(world: World, row: Row, way: Way, pairs: int) -> Sequence[Result]:
    site = world.site(way)
    size = world.sizes.log_bytes
    project = world.project("following", files=5, size=5_000)
    write_job(project, "writer", WRITER, str(size))
    run_id = site.submit(project, "writer")
    log = site.log_of(run_id)
    wait_until(lambda: log.exists() and log.stat().st_size >= size, "the log", 120)
    world.quiet()
    site.orch(project, "wait", run_id)

    def ours() -> float:
        return _drained(site, project, ["orch", "tail", "--no-follow", run_id], size)

    def theirs() -> float:
        return _drained(site, project, site.ssh(f"cat {log}"), size)

    found = in_pairs(ours, theirs, pairs)
    world.hand(f"rm -f {log}")
    return [row.compared(way, found)]


def _drained(site: Site, project: Path, argv: list[str], size: int) -> float:
    """Seconds until all output went through a pipe into `wc -c`, which must count `size`."""
    begun = time.perf_counter()
    writer = subprocess.Popen(
        argv,
        cwd=project,
        env=site.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    reader = subprocess.Popen(["wc", "-c"], stdin=writer.stdout, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.close()
    counted, _ = reader.communicate(timeout=600)
    writer.wait(60)
    seconds = time.perf_counter() - begun
    assert int(counted) == size, (argv, int(counted), size)
    return seconds


ROWS = (
    Row(
        "line-latency",
        "`orch tail`: line written on the host to line read, p99 of {lines:,} lines",
        "`ssh host tail -F`",
        dict.fromkeys((Way.LOOPBACK, Way.FAR), 1.2),
        lines,
        "100 lines a second, each with the time it was written, read from a pipe that is stamped "
        "on arrival. Ours and theirs follow two runs of the same job, one after the other.",
    ),
    Row(
        "log-200mb",
        "`orch tail --no-follow` of a log of {log_bytes:,} bytes",
        "`ssh host cat`",
        dict.fromkeys((Way.LOOPBACK, Way.FAR), 1.3),
        long_log,
        "Start of the command to its end, into a pipe that `wc -c` reads and checks.",
    ),
)
