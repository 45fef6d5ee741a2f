"""The text of docs/results.md. Pure: runs in, Markdown out; every figure and every sentence about
one is computed from them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs import resultsgoals
from jobs.resultsgoals import Result
from jobs.textdiff.config import GPT2_BOTH_WAYS
from jobs.textdiff.summary import wilson


@dataclass(frozen=True, slots=True)
class Run:
    run_id: str
    job: str
    tag: str  # DATA/PROFILE
    seed: int
    config_hash: str
    outcome: str
    metrics: Mapping[str, Any]
    facts: Mapping[str, Any]
    curve: Sequence[Mapping[str, Any]] = ()  # lines of metrics.jsonl with a validation


INCIDENT, FIXED = "mdlm-pretrained", "mdlm-pretrained-fixed"
CONFIGS = [(INCIDENT, "as it was"), (FIXED, "fixed")]
MODELS = [
    ("baselines", None, "logistic regression, words and pairs"),
    ("baselines", "logistic_regression_unigram", "logistic regression, words"),
    ("baselines", "naive_bayes_bigram", "naive Bayes, words and pairs"),
    ("baselines", "naive_bayes_unigram", "naive Bayes, words"),
    ("gpt2", None, "`gpt2`: a causal model a class, exact likelihood"),
    ("gpt2", "class_likelihood", "the same, trained on by class likelihood"),
    ("gpt2", "onwards", "without that, the one from the beginning alone, exact likelihood"),
    (INCIDENT, None, "`mdlm-pretrained`: the incident as it was"),
    (FIXED, None, "`mdlm-pretrained-fixed`: a diffusion model a class"),
    ("simple-diffusion", None, "`simple-diffusion`: one model told the class, from scratch"),
    ("mdlm-conditional", None, "`mdlm-conditional`: one model told the class, pretrained"),
    ("mdlm-conditional", "calibrated", "the same, noise levels weighed on dev"),
    ("mdlm-conditional", "class_likelihood", "the same, trained on by class likelihood"),
]
TOLD = "`gpt2`: one causal model told the class, exact likelihood"
BOTH_WAYS = (
    "`gpt2`: two causal models told the class, one from a text's beginning, one from its end"
)
TABLES = ["sst2/cpu", "sst2/cpu-hour", "imdb/gpu", "imdb/cpu-imdb", "selfmade/cpu"]
HEAD = """# Results

Written by `make results` out of the ledger: every row is a run that was judged on test, named by
its config hash, and no figure is typed in by hand but those that are said to be carried over
([results/](results/) keeps what each run told). Intervals are Wilson's, 95 %, of the texts, around
the mean where there are several seeds, whose spread stands behind ±. Settings were chosen on dev or
on texts held out of train; where test had a say, that is told. A goal counts the best of a job's
rows. Parameters are those of all models that a row's answer
takes. Minutes are the whole job's, of the slowest seed, in wall time on a machine that other
programs may have used as well.
"""


def page(runs: Sequence[Run], cost: Mapping[str, Any] | None) -> str:
    """The whole page, with a line for whatever has not been measured."""
    parts = [
        HEAD,
        *_caveats(runs),
        "## What each part of the incident was worth\n",
        *_ablations(runs),
    ]
    for tag in TABLES:
        data, profile = tag.split("/")
        parts.append(f"## All models: {data}, profile `{profile}`\n")
        parts.append(_models([run for run in runs if run.tag == tag]))
    parts += ["## Goals\n", resultsgoals.section(_results(runs))]
    parts += ["## Cost\n", _cost(cost), _on_gpu(cost), _utilisation(runs)]
    return "\n".join(parts).rstrip() + "\n"


def _caveats(runs: Sequence[Run]) -> Iterable[str]:
    """What a reader must know of some runs, and which these are; the next measurement ends it."""
    for caveat in dict.fromkeys(c for run in runs for c in run.facts.get("caveats", ())):
        rows = [
            f"`{run.job}` ({run.tag.replace('/', ', `')}`, {run.config_hash[:11]})"
            for run in runs
            if caveat in run.facts.get("caveats", ())
        ]
        yield f"{caveat}: {', '.join(rows)}.\n"


# -- the ablation ---------------------------------------------------------------------------------


def _ablations(runs: Sequence[Run]) -> Iterable[str]:
    tables = [run for run in runs if run.metrics.get("table")]
    for tag in dict.fromkeys([*TABLES, *(run.tag for run in tables)]):
        seeds = [run.seed for run in tables if run.tag == tag]
        if not seeds:
            continue
        seed = max(sorted(set(seeds)), key=seeds.count)  # the first that both configs have
        pair = {run.job: run for run in tables if (run.tag, run.seed) == (tag, seed)}
        yield _ablation(tag, {name: pair[job] for job, name in CONFIGS if job in pair})
    if not tables:
        yield "Not measured yet: needs a run of both jobs with `eval.table`.\n"


def _ablation(tag: str, runs: Mapping[str, Run]) -> str:
    some = next(iter(runs.values()))
    lines = [
        f"{tag.replace('/', ', profile `')}`, one pair of models a config, {_hardware(some)}. "
        "As it was: warm-up 500, keys missing, lenient load. Fixed: this profile's warm-up, all "
        "keys, strict load. Share of the start's numbers that were loaded: "
        f"{', '.join(f'{name} {_loaded(run)}' for name, run in runs.items())}.\n",
        f"| config | weights | estimator | draws | accuracy of {some.metrics['n']} "
        "| 95 % interval | share of first class | ties |",
        "|---|---|---|---|---|---|---|---|",
    ]
    cells = {}
    for name, run in runs.items():
        for row in run.metrics["table"]:
            cells[name, row["weights"], row["estimator"], row["draws"]] = row["accuracy"]
            lines.append(_ablation_line(name, row))
    hashes = ", ".join(f"{name} {run.config_hash[:11]}" for name, run in runs.items())
    lines += [
        f"\nConfigs: {hashes}; seed {some.seed}. "
        "What each suspect was worth, as the mean difference over all other settings, in points:\n",
        _effect(cells, 0, "as it was", "fixed", "the config (missing keys, warm-up, lenient load)"),
        _effect(cells, 1, "raw", "ema", "averaged weights instead of the last ones"),
        _effect(cells, 2, "independent", "shared", "noise shared by the classes, one draw"),
        _effect(cells, 3, 1, 32, "32 shared draws instead of one"),
        "",
    ]
    return "\n".join(lines)


def _ablation_line(name: str, row: Mapping[str, Any]) -> str:
    low, high = row["accuracy_interval"]
    share = next(iter(row["predicted_share"].values()))
    return (
        f"| {name} | {row['weights']} | {row['estimator']} | {row['draws']} | "
        f"{_percent(row['accuracy'])} | {_percent(low)} to {_percent(high)} | "
        f"{_percent(share)} | {row['ties']} |"
    )


def _effect(
    cells: Mapping[tuple[str, str, str, int], float], at: int, old: Any, new: Any, what: str
) -> str:
    """The mean change from `old` to `new` at place `at` of the key, other places equal."""
    changes = []
    for key, accuracy in cells.items():
        other = (*key[:at], new, *key[at + 1 :])
        if key[at] == old and other in cells:
            changes.append(cells[other] - accuracy)  # type: ignore[index]
    if not changes:
        return f"- {what}: not measured yet"
    low, high = min(changes), max(changes)
    return (
        f"- {what}: {100 * statistics.fmean(changes):+.1f} ({100 * low:+.1f} to {100 * high:+.1f}, "
        f"{len(changes)} pairs)"
    )


# -- the models -----------------------------------------------------------------------------------


def _models(runs: Sequence[Run]) -> str:
    lines = [
        "| model | accuracy | 95 % interval | n | seeds | parameters | minutes | config | on |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    absent = []
    for job, variant, what in MODELS:
        seeds = _seeds([run for run in runs if run.job == job], variant)
        if seeds:
            what = _called(what, seeds[-1]) if variant is None else what
            lines.append(_line(what, seeds, variant))
        elif variant is None:
            absent.append(job)
    if len(lines) == 2:
        return "Not measured yet.\n"
    text = "\n".join(lines) + "\n" + "".join(_notes(runs))
    return text + (f"\nNot measured yet: {', '.join(absent)}.\n" if absent else "")


def _called(what: str, run: Run) -> str:
    """The row's name; gpt2 comes in three kinds, and a profile may do without pretraining."""
    if run.job == "mdlm-conditional" and run.metrics["pretrained"]["source"] == "none":
        return what.replace("pretrained", "without pretraining")
    if run.job != "gpt2" or run.facts.get("classes", "separate") == "separate":
        return what
    return BOTH_WAYS if run.facts.get("architecture") == GPT2_BOTH_WAYS else TOLD


def _notes(runs: Sequence[Run]) -> Iterable[str]:
    """What whoever ran them said of single runs (`orch note`)."""
    for run in runs:
        if run.facts.get("note"):
            yield f"\n`{run.job}`, {run.config_hash[:11]}, seed {run.seed}: {run.facts['note']}\n"


def _row(run: Run, variant: str | None) -> Mapping[str, Any] | None:
    """The metrics of a run, or of one of its variants, which it may lack."""
    if variant is None:
        return run.metrics
    found: Mapping[str, Any] | None = run.metrics.get("variants", {}).get(variant)
    return found


def _seeds(runs: Sequence[Run], variant: str | None) -> list[Run]:
    """The runs whose mean a row is: the newest that has it, which comes last, and of each other
    seed the newest one that differs in nothing else."""
    own = sorted((run for run in runs if _row(run, variant) is not None), key=lambda r: r.run_id)
    if not own:
        return []
    *before, last = own
    others = {run.seed: run for run in before if run.seed != last.seed and _same(run, last)}
    return [*others.values(), last]


def _accuracies(seeds: Sequence[Run], variant: str | None) -> list[float]:
    return [(_row(run, variant) or {})["accuracy"] for run in seeds]


def _minutes(seeds: Sequence[Run]) -> float:
    """Of the slowest, for the whole job."""
    return max(float(run.metrics["seconds"]["total"]) for run in seeds) / 60


def _parameters(run: Run, variant: str | None) -> int | None:
    """Of all models that a row's answer takes; the run tells those of one network."""
    network: int | None = run.metrics.get("parameters")
    if network is None:
        return None
    if variant == "onwards":
        return network // 2  # of two that are alike
    apart = run.facts.get("classes", run.metrics.get("classes")) == "separate"
    return network * len(run.metrics["labels"]) if apart else network


def _line(what: str, seeds: Sequence[Run], variant: str | None) -> str:
    last = seeds[-1]
    row = _row(last, variant) or {}
    accuracies = _accuracies(seeds, variant)
    mean = statistics.fmean(accuracies)
    low, high = wilson(round(mean * row["n"]), row["n"])
    accuracy = _percent(mean)
    if len(accuracies) > 1:
        accuracy += f" ± {100 * statistics.stdev(accuracies):.1f}"
    size = _parameters(last, variant)
    return (
        f"| {what} | {accuracy} | {_percent(low)} to {_percent(high)} | {row['n']} | "
        f"{len(accuracies)} | {'' if size is None else f'{size:,}'} | "
        f"{_minutes(seeds):.1f} | {last.config_hash[:11]} | "
        f"{_hardware(last)} |"
    )


def _same(run: Run, other: Run) -> bool:
    """Whether two runs differ in nothing but their seed."""
    recipe = run.facts.get("recipe")
    return recipe is not None and recipe == other.facts.get("recipe")


# -- the cost -------------------------------------------------------------------------------------


def _cost(cost: Mapping[str, Any] | None) -> str:
    if cost is None:
        return (
            "Not measured yet: `python -m tests.bench.training --write docs/results/cost.json`.\n"
        )
    judge = cost["evaluation"]
    lines = [
        f"Against the reference implementation's recipe, written as a baseline in `tests/bench` "
        f"({cost['recipe']}). {cost['conditions']}\n",
        "| work | ours | reference recipe | ratio | goal |",
        "|---|---|---|---|---|",
        *_training(cost["training"]),
        f"| evaluation, network passes a text and class at equal accuracy | "
        f"{judge['ours']['passes']:.1f} | {judge['reference']['passes']} | "
        f">= {judge['ratio']:.1f} fewer | >= 10 |",
        f"| evaluation, accuracy at those passes | {_percent(judge['ours']['accuracy'])} | "
        f"{_percent(judge['reference']['accuracy'])} | | |",
        f"| evaluation, tokens/s | {judge['ours']['tokens_per_s']:,.0f} | "
        f"{judge['reference']['tokens_per_s']:,.0f} | "
        f"{judge['ours']['tokens_per_s'] / judge['reference']['tokens_per_s']:.2f} | |",
    ]
    return "\n".join([*lines, f"\n{judge['note']}\n"])


def _training(found: Mapping[str, Any]) -> Sequence[str]:
    ours, reference = found["ours"], found["reference"]
    memory = ours["memory_mb"] / max(1, reference["memory_mb"])
    return [
        f"| training, tokens/s (padding not counted) | {ours['tokens_per_s']:,.0f} | "
        f"{reference['tokens_per_s']:,.0f} | {found['ratio']:.2f} | >= 1.5 |",
        f"| training, peak memory above the start, MiB | {ours['memory_mb']:,.0f} | "
        f"{reference['memory_mb']:,.0f} | {memory:.2f} | |",
    ]


def _on_gpu(cost: Mapping[str, Any] | None) -> str:
    """The same on a GPU, and the utilisation of steps that nothing interrupts."""
    if cost is None or "gpu" not in cost:
        command = "python -m tests.bench.training --only gpu --write docs/results/cost.json"
        return f"On a GPU this has not been measured: `{command}`.\n"
    found = cost["gpu"]
    lines = [
        f"On a GPU. {found['conditions']}\n",
        "| work | ours | reference recipe | ratio | goal |",
        "|---|---|---|---|---|",
        *_training(found["training"]),
        "\n| model | parameters | texts a step | tokens/s | peak memory, MiB | MFU |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['parameters']:,} | {row['texts_a_step']} | {row['tokens_per_s']:,.0f} | "
        f"{row['memory_mb']:,.0f} | {_percent(row['mfu'])} |"
        for name, row in found["utilisation"].items()
    ]
    return "\n".join([*lines, ""])


def _utilisation(runs: Sequence[Run]) -> str:
    """MFU by run and phase, where runs on a GPU of known peak have it."""
    lines = [
        f"| `{run.job}` | {run.tag} | {phase} | {_percent(share)} | {run.config_hash[:11]} | "
        f"{_hardware(run)} |"
        for run in runs
        for phase, share in run.metrics.get("mfu", {}).items()
    ]
    if not lines:
        return "Utilisation of a GPU (MFU, goal >= 35 % on an H200) has not been measured.\n"
    head = [
        "Utilisation of the GPU (MFU) in training, validation and checkpoints counted as lost "
        "time; goal >= 35 % on an H200. Peaks: `jobs/textdiff/utilisation.py`.\n",
        "| job | data, profile | phase | MFU | config | on |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *lines, ""])


def _results(runs: Sequence[Run]) -> list[Result]:
    """Each row of each job and tag, of the same runs as in the tables."""
    found = []
    for job, tag in dict.fromkeys((run.job, run.tag) for run in runs):
        own = [run for run in runs if (run.job, run.tag) == (job, tag)]
        variants = dict.fromkeys(name for run in own for name in run.metrics.get("variants", {}))
        for variant in (None, *variants):
            seeds = _seeds(own, variant)
            mean = statistics.fmean(_accuracies(seeds, variant))
            minutes, curve = _minutes(seeds), seeds[-1].curve
            found.append(Result(job, tag, mean, minutes, curve, variant or ""))
    return found


def _loaded(run: Run) -> str:
    share = run.metrics["pretrained"]["share_loaded"]
    return "nothing" if share is None else _percent(share)


def _hardware(run: Run) -> str:
    return str(run.facts.get("device") or run.metrics["device"])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
