"""The ledger's SQLite file: made, opened, migrated, written in whole transactions.

The only user of sqlite3; none of its exceptions leaves this module but as a LedgerError.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.errors import LedgerError
from orchestrator.ledger import files, schema

BUSY_SECONDS = 5.0


class Database:
    """One connection. `write` holds a transaction, `rows` asks."""

    def __init__(self, connection: sqlite3.Connection, path: Path, *, readonly: bool) -> None:
        self.connection, self.path, self.readonly = connection, path, readonly

    @classmethod
    def open(cls, path: Path, *, readonly: bool, busy_seconds: float = BUSY_SECONDS) -> Database:
        """The database at `path` in the newest schema; made if absent, unless `readonly`."""
        if not files.is_present(path):
            if readonly:
                return cls(_in_memory(), path, readonly=True)
            files.make_parent(path)
            files.refuse_network(path)
            with mapped(path):
                _create(path)
        else:
            files.refuse_network(path)
        with mapped(path):
            connection = _connect(path, readonly=readonly, busy_seconds=busy_seconds)
            try:
                if _version(connection, path) < len(schema.MIGRATIONS):
                    _bring_up_to_date(path, busy_seconds)
            except BaseException:
                connection.close()
                raise
        return cls(connection, path, readonly=readonly)

    @classmethod
    def copy_of(cls, path: Path) -> Database:
        """What the database at `path` holds, in memory: what is written to it is not kept."""
        with mapped(path):
            source = _connect(path, readonly=True, busy_seconds=BUSY_SECONDS)
            try:
                _version(source, path)
                copy = sqlite3.connect(":memory:", isolation_level=None)
                source.backup(copy)
            finally:
                source.close()
            _migrate(copy)
        return cls(copy, path, readonly=False)

    @staticmethod
    def salvaged(path: Path, query: str) -> list[tuple[Any, ...]]:
        """What the query still gives of a damaged file; nothing where nothing can be read."""
        try:
            connection = _connect(path, readonly=True, busy_seconds=BUSY_SECONDS)
        except (sqlite3.Error, OSError):
            return []
        found: list[tuple[Any, ...]] = []
        try:
            found.extend(connection.execute(query))  # keeps the rows before the damage
        except sqlite3.Error:
            pass
        finally:
            connection.close()
        return found

    def close(self) -> None:
        with mapped(self.path):
            self.connection.close()

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with mapped(self.path):
            return self.connection.execute(query, values).fetchall()

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """The number of rows the statement changed; only inside `write`."""
        with mapped(self.path):
            return self.connection.execute(statement, values).rowcount

    @contextmanager
    def write(self) -> Iterator[None]:
        """All statements inside are on disk when it ends, or none of them is."""
        if self.readonly:
            raise LedgerError(f"the ledger {self.path} was opened for reading only")
        try:
            with mapped(self.path):
                # Ctrl-C while it waits for the lock is raised here after the transaction has begun.
                self.connection.execute("BEGIN IMMEDIATE")
            yield
            with mapped(self.path):
                self.connection.execute("COMMIT")
        except BaseException:
            # SQLite ends some transactions by itself, e.g. when the disk is full.
            if self.connection.in_transaction:
                with mapped(self.path):
                    self.connection.execute("ROLLBACK")
            raise


class mapped:
    """Turns what sqlite3, a failed decoding or the file system raise into a LedgerError.

    A class, since a generator's context costs more than most statements that run within it.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if isinstance(error, sqlite3.Error):
            raise _refusal(self._path, error) from error
        if isinstance(error, (ValueError, KeyError, TypeError)):
            raise LedgerError(
                f"the ledger {self._path} holds a row that cannot be read ({error}); "
                "nothing was changed",
                hint=files.KEEP,
            ) from error
        if isinstance(error, OSError):
            raise LedgerError(
                f"the ledger {self._path} cannot be used: {error.strerror or error}; "
                "nothing was recorded"
            ) from error


# What SQLite says (its messages, since Python 3.10 does not pass on the codes), what is true, what
# to do. The first that is contained in the message counts.
_CAUSES = (
    ("locked", "another process has held its lock too long; nothing was recorded", "try again"),
    ("is full", "the disk is full; nothing was recorded", "make room, then repeat the command"),
    ("readonly", "it may not be written; nothing was recorded", "see its permissions"),
    ("disk I/O", "the disk failed or is full; nothing was recorded", "see `df` and `dmesg`"),
    ("unable to open", "it cannot be opened; nothing was changed", "see its permissions"),
    ("UNIQUE", "a run of that id is in it already; nothing was recorded", None),
    ("constraint failed", "it refused a value; nothing was recorded", None),
    ("not a database", "it is not a ledger, or it is damaged; nothing was changed", files.KEEP),
    ("malformed", "it is damaged; nothing was changed", files.KEEP),
    ("", "it cannot be used as it is; nothing was recorded", files.KEEP),
)


def _refusal(path: Path, error: sqlite3.Error) -> LedgerError:
    said = str(error)
    what, hint = next((what, hint) for sign, what, hint in _CAUSES if sign in said)
    return LedgerError(f"the ledger {path}: {what} (SQLite: {said})", hint=hint)


def _in_memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    _migrate(connection)
    return connection


def _connect(path: Path, *, readonly: bool, busy_seconds: float) -> sqlite3.Connection:
    # A log that is not there cannot be made in a folder that may not be written; then the file is
    # all there is, and nobody can be changing it.
    frozen = readonly and not os.access(path.parent, os.W_OK) and not files.wal_of(path).exists()
    mode = "mode=ro&immutable=1" if frozen else "mode=ro" if readonly else "mode=rw"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=busy_seconds, isolation_level=None
    )
    try:
        if not readonly:
            # A commit that returned survives a power cut: a run is recorded before it is started.
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The file's schema version; LedgerError unless it is a ledger this program can read."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if application != schema.APPLICATION_ID or version < 1:
        raise LedgerError(
            f"{path} is an SQLite file of another program, not a ledger; nothing was changed",
            hint="set ORCH_HOME to another folder",
        )
    if version > len(schema.MIGRATIONS):
        raise LedgerError(
            f"the ledger {path} has schema {version}, this orch knows up to "
            f"{len(schema.MIGRATIONS)}; nothing was changed",
            hint="use the newer orch that wrote it; keep the file",
        )
    return version


def _migrate(connection: sqlite3.Connection) -> None:
    """Every missing migration is applied, each in one transaction with its number."""
    for number, statements in enumerate(schema.MIGRATIONS, start=1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Asked under the lock: another process may have migrated since.
            if connection.execute("PRAGMA user_version").fetchone()[0] < number:
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _create(path: Path) -> None:
    """A whole, empty ledger is at `path`; one that came to be there meanwhile is left alone.

    It is made under another name, so that a crash never leaves a half-made or empty ledger.
    """
    new = path.with_name(f".{path.name}.new-{os.getpid()}")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    try:
        connection = sqlite3.connect(new, isolation_level=None)
        try:
            _migrate(connection)
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()
        _publish(new, path)
    finally:
        new.unlink(missing_ok=True)
        files.wal_of(new).unlink(missing_ok=True)


def _publish(new: Path, path: Path) -> bool:
    """The file `new` is at `path` too, on disk; False if something was there and was left."""
    files.sync(new)
    try:
        os.link(new, path)
    except FileExistsError:
        return False
    files.sync(path.parent)
    return True


def _bring_up_to_date(path: Path, busy_seconds: float) -> None:
    """The ledger has the newest schema; a copy of the older one lies beside it."""
    connection = _connect(path, readonly=False, busy_seconds=busy_seconds)
    try:
        version = _version(connection, path)
        if version < len(schema.MIGRATIONS):
            _back_up(connection, path, version)
            _migrate(connection)
    finally:
        connection.close()


def _back_up(connection: sqlite3.Connection, path: Path, version: int) -> None:
    new = path.with_name(f".{path.name}.copy-{os.getpid()}")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    try:
        copy = sqlite3.connect(new, isolation_level=None)
        try:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        finally:
            copy.close()
        numbers = iter(range(1, 1000))
        while not _publish(new, path.with_name(f"{path.name}.v{version}-{next(numbers)}.bak")):
            pass
    finally:
        new.unlink(missing_ok=True)
