"""Results home: verified, resumable, nothing overwritten; the ledger learns the accuracy."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator import lawful, retry, sanitize
from orchestrator.domain import Fetched, Run, RunState
from orchestrator.errors import FrameGarbled, ManifestMismatch, NotFound
from orchestrator.largefile import LargeFile
from orchestrator.ledger.store import Ledger
from orchestrator.paths import results_of
from orchestrator.transport.base import Agent, End
from orchestrator.transport.replies import only_status, run_status
from orchestrator.unpack import Folder
from orchestrator.usecases import places, silence
from orchestrator.usecases.asking import statuses
from orchestrator.usecases.context import Context
from orchestrator.usecases.evidence import environment_of, told
from orchestrator.usecases.settle import attempt_of, settle
from orchestrator.wording import counted
from remote import wire

LEFT_MAX = 1000  # files of a kind that stayed on the host and are named
FETCH_DEADLINE = 60.0  # seconds of silence; a host that hashes gives signs of life


@dataclass(slots=True)
class Report:
    """What came: counts of files and bytes; what stayed on the host, each with the reason.

    `left` is no file (a link, a fifo) or was in change; `unread` could not be read, and is missing.
    """

    path: Path
    new: int = 0
    same: int = 0
    bytes: int = 0
    excluded: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)


def fetch(
    ctx: Context, ledger: Ledger, run: Run, progress: Callable[[Report], None]
) -> tuple[Run, Report]:
    """Every result file of the run is here and equals the host's, by sha256; of a run that has
    ended, no other file that a fetch brought is with them.

    Of a run that goes on it is what there was at that moment: `fetched` is then `partial`. So it is
    when one of the files could not be read there or is another one here, and once all others have
    come that is a ManifestMismatch.
    """
    if run.state is RunState.FINISHED and run.started_at is None and run.session is None:
        raise NotFound(f"{run.run_id} never started; it has no results")
    home = _home(ctx, run)
    destination = results_of(home, run.job, run.run_id)
    report = Report(destination)
    with ctx.connect(ctx.host_of(replace(run, project=str(home)))) as agent:
        _refuse_absent(ledger, agent, run)
        kept = silence.of(ctx, ledger, run, "what had arrived is kept; a fetch goes on from there")
        with kept, _claim(ctx, run, destination) as folder:
            here = wire.encode_json({"have": folder.have(), "parts": folder.parts()})
            end = run_status(_Receiver(agent, folder, report, progress).run(run, here), run.run_id)
            if end.get("phase") == "finished" and not report.unread:
                _leave_the_result(ctx, run, attempt_of(end), folder)
            folder.keep()
            folder.make_durable()
            changed = list(folder.changed)
    known = settle(ledger, ledger.get(run.run_id), end, ctx.now())
    environment_of(ctx, ledger, run, told(end))
    whole = end.get("phase") == "finished" and not changed and not report.unread
    state = Fetched.COMPLETE if whole else Fetched.PARTIAL
    ledger.fetched(run.run_id, ctx.now(), state, str(destination), attempt_of(end))
    _point_latest(ctx, destination)
    if changed or report.unread:
        raise _incomplete(known, report, lawful.text(end.get("folder")), changed)
    return ledger.get(known.run_id), report


def _leave_the_result(ctx: Context, run: Run, attempt: int, folder: Folder) -> None:
    """What the host's result has not is none of it, though an earlier fetch brought it here: of an
    earlier attempt, or of a moment while the run went on.

    Unless all of this attempt's result was here before: then it is the host that lost some since.
    """
    gone = folder.gone()
    if not gone:
        return
    if run.fetched is Fetched.COMPLETE and run.attempt == attempt:
        ctx.say(
            f"{run.run_id}: {_named(gone)} of its results {_is(gone)} not on {run.host} any more, "
            f"or no file there; what was fetched of them stays in {folder.path}"
        )
    else:
        folder.set_aside(gone)


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return sanitize.line(f"{counted(len(paths), 'file')} ({', '.join(paths[:5])}{more})")


def _is(paths: Sequence[str]) -> str:
    return "is" if len(paths) == 1 else "are"


def _incomplete(
    run: Run, report: Report, folder: str | None, changed: Sequence[str]
) -> ManifestMismatch:
    """Names all that is not as it should be; the results lie in `folder` on the host."""
    said, todo = [], []
    if report.unread:
        many = len(report.unread)
        of = "files and folders" if many < LEFT_MAX else "files and folders, or more,"
        what = "a file or folder" if many == 1 else f"{many} {of}"
        where = f"{run.host}:{folder}" if folder else run.host
        rows = [sanitize.line(f"  {path} ({why})") for path, why in report.unread]
        said += [f"{run.run_id}: {what} of its results could not be had from {run.host}:", *rows]
        said.append(f"all else is in {report.path}, verified; the run counts as fetched in part")
        todo.append(
            f"mend that below {where} (`chmod -R u+rwX` makes files readable, another owner's need "
            "that one; a path that is too deep must become shorter), "
            f"then `orch fetch-results {run.run_id}` brings them"
        )
    if changed:
        said.append(
            f"{report.path}: {counted(len(changed), 'file was', 'files were')} changed here after "
            f"the fetch, other than the host's: {', '.join(changed[:5])}; left alone"
        )
        todo.append("move them away and fetch again to have the host's")
    return ManifestMismatch("\n".join(said), hint="\n      ".join(todo))


def _home(ctx: Context, run: Run) -> Path:
    """The run's project; once that folder is gone, the project called from if it has the job."""
    if Path(run.project).is_dir():
        return ctx.folder_of(run)
    gone = f"the run's project folder {run.project} is not there any more"
    here = ctx.project_or_none()
    if here is not None and (here / "jobs" / f"{run.job}.yaml").is_file():
        ctx.say(f"{gone}; the job {run.job} is in {here}, so its results come there")
        return here
    raise NotFound(
        gone,
        hint=f"where the project lies now, `orch fetch-results {run.run_id}` brings them there; "
        f"it is known by its jobs/{run.job}.yaml",
    )


@contextlib.contextmanager
def _claim(ctx: Context, run: Run, destination: Path) -> Iterator[Folder]:
    """The folder for us alone; a second fetch of the same run waits for the first."""
    with contextlib.ExitStack() as stack:
        folder = retry.when_free(
            lambda: stack.enter_context(Folder(destination)),
            lambda: ctx.say(f"another orch is fetching {run.run_id}; waiting until it is through"),
        )
        try:
            yield folder
        finally:
            if taken := folder.earlier.taken:
                ctx.say(
                    f"{run.run_id}: {_named(taken)} of an earlier fetch {_is(taken)} no part of "
                    f"its results any more; moved to {folder.earlier.path}"
                )


def _refuse_absent(ledger: Ledger, agent: Agent, run: Run) -> None:
    """Before anything is made here: is there something to fetch?"""
    status = only_status(statuses(agent, {"run_ids": [run.run_id]}), run.run_id)
    if status["phase"] == "absent":
        raise places.absent(ledger, run, status, ", so no results")


class _Receiver:
    def __init__(
        self, agent: Agent, folder: Folder, report: Report, progress: Callable[[Report], None]
    ) -> None:
        self._agent = agent
        self._folder = folder
        self._report = report
        self._progress = progress
        self._batch: list[tuple[str, int, int, str]] = []
        self._large: LargeFile | None = None

    def run(self, run: Run, here: bytes) -> dict[str, Any]:
        """`here`: JSON of what need not be sent; of many files it is larger than a frame."""
        body = {"run_id": run.run_id, "listed": len(here)}
        try:
            for frame in self._agent.exchange("results", body, [here], deadline=FETCH_DEADLINE):
                if isinstance(frame, End):
                    return self._end(run, frame.body)
                if frame.kind == wire.DATA:
                    self._data(frame.payload)
                else:
                    self._item(frame.json())
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise FrameGarbled(
                "the host's answer is not lawful; what had arrived is kept"
            ) from None
        finally:
            if self._large is not None:
                self._large.close()
        raise AssertionError("exchange ends with End or raises")

    def _end(self, run: Run, body: dict[str, Any]) -> dict[str, Any]:
        if self._large is not None or self._batch:
            raise FrameGarbled("the host ended in the middle of a file; what had arrived is kept")
        if body.get("no_results"):
            raise NotFound(
                f"{run.run_id}: its results folder is not there on {run.host} (any more); nothing "
                "was fetched",
                hint=f"`orch tail {run.run_id}` may tell what its job did with "
                f"$ORCH_RESULTS_DIR; `orch retry {run.run_id}` makes a new run",
            )
        self._report.excluded = int(body.get("excluded") or 0)
        return body

    def _item(self, item: Any) -> None:
        if self._batch or (self._large is not None and not {"sha256", "torn"} & item.keys()):
            raise ValueError("an item in the middle of a file")
        if "batch" in item:
            self._batch = [
                (str(path), int(mode), int(size), str(sha))
                for path, mode, size, sha in item["batch"]
            ]
            if any(size < 0 for _, _, size, _ in self._batch):
                raise ValueError("a size below zero")
            if sum(size for _, _, size, _ in self._batch) == 0:
                self._data(b"")
        elif "large" in item:
            path, mode = str(item["large"]), int(item["mode"])
            size, offset = int(item["size"]), int(item["offset"])
            self._large = self._folder.begin_large(path, mode, size, offset)
        elif "sha256" in item and self._large is not None:
            large, self._large = self._large, None
            large.finish(str(item["sha256"]))
            self._count(1, 0)
        elif "torn" in item and self._large is not None:
            large, self._large = self._large, None
            large.abandon()
        elif "same" in item:
            self._report.same += len(item["same"])
            self._folder.same(map(str, item["same"]))
        elif "left" in item:
            unread = item.get("unread") is True
            told = self._report.unread if unread else self._report.left
            room = LEFT_MAX - len(told)
            told += [(str(path), str(why)) for path, why in item["left"][:room]]

    def _data(self, payload: bytes) -> None:
        if self._large is not None:
            self._large.write(payload)
            self._count(0, len(payload))
            return
        batch, self._batch = self._batch, []
        items = []
        at = 0
        for path, mode, size, sha in batch:
            items.append((path, mode, payload[at : at + size], sha))
            at += size
        if at != len(payload):
            raise FrameGarbled("the host sent another number of bytes than it named")
        self._folder.write_batch(items)
        self._count(len(items), at)

    def _count(self, files: int, size: int) -> None:
        self._report.new += files
        self._report.bytes += size
        self._progress(self._report)


def _point_latest(ctx: Context, destination: Path) -> None:
    """`latest` names the newest fetched run; moved by rename, never backwards."""
    with _alone_in(destination.parent):
        link = destination.parent / "latest"
        if link.is_symlink() and os.readlink(link) >= destination.name:
            return
        if link.exists() and not link.is_symlink():
            ctx.say(f"{link} is no link, so it was left alone and does not name this run")
            return
        tmp = destination.parent / f".latest.{os.getpid()}"
        tmp.unlink(missing_ok=True)
        try:
            os.symlink(destination.name, tmp)
            os.replace(tmp, link)
        except OSError as exc:  # a file system without links
            ctx.say(f"{link} cannot be made here ({exc.strerror}), so it does not name this run")


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One command at a time, where the file system has locks."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
