"""Another ledger's runs in ours, with their timelines. Rows that are there stay."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.domain import Fetched, Run
from orchestrator.errors import LedgerError, NotFound, UsageError
from orchestrator.ledger.files import wal_of
from orchestrator.ledger.store import Ledger
from orchestrator.recorded import told
from orchestrator.usecases.context import Context

HINT = "name another machine's ledger.db"


@dataclass(slots=True)
class Added:
    """What came of it, by run id. `differing`: known here otherwise, and left as they were."""

    ledger: Path
    added: list[str] = field(default_factory=list)
    known: int = 0
    differing: list[str] = field(default_factory=list)


def take_in(ctx: Context, file: str) -> Added:
    """The runs of the ledger `file`, with their timelines, are in ours; the file is not changed.

    A run that both know stays as ours has it.
    """
    path = ctx.cwd / file
    if not path.exists():
        raise NotFound(f"{path} does not exist", hint=HINT)
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no file"
        raise UsageError(f"{path} is {kind}, not a ledger", hint=HINT)
    if path.resolve() == ctx.layout.ledger.resolve():
        raise UsageError(f"{path} is the ledger in use", hint="name another one's file")
    with _opened(path) as other, ctx.ledger() as ledger:
        made = Added(ledger.path)
        for run in other.runs(newest_first=False):
            _merge(ctx, ledger, other, run, made, str(path))
    return made


def _merge(ctx: Context, ledger: Ledger, other: Ledger, run: Run, made: Added, source: str) -> None:
    ours = ledger.find(run.run_id)
    if ours is None:
        ledger.take_in(run, other.events(run.run_id), ctx.now(), {"from": source})
        made.added.append(run.run_id)
        return
    made.known += 1
    if _lasting(ours) != _lasting(run):
        made.differing.append(run.run_id)


def _lasting(run: Run) -> Run:
    """The run without what only says when its host was last asked, who told of it, or what lies on
    one machine."""
    spec, _ = told(run.spec)
    return replace(run, last_seen_at=None, fetched=Fetched.NONE, results_path=None, spec=spec)


@contextmanager
def _named(copy: Path, path: Path) -> Iterator[None]:
    """What is wrong with the copy is said of the file it was made of."""
    try:
        yield
    except LedgerError as exc:
        if str(copy) not in exc.message:
            raise
        raise LedgerError(exc.message.replace(str(copy), str(path)), hint=HINT) from None


@contextmanager
def _opened(path: Path) -> Iterator[Ledger]:
    """A copy of a ledger: opened in place, one of an older schema is migrated, and this one is
    somebody else's. SQLite copies one that is in use; of another the files are copied, since SQLite
    would leave some beside it."""
    with tempfile.TemporaryDirectory(prefix="orch-import-") as folder:
        copy = Path(folder) / "ledger.db"
        if not _in_use(path):
            shutil.copyfile(path, copy)
            if wal_of(path).exists():
                shutil.copyfile(wal_of(path), wal_of(copy))
        if _in_use(path):  # or has been since: a checkpoint may have come between the two
            with Ledger.copy_of(path) as other:
                yield other
            return
        with _named(copy, path), Ledger.open(copy) as other:
            yield other


def _in_use(path: Path) -> bool:
    return path.with_name(path.name + "-shm").exists()
