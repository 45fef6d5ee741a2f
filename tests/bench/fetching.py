"""Rows about results on their way home."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.bench.measure import Result, Row, Way, in_pairs, seconds_of
from tests.bench.world import Site, World, write_job

MAKER = """
import os, sys
count, size = int(sys.argv[1]), int(sys.argv[2])
folder = os.environ["ORCH_RESULTS_DIR"]
for number in range(count):
    place = os.path.join(folder, "part%02d" % (number % 40)) if count > 10 else folder
    os.makedirs(place, exist_ok=True)
    with open(os.path.join(place, "result-%05d.bin" % number), "wb") as file:
        left = size // count
        while left > 0:
            file.write(os.urandom(min(left, 1 << 20)))
            left -= 1 << 20
"""


def large(world: World, row: Row, way: Way, pairs: int) -> Sequence[Result]:
    sizes = world.sizes
    return _fetched(world, row, way, pairs, sizes.large_files, sizes.large_bytes)


def small(world: World, row: Row, way: Way, pairs: int) -> Sequence[Result]:
    sizes = world.sizes
    return _fetched(world, row, way, pairs, sizes.small_files, sizes.small_bytes)


def _fetched(
    world: World, row: Row, way: Way, pairs: int, count: int, size: int
) -> Sequence[Result]:
    site = world.site(way)
    project = world.project("fetching", files=5, size=5_000)
    write_job(project, "maker", MAKER, str(count), str(size))
    run_id = site.submit(project, "maker")
    site.orch(project, "wait", run_id)
    here = project / "results" / "maker" / run_id
    by_hand = world.folder / "by-hand"
    there = site.root / "runs" / run_id / "results"

    def ours() -> float:
        world.quiet()
        shutil.rmtree(project / "results", ignore_errors=True)
        seconds = seconds_of(lambda: site.orch(project, "fetch-results", run_id))
        _expect(here, count, size // count * count)
        return seconds

    def theirs() -> float:
        world.quiet()
        shutil.rmtree(by_hand, ignore_errors=True)
        seconds = seconds_of(lambda: site.rsync(f"gpu:{there}/", f"{by_hand}/"))
        _expect(by_hand, count, size // count * count)
        return seconds

    found = in_pairs(ours, theirs, pairs)
    _clear(site, project, by_hand, run_id)
    return [row.compared(way, found)]


def _expect(folder: Path, count: int, size: int) -> None:
    sizes = [path.stat().st_size for path in folder.rglob("result-*.bin")]
    assert (len(sizes), sum(sizes)) == (count, size), (folder, len(sizes), sum(sizes))


def _clear(site: Site, project: Path, by_hand: Path, run_id: str) -> None:
    shutil.rmtree(project / "results", ignore_errors=True)
    shutil.rmtree(by_hand, ignore_errors=True)
    shutil.rmtree(site.root / "runs" / run_id, ignore_errors=True)


ROWS = (
    Row(
        "fetch-large",
        "`orch fetch-results`, {large_files} files, {large_bytes:,} random bytes",
        "`rsync -a` pull",
        dict.fromkeys((Way.LOOPBACK, Way.FAR), 1.2),
        large,
        "To a folder that is not there. Ours: hashed on the host, verified here, and recorded.",
    ),
    Row(
        "fetch-small",
        "`orch fetch-results`, {small_files:,} files, {small_bytes:,} random bytes",
        "`rsync -a` pull",
        dict.fromkeys((Way.LOOPBACK, Way.FAR), 1.2),
        small,
        "As above.",
    ),
)
