"""The ledger: what this machine knows of its runs, in one SQLite file.

Each method named after an event is one transaction: the run's row and a line of its timeline change
together, on disk when the method returns, or not at all. Every failure of the file is a LedgerError
(exit 11) that says what is true now; an id the ledger does not know is NotFound (exit 3).

What a host says is of one `attempt` (None: the one the ledger knows). Between the question and the
answer another command may have begun the next: news of any other attempt changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.domain import (
    Event,
    ExitRecord,
    Fetched,
    Judged,
    Outcome,
    Run,
    RunState,
    Session,
    Verdict,
)
from orchestrator.errors import NotFound
from orchestrator.ledger import rows
from orchestrator.ledger.database import BUSY_SECONDS, Database
from orchestrator.ledger.reader import PLACES, Place, Reader, places_of
from orchestrator.names import did_you_mean

_INSERT = f"INSERT INTO runs ({rows.COLUMN_LIST}) VALUES ({', '.join('?' for _ in rows.COLUMNS)})"

# From which states a run may go to the given one. A late or stale report never moves it back.
_MOVES = {
    RunState.INTENT: "state = 'unknown'",
    RunState.SYNCED: "state IN ('intent', 'unknown')",
    RunState.QUEUED: "state NOT IN ('running', 'finished')",
    RunState.RUNNING: "state <> 'finished'",
    RunState.UNKNOWN: "state <> 'finished'",
}

# What a run that is open again does not have yet, and every column that one attempt decides.
_OPEN: Mapping[str, Any] = {
    "verdict": None,
    "cause": None,
    "exit_code": None,
    "signal": None,
    "outcome": None,
    "outcome_reasons": (),
    "accuracy": None,
    "metrics": {},
    "confusion_matrix": (),
    "labels": (),
    "ended_at": None,
}
_OF_AN_ATTEMPT = (*_OPEN, "state", "attempt", "fetched")


class Ledger(Reader):
    """Open it with `Ledger.open`; close it, or use it in a `with`."""

    @classmethod
    def open(
        cls, path: Path, *, readonly: bool = False, busy_seconds: float = BUSY_SECONDS
    ) -> Ledger:
        """The ledger at `path`, in the newest schema; made if absent, with its folder.

        `readonly` makes nothing: an absent file reads as a ledger without runs. LedgerError for a
        file that is foreign, damaged, newer than this program or locked for `busy_seconds`; the
        file is kept as it is.
        """
        return cls(Database.open(path, readonly=readonly, busy_seconds=busy_seconds))

    @classmethod
    def copy_of(cls, path: Path) -> Ledger:
        """The ledger at `path`, in memory, for one that may not be written; nothing is kept."""
        return cls(Database.copy_of(path))

    @staticmethod
    def salvaged_places(path: Path) -> list[Place]:
        """Where the runs are that can still be read in a damaged ledger."""
        return places_of(Database.salvaged(path, PLACES))

    def __enter__(self) -> Ledger:
        return self

    # --- events: what happened --------------------------------------------------------------------

    def intend(self, run: Run) -> None:
        """The run is in the ledger before anything else knows of it.

        LedgerError when the id is there already.
        """
        self._insert(run, run.created_at, "intent", {"host": run.host, "forced": run.forced})

    def adopt(self, run: Run, at: str, data: Mapping[str, Any]) -> None:
        """A run found on a host, unknown here until now, is in the ledger as it was found."""
        self._insert(run, at, "adopted", data)

    def take_in(self, run: Run, events: Sequence[Event], at: str, data: Mapping[str, Any]) -> None:
        """A run of another ledger is in this one as it was there, timeline and all."""
        with self._db.write():
            self._db.run(_INSERT, rows.cells(run))
            for event in events:
                self._append(run.run_id, event.at, event.kind, event.data)
            self._append(run.run_id, at, "imported", data)

    def synced(self, run_id: str, at: str, snapshot: str | None, data: Mapping[str, str]) -> None:
        """The code `snapshot` and the data (name -> content hash) are on the host."""
        about = {"snapshot": snapshot, "data": data}
        with self._change(run_id, at, "synced", about):
            self._move(run_id, RunState.SYNCED)
            self._set(run_id, snapshot=snapshot, data=data)

    def started(
        self, run_id: str, at: str, started_at: str | None, session: Session | None,
        state: RunState, attempt: int | None = None, place: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """The host took the run: it is `queued` or `running` there, at `place` if that is known.

        A line only if that is news, which an answer from before the newest one is not.
        """
        with self._db.write():
            before = self.get(run_id)
            self._seen(run_id, at)
            if before.state is RunState.FINISHED or attempt not in (None, before.attempt):
                return
            self._move(run_id, state)
            self._set(run_id, keep_older=True, started_at=started_at, session=session)
            after = self.get(run_id)
            if _where(after) == _where(before):
                return
            about: dict[str, Any] = {
                "state": after.state,
                "session": session and [session.kind, session.name],
                "started_at": started_at,
                **({"place": place} if place else {}),
            }
            self._append(run_id, at, "started", about)
            if state is RunState.RUNNING:
                self._supersede(run_id, at)

    def seen(
        self, run_id: str, at: str, state: RunState | None = None, attempt: int | None = None
    ) -> None:
        """The host answered at `at`, and said `state` unless None. A line only if that is news."""
        with self._db.write():
            before = self._state(run_id)
            if state is not None and not self._is_of_another(run_id, attempt):
                self._move(run_id, state)
            self._seen(run_id, at)
            after = self._state(run_id)
            if after is not before:
                self._append(run_id, at, "seen", {"state": after})

    def unknown(self, run_id: str, at: str, reason: str) -> None:
        """An action's reply was lost: only the host knows, until it is asked again."""
        with self._change(run_id, at, "unknown", {"reason": reason}):
            self._move(run_id, RunState.UNKNOWN)

    def finished(self, run_id: str, at: str, record: ExitRecord, judged: Judged) -> bool:
        """True: the run is finished as recorded. False, and nothing changed: it was already, or the
        record is of another attempt."""
        about: dict[str, Any] = {
            "verdict": record.verdict,
            "exit_code": record.exit_code,
            "signal": record.signal,
            "reasons": record.reasons,
            "outcome": judged.outcome,
            "outcome_reasons": judged.reasons,
            "accuracy": rows.finite(judged.accuracy),
        }
        about.update({"cause": record.cause} if record.cause else {})
        about.update({"attempt": record.attempt} if record.attempt > 1 else {})
        reasons = tuple(dict.fromkeys((*judged.reasons, *record.reasons)))
        with self._db.write():
            if self._is_of_another(run_id, record.attempt) or self._is_finished(run_id):
                return False
            self._set(
                run_id,
                state=RunState.FINISHED,
                verdict=record.verdict,
                cause=record.cause,
                exit_code=record.exit_code,
                signal=record.signal,
                **{**_result(judged), "outcome_reasons": reasons},
            )
            self._set(
                run_id, keep_older=True, started_at=record.started_at, ended_at=record.ended_at
            )
            self._seen(run_id, at)
            self._append(run_id, at, "finished", about)
            self._supersede(run_id, at)
            return True

    def never_started(self, run_id: str, at: str, reason: str, attempt: int | None = None) -> bool:
        """True: proven never to have run, and finished so. False: as for `finished`."""
        with self._db.write():
            if self._is_of_another(run_id, attempt) or self._is_finished(run_id):
                return False
            self._set(
                run_id,
                state=RunState.FINISHED,
                verdict=Verdict.NEVER_STARTED,
                outcome_reasons=(reason,),
            )
            self._append(run_id, at, "never_started", {"reason": reason})
            return True

    def resuming(self, run_id: str, at: str, attempt: int) -> bool:
        """True: attempt `attempt` is about to be started, and the run is open again.

        False, and nothing changed, when the ledger has moved on meanwhile.
        """
        with self._db.write():
            known = self.get(run_id)
            if known.state is not RunState.FINISHED or known.attempt != attempt - 1:
                return False
            self._reopen(known, RunState.INTENT, attempt)
            self._append(run_id, at, "resuming", {"attempt": attempt, "was": known.verdict})
            return True

    def not_resumed(self, before: Run, at: str, reason: str) -> None:
        """The attempt announced by `resuming` did not start; the run is as it was `before`."""
        with self._db.write():
            known = self.get(before.run_id)
            if known.state is not RunState.INTENT or known.attempt != before.attempt + 1:
                return
            self._set(before.run_id, **{name: getattr(before, name) for name in _OF_AN_ATTEMPT})
            self._append(before.run_id, at, "not_resumed", {"reason": reason})

    def went_on(self, run_id: str, at: str, attempt: int) -> None:
        """The host has begun a later attempt than the ledger knew of: the run is open again."""
        with self._db.write():
            known = self.get(run_id)
            if attempt > known.attempt:
                self._reopen(known, RunState.QUEUED, attempt)
                self._append(run_id, at, "attempt", {"attempt": attempt, "was": known.verdict})

    def corrected(self, run_id: str, at: str, reason: str, attempt: int) -> None:
        """The host's evidence contradicts the verdict: it is withdrawn, the run open again."""
        with self._db.write():
            known = self.get(run_id)
            if known.state is RunState.FINISHED and known.attempt == attempt:
                self._reopen(known, RunState.UNKNOWN, known.attempt)
                self._append(run_id, at, "corrected", {"was": known.verdict, "reason": reason})

    def seen_all(self, run_ids: Sequence[str], at: str) -> None:
        """The hosts of these runs answered at `at` and said nothing new of them."""
        with self._db.write():
            for run_id in run_ids:
                self._seen(run_id, at)

    def lost(self, run_id: str, at: str, reason: str, attempt: int) -> bool:
        """True: proven to be over, nobody knows how, and finished so. False: as for `finished`."""
        record = ExitRecord(Verdict.LOST, reasons=(reason,), cause="gone", attempt=attempt)
        return self.finished(run_id, at, record, Judged(Outcome.UNVERIFIED))

    def judged(self, run_id: str, at: str, judged: Judged) -> None:
        """The result of a finished run was read (again): its outcome and accuracy are these."""
        about = {"outcome": judged.outcome, "accuracy": rows.finite(judged.accuracy)}
        with self._change(run_id, at, "judged", {**about, "outcome_reasons": judged.reasons}):
            self._set(run_id, **_result(judged))

    def fetched(
        self, run_id: str, at: str, fetched: Fetched, results_path: str, attempt: int | None = None
    ) -> None:
        """Results lie at `results_path`, all or some of them; those of an earlier attempt are some.

        A line only if that is news.
        """
        with self._db.write():
            known = self.get(run_id)
            if attempt not in (None, known.attempt):
                fetched = Fetched.PARTIAL
            if (known.fetched, known.results_path) == (fetched, results_path):
                return
            self._set(run_id, fetched=fetched, results_path=results_path)
            about = {"fetched": fetched, "results_path": results_path}
            self._append(run_id, at, "fetched", about)

    def noted(self, run_id: str, at: str, note: str | None) -> None:
        with self._change(run_id, at, "noted", {"note": note}):
            self._set(run_id, note=note)

    def tagged(
        self, run_id: str, at: str, new: Mapping[str, str], without: Collection[str] = ()
    ) -> None:
        """The run has the new tags as well and is `without` these; all others it has stay.

        NotFound, and nothing changed, when one to be taken away is not there.
        """
        with self._db.write():
            known = self.get(run_id).tags
            for name in without:
                if name not in known:
                    near = did_you_mean(name, known)
                    raise NotFound(
                        f"{run_id} has no tag {name!a}{near}", hint="nothing was changed"
                    )
            tags = {key: value for key, value in known.items() if key not in without}
            tags.update(new)
            self._set(run_id, tags=tags)
            self._append(run_id, at, "tagged", {"tags": tags})

    def event(self, run_id: str, at: str, kind: str, data: Mapping[str, Any]) -> None:
        """A line of the run's timeline; its row stays."""
        with self._change(run_id, at, kind, data):
            pass

    def event_once(self, run_id: str, at: str, kind: str, data: Mapping[str, Any]) -> bool:
        """As `event`, unless the run has one of that kind and `number` already: then False."""
        with self._db.write():
            self._state(run_id)
            number = data.get("number")
            same = [each for each in self.events(run_id) if each.kind == kind]
            if any(each.data.get("number") == number for each in same):
                return False
            self._append(run_id, at, kind, data)
            return True

    # --- inside one transaction -------------------------------------------------------------------

    def _reopen(self, known: Run, state: RunState, attempt: int) -> None:
        partial = Fetched.NONE if known.fetched is Fetched.NONE else Fetched.PARTIAL
        self._set(
            known.run_id,
            **{**_OPEN, "state": state, "attempt": attempt, "fetched": partial},
        )

    def _insert(self, run: Run, at: str, kind: str, data: Mapping[str, Any]) -> None:
        with self._db.write():
            self._db.run(_INSERT, rows.cells(run))
            self._append(run.run_id, at, kind, data)

    def _supersede(self, run_id: str, at: str) -> None:
        """The run began: the one it supersedes says so, once."""
        old = self.find(self.get(run_id).supersedes or "")
        if old is None:
            return
        told = [each.data for each in self.events(old.run_id) if each.kind == "superseded"]
        if {"by": run_id} not in told:
            self._append(old.run_id, at, "superseded", {"by": run_id})

    @contextmanager
    def _change(self, run_id: str, at: str, kind: str, data: Mapping[str, Any]) -> Iterator[None]:
        with self._db.write():
            self._state(run_id)
            yield
            self._append(run_id, at, kind, data)

    def _state(self, run_id: str) -> RunState:
        found = self._db.rows("SELECT state FROM runs WHERE run_id = ?", (rows.text(run_id),))
        if not found:
            raise self._unknown_id(run_id)
        return RunState(found[0][0])

    def _is_finished(self, run_id: str) -> bool:
        return self._state(run_id) is RunState.FINISHED

    def _is_of_another(self, run_id: str, attempt: int | None) -> bool:
        return attempt not in (None, self.get(run_id).attempt)

    def _move(self, run_id: str, state: RunState) -> None:
        if state is RunState.FINISHED:
            raise ValueError("a run finishes with a verdict: use finished()")
        self._db.run(
            f"UPDATE runs SET state = ? WHERE run_id = ? AND {_MOVES[state]}", (state.value, run_id)
        )

    def _seen(self, run_id: str, at: str) -> None:
        self._db.run(
            "UPDATE runs SET last_seen_at = max(coalesce(last_seen_at, ''), ?) WHERE run_id = ?",
            (at, run_id),
        )

    def _set(self, run_id: str, *, keep_older: bool = False, **values: Any) -> None:
        """The columns named hold the values; `keep_older`: a None leaves what was there."""
        form = "{0} = coalesce(?, {0})" if keep_older else "{0} = ?"
        names = ", ".join(form.format(name) for name in values)
        cells = [rows.cell(name, value) for name, value in values.items()]
        self._db.run(f"UPDATE runs SET {names} WHERE run_id = ?", (*cells, run_id))

    def _append(self, run_id: str, at: str, kind: str, data: Mapping[str, Any]) -> None:
        self._db.run(
            "INSERT INTO events (run_id, seq, at, kind, data) SELECT ?1, "
            "coalesce((SELECT max(seq) FROM events WHERE run_id = ?1), 0) + 1, ?2, ?3, ?4",
            (run_id, at, kind, rows.dumps(data)),
        )


def _where(run: Run) -> tuple[Any, ...]:
    return run.state, run.started_at, run.session


def _result(judged: Judged) -> dict[str, Any]:
    return {
        "outcome": judged.outcome,
        "outcome_reasons": judged.reasons,
        "accuracy": judged.accuracy,
        "metrics": judged.metrics,
        "confusion_matrix": judged.confusion_matrix,
        "labels": judged.labels,
    }
