"""Which run is meant: an id, a piece of one, a job's name, or nothing at all."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.domain import Run, Verdict
from orchestrator.errors import NotFound
from orchestrator.ledger.reader import Reader
from orchestrator.names import canary_of, did_you_mean
from orchestrator.projectroot import has_job

_SHOWN = 10


def resolve(
    ledger: Reader, selector: str | None, project: str | None, *, to_change: bool = False
) -> Run:
    """The run that `selector` means; the latest of the project (or of all) for None.

    In this order: a run id, the name of a job of the project (its latest run; `job~2`: the one two
    runs before that), the start of one id, the end of one id. The name of a job that has no run yet
    is no piece of an id. An id of the project comes before those of others; `to_change`: those of
    others are meant only as a whole, or a slip would reach another project.
    NotFound when nothing matches, or more than one id does.
    """
    if selector is None:
        return _latest(ledger, project)
    by_id = ledger.find(selector)
    if by_id is not None:
        return by_id
    by_job = ledger.latest(project, selector)
    if by_job is not None:
        return by_job
    earlier = _earlier(ledger, selector, project)
    if earlier is not None:
        return earlier
    if project is not None and has_job(project, selector):
        raise _no_run_yet(ledger, selector, project)
    scopes = (project, None) if project is not None else (None,)
    for piece in _pieces(selector):
        for scope in scopes:
            ids = ledger.ids(**piece, project=scope, limit=_SHOWN + 1)
            if len(ids) > 1:
                raise _ambiguous(selector, ids)
            if ids:
                run = ledger.get(ids[0])
                if to_change and project not in (None, run.project):
                    raise _of_another_project(selector, run)
                return run
    raise _nothing(ledger, selector, project)


def open_instead(ledger: Reader, selector: str | None, project: str | None, run: Run) -> Run | None:
    """The newest open run, meant where `run`, found for no name or a job's, never started."""
    by_name = selector is None or selector == run.job
    if not by_name or run.verdict is not Verdict.NEVER_STARTED:
        return None
    return next(iter(ledger.runs(project=project, job=selector, open_only=True, limit=1)), None)


def _earlier(ledger: Reader, selector: str, project: str | None) -> Run | None:
    """What `job~N` means; None when `selector` is not of that form, or no such job has a run."""
    job, tilde, text = selector.partition("~")
    back = int(text or "1") if text.isascii() and (text or "1").isdigit() and len(text) < 7 else -1
    if not job or not tilde or back < 0:
        return None
    runs = ledger.runs(project=project, job=job, limit=back + 1)
    if runs and len(runs) <= back:
        raise NotFound(
            f"{selector!a}: job {job} has only {len(runs)} run{'s' * (len(runs) > 1)}",
            hint=f"`orch ls --job {job}` lists them",
        )
    return runs[back] if runs else None


def _pieces(selector: str) -> Iterable[dict[str, str]]:
    if selector:
        yield {"starting": selector}
        yield {"ending": selector}


def _latest(ledger: Reader, project: str | None) -> Run:
    run = ledger.latest(project)
    if run is None:
        where = "the ledger" if project is None else f"project {ascii(project)[1:-1]}"
        raise NotFound(f"{where} has no run yet", hint="orch submit JOB starts one")
    return run


def _ambiguous(selector: str, ids: list[str]) -> NotFound:
    more = "\n  ..." if len(ids) > _SHOWN else ""
    listed = "".join(f"\n  {each}" for each in ids[:_SHOWN])
    return NotFound(
        f"{selector!a} is a piece of more than one run id:{listed}{more}",
        hint="give more of the id; `orch ls` lists the runs",
    )


def _of_another_project(selector: str, run: Run) -> NotFound:
    return NotFound(
        f"{selector!a} is no run of this project; it is a piece of {run.run_id}, a run of the "
        f"project {ascii(run.project)[1:-1]}, which was left alone",
        hint="if that one is meant, repeat the command with its whole id",
    )


def _no_run_yet(ledger: Reader, job: str, project: str | None) -> NotFound:
    canary = next(iter(ledger.runs(project=project, job=canary_of(job), open_only=True)), None)
    if canary is None:
        return NotFound(f"job {job} has no run yet", hint=f"`orch submit {job}` starts one")
    return NotFound(
        f"no run of {job!a} has begun yet; its canary {canary.run_id} goes on",
        hint=f"`orch tail {canary.run_id}` follows that, `orch cancel {job}` ends both",
    )


def _nothing(ledger: Reader, selector: str, project: str | None) -> NotFound:
    if ledger.runs(project=project, job=canary_of(selector), open_only=True, limit=1):
        return _no_run_yet(ledger, selector, project)
    known = ledger.job_names(project) + ledger.ids(project=project, limit=200)
    return NotFound(
        f"no run and no job's run is called {selector!a}{did_you_mean(selector, known)}",
        hint="`orch ls` lists the runs",
    )
