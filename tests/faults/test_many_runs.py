"""A hundred runs at once on one host, listed and followed from one controller."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import supervisor_of, until
from tests.contract.test_faults import Reader
from tests.faults.truth import MARK, assert_truthful, marks, settled
from tests.helpers.sshd import PrivateSshd

RUNS = 100
LANES = 4  # submits at a time
TALKS = (
    f'{MARK}; i=0; until test -e ../../../go; do i=$((i+1)); echo "$ORCH_RUN_ID line $i"; sleep 1; '
    'done; echo "$ORCH_RUN_ID ends"'
)


def resident(pid: int) -> int:
    """KiB of this process that no other shares, and its share of the rest (proportional)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


@pytest.mark.ssh
@pytest.mark.slow
def test_many_runs_at_once_are_listed_in_one_round_trip_and_followed_by_one_tail(
    new_desk: MakeDesk, sshd: PrivateSshd, full: bool
) -> None:
    count = RUNS if full else 30
    desk = new_desk({"wait": TALKS}, host=box(sshd), ssh_config=sshd.client_config)
    desk.orch("check", "wait")
    began = time.monotonic()
    left = count
    while left:
        some = [desk.start("submit", "wait") for _ in range(min(LANES, left))]
        told = [each.communicate(timeout=120) for each in some]
        assert [each.returncode for each in some] == [0] * len(some), told
        left -= len(some)
    submitted = time.monotonic() - began
    before = sshd.log().count("Accepted publickey")
    began = time.monotonic()
    listed = json.loads(desk.orch("ls", "--json").stdout)
    took = time.monotonic() - began
    assert sshd.log().count("Accepted publickey") == before + 1, "more than one connection"
    assert [run["state"] for run in listed] == ["running"] * count
    assert len(marks(sshd.root_dir)) == count
    sizes = [resident(supervisor_of(sshd.root_dir / "runs" / run["run_id"])) for run in listed]
    assert max(sizes) <= 15 * 1024, f"a supervisor of {max(sizes)} KiB"
    tail, before = desk.start("tail", *(run["run_id"] for run in listed)), before + 1
    out, errors = Reader(tail.stdout), Reader(tail.stderr)
    until(lambda: all(f"{run['run_id']} line" in out.text for run in listed), 120)
    (sshd.root_dir / "go").touch()
    assert tail.wait(timeout=300) == 0, errors.text
    out.join(60)
    # One asks after all of them, one streams.
    assert sshd.log().count("Accepted publickey") <= before + 2
    seen: dict[str, str] = {run["run_id"]: "" for run in listed}
    for line in out.text.splitlines(keepends=True):
        said = line.partition(" | ")[2]
        seen[said.split()[0]] += said
    for run_id, text in seen.items():
        assert text == (sshd.root_dir / "runs" / run_id / "log").read_text(), run_id
    settled(desk, sshd.root_dir, 120)
    assert_truthful(desk, sshd.root_dir)
    assert {row[2] for row in desk.rows()} == {"succeeded"}
    print(
        f"{count} runs: submitted in {submitted:.0f} s, listed in {took:.1f} s, one connection, "
        f"{len(out.text.splitlines())} lines followed over two more, none lost or repeated; "
        f"supervisors {sorted(sizes)[count // 2]} KiB (largest {max(sizes)})"
    )
