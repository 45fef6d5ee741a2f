"""The goals on docs/results.md: what was aimed at, what was measured, and, where it was missed, how
the run learnt. Pure, like `resultspage`."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Point = Mapping[str, Any]
MDLM = ("mdlm-pretrained-fixed", "mdlm-conditional", "simple-diffusion")
POINTS = 12  # of a curve, at most
FLAT = 0.02  # nats a token: less than this is within what the few texts of dev show
OTHERWISE = "class-likelihood"  # a phase that minimises something else than the bound


@dataclass(frozen=True, slots=True)
class Goal:
    tag: str  # DATA/PROFILE
    what: str
    jobs: tuple[str, ...]  # the best row of these counts, variants too
    share: float


GOALS = [
    Goal("sst2/cpu-hour", "`gpt2`", ("gpt2",), 0.84),
    Goal("sst2/cpu-hour", "`mdlm-pretrained-fixed`", ("mdlm-pretrained-fixed",), 0.80),
    Goal("sst2/cpu-hour", "best diffusion model", MDLM, 0.835),
    Goal("imdb/gpu", "`gpt2`", ("gpt2",), 0.88),
    Goal("imdb/gpu", "`mdlm-pretrained-fixed`", ("mdlm-pretrained-fixed",), 0.85),
    Goal("imdb/gpu", "`simple-diffusion`", ("simple-diffusion",), 0.82),
    Goal("imdb/gpu", "best diffusion model", MDLM, 0.902),
]


@dataclass(frozen=True, slots=True)
class Result:
    """A job's runs with one tag, as far as goals are concerned."""

    job: str
    tag: str
    accuracy: float  # the best of its rows, each the mean of its seeds
    curve: Sequence[Point]  # of the last run: the lines of metrics.jsonl that have a validation
    variant: str = ""  # which row that is; "": the job's own


def best(runs: Sequence[Mapping[str, Any]]) -> tuple[float, str]:
    """The highest of the rows, a job's own ("") and its variants', from the metrics of its seeds;
    and which it is."""
    rows: dict[str, list[float]] = {}
    for metrics in runs:
        for name, row in {"": metrics, **metrics.get("variants", {})}.items():
            rows.setdefault(name, []).append(row["accuracy"])
    return max((statistics.fmean(accuracies), name) for name, accuracies in rows.items())


def section(results: Sequence[Result]) -> str:
    """The table of goals, and the curve of the best run behind each one that was missed."""
    lines = [
        "On two cores a job may take an hour; until its profile `cpu-hour` has run, the row of "
        "`cpu` stands for it. Of several rows the best one counts.\n",
        "| data, profile | model | goal | measured | |",
        "|---|---|---|---|---|",
    ]
    missed: dict[int, Result] = {}
    for goal in GOALS:
        found = measured(goal, results)
        cells = "not measured | |"
        if found is not None:
            met = found.accuracy >= goal.share
            profile = "" if found.tag == goal.tag else f", profile `{found.tag.split('/')[1]}`"
            names = [] if len(goal.jobs) == 1 else [f"`{found.job}`"]
            names += [found.variant.replace("_", " ")] if found.variant else []
            name = f" ({', '.join(names)})" if names else ""
            cells = f"{100 * found.accuracy:.2f} %{name}{profile} | {'met' if met else 'missed'} |"
            if not met:
                missed[id(found)] = found
        data, profile = goal.tag.split("/")
        lines.append(f"| {data}, `{profile}` | {goal.what} | >= {100 * goal.share:.1f} % | {cells}")
    return "\n".join([*lines, "", *(part for run in missed.values() for part in _curve(run))])


def measured(goal: Goal, results: Sequence[Result]) -> Result | None:
    """The best run that the goal is about; of profile `cpu` only jobs without one of `cpu-hour`."""
    own = [run for run in results if run.job in goal.jobs and run.tag == goal.tag]
    if goal.tag.endswith("/cpu-hour"):
        there = {run.job for run in own}
        shorter = goal.tag.removesuffix("-hour")
        wanted = set(goal.jobs) - there
        own += [run for run in results if run.tag == shorter and run.job in wanted]
    return max(own, key=lambda run: run.accuracy, default=None)


def _curve(run: Result) -> Iterator[str]:
    title = run.tag.replace("/", ", profile `")
    yield f"How `{run.job}` learnt ({title}`), seen on a few texts of dev:\n"
    yield "| phase | step | minutes | bound, nats a token | accuracy |"
    yield "|---|---|---|---|---|"
    for point in _thinned(run.curve):
        accuracy = point.get("canary_accuracy")
        yield (
            f"| {point['phase']} | {point['phase_step']} | {point['elapsed_s'] / 60:.0f} | "
            f"{point['val_nelbo']:.3f} | {'' if accuracy is None else f'{100 * accuracy:.0f} %'} |"
        )
    yield ""
    told = [f"- {line}" for line in turns(run.curve)]
    yield from [*told, ""] if told else []


def _thinned(curve: Sequence[Point]) -> Sequence[Point]:
    """The last point of each phase, and of the others some, evenly; about POINTS in all."""
    last = {point["phase"]: at for at, point in enumerate(curve)}.values()
    others = [at for at in range(len(curve)) if at not in last]
    every = max(1, -(-len(others) // max(1, POINTS - len(last))))
    kept = {*last, *others[::every]}
    return [point for at, point in enumerate(curve) if at in kept]


def turns(curve: Sequence[Point]) -> Iterator[str]:
    """For each phase, whether its bound on dev still fell at the end or had turned."""
    for phase in dict.fromkeys(point["phase"] for point in curve):
        own = [point for point in curve if point["phase"] == phase]
        if len(own) < 2 or phase == OTHERWISE:
            continue
        least = min(own, key=lambda point: point["val_nelbo"])
        rise = own[-1]["val_nelbo"] - least["val_nelbo"]
        if rise == 0:
            yield f"{phase}: the bound still fell at the last step; more steps may help."
        elif rise < FLAT:
            yield f"{phase}: the bound had come to a stand at the end."
        else:
            yield (
                f"{phase}: the bound was lowest at step {least['phase_step']} and rose by "
                f"{rise:.3f} until step {own[-1]['phase_step']}: from there on it overfits."
            )
