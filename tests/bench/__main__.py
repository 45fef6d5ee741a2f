"""The table: `python -m tests.bench [ROW...] [--pairs N] [--quick] [--write PATH]`."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import fetching, following, local, submitting, table
from tests.bench.measure import Compared, Fact, Result, Row, Way
from tests.bench.world import FULL, QUICK, TINY, Sizes, World

ROWS: tuple[Row, ...] = (*submitting.ROWS, *following.ROWS, *fetching.ROWS, *local.ROWS)
SIZES = {"full": FULL, "quick": QUICK, "tiny": TINY}
WAYS = {"local": Way.LOCAL, "loopback": Way.LOOPBACK, "far": Way.FAR}


def main(argv: Sequence[str]) -> int:
    """0 when everything was measured, whether or not it reached its goal."""
    asked = _arguments(argv)
    chosen = [row for row in ROWS if not asked.rows or row.name in asked.rows]
    sizes = SIZES[asked.size]
    ways = {WAYS[name] for name in asked.way or WAYS}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is taken down
    before = table.load()
    results: list[Result] = []
    for result in measure(chosen, ways, sizes, asked.pairs):
        results.append(result)
        print("  ".join(cell for cell in table.cells(result) if cell), file=sys.stderr, flush=True)
        if asked.write:  # after each: a run that is cut short leaves what it measured
            page = table.markdown(
                results,
                chosen,
                sizes,
                command=f"python -m tests.bench {' '.join(argv)}".strip(),
                when=f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
                loads=(before, table.load()),
            )
            asked.write.parent.mkdir(exist_ok=True)
            asked.write.write_text(page)
    sys.stdout.write(table.text(results))
    return 0


def measure(
    rows: Sequence[Row], ways: set[Way], sizes: Sizes, pairs: int
) -> Iterator[Compared | Fact]:
    """The results as they come, row after row, with the sizes named in their words."""
    with World(sizes) as world:
        for row in rows:
            for way in row.goals:
                if way not in ways:
                    continue
                begun = time.monotonic()
                for result in row.run(world, row, way, pairs):
                    yield dataclasses.replace(result, work=table.words(result.work, sizes))
                spent = time.monotonic() - begun
                print(f"# {row.name}, {way.value}: {spent:.0f} s", file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[[], *(row.name for row in ROWS)], metavar="ROW",
                        help=", ".join(row.name for row in ROWS))  # fmt: skip
    parser.add_argument("--pairs", type=int, default=7, help="turns a row (default 7)")
    parser.add_argument("--quick", dest="size", action="store_const", const="quick", default="full")
    parser.add_argument("--tiny", dest="size", action="store_const", const="tiny")
    parser.add_argument("--way", action="append", choices=list(WAYS), help="only these distances")
    parser.add_argument("--write", type=Path, help="also write the page here")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
