from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain import ExitRecord, Judged, Outcome, Verdict
from orchestrator.errors import LedgerError
from orchestrator.ledger import Ledger, files, schema
from orchestrator.ledger.database import Database
from remote import files as remote_files
from tests.helpers.runs import AT, a_run, an_id

NEWEST = len(schema.MIGRATIONS)
ROOT = Path(__file__).resolve().parents[2]
MORE = (*schema.MIGRATIONS, ("ALTER TABLE runs ADD COLUMN later TEXT",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with three runs, closed."""
    place = tmp_path / "ledger.db"
    with Ledger.open(place) as ledger:
        for second in range(3):
            ledger.intend(a_run(an_id(second)))
    return place


def refused(path: Path, *, readonly: bool = False) -> LedgerError:
    """How opening and reading the ledger is refused; the file is as it was."""
    before = path.read_bytes()
    with pytest.raises(LedgerError) as caught, Ledger.open(path, readonly=readonly) as ledger:
        ledger.runs()
    assert path.read_bytes() == before
    assert caught.value.exit_code == 11
    assert str(path) in caught.value.message
    assert "nothing was" in caught.value.message
    return caught.value


@pytest.mark.parametrize("readonly", [False, True])
def test_f56_a_file_without_content_is_kept_and_refused(path: Path, readonly: bool) -> None:
    path.write_bytes(b"")
    error = refused(path, readonly=readonly)
    assert "orch ledger rebuild" in (error.hint or "")


def test_a_log_without_its_ledger_is_refused(path: Path) -> None:
    shutil.copy(path, path.with_name("ledger.db-wal"))
    path.unlink()
    for readonly in (False, True):
        with pytest.raises(LedgerError, match="is gone but its log"):
            Ledger.open(path, readonly=readonly)
    assert not path.exists()


@pytest.mark.parametrize("readonly", [False, True])
def test_f56_a_file_that_is_no_database_is_kept_and_refused(path: Path, readonly: bool) -> None:
    path.write_bytes(b"these are my notes\n" * 500)
    assert "keep the file" in (refused(path, readonly=readonly).hint or "")


@pytest.mark.parametrize("readonly", [False, True])
def test_f56_pages_of_garbage_are_found_and_the_file_kept(path: Path, readonly: bool) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = random.Random(1).randbytes(len(content) - 4096)
    path.write_bytes(content)
    assert "keep the file" in (refused(path, readonly=readonly).hint or "")


def test_f56_a_row_that_is_no_run_is_a_ledger_error(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("UPDATE runs SET config = '{torn'")
    other.close()
    refused(path)


def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE songs (name TEXT)")
    other.close()
    assert "another program" in refused(path).message


@pytest.mark.parametrize("readonly", [False, True])
def test_f58_a_newer_ledger_is_not_touched(path: Path, readonly: bool) -> None:
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    other.close()
    assert "newer" in (refused(path, readonly=readonly).hint or "")


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(LedgerError, match="not a regular file"):
        Ledger.open(tmp_path / "ledger.db")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LedgerError):
        Ledger.open(tmp_path / "file" / "orch" / "ledger.db")


@pytest.mark.root
def test_f62_another_users_ledger_is_not_opened(path: Path) -> None:
    os.chown(path, 12345, 12345)
    assert "belongs to user id 12345" in refused(path).message


def test_f62_a_ledger_others_could_read_is_private_again(path: Path) -> None:
    path.chmod(0o644)
    Ledger.open(path, readonly=True).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs", "fuse.ceph-fuse"])
def test_f60_a_network_file_system_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    line = f"36 35 {os.major(device)}:{os.minor(device)} / /home rw shared:1 - {kind} server:/ rw\n"
    mounts.write_text("35 1 0:999999 / / rw - ext4 /dev/sda rw\n" + line)
    with pytest.raises(LedgerError, match=kind):
        files.refuse_network(tmp_path / "ledger.db", mounts)
    mounts.write_text(line.replace(kind, "ext4"))
    files.refuse_network(tmp_path / "ledger.db", mounts)


def test_f60_here_and_on_a_host_the_same_file_systems_are_a_networks() -> None:
    assert set(files._NETWORK) == set(remote_files.NETWORK_FS)


def test_f54_a_lock_held_by_another_process_ends_in_an_error_and_nothing_half_done(
    path: Path,
) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
            "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with Ledger.open(path, busy_seconds=0.3) as ledger:
            begun = time.monotonic()
            with pytest.raises(LedgerError, match="lock.*nothing was recorded"):
                ledger.intend(a_run(an_id(9)))
            assert 0.25 < time.monotonic() - begun < 30
            assert ledger.count() == 3  # readers go on
            holder.stdin.close()
            holder.wait(10)
            ledger.intend(a_run(an_id(9)))
            assert ledger.count() == 4
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


class Interrupting(sqlite3.Connection):
    """Raises Ctrl-C when a transaction has just begun, as one that came during the wait is."""

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        done = super().execute(statement, *values)
        if statement == "BEGIN IMMEDIATE":
            raise KeyboardInterrupt
        return done


def test_f54_ctrl_c_while_a_write_waits_for_the_lock_leaves_no_transaction_open(path: Path) -> None:
    connection = sqlite3.connect(path, factory=Interrupting, isolation_level=None)
    ledger = Ledger(Database(connection, path, readonly=False))
    with pytest.raises(KeyboardInterrupt):
        ledger.intend(a_run(an_id(9)))
    with Ledger.open(path, busy_seconds=0.05) as other:
        other.intend(a_run(an_id(8)))
    ledger.close()


FILL = """
import resource, signal, sys
from pathlib import Path
from orchestrator.errors import LedgerError
from orchestrator.ledger import Ledger
from tests.helpers.runs import a_run, an_id
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
with Ledger.open(Path(sys.argv[1])) as ledger:
    for second in range(100, 200):
        try:
            ledger.intend(a_run(an_id(second), config={"text": "x" * 20_000}))
        except LedgerError as error:
            print(error.message)
            sys.exit(error.exit_code)
        print(an_id(second), flush=True)
"""


def in_project(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", code, *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_f55_where_no_byte_more_fits_nothing_is_recorded_and_the_rest_stays(path: Path) -> None:
    done = in_project(FILL, str(path))
    assert done.returncode == 11, done.stderr
    *recorded, message = done.stdout.splitlines()
    assert "nothing was recorded" in message
    assert len(recorded) >= 1
    with Ledger.open(path) as ledger:
        assert ledger.integrity() == []
        assert {run.run_id for run in ledger.runs()} == {*recorded, *map(an_id, range(3))}


@pytest.mark.root
def test_f55_a_full_disk_stops_the_command_with_nothing_recorded(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(small)], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("root, but not allowed to mount")
    try:
        recorded: list[str] = []
        with Ledger.open(small / "ledger.db") as ledger:
            with pytest.raises(LedgerError, match="nothing was recorded") as caught:
                _fill(ledger, recorded)
            assert "full" in caught.value.message
            assert [run.run_id for run in ledger.runs(newest_first=False)] == recorded
            assert ledger.integrity() == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def _fill(ledger: Ledger, recorded: list[str]) -> None:
    for second in range(1000):
        ledger.intend(a_run(an_id(second), config={"text": "x" * 20_000}))
        recorded.append(an_id(second))


# --- migration ------------------------------------------------------------------------------------


def test_f59_an_older_ledger_is_migrated_and_a_copy_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", MORE)
    with Ledger.open(path) as ledger:
        assert ledger.count() == 3
    with sqlite3.connect(path) as after:
        assert after.execute("PRAGMA user_version").fetchone()[0] == len(MORE)
        assert after.execute("SELECT count(later) FROM runs").fetchone() == (0,)
    after.close()
    copies = sorted(path.parent.glob("*.bak"))
    assert [each.name for each in copies] == [f"ledger.db.v{len(MORE) - 1}-1.bak"]
    assert stat.S_IMODE(copies[0].stat().st_mode) == 0o600
    monkeypatch.undo()
    copies[0].rename(path.parent / "copy.db")
    with Ledger.open(path.parent / "copy.db") as copy:
        assert copy.count() == 3


def test_reading_an_older_ledger_migrates_it_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", MORE)
    with Ledger.open(path, readonly=True) as ledger:
        assert ledger.count() == 3
    assert len(list(path.parent.glob("*.bak"))) == 1


def test_f57_a_migration_that_fails_half_way_leaves_the_old_schema(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = (*MORE[-1], "ALTER TABLE no_such_table ADD COLUMN x TEXT")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, torn))
    with pytest.raises(LedgerError):
        Ledger.open(path)
    monkeypatch.undo()
    with Ledger.open(path) as ledger:
        assert ledger.count() == 3
        ledger.intend(a_run(an_id(9)))


def test_a_failed_event_changes_neither_row_nor_timeline(path: Path) -> None:
    with Ledger.open(path) as ledger:
        with pytest.raises(LedgerError, match="nothing was recorded"):
            # The row is changed first; the line of the timeline is then refused.
            _torn_event(ledger)
        assert ledger.get(an_id(0)).note is None
        assert len(ledger.events(an_id(0))) == 1
        assert ledger.finished(
            an_id(0), AT, ExitRecord(Verdict.FAILED, 1), Judged(Outcome.UNVERIFIED)
        )


def _torn_event(ledger: Ledger) -> None:
    with ledger._change(an_id(0), AT, "", {}):  # a kind without a word is against the schema
        ledger._set(an_id(0), note="half done")


def test_a_ledger_made_between_the_look_at_it_and_at_its_log_is_not_taken_for_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat
    looked = []

    def first_absent(name: os.PathLike[str], *args: object, **kwargs: object) -> os.stat_result:
        if name == path and not looked:
            looked.append(name)
            raise FileNotFoundError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    with Ledger.open(path) as ledger:
        ledger.noted(an_id(0), AT, "the log has content now")
        assert files.wal_of(path).stat().st_size
        monkeypatch.setattr(os, "stat", first_absent)
        assert files.is_present(path)
    assert looked
