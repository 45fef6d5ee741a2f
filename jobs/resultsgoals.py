"""The goals on docs/results.md: what was aimed at, what was measured, and, where it was missed, how
the run learnt. Pure, like `resultspage`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Point = Mapping[str, Any]
MDLM = ("mdlm-pretrained-fixed", "mdlm-conditional", "simple-diffusion")
POINTS = 12  # of a curve, at most
FLAT = 0.02  # nats a token: less than this is within what the few texts of dev show
HOUR = 60.0  # minutes
SHORTER = {"sst2/cpu-hour": "sst2/cpu", "imdb/gpu": "imdb/cpu-imdb"}  # whose rows stand in for it
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
    """A row of a job's runs with one tag, as far as goals are concerned."""

    job: str
    tag: str
    accuracy: float  # the mean of its seeds
    minutes: float  # of the whole job
    curve: Sequence[Point]  # of the last run: the lines of metrics.jsonl that have a validation
    variant: str = ""  # which row it is; "": the job's own


def section(results: Sequence[Result]) -> str:
    """The table of goals, and the curve of the best run behind each one that was missed."""
    lines = [
        "On two cores a job may take an hour, and what took longer meets no goal; until its "
        "profile `cpu-hour` has run within it, the rows of `cpu` stand for it, and those of "
        "`cpu-imdb` until `gpu` has run. Of several rows the best one counts.\n",
        "| data, profile | model | goal | measured | |",
        "|---|---|---|---|---|",
    ]
    missed: dict[tuple[str, str], Result] = {}
    for goal in GOALS:
        found, late = measured(goal, results)
        told = [] if found is None else [_told(goal, found)]
        if late is not None and (found is None or late.accuracy > found.accuracy):
            told.append(f"{_told(goal, late)}: over the hour")
        cells = "not measured | |"
        if told:
            met = found is not None and found.accuracy >= goal.share
            cells = f"{'; '.join(told)} | {'met' if met else 'missed'} |"
            best = found or late
            if best is not None and best.curve and not met:
                missed[best.job, best.tag] = best
        data, profile = goal.tag.split("/")
        lines.append(f"| {data}, `{profile}` | {goal.what} | >= {100 * goal.share:.1f} % | {cells}")
    return "\n".join([*lines, "", *(part for run in missed.values() for part in _curve(run))])


def measured(goal: Goal, results: Sequence[Result]) -> tuple[Result | None, Result | None]:
    """The best row that the goal is about, and the best that took more than the hour it had."""
    own = [run for run in results if run.job in goal.jobs and run.tag == goal.tag]
    wanted = set(goal.jobs) - {run.job for run in own if _in_time(run)}
    own += [run for run in results if run.tag == SHORTER[goal.tag] and run.job in wanted]
    return _best([run for run in own if _in_time(run)]), _best(
        [run for run in own if not _in_time(run)]
    )


def _in_time(run: Result) -> bool:
    return run.tag.endswith("/gpu") or run.minutes <= HOUR


def _best(runs: Sequence[Result]) -> Result | None:
    return max(runs, key=lambda run: run.accuracy, default=None)


def _told(goal: Goal, run: Result) -> str:
    names = [] if len(goal.jobs) == 1 else [f"`{run.job}`"]
    names += [run.variant.replace("_", " ")] if run.variant else []
    name = f" ({', '.join(names)})" if names else ""
    profile = "" if run.tag == goal.tag else f", profile `{run.tag.split('/')[1]}`"
    return f"{100 * run.accuracy:.2f} %{name}{profile}, in {run.minutes:.1f} minutes"


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
