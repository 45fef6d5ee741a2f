"""The measurements as a table: for a terminal, and as docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.bench.measure import Compared, Fact, Result, Row
from tests.bench.world import Sizes

HEAD = ("work", "against", "distance", "ours", "theirs", "ratio", "goal", "met")


def cells(result: Result) -> tuple[str, ...]:
    if isinstance(result, Fact):
        goal = "" if result.goal is None else f"<= {result.goal:g} {result.unit}"
        value = f"{result.value:.3g} {result.unit}"
        return (result.work, "", "", value, "", "", goal, _met(result))
    low, high = (pick(pair.ratio for pair in result.pairs) for pick in (min, max))
    return (
        result.work,
        result.against,
        result.way.value,
        _time(result.ours),
        _time(result.theirs),
        f"{result.ratio:.2f} ({low:.2f} to {high:.2f})",
        "" if result.goal is None else f"<= {result.goal:.2f}",
        _met(result),
    )


def _met(result: Result) -> str:
    if result.met is None or result.goal is None:
        return ""
    if result.met:
        return "yes"
    if isinstance(result, Compared):
        return f"no, {result.ratio / result.goal - 1:.0%} over"
    return f"no, {result.value - result.goal:.3g} {result.unit} over"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def text(results: Sequence[Result]) -> str:
    """Aligned columns."""
    rows = [HEAD, *map(cells, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in rows]  # fmt: skip
    return "\n".join(lines) + "\n"


def markdown(
    results: Sequence[Result], rows: Sequence[Row], sizes: Sizes, *, command: str, when: str,
    loads: tuple[str, str],
) -> str:  # fmt: skip
    """The whole page."""
    table = [HEAD, ("---",) * len(HEAD), *map(cells, results)]
    body = "\n".join("| " + " | ".join(row) + " |" for row in table)
    notes = "\n".join(
        f"- **{words(row.work, sizes)}.** {row.includes}" for row in rows if row.includes
    )
    counts = sorted({len(r.pairs) for r in results if isinstance(r, Compared)})
    number = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0] if counts else 0)
    return PAGE.format(
        table=body, notes=notes, machine=_machine(), versions=_versions(), command=command,
        when=when, before=loads[0], after=loads[1], number=number,
    )  # fmt: skip


PAGE = """# How fast it is

Made by `make bench`; do not edit. Each piece of work is done by `orch` and by hand, in turns on one
machine, against the same real sshd on 127.0.0.1: directly, and behind a proxy that holds every byte
back for 50 ms in each direction. `ours` and `theirs` are medians; `ratio` is the median of the
turns' own ratios, with the smallest and the largest in parentheses; less than 1 means that `orch`
was faster. A goal that was missed says by how much.

{table}

- Machine: {machine}
- Versions: {versions}
- Command: `{command}`, {when}; {number} turns a row; load average {before} before, {after} after.

## What the rows include

Both sides open a connection of their own for every command (no ControlMaster, no compression); the
page cache is warm for both; `rsync` leaves out what `orch` leaves out (`.git`, `results/`). The
host's side runs on the same machine, so both ends and, for 50 ms, the proxy share its cores.

{notes}
"""


def words(work: str, sizes: Sizes) -> str:
    return work.format(**asdict(sizes))


def load() -> str:
    return f"{os.getloadavg()[0]:.2f}"


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    cores = len(os.sched_getaffinity(0))
    where = f"files on {_filesystem(Path(tempfile.gettempdir()))}"
    return f"{cores} cores of {cpu}, {memory:.0f} GiB, {where}, Linux {platform.release()}"


def _filesystem(path: Path) -> str:
    """The type of the file system `path` is on."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(len(m[1]), m[2]) for m in mounts if path.resolve().is_relative_to(m[1])]
    return max(above)[1]


def _versions() -> str:
    told = [f"Python {platform.python_version()}"]
    for argv in (["ssh", "-V"], ["rsync", "--version"], ["tmux", "-V"], ["git", "--version"]):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
        first = (done.stdout or done.stderr).splitlines()[0]
        told.append(" ".join(first.split(",")[0].split()[:3]).replace("  ", " "))
    return ", ".join(told)
