"""What goes on now as text and as JSON: GPUs and who holds them, open runs, what ended. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeGuard

from orchestrator import sanitize
from orchestrator.clock import age_words, span_words
from orchestrator.domain import Run
from orchestrator.runjson import plain, to_json
from orchestrator.runtext import (
    age,
    outcome_colours,
    percent,
    ran_for,
    status_colours,
    status_words,
)
from orchestrator.tables import RUN_ID, Cell, Column, Style, clip, layout
from orchestrator.wording import without_name

if TYPE_CHECKING:
    from orchestrator.usecases.board import Board, Card, Glimpse, Place, Process

NO_GPU = "no GPU (no nvidia-smi)"
_GPUS = (
    Column("HOST", shrink=True),
    Column("GPU", right=True),
    Column("NAME", drop=3, shrink=True),
    Column("MEMORY", right=True, drop=-1),
    Column("USE", right=True, drop=2),
    Column("HELD BY", shrink=True, least=RUN_ID + 1),
)
_RUNS = (
    Column("RUN", least=RUN_ID),
    Column("JOB", drop=-1, shrink=True),
    Column("HOST", drop=2, shrink=True),
    Column("STATUS"),
    Column("SEEN", right=True, drop=3),
    Column("RAN FOR", right=True, drop=4),
    Column("PROGRESS", shrink=True),
    Column("LAST LINE", drop=5, shrink=True),
)
# However narrow: a `succeeded` or an accuracy without its outcome reads as a good result.
_ENDED = (
    Column("RUN", least=RUN_ID),
    Column("JOB", drop=2, shrink=True),
    Column("HOST", drop=3, shrink=True),
    Column("ENDED", right=True, drop=4),
    Column("STATUS", shrink=True),
    Column("OUTCOME"),
    Column("ACCURACY", right=True, drop=1),
)
Rows = list[list["str | Cell"]]


# --- GPUs -----------------------------------------------------------------------------------------


def gpus_text(places: Sequence[Place], style: Style) -> str:
    """A line a GPU, one more for each further process on it; a host without any has one line."""
    rows: Rows = []
    for place in places:
        rows += _place(place)
    return layout(_GPUS, rows, style)


def _place(place: Place) -> Rows:
    name = place.host.name
    why = without_name(name, place.error.message) if place.error else place.cards_error
    rows: Rows = []
    if why is not None:
        rows.append([name, "", "", "", "", Cell(why, ("red",))])
    elif not place.cards:
        rows.append([name, "", "", "", "", Cell(NO_GPU, ("dim",))])
    for card in place.cards or ():
        held = _held(card)
        rows.append([name, str(card.index), card.name, _memory(card), _use(card), held[0]])
        rows += [["", "", "", "", "", each] for each in held[1:]]
    return rows


def _held(card: Card) -> list[Cell]:
    words = []
    if card.lease is not None:
        run = card.lease.run_id or "a run that is beginning"
        about = [card.lease.job or "job unknown"]
        if not card.lease.known:
            about.append(f"of {card.lease.project or 'another project'}, not in this ledger")
        words.append(Cell(f"{run} ({', '.join(about)})", ("cyan",)))
    words += [Cell(_process_words(each), ("yellow",)) for each in card.foreign]
    return words or [Cell("free", ("dim",))]


def _process_words(each: Process) -> str:
    memory = "" if each.memory is None else f", {_gib(each.memory)} GiB"
    return f"{each.user or 'somebody'}: {each.name} (pid {each.pid}{memory})"


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f}"


def _memory(card: Card) -> str:
    if card.memory_used is None or card.memory_total is None:
        return "unknown"
    return f"{_gib(card.memory_used)} of {_gib(card.memory_total)} GiB"


def _use(card: Card) -> str:
    return "" if card.utilization is None else f"{card.utilization} %"


def gpus_document(places: Sequence[Place]) -> list[dict[str, Any]]:
    """One object a host; `gpus` null where they are not known."""
    return [
        {
            "host": place.host.name,
            "reached": place.error is None,
            "error": place.error.message if place.error else place.cards_error,
            "answered_at": place.answered_at,
            "gpus": None if place.cards is None else [_card(card) for card in place.cards],
        }
        for place in places
    ]


def _card(card: Card) -> dict[str, Any]:
    lease = card.lease
    return {
        "index": card.index,
        "uuid": card.uuid,
        "name": card.name,
        "memory_used": card.memory_used,
        "memory_total": card.memory_total,
        "utilization": card.utilization,
        "lease": lease
        and {
            "run_id": lease.run_id,
            "job": lease.job,
            "project": lease.project,
            "known": lease.known,
        },
        "processes": [
            {
                "pid": each.pid,
                "user": each.user,
                "name": each.name,
                "memory": each.memory,
                "run_id": each.run_id,
            }
            for each in card.processes
        ],
    }


# --- the whole ------------------------------------------------------------------------------------


def board_document(board: Board) -> dict[str, Any]:
    """{runs, ended, hosts}; runs as `orch ls --json` has them, open ones with their last words."""
    runs = []
    for run in board.runs:
        seen = board.glimpses.get(run.run_id)
        runs.append(
            {
                **to_json(run),
                "progress": plain(seen.progress) if seen else {},
                "last_line": seen.line if seen else None,
            }
        )
    return {
        "runs": runs,
        "ended": [to_json(run) for run in board.ended],
        "hosts": gpus_document(board.places),
    }


def board_text(board: Board, now: datetime, style: Style, height: int | None = None) -> str:
    """Open runs, GPUs, what ended; in at most `height` lines, the first of what is most awaited."""
    notes = [
        f"{place.host.name}: {without_name(place.host.name, place.error.message)}; what was last "
        "known is shown"
        for place in board.places
        if place.error is not None and any(run.host == place.host.name for run in board.runs)
    ]
    notes += [f"{name}: {without_name(name, why)}" for name, why in board.notes.items()]
    count = len(board.runs)
    head = f"{now:%H:%M:%S} UTC, {count} open run{'' if count == 1 else 's'}"
    if height is not None:
        notes = _cut(notes, max(2, height // 4))
    top = [style.paint(head, "bold"), *(sanitize.line(note) for note in notes), ""]
    if style.width is not None:
        top = [line if line.startswith("\x1b") else clip(line, style.width) for line in top]
    parts = [
        layout(_RUNS, [_run(board, run, now) for run in board.runs], style).splitlines()
        if board.runs
        else ["no run is open"],
        gpus_text(board.places, style).splitlines(),
        layout(_ENDED, [_ended(run, now) for run in board.ended], style).splitlines()
        if board.ended
        else [],
    ]
    return "\n".join([*top, *_fitted(parts, None if height is None else height - len(top))]) + "\n"


def _fitted(parts: Sequence[list[str]], height: int | None) -> list[str]:
    """The parts under each other with a blank line between, in at most `height` lines.

    Room is taken from the last part first, and the open runs keep the most of it.
    """
    parts = [part for part in parts if part]
    sizes = [len(part) for part in parts]
    if height is not None:
        others = range(len(parts) - 1, 0, -1)
        steps = [*((at, 4) for at in others), (0, 6), *((at, 0) for at in others), (0, 1)]
        for at, least in steps:
            over = _lines_of(sizes) - height
            if over > 0 and sizes[at] > least:
                sizes[at] = max(least, sizes[at] - over)
                if at and sizes[at] < 3:  # a title, and no line below it but how many are hidden
                    sizes[at] = 0
        sizes[0] = max(1, min(len(parts[0]), sizes[0] + height - _lines_of(sizes)))
    lines: list[str] = []
    for part, size in zip(parts, sizes, strict=True):
        if size:
            lines += [*([""] if lines else []), *_cut(part, size)]
    return lines


def _lines_of(sizes: Sequence[int]) -> int:
    shown = [size for size in sizes if size]
    return sum(shown) + len(shown) - 1


def _cut(part: list[str], size: int) -> list[str]:
    """The first `size` lines; where some are hidden the last one says how many."""
    if size >= len(part) or size < 2:
        return part[:size]
    return [*part[: size - 1], f"  ... {len(part) - size + 1} more"]


def _run(board: Board, run: Run, now: datetime) -> list[str | Cell]:
    silent = any(place.error is not None for place in board.places if place.host.name == run.host)
    seen = "" if run.last_seen_at is None else age_words(age(run.last_seen_at, now))
    glimpse = board.glimpses.get(run.run_id)
    return [
        run.run_id,
        run.job,
        run.host,
        Cell(run.state.value, status_colours(run)),
        Cell(seen, ("red",) if silent else ("dim",)),
        ran_for(run, now),
        _progress(glimpse) if glimpse else "",
        Cell((glimpse.line or "").strip() if glimpse else "", ("dim",)),
    ]


def _progress(glimpse: Glimpse) -> str:
    """`40 % step 120 loss 0.412 accuracy 0.83, 12 min left`, as far as the job says."""
    told = glimpse.progress
    words = []
    share, eta = told.get("progress"), told.get("eta_s")
    if _is_number(share) and 0 <= share <= 1:
        words.append(f"{share * 100:.0f} %")
    for name in ("step", "loss", "accuracy"):
        value = told.get(name)
        if _is_number(value):
            words.append(f"{name} {value}" if isinstance(value, int) else f"{name} {value:.4g}")
    left = f", {span_words(eta)} left" if _is_number(eta) and 0 <= eta < 1e8 else ""
    return " ".join(words) + left


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _ended(run: Run, now: datetime) -> list[str | Cell]:
    return [
        run.run_id,
        run.job,
        run.host,
        age_words(age(run.ended_at or run.created_at, now)),
        Cell(status_words(run), status_colours(run)),
        Cell(run.outcome.value if run.outcome else "", outcome_colours(run)),
        percent(run.accuracy),
    ]
