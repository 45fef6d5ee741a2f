from __future__ import annotations

import itertools
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from jobs import results, resultspage
from jobs.resultspage import Run


def run(job: str, accuracy: float, *, seed: int = 1, tag: str = "sst2/cpu", **more: Any) -> Run:
    metrics = {
        "accuracy": accuracy,
        "accuracy_interval": [accuracy - 0.02, accuracy + 0.02],
        "n": 1821,
        "device": "cpu",
        "seconds": {"total": 90.0},
        "pretrained": {"source": "own", "share_loaded": 1.0},
        **more,
    }
    return Run(f"{job}-{seed}", job, tag, seed, f"c1:{seed:08d}abc", "ok", metrics, {})


def table(config: float, ema: float, shared: float, draws: float) -> list[dict[str, Any]]:
    """Eight ways of judging whose accuracy is a sum of what each part is worth."""
    rows = []
    ways = [("independent", 1), ("shared", 1), ("shared", 8), ("shared", 32)]
    for weights, (estimator, count) in itertools.product(("raw", "ema"), ways):
        accuracy = 0.5 + config + ema * (weights == "ema") + shared * (estimator == "shared")
        accuracy += draws * (count == 32)
        rows.append(
            {
                "weights": weights,
                "estimator": estimator,
                "draws": count,
                "accuracy": accuracy,
                "accuracy_interval": [accuracy - 0.02, accuracy + 0.02],
                "predicted_share": {"negative": 0.4, "positive": 0.6},
                "ties": 0,
                "n": 1821,
            }
        )
    return rows


def test_what_was_not_measured_is_said_and_nothing_is_made_up() -> None:
    text = resultspage.page([], None)
    assert text.count("Not measured yet") == 2 + len(resultspage.TABLES)
    assert re.findall(r"(?<!>= )(?<![\d.])[\d.]+ %", text) == ["95 %"]  # goals apart


def test_what_stands_after_the_dashes_goes_to_submit_and_only_with_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, ...]] = []

    def orch(*arguments: str) -> str:
        asked.append(arguments)
        if "--dry-run" in arguments:
            return '{"config_hash": "c1:0"}'
        return "[]" if arguments[0] == "ls" else "a-run"

    monkeypatch.setattr(results, "orch", orch)
    page = ["--page", str(tmp_path / "page.md")]
    assert results.main(["--run", "--job", "gpt2", *page, "--", "--set", "a=1"]) == 0
    submits = [arguments for arguments in asked if arguments[0] == "submit"]
    assert len(submits) == 2  # what its config would be, and the run
    assert all(("--set", "a=1") in itertools.pairwise(each) for each in submits)
    with pytest.raises(SystemExit):
        results.main([*page, "--", "--set", "a=1"])
    assert "only --run submits anything" in capsys.readouterr().err


@pytest.mark.parametrize("again", [True, False])
def test_a_row_that_is_there_is_measured_anew_only_when_that_is_asked_for(
    again: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = run("gpt2", 0.7, labels=["a", "b"])
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "runs.json").write_text(json.dumps({"runs": [asdict(there)]}))
    submitted = []

    def orch(*arguments: str) -> str:
        if "--dry-run" in arguments:
            return json.dumps({"config_hash": there.config_hash})
        submitted.extend([arguments] if arguments[0] == "submit" else [])
        return "[]" if arguments[0] == "ls" else "a-run"

    monkeypatch.setattr(results, "orch", orch)
    asked = ["--run", "--job", "gpt2", "--page", str(tmp_path / "page.md")]
    assert results.main([*asked, *(["--again"] if again else [])]) == 0
    assert len(submitted) == again
    assert ("--again measures it anew" in capsys.readouterr().err) is not again


def test_records_that_a_merge_has_torn_are_named(tmp_path: Path) -> None:
    kept = tmp_path / "runs.json"
    kept.write_text("<<<<<<< HEAD\n")
    with pytest.raises(SystemExit, match="runs.json: not JSON"):
        results.known(kept)


@pytest.mark.parametrize("outcome", ["ok", "below_target", "degenerate"])
@pytest.mark.parametrize(
    ("changes", "why"),
    [({"outcome": "invalid_result"}, "its result is invalid"), ({"split": "dev"}, "on dev")],
)
def test_what_is_no_result_on_test_takes_no_row_and_replaces_none(
    outcome: str,
    changes: dict[str, str],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = tmp_path / "runs.json"
    good = replace(run("gpt2", 0.7, split="test"), outcome=outcome)
    split = changes.get("split", "test")
    later = replace(run("gpt2", 0.99, split=split), run_id="gpt2-1-later")
    later = replace(later, outcome=changes.get("outcome", "ok"))
    kept.write_text(json.dumps({"runs": [asdict(good)]}))
    monkeypatch.setattr(results, "measured", lambda: iter([later]))
    assert [each.run_id for each in results.known(kept)] == ["gpt2-1"]
    told = capsys.readouterr().err
    assert told.startswith("left out: gpt2-1-later: ") and why in told


@pytest.mark.parametrize("content", ["{}", "[]", '{"runs": [{"job": "x"}]}', '{"runs": 7}'])
def test_records_of_another_shape_are_named(tmp_path: Path, content: str) -> None:
    kept = tmp_path / "runs.json"
    kept.write_text(content)
    with pytest.raises(SystemExit, match=r"error: .*runs.json: not "):
        results.known(kept)


def test_a_run_with_damaged_results_is_left_out_or_loses_what_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for name, content in (
        ("good", json.dumps(run("gpt2", 0.5, labels=["a", "b"]).metrics)),
        ("none", "{}"),
        ("null", '{"accuracy": null}'),
        ("torn", '{"accuracy": 0.'),
        ("deep", "[" * 100_000),
        ("bytes", "\udcff"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_bytes(content.encode("utf8", "surrogateescape"))
        told.append(
            {"run_id": name, "job": "gpt2", "tags": {"results": "sst2/cpu"}, "note": None,
             "verdict": "succeeded", "outcome": "ok", "config_hash": "c1:1", "config": {"seed": 3},
             "results_path": str(tmp_path / name)}
        )  # fmt: skip
    (tmp_path / "good" / "metrics.jsonl").write_text('{"val_nelbo": 1.5}\n{"val\n[1]\n')
    (tmp_path / "good" / "config.resolved.json").write_text("{}")
    monkeypatch.setattr(results, "orch", lambda *_: json.dumps(told))
    found = list(results.measured())
    assert [(each.run_id, each.seed, each.curve) for each in found] == [
        ("good", 3, [{"val_nelbo": 1.5}])
    ]
    assert capsys.readouterr().err.count("left out: ") == 5


def test_ablations_come_in_the_order_of_the_tables_and_none_is_left_out() -> None:
    tags = ["selfmade/cpu", "imdb/cpu", "sst2/cpu"]
    runs = [run("mdlm-pretrained", 0.5, tag=tag, table=table(0.0, 0.01, 0.1, 0.05)) for tag in tags]
    found = re.findall(r"^(\w+), profile `cpu`, one pair", resultspage.page(runs, None), re.M)
    assert found == ["sst2", "selfmade", "imdb"]


def test_an_ablation_compares_runs_of_one_seed() -> None:
    means = table(0.0, 0.01, 0.1, 0.05)
    runs = [
        run("mdlm-pretrained", 0.5, seed=2, table=means),
        run("mdlm-pretrained-fixed", 0.7, seed=2, table=means),
        run("mdlm-pretrained-fixed", 0.7, seed=1, table=means),
        run("mdlm-pretrained-fixed", 0.7, seed=3, table=means),
    ]
    text = resultspage.page(runs, None)
    assert "Configs: as it was c1:00000002, fixed c1:00000002; seed 2." in text


def test_what_was_noted_of_a_run_stands_below_its_table() -> None:
    noted = replace(run("gpt2", 0.8), facts={"note": "on a busy host"})
    text = resultspage.page([noted, run("simple-diffusion", 0.7)], None)
    assert text.count("on a busy host") == 1
    assert "`gpt2`, c1:00000001, seed 1: on a busy host" in text


def test_the_ablation_says_what_each_suspect_was_worth() -> None:
    runs = [
        run("mdlm-pretrained", 0.5, table=table(0.0, 0.01, 0.1, 0.05)),
        run("mdlm-pretrained-fixed", 0.7, table=table(0.02, 0.01, 0.1, 0.05)),
    ]
    text = resultspage.page(runs, None)
    for worth in (
        "lenient load): +2.0 (+2.0 to +2.0, 8 pairs)",
        "averaged weights instead of the last ones: +1.0",
        "noise shared by the classes, one draw: +10.0 (+10.0 to +10.0, 4 pairs)",
        "32 shared draws instead of one: +5.0",
    ):
        assert worth in text
    assert "| as it was | raw | independent | 1 | 50.0 % |" in text
    alone = resultspage.page(runs[:1], None)
    assert "lenient load): not measured yet" in alone
    assert "averaged weights instead of the last ones: +1.0" in alone


def test_seeds_of_a_row_are_counted_and_variants_are_rows() -> None:
    variants = {"calibrated": {"accuracy": 0.9, "accuracy_interval": [0.88, 0.92], "n": 1821}}
    runs = [
        replace(run("mdlm-conditional", 0.80, variants=variants), facts={"recipe": "a"}),
        replace(run("mdlm-conditional", 0.84, seed=2, variants=variants), facts={"recipe": "a"}),
        replace(run("mdlm-conditional", 0.1, seed=3), facts={"recipe": "b"}, run_id="a-before"),
        run("gpt2", 0.7, tag="sst2/cpu-hour"),
    ]
    text = resultspage.page(runs, None)
    line = next(line for line in text.splitlines() if "told the class, pretrained" in line)
    assert "| 82.0 % ± 2.8 |" in line
    assert "| 2 |" in line
    assert "| 90.0 % ± 0.0 |" in next(
        line for line in text.splitlines() if "weighed on dev" in line
    )
    assert "Not measured yet: baselines" in text
    assert "mdlm-conditional" not in text.partition("Not measured yet: baselines")[2].split("\n")[0]


def test_what_another_machine_measured_stays_until_the_same_row_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "runs.json"
    monkeypatch.setattr(results, "measured", lambda: iter(()))
    assert results.known(kept) == []
    old = [run("gpt2", 0.7), run("baselines", 0.8), run("gpt2", 0.75, seed=2)]
    kept.write_text(json.dumps({"runs": [asdict(each) for each in old]}))
    again = replace(run("gpt2", 0.9), run_id="gpt2-1-later")
    monkeypatch.setattr(results, "measured", lambda: iter([again]))
    found = results.known(kept)
    assert [each.run_id for each in found] == ["baselines-1", "gpt2-1-later", "gpt2-2"]
    assert [each.metrics["accuracy"] for each in found] == [0.8, 0.9, 0.75]


def test_a_model_that_is_told_the_class_is_called_so_and_its_variant_keeps_its_name() -> None:
    variants = {"class_likelihood": {"accuracy": 0.9, "accuracy_interval": [0.8, 1.0], "n": 1821}}
    told = replace(run("gpt2", 0.8, variants=variants), facts={"classes": "added"})
    text = resultspage.page([told], None)
    assert "| `gpt2`: one causal model told the class, exact likelihood | 80.0 % |" in text
    assert "| the same, trained on by class likelihood | 90.0 % |" in text
    apart = resultspage.page([replace(told, facts={"classes": "separate"})], None)
    assert "| `gpt2`: a causal model a class, exact likelihood | 80.0 % |" in apart
    both = replace(told, facts={"classes": "added", "architecture": "gpt2-both-ways"})
    assert "| `gpt2`: two causal models told the class, one from" in resultspage.page([both], None)


def test_a_row_that_was_not_pretrained_is_not_called_so() -> None:
    fresh = run("mdlm-conditional", 0.8, pretrained={"source": "none", "share_loaded": None})
    assert "told the class, without pretraining | 80.0 %" in resultspage.page([fresh], None)
    own = run("mdlm-conditional", 0.8)
    assert "told the class, pretrained | 80.0 %" in resultspage.page([own], None)


def test_what_a_reader_must_know_of_some_runs_names_them() -> None:
    gone = replace(run("gpt2", 0.8), facts={"caveats": ["Carried over", "Short"]})
    other = replace(run("gpt2", 0.8, seed=2), facts={"caveats": ["Short"]})
    text = resultspage.page([gone, other, run("baselines", 0.8)], None)
    first, second = (f"`gpt2` (sst2, `cpu`, c1:0000000{seed})" for seed in (1, 2))
    assert f"Carried over: {first}.\n" in text
    assert f"Short: {first}, {second}.\n" in text


def test_goals_are_about_the_runs_that_the_tables_show() -> None:
    variants = {"calibrated": {"accuracy": 0.9, "n": 1821}}
    runs = [
        replace(run("simple-diffusion", 0.86, tag="sst2/cpu-hour"), facts={"recipe": "a"}),
        replace(
            run("simple-diffusion", 0.80, seed=2, tag="sst2/cpu-hour", variants=variants),
            facts={"recipe": "b"},
        ),
        replace(run("simple-diffusion", 0.82, seed=3, tag="sst2/cpu-hour"), facts={"recipe": "b"}),
    ]
    text = resultspage.page(runs, None)
    line = next(line for line in text.splitlines() if line.startswith("| `simple-diffusion`:"))
    assert "| 81.0 % ± 1.4 |" in line
    goal = next(line for line in text.splitlines() if "best diffusion" in line)
    assert "| 90.00 % (`simple-diffusion`, calibrated), in 1.5 minutes | met |" in goal
    plain = [replace(each, metrics={**each.metrics, "variants": {}}) for each in runs]
    goal = resultspage.page(plain, None).partition("| best diffusion")[2]
    assert "| 81.00 % (`simple-diffusion`), in 1.5 minutes | missed |" in goal


def test_a_row_takes_the_time_of_its_slowest_seed() -> None:
    runs = [
        replace(run("gpt2", 0.8, seed=seed, seconds={"total": 60.0 * minutes}),
                facts={"recipe": "a"})
        for seed, minutes in ((1, 7), (2, 3))
    ]  # fmt: skip
    assert " | 7.0 | c1:00000002 |" in resultspage.page(runs, None)


@pytest.mark.parametrize(
    ("facts", "own", "onwards"),
    [
        ({"classes": "separate"}, "3,000", None),
        ({"classes": "added"}, "1,000", None),
        ({"classes": "added", "architecture": "gpt2-both-ways"}, "1,000", "500"),
    ],
)
def test_the_parameters_are_those_of_all_models_that_a_row_takes(
    facts: dict[str, str], own: str, onwards: str | None
) -> None:
    variants = {"onwards": {"accuracy": 0.7, "n": 1821}} if onwards else {}
    told = run("gpt2", 0.8, parameters=1000, labels=["a", "b", "c"], variants=variants)
    text = resultspage.page([replace(told, facts=facts)], None)
    rows = [line.split(" | ") for line in text.splitlines() if line.endswith("| cpu |")]
    assert [row[5] for row in rows] == [own, *([onwards] if onwards else [])]


@pytest.mark.torch
@pytest.mark.data
def test_the_cost_bench_measures_both_ways_and_its_page_shows_them() -> None:
    pytest.importorskip("torch")
    from tests.bench import training

    found = {way: training.train(way, 1) for way in training.WAYS}
    assert all(found[way]["tokens_per_s"] > 0 for way in found)
    cost = {
        "recipe": training.RECIPE,
        "conditions": "Here.",
        "training": {**found, "ratio": 2.0},
        "evaluation": {
            "ours": {"passes": 9.5, "accuracy": 0.9, "tokens_per_s": 5.0},
            "reference": {"passes": "> 128", "accuracy": 0.8, "tokens_per_s": 4.0},
            "ratio": 13.5,
            "note": "It did not get there.",
        },
    }
    assert "| 9.5 | > 128 | >= 13.5 fewer | >= 10 |" in resultspage.page([], cost)


@pytest.mark.torch
def test_what_a_gpu_cost_stands_beside_it() -> None:
    way = {"tokens_per_s": 1000.0, "memory_mb": 10.0}
    judge = {"passes": 9.5, "accuracy": 0.9, "tokens_per_s": 5.0}
    part = {"ours": {**way, "tokens_per_s": 2500.0}, "reference": way, "ratio": 2.5}
    used = {"tokens_per_s": 1e6, "mfu": 0.41, "texts_a_step": 8, "memory_mb": 1.0, "parameters": 9}
    cost = {
        "recipe": "r",
        "conditions": "c",
        "training": part,
        "evaluation": {"ours": judge, "reference": judge, "ratio": 10.0, "note": ""},
    }
    assert "On a GPU this has not been measured" in resultspage.page([], cost)
    on_gpu = {"conditions": "one card", "training": part, "utilisation": {"size `small`": used}}
    text = resultspage.page([], cost | {"gpu": on_gpu})
    assert "On a GPU. one card" in text
    assert "| size `small` | 9 | 8 | 1,000,000 | 1 | 41.0 % |" in text


def test_the_reference_recipe_gives_the_cost_that_the_fast_one_gives() -> None:
    torch = pytest.importorskip("torch")
    from jobs.textdiff.diffusion import masked_nll
    from tests.bench import training
    from tests.jobs.test_model import model

    clean = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    masked = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]]).bool()
    with torch.inference_mode():
        slow = training.reference_nll(model(), clean, masked, 10)
        assert slow[0, 0] == slow[0, 3] == 0
        torch.testing.assert_close(slow.sum(1), masked_nll(model(), clean, masked, 10))
