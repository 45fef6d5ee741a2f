"""No space left, here or there: refused before the start, recorded after it, gone on with later."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, Desk, assert_clear, of_run, supervisor_of, until
from tests.helpers import processes

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root"),
]

Mount = Callable[..., Path]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a file system of so many MB at a folder, which may hold files already."""
    mounted: list[Path] = []

    def mount(place: Path, size: str, *options: str) -> Path:
        place.mkdir(parents=True, exist_ok=True)
        said = ",".join([f"size={size}", *options])
        subprocess.run(["mount", "-t", "tmpfs", "-o", said, "none", place], check=True)
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", place], check=True)


def remount(place: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)


def on(place: Path) -> dict[str, str]:
    return {"transport": "local", "session": "plain", "root": str(place / "orch")}


def never_ran(desk: Desk) -> None:
    assert {row[1:] for row in desk.rows()} == {("finished", "never_started")}


def test_f29_a_host_without_space_refuses_before_anything_starts(
    new_desk: MakeDesk, small_disk: Mount, tmp_path: Path
) -> None:
    place = small_disk(tmp_path / "host", "4m")
    desk = new_desk(host=on(place), files={"weights.bin": os.urandom(3_000_000)})
    done = desk.orch("submit", "train", code=10)
    assert_clear(done, "box", str(place), "8.4 MB must stay free for logs")
    never_ran(desk)
    remount(place, "64m")
    desk.orch("submit", "train", "-f")
    assert desk.show()["accuracy"] == 0.9


def test_f29_a_host_without_any_byte_for_the_agent_says_so(
    new_desk: MakeDesk, small_disk: Mount, tmp_path: Path
) -> None:
    place = small_disk(tmp_path / "host", "64k")
    (place / "full").write_bytes(b"x" * 60_000)
    desk = new_desk(host=on(place))
    done = desk.orch("submit", "train", code=10)
    assert_clear(done, "box")
    never_ran(desk)
    remount(place, "64m")
    desk.orch("submit", "train", "-f")


def test_f30_a_host_without_inodes_refuses_and_nothing_is_left_half_made(
    new_desk: MakeDesk, small_disk: Mount, tmp_path: Path
) -> None:
    place = small_disk(tmp_path / "host", "64m", "nr_inodes=120")
    desk = new_desk(host=on(place), files={f"pkg/m{n}.py": f"{n}" for n in range(150)})
    done = desk.orch("submit", "train", code=10)
    assert_clear(done, "box", "inodes")
    never_ran(desk)
    subprocess.run(["mount", "-o", "remount,nr_inodes=5000", place], check=True)
    desk.orch("submit", "train", "-f")


def test_f30_a_host_that_was_remounted_read_only_says_so_and_runs_nothing(
    new_desk: MakeDesk, small_disk: Mount, tmp_path: Path
) -> None:
    place = small_disk(tmp_path / "host", "64m")
    desk = new_desk(host=on(place))
    desk.orch("submit", "train", "-f")
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    done = desk.orch("submit", "train", code=10)
    assert_clear(done, "box", "read-only")
    assert desk.show()["verdict"] == "never_started"
    subprocess.run(["mount", "-o", "remount,rw", place], check=True)
    desk.orch("submit", "train", "-f")


FILL = """
import os, signal
print("begun", flush=True)
with open("results/metrics.json", "w") as file:
    file.write('{"accuracy": 0.9, "n": 100, "confusion_matrix": [[45,5],[5,45]]}')
try:
    with open("results/filler", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 65536)
except OSError as error:
    print(error, flush=True)
for _ in range(2000):
    try:
        os.write(1, b"y" * 100)
    except OSError:
        break
raise SystemExit(%d)
"""


@pytest.mark.parametrize(("status", "verdict"), [(0, "succeeded"), (3, "failed")])
def test_f29_a_disk_that_fills_during_the_run_still_gets_the_verdict(
    status: int, verdict: str, new_desk: MakeDesk, small_disk: Mount, tmp_path: Path
) -> None:
    place = small_disk(tmp_path / "host", "24m")
    spec = {**TRAIN, "command": "python3 fill.py", "expect": {"accuracy": {"min": 0.85}}}
    desk = new_desk({"fill": spec}, host=on(place), files={"fill.py": FILL % status})
    run_id = desk.submit("fill")
    done = desk.orch("wait", "--timeout", "30s", code=None)
    assert done.returncode == (0 if status == 0 else 1), done.stderr
    shown = desk.show()
    assert (shown["verdict"], shown["exit_code"]) == (verdict, status)
    assert shown["accuracy"] == (0.9 if status == 0 else None)
    assert of_run(run_id) == []
    assert os.statvfs(place).f_bavail < 100
    desk.orch("fetch-results", run_id)
    assert (desk.results("fill", run_id) / "filler").stat().st_size > 1_000_000
    assert desk.orch("tail", "--no-follow").stdout.startswith("begun")


def test_f29_on_a_full_disk_no_other_attempt_is_begun_and_the_end_is_the_jobs_own(
    new_desk: MakeDesk, small_disk: Mount, tmp_path: Path
) -> None:
    place = small_disk(tmp_path / "host", "24m")
    spec = {"command": "python3 fill.py", "retry": {"on": [{"exit": [75]}], "max": 2}}
    desk = new_desk({"fill": spec}, host=on(place), files={"fill.py": FILL % 75})
    run_id = desk.submit("fill")
    desk.orch("wait", run_id, code=1)
    shown = desk.show(run_id)
    assert (shown["verdict"], shown["exit_code"], shown["attempt"]) == ("failed", 75, 1)
    assert "no attempt follows: the disk under" in " ".join(shown["outcome_reasons"])


HOARD = """
import os, time
print("begun", flush=True)
with open("results/filler", "wb", buffering=0) as file:
    while True:
        try:
            file.write(b"x" * 4096)
        except OSError:
            time.sleep(0.01)
"""


@pytest.mark.parametrize("owned", [True, False])
def test_f29_a_run_that_has_filled_the_disk_can_be_cancelled(
    owned: bool, new_desk: MakeDesk, small_disk: Mount, tmp_path: Path
) -> None:
    place = small_disk(tmp_path / "host", "24m")
    desk = new_desk({"hoard": "exec python3 hoard.py"}, host=on(place), files={"hoard.py": HOARD})
    run_id = desk.submit("hoard")
    until(lambda: os.statvfs(place).f_bavail == 0, 60)
    if not owned:
        supervisor = supervisor_of(place / "orch" / "runs" / run_id)
        assert processes.end([supervisor]) == []
    desk.orch("cancel", run_id)
    assert desk.show()["verdict"] == "cancelled"
    assert of_run(run_id) == []


def test_f82_a_full_disk_here_keeps_what_came_and_goes_on_when_there_is_room(
    new_desk: MakeDesk, small_disk: Mount
) -> None:
    many = "for i in 1 2 3 4; do head -c 300000 /dev/urandom > results/f$i; done; "
    desk = new_desk({"big": many + "head -c 2500000 /dev/urandom > results/model.bin"})
    run_id = desk.submit("big")
    desk.orch("wait")
    place = small_disk(desk.project / "results", "1m")
    done = desk.orch("fetch-results", code=10)
    assert_clear(done, str(desk.project / "results"))
    assert desk.show()["fetched"] != "complete"
    remount(place, "2500k")
    desk.orch("fetch-results", code=10)
    remount(place, "16m")
    desk.orch("fetch-results")
    assert desk.show()["fetched"] == "complete"
    there = desk.home / ".orch" / "runs" / run_id / "results"
    for path in there.iterdir():
        assert (desk.results("big", run_id) / path.name).read_bytes() == path.read_bytes()


def test_f55_a_full_disk_under_the_ledger_starts_nothing(
    new_desk: MakeDesk, small_disk: Mount, tmp_path: Path
) -> None:
    desk = new_desk()
    place = small_disk(desk.home / "state" / "orch", "256k")
    desk.orch("submit", "train", "-f")
    (place / "filler").write_bytes(b"")
    with (place / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    before = set((desk.home / ".orch" / "runs").iterdir())
    done = desk.orch("submit", "train", code=11)
    assert_clear(done, "ledger")
    assert set((desk.home / ".orch" / "runs").iterdir()) == before
    (place / "filler").unlink()
    desk.orch("submit", "train", "-f")
    assert len(desk.runs()) == 2


def test_a_killed_run_on_a_full_disk_is_found_lost_when_there_is_room(
    new_desk: MakeDesk, small_disk: Mount, tmp_path: Path
) -> None:
    from tests.contract.desk import supervisor_of
    from tests.helpers import processes

    place = small_disk(tmp_path / "host", "24m")
    desk = new_desk({"sleep": "echo up; sleep 600 & wait"}, host=on(place))
    run_id = desk.submit("sleep")
    run = place / "orch" / "runs" / run_id
    with (place / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 65536)
        except OSError:
            pass
    processes.end([supervisor_of(run), *of_run(run_id)])
    desk.orch("show", "--json")
    (place / "filler").unlink()
    until(lambda: desk.show()["verdict"] == "lost")
