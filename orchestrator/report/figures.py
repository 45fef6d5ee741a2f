"""The sections of a report that are pictures, each with the same in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.checks.binomial import wilson
from orchestrator.domain import Run
from orchestrator.recorded import examples, recorded_of
from orchestrator.report import blocks as b
from orchestrator.report import svg
from orchestrator.report.curves import Curves, Series
from orchestrator.wording import counted, size

CHARTS_MAX = 12
CONFUSIONS = 10
_SPARKS = "▁▂▃▄▅▆▇█"


# --- accuracy -------------------------------------------------------------------------------------


def majority_of(run: Run) -> tuple[str, float] | None:
    """(label, share) of the commonest true class; None without a matrix."""
    totals = [sum(row) for row in run.confusion_matrix]
    if not totals or not sum(totals):
        return None
    at = max(range(len(totals)), key=totals.__getitem__)
    return label_of(run, at), totals[at] / sum(totals)


def label_of(run: Run, at: int) -> str:
    return run.labels[at] if at < len(run.labels) else str(at)


def scale_of(run: Run) -> str:
    """The accuracy between 0 and 100 %, with what it is measured against; empty outside [0, 1]."""
    accuracy = run.accuracy
    if accuracy is None or not 0.0 <= accuracy <= 1.0:
        return ""
    trials = examples(run)
    marks = []
    majority = majority_of(run)
    if majority is not None:
        marks.append(svg.Mark(majority[1], f"majority {majority[1] * 100:.1f}", "base"))
    bound = recorded_of(run.spec).expect.metrics.get("accuracy")
    if bound is not None and bound.min is not None and 0.0 <= bound.min <= 1.0:
        marks.append(svg.Mark(bound.min, f"expected {bound.min * 100:g}", "goal"))
    best = run.metrics.get("bayes_accuracy")
    if isinstance(best, float) and 0.0 <= best <= 1.0:
        marks.append(svg.Mark(best, f"best possible {best * 100:.1f}", "best"))
    interval = wilson(accuracy, trials) if trials else None
    return svg.accuracy_scale(accuracy, interval, marks)


# --- learning curves ------------------------------------------------------------------------------


def curves_section(
    curves: Curves | None, other: Curves | None, other_name: str
) -> b.Section | None:
    if curves is None:
        return None
    blocks: list[b.Block] = []
    metrics = curves.metrics()
    theirs = other.metrics() if other is not None else {}
    phases = list(dict.fromkeys(each.phase for group in metrics.values() for each in group))
    colour = {phase: f"c{at % svg.COLOURS}" for at, phase in enumerate(phases)}
    for metric in list(metrics)[:CHARTS_MAX]:
        blocks.append(_chart(metric, metrics[metric], theirs.get(metric, []), colour, other_name))
    if len(metrics) > CHARTS_MAX:
        rest = ", ".join(list(metrics)[CHARTS_MAX:])
        blocks.append(b.Text(f"Not drawn: {rest}.", "muted"))
    blocks += [b.Text(words, "muted") for words in _remarks(curves)]
    return b.Section("Learning curves", blocks)


def _chart(
    metric: str,
    mine: Sequence[Series],
    theirs: Sequence[Series],
    colour: dict[str, str],
    other_name: str,
) -> b.Figure:
    drawn = [svg.Drawn(each, colour[each.phase]) for each in mine]
    drawn += [svg.Drawn(each, colour.get(each.phase, "c0"), True) for each in theirs]
    legend = [(colour[each.phase], each.phase or "this run") for each in mine]
    if theirs:
        legend.append(("q", other_name))
    table = b.Table(
        ("phase", "first", "least", "greatest", "last", "points", ""),
        [_series_row(each) for each in mine],
        numeric=(1, 2, 3, 4, 5),
    )
    broken = [
        f"not finite (NaN or infinite) from step {svg.number(each.not_finite)} on"
        for each in mine
        if each.not_finite is not None
    ]
    caption = metric + (f": {broken[0]}" if broken else "")
    return b.Figure(svg.line_chart(drawn, f"{metric} by step"), caption, (table,), legend)


def _series_row(each: Series) -> list[str]:
    if not each.buckets:
        return [each.phase, "", "", "", "", "0", ""]
    values = [each.buckets[0].mean, min(b.low for b in each.buckets)]
    values += [max(b.high for b in each.buckets), each.latest or 0.0]
    return [each.phase, *map(svg.number, values), str(each.count), spark(each)]


def spark(each: Series, width: int = 24) -> str:
    """The line of the means as block characters."""
    means = [bucket.mean for bucket in each.buckets]
    picked = (
        [means[at * len(means) // width] for at in range(width)] if len(means) > width else means
    )
    low, high = min(picked), max(picked)
    if high <= low:
        return _SPARKS[0] * len(picked)
    top = len(_SPARKS) - 1
    return "".join(_SPARKS[round(svg.share(value, low, high) * top)] for value in picked)


def _remarks(curves: Curves) -> list[str]:
    told = []
    if curves.sampled:
        told.append(
            f"metrics.jsonl has {size(curves.size)}; equally spaced pieces of it, "
            f"{size(curves.read)}, were read, so single outliers may be missing."
        )
    if curves.torn:
        lines = counted(curves.lines, "line")
        were = "was" if curves.torn == 1 else "were"
        told.append(f"{curves.torn} of {lines} {were} torn or no JSON, and left out.")
    if curves.dropped:
        told.append("More series than can be drawn: the later ones were left out.")
    return told


# --- confusion matrix -----------------------------------------------------------------------------


def matrix_section(run: Run) -> b.Section | None:
    """None without a square matrix."""
    matrix = run.confusion_matrix
    size = len(matrix)
    if not size or any(len(row) != size for row in matrix):
        return None
    predicted = [0] * size
    for row in filter(any, matrix):
        predicted = [have + more for have, more in zip(predicted, row, strict=True)]
    truths = [sum(row) for row in matrix]
    few = size <= svg.NUMBERS_UP_TO
    figure = b.Figure(
        svg.matrix_picture(matrix, run.labels),
        "Rows are what is true, columns what was predicted; the strength is the share of the row."
        + ("" if size <= svg.CELLS_UP_TO else f" {size} classes in {svg.CELLS_UP_TO} groups."),
        (_matrix_table(run),) if few else (),
    )
    never = [label_of(run, at) for at in range(size) if truths[at] and not predicted[at]]
    blocks: list[b.Block] = [figure]
    if never:
        more = f" and {len(never) - CONFUSIONS} more" if len(never) > CONFUSIONS else ""
        blocks.append(b.Text(f"Never predicted: {', '.join(never[:CONFUSIONS])}{more}.", "bad"))
    blocks.append(_classes_table(run, truths, predicted) if few else _confusions(run))
    return b.Section("Confusion matrix", blocks)


def _matrix_table(run: Run) -> b.Table:
    size = len(run.confusion_matrix)
    head = ["true \\ predicted", *(label_of(run, at) for at in range(size))]
    rows = [[label_of(run, at), *map(str, row)] for at, row in enumerate(run.confusion_matrix)]
    return b.Table(head, rows, numeric=tuple(range(1, size + 1)))


def _classes_table(run: Run, truths: Sequence[int], predicted: Sequence[int]) -> b.Table:
    rows = []
    for at, (true, guessed) in enumerate(zip(truths, predicted, strict=True)):
        hits = run.confusion_matrix[at][at]
        recall = f"{hits / true * 100:.1f} %" if true else "none"
        precision = f"{hits / guessed * 100:.1f} %" if guessed else "none"
        rows.append([label_of(run, at), str(true), str(guessed), recall, precision])
    head = ("class", "examples", "predicted", "recall", "precision")
    return b.Table(head, rows, numeric=(1, 2, 3, 4))


def _confusions(run: Run) -> b.Table:
    """The cells beside the diagonal that hold most."""
    import heapq

    matrix = run.confusion_matrix
    found = heapq.nlargest(
        CONFUSIONS,
        (
            (count, truth, guess)
            for truth, row in enumerate(matrix)
            if any(row)
            for guess, count in enumerate(row)
            if count and truth != guess
        ),
    )
    rows = [[label_of(run, t), label_of(run, g), str(count)] for count, t, g in found]
    return b.Table(("true", "predicted as", "examples"), rows, numeric=(2,))
