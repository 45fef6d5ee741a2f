"""The questions a ledger answers. Nothing here changes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator.domain import Event, Host, Run, RunState, Verdict
from orchestrator.errors import NotFound
from orchestrator.ledger import rows
from orchestrator.ledger.database import Database, mapped
from orchestrator.recorded import hearsay_of

PLACES = "SELECT host, project, spec FROM runs"


@dataclass(frozen=True, slots=True)
class Place:
    """Where runs are. `project` None: only a host names one; `asked`: the host as it was asked."""

    host: str
    project: str | None
    asked: Host | None


def places_of(found: Iterable[tuple[Any, ...]]) -> list[Place]:
    """The places in the rows of PLACES, each once; what cannot be read of a damaged file is left
    out."""
    seen = {}
    for host, project, spec in found:
        try:
            told = hearsay_of(json.loads(spec))
            foreign = told is not None and told.foreign
            place = Place(str(host), None if foreign else str(project), told.host if told else None)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        seen[place] = (place.host, place.project or "")
    return sorted(seen, key=seen.__getitem__)


class Reader:
    """An open ledger, for reading. An id it does not know is NotFound, a torn file LedgerError."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @property
    def path(self) -> Path:
        return self._db.path

    def close(self) -> None:
        self._db.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def get(self, run_id: str) -> Run:
        found = self.find(run_id)
        if found is None:
            raise self._unknown_id(run_id)
        return found

    def find(self, run_id: str) -> Run | None:
        """The run of exactly that id, or None."""
        return next(iter(self._runs("WHERE run_id = ?", (rows.text(run_id),))), None)

    def runs(
        self,
        *,
        project: str | None = None,
        job: str | None = None,
        state: RunState | None = None,
        open_only: bool = False,
        limit: int | None = None,
        newest_first: bool = True,
    ) -> list[Run]:
        """The runs that match all that is given, sorted by id, which is by time."""
        where, values = _where(project, job, state, open_only)
        order = f"ORDER BY run_id {'DESC' if newest_first else 'ASC'} LIMIT ?"
        return self._runs(f"{where} {order}", (*values, -1 if limit is None else limit))

    def latest(self, project: str | None, job: str | None = None) -> Run | None:
        return next(iter(self.runs(project=project, job=job, limit=1)), None)

    def count(self, project: str | None = None, job: str | None = None) -> int:
        where, values = _where(project, job, None, False)
        return int(self._db.rows(f"SELECT count(*) FROM runs {where}", values)[0][0])

    def same_config(self, config_hash: str, job: str | None = None) -> list[Run]:
        """The runs with that config hash, oldest first."""
        if job is None:
            return self._runs("WHERE config_hash = ? ORDER BY run_id", (config_hash,))
        where = "WHERE config_hash = ? AND job = ? ORDER BY run_id"
        return self._runs(where, (config_hash, rows.text(job)))

    def best(
        self,
        project: str,
        job: str,
        profile: str | None,
        accept: Callable[[Run], bool] | None = None,
    ) -> Run | None:
        """The job's run with the highest accuracy among those whose result passed, if accepted."""
        where = (
            "WHERE project = ? AND job = ? AND profile IS ? AND verdict = 'succeeded' AND outcome "
            "IN ('ok', 'unverified') AND accuracy IS NOT NULL ORDER BY accuracy DESC, run_id DESC"
        )
        values = (rows.text(project), rows.text(job), profile)
        if accept is None:
            return next(iter(self._runs(where + " LIMIT 1", values)), None)
        return next(filter(accept, self._runs(where, values)), None)

    def events(self, run_id: str) -> list[Event]:
        """The run's timeline, oldest first; empty for an id the ledger does not know."""
        query = "SELECT run_id, seq, at, kind, data FROM events WHERE run_id = ? ORDER BY seq"
        with mapped(self._db.path):
            return [rows.event_of(row) for row in self._db.rows(query, (rows.text(run_id),))]

    def ids(
        self,
        *,
        starting: str = "",
        ending: str = "",
        project: str | None = None,
        limit: int = 11,
    ) -> list[str]:
        """Run ids that start and end with the texts, newest first, at most `limit`."""
        where, values = _where(project, None, None, False)
        where = f"{where} {'AND' if where else 'WHERE'} run_id >= ? AND run_id < ?"
        values = (*values, rows.text(starting), rows.text(starting) + "\U0010ffff")
        if ending:
            where, values = (
                f"{where} AND substr(run_id, -?) = ?",
                (*values, len(ending), rows.text(ending)),
            )
        query = f"SELECT run_id FROM runs {where} ORDER BY run_id DESC LIMIT ?"
        return [row[0] for row in self._db.rows(query, (*values, limit))]

    def job_names(self, project: str | None = None) -> list[str]:
        """The jobs that have a run, sorted."""
        where, values = _where(project, None, None, False)
        query = f"SELECT DISTINCT job FROM runs {where} ORDER BY job"
        return [row[0] for row in self._db.rows(query, values)]

    def on_host(self, host: str) -> dict[str, tuple[RunState, Verdict | None]]:
        """The runs recorded for that host, by id."""
        found = self._db.rows("SELECT run_id, state, verdict FROM runs WHERE host = ?", (host,))
        with mapped(self._db.path):
            return {
                run_id: (RunState(state), Verdict(verdict) if verdict else None)
                for run_id, state, verdict in found
            }

    def gone(self) -> list[Run]:
        """The runs that count as lost because their host had nothing left of them."""
        return self._runs("WHERE verdict = 'lost' AND cause = 'gone' ORDER BY run_id", ())

    def places(self) -> list[Place]:
        """Where the runs are, each place once."""
        return places_of(self._db.rows(PLACES))

    def lacks(self, run_ids: Sequence[str]) -> list[str]:
        """Those of the ids that no run of the ledger has."""
        known = {row[0] for row in self._db.rows("SELECT run_id FROM runs", ())}
        return [run_id for run_id in run_ids if run_id not in known]

    def integrity(self) -> list[str]:
        """What SQLite finds wrong with the file, page by page; empty when it is sound."""
        found = [str(row[0]) for row in self._db.rows("PRAGMA integrity_check(20)", ())]
        loose = self._db.rows("PRAGMA foreign_key_check", ())
        return [line for line in found if line != "ok"] + [f"event of no run: {r}" for r in loose]

    def _unknown_id(self, run_id: str) -> NotFound:
        return NotFound(f"no run {run_id!a} in the ledger {self._db.path}", hint="orch ls")

    def _runs(self, tail: str, values: Sequence[Any]) -> list[Run]:
        found = self._db.rows(f"SELECT {rows.COLUMN_LIST} FROM runs {tail}", values)
        with mapped(self._db.path):
            return [rows.run_of(row) for row in found]


def _where(
    project: str | None, job: str | None, state: RunState | None, open_only: bool
) -> tuple[str, tuple[Any, ...]]:
    parts: list[str] = []
    values: list[Any] = []
    few = open_only or (state is not None and state.is_open)
    for column, value in (("project", project), ("job", job), ("state", state and state.value)):
        if value is not None:
            # The plus keeps SQLite off the column's own index: the open runs are the fewer.
            parts.append(f"{'+' if few else ''}{column} = ?")
            values.append(rows.text(value))
    if few:
        parts.append("state <> 'finished'")  # as the partial index says it, so that it is used
    return ("WHERE " + " AND ".join(parts) if parts else ""), tuple(values)
