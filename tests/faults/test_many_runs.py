"""A hundred runs at once on one host, from one controller."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import supervisor_of
from tests.faults.truth import MARK, assert_truthful, marks, settled
from tests.helpers.sshd import PrivateSshd

RUNS = 100
LANES = 4  # submits at a time


def resident(pid: int) -> int:
    """KiB of this process that no other shares, and its share of the rest (proportional)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


@pytest.mark.ssh
@pytest.mark.slow
def test_many_runs_at_once_are_all_known_and_listed_in_one_round_trip(
    new_desk: MakeDesk, sshd: PrivateSshd, full: bool
) -> None:
    count = RUNS if full else 30
    wait = f"{MARK}; until test -e ../../../go; do sleep 1; done"
    desk = new_desk({"wait": wait}, host=box(sshd), ssh_config=sshd.client_config)
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
    (sshd.root_dir / "go").touch()
    settled(desk, sshd.root_dir, 120)
    assert_truthful(desk, sshd.root_dir)
    assert {row[2] for row in desk.rows()} == {"succeeded"}
    print(
        f"{count} runs: submitted in {submitted:.0f} s, listed in {took:.1f} s, one connection; "
        f"supervisors {sorted(sizes)[count // 2]} KiB (largest {max(sizes)})"
    )
