"""Each row of the ledger against its evidence: the config, the host's records, the files here."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.checks.outcome import ACCURACY
from orchestrator.disk import local_name
from orchestrator.domain import Fetched, Run, RunState, Verdict
from orchestrator.fetched import Known, read_journal
from orchestrator.ledger.store import Ledger
from orchestrator.recorded import hash_matches
from orchestrator.usecases.context import Context
from orchestrator.usecases.evidence import Hosts, Told
from orchestrator.usecases.settle import exit_record, judge_record
from orchestrator.wording import counted, value
from remote.wire import JOURNAL

OK, DIFFERS, UNPROVEN = "ok", "differs", "unproven"
BATCH = 200  # runs asked for in one call


@dataclass(frozen=True, slots=True)
class Check:
    """`level`: ok | differs (the evidence contradicts the row) | unproven (there is none)."""

    run_id: str
    name: str
    level: str
    text: str = ""


def verify(
    ctx: Context,
    selectors: Sequence[str],
    *,
    everywhere: bool,
    offline: bool,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Check]:
    """Every check of the runs named, of the project's, or of all; nothing is changed anywhere."""
    with ctx.ledger(readonly=True) as ledger:
        checks = [Check("", "file", DIFFERS, fault) for fault in ledger.integrity()]
        runs = _runs(ctx, ledger, selectors, everywhere)
    with Hosts(ctx) as hosts:
        for at in range(0, len(runs), BATCH):
            some = runs[at : at + BATCH]
            told = {} if offline else hosts.ask(list(filter(_was_sent, some)), code=True)
            for run in some:
                checks += _row(run)
                checks += _files(run)
                if not offline:
                    checks += _host(run, told.get(run.run_id), hosts.silent(run))
            progress(at + len(some), len(runs))
    return checks


def _runs(ctx: Context, ledger: Ledger, selectors: Sequence[str], everywhere: bool) -> list[Run]:
    if selectors:
        return [ctx.run(ledger, selector) for selector in selectors]
    project = None if everywhere else ctx.project_or_none()
    return ledger.runs(project=str(project) if project else None, newest_first=False)


def _was_sent(run: Run) -> bool:
    return run.verdict is not Verdict.NEVER_STARTED or run.started_at is not None


# --- the row itself -------------------------------------------------------------------------------


def _row(run: Run) -> Iterator[Check]:
    holds = hash_matches(run)
    if holds:
        yield Check(run.run_id, "config hash", OK)
    elif holds is None:
        text = "the config gives another hash; keys may have been volatile, which was not recorded"
        yield Check(run.run_id, "config hash", UNPROVEN, text)
    else:
        text = f"the config does not give {run.config_hash[:15]}"
        yield Check(run.run_id, "config hash", DIFFERS, text)


# --- files here -----------------------------------------------------------------------------------


def _files(run: Run) -> Iterator[Check]:
    """Fetched files against the journal, which has the hash that the host sent with each."""
    if run.fetched is Fetched.NONE or run.results_path is None:
        return
    folder = Path(run.results_path)
    try:
        journal = read_journal((folder / JOURNAL).read_bytes())
    except OSError:
        yield Check(run.run_id, "results", UNPROVEN, f"{folder} has no journal of what was fetched")
        return
    wrong = [
        f"{path} {why}"
        for path, known in journal.items()
        if (why := _fault(folder / local_name(path), known))
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        text = f"{folder}: {', '.join(wrong[:5])}{more}"
        yield Check(run.run_id, "results", DIFFERS, text)
    else:
        part = ", fetched in part" if run.fetched is Fetched.PARTIAL else ""
        yield Check(run.run_id, "results", OK, counted(len(journal), "file") + part)


def _fault(path: Path, known: Known) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        return f"cannot be read ({exc.strerror})"
    with os.fdopen(fd, "rb") as file:
        if os.fstat(fd).st_size != known.size:
            return "has another size"
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return None if digest.hexdigest() == known.sha256 else "has other bytes"


# --- the host's records ---------------------------------------------------------------------------


def _host(run: Run, told: Told | None, silent: str | None) -> Iterator[Check]:
    if not _was_sent(run):
        return
    if told is None:
        yield Check(run.run_id, "host", UNPROVEN, silent or f"{run.host} has no such run any more")
        return
    wrong = [*_config_faults(run, told), *_exit_faults(run, told.status.get("exit"))]
    wrong += _code_faults(told)
    if wrong:
        yield Check(run.run_id, "host", DIFFERS, "; ".join(wrong))
    else:
        yield Check(run.run_id, "host", OK)


def _config_faults(run: Run, told: Told) -> Iterator[str]:
    try:
        config = json.loads(told.config or "")
    except (ValueError, RecursionError):
        yield "its config.json cannot be read"
    else:
        if config != run.config:
            yield "its config.json is another config"
    spec = told.spec or {}
    if spec.get("config_hash") != run.config_hash:
        yield "its spec.json names another config hash"
    snapshot = spec.get("snapshot")
    if snapshot is not None and run.snapshot is not None and snapshot != run.snapshot:
        yield "its spec.json names another snapshot"


def _code_faults(told: Told) -> Iterator[str]:
    count, names = told.changed or (0, ())
    if count:
        more = f" and {count - len(names)} more" if count > len(names) else ""
        differ = "differs" if count == 1 else "differ"
        sent = f"{counted(count, 'file')} of its code {differ} from what was sent"
        yield f"{sent}: {', '.join(names)}{more}"


def _exit_faults(run: Run, raw: Any) -> Iterator[str]:
    if run.state is not RunState.FINISHED:
        if isinstance(raw, dict):
            verdict = exit_record(raw).verdict.value
            yield f"it has ended there ({verdict}) and is {run.state.value} here"
        return
    if not isinstance(raw, dict):
        here = run.verdict.value if run.verdict else ""
        yield f"it has no exit record that can be read, and is {here} here"
        return
    record = exit_record(raw)
    if (record.verdict, record.exit_code, record.signal) != (
        run.verdict,
        run.exit_code,
        run.signal,
    ):
        how = "no exit code" if record.exit_code is None else f"exit {record.exit_code}"
        how = how if record.signal is None else f"signal {record.signal}"
        yield f"its exit record says {record.verdict.value}, {how}"
    if record.metrics is not None:
        accuracy = judge_record(run, record).accuracy
        # Rows of before nested accuracies were read hold the one at the top level, or none.
        if run.accuracy not in (accuracy, judge_record(run, record, ACCURACY).accuracy):
            there, here = value(accuracy), value(run.accuracy)
            yield f"its metrics give the accuracy {there}, the row {here}"
