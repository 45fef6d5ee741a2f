from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch
from torch import nn

from jobs.textdiff import calibrate, config, data, evaluate, files, gpt2, summary
from jobs.textdiff.classifier import Classifier
from jobs.textdiff.errors import TrainingError
from jobs.textdiff.evaluate import Decision, Scored
from jobs.textdiff.model import Denoiser
from jobs.textdiff.tokenizer import Tokenizer
from orchestrator import strictjson
from tests.jobs import test_gpt2
from tests.jobs.test_model import SHAPE, model

pytestmark = pytest.mark.torch

LABELS = ("negative", "positive")
WORDS = Tokenizer("words", "\n".join("abcdefghij"), 10, 8)
IDS = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [2, 2], [3, 1, 4, 1, 5, 9, 2, 6]]


def judge(
    tree: dict[str, Any], models: Sequence[nn.Module], labels: Sequence[str] = LABELS, **how: object
) -> Classifier:
    tree["eval"] = {**tree["eval"], "stop_z": 0.0, **how}
    return Classifier(models, labels, WORDS, config.from_tree(tree))


def texts_of(found: dict[int, Scored]) -> list[Scored]:
    return [found[row] for row in sorted(found)]


def scored(*costs: float) -> Scored:
    return Scored(tuple((cost,) for cost in costs), tokens=4)


def told(classes: int) -> Denoiser:
    torch.manual_seed(3)
    made = Denoiser(SHAPE, 11, 0.0, classes=classes).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def test_the_likeliest_class_wins_among_any_number() -> None:
    decisions = evaluate.decide([scored(3.0, 2.0), scored(2.0, 3.0), scored(3.0, 2.5, 2.0)], seed=1)
    assert decisions == [Decision(1, False), Decision(0, False), Decision(2, False)]


def test_a_tie_is_counted_and_decided_by_a_coin_not_by_the_order_of_classes() -> None:
    texts = [scored(2.0, 2.0, 5.0)] * 400
    decisions = evaluate.decide(texts, seed=1)
    assert all(decision.tie for decision in decisions)
    shares = [sum(d.predicted == label for d in decisions) for label in range(3)]
    assert 150 < shares[0] < 250
    assert shares[2] == 0
    assert decisions == evaluate.decide(texts, seed=1)
    assert decisions != evaluate.decide(texts, seed=2)
    labels = ("a", "b", "c")
    assert summary.accuracy(decisions, [0, 1] * 200, labels)["ties"] == 400


def test_exchanging_the_models_flips_every_prediction(tree: dict[str, Any]) -> None:
    ids = [[i, i + 1, i + 2] for i in range(8)]
    found = []
    for models in ([model(1), model(2)], [model(2), model(1)]):
        texts = texts_of(evaluate.score(judge(tree, models), ids))
        found.append([decision.predicted for decision in evaluate.decide(texts, seed=1)])
    assert found[0] == [1 - predicted for predicted in found[1]]
    assert len(set(found[0])) == 2


def test_a_text_is_scored_alike_in_any_company(tree: dict[str, Any]) -> None:
    models = [model(1), model(2)]
    alone, together, part = (
        evaluate.score(judge(tree, models, batch_tokens=tokens), IDS, rows=rows)
        for tokens, rows in ((1, None), (10_000, None), (10_000, [2, 4]))
    )
    assert sorted(part) == [2, 4]
    for row, text in together.items():
        assert alone[row].scores == pytest.approx(text.scores, rel=1e-4)
        if row in part:
            assert part[row].scores == pytest.approx(text.scores, rel=1e-4)


def test_the_classes_share_noise_only_under_the_shared_estimator(tree: dict[str, Any]) -> None:
    same, gaps = model(1), {}
    for estimator in ("shared", "independent"):
        classifier = judge(tree, [same, same], estimator=estimator)
        texts = texts_of(evaluate.score(classifier, [[1, 2, 3, 4]] * 5))
        gaps[estimator] = [text.gap(0) for text in texts]
    assert gaps["shared"] == [0.0] * 5
    assert all(gap != 0 for gap in gaps["independent"])


def test_a_text_whose_sign_is_certain_costs_no_more_draws(tree: dict[str, Any]) -> None:
    models, many = [model(1), model(2)], [[i % 9, (2 * i) % 9, i % 7] for i in range(30)]
    how = {"draws": 16, "round": 4}
    every = evaluate.score(judge(tree, models, **how), many)
    assert {text.draws for text in every.values()} == {16}
    stopped = evaluate.score(judge(tree, models, **{**how, "stop_z": 2.0}), many)
    used = [text.draws for text in texts_of(stopped)]
    assert min(used) == 4
    assert sum(used) < 16 * 30
    for row, text in stopped.items():
        assert text.draws == 16 or text.settled(2.0)
        for mine, full in zip(text.estimates, every[row].estimates, strict=True):
            assert mine == pytest.approx(full[: text.draws], rel=1e-4)


def test_settled_means_ahead_of_every_other_class_beyond_the_noise() -> None:
    close = Scored(((1.0, 2.0, 3.0, 2.0), (1.5, 1.5, 3.5, 2.0), (9.0, 9.5, 9.0, 9.0)), tokens=2)
    assert not close.settled(2.0)
    clear = Scored(((1.0, 2.0, 3.0, 2.0), (5.0, 6.1, 7.0, 6.0), (9.0, 9.5, 9.0, 9.0)), tokens=2)
    assert clear.settled(2.0)
    few = replace(clear, estimates=tuple(draws[:3] for draws in clear.estimates))
    assert not few.settled(2.0)  # and one draw tells nothing of its noise
    assert not scored(1.0, 9.0).settled(2.0)


def test_one_model_told_the_class_judges_like_one_a_class(tree: dict[str, Any]) -> None:
    tree["model"] |= {"classes": "added"}
    labels = ("a", "b", "c")
    one = judge(tree, [told(3)], labels)
    assert one.conditional
    texts = texts_of(evaluate.score(one, IDS))
    assert {len(text.scores) for text in texts} == {3}
    assert len({d.predicted for d in evaluate.decide(texts, 1)}) > 1
    assert len(set(one.digests().values())) == 3


def test_equal_models_or_class_vectors_are_an_error(tree: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="the same weights"):
        judge(tree, [model(1), model(1)]).digests()
    flat = told(2)
    with torch.no_grad():
        flat.class_embed.weight[1] = flat.class_embed.weight[0]
    with pytest.raises(TrainingError, match="the same weights"):
        judge(tree, [flat]).digests()
    assert len(judge(tree, [flat]).digests({1})) == 2  # class 0 was never told in training


def test_a_causal_model_is_judged_exactly_in_one_pass(tree: dict[str, Any]) -> None:
    models = [test_gpt2.model(1), test_gpt2.model(2)]
    texts = texts_of(evaluate.score(judge(tree, models), IDS))
    for text, ids in zip(texts, IDS, strict=True):
        assert text.draws == 1
        with torch.inference_mode():
            exact = [float(gpt2.nll(m, torch.tensor([ids]), None, 10)) for m in models]
        assert text.scores == pytest.approx(exact, rel=1e-4)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("stop_z", [0.0, 1.0])
def test_texts_are_judged_in_smaller_groups_where_memory_is_short(
    tree: dict[str, Any], error: Exception, stop_z: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = {"batch_tokens": 1000, "draws": 8, "round": 4}
    whole = judge(tree, [model(1), model(2)], **wide)
    whole = replace(
        whole, config=replace(whole.config, eval=replace(whole.config.eval, stop_z=stop_z))
    )
    expected = evaluate.score(whole, IDS)
    plain, tried, said = Classifier.costs, [], list[str]()

    def costs(self: Classifier, tokens: Sequence[list[int]], draws: Any) -> torch.Tensor:
        tried.append(len(tokens) * max(map(len, tokens)) * 4)
        if tried[-1] > 60:
            raise error
        return plain(self, tokens, draws)

    monkeypatch.setattr(Classifier, "costs", costs)
    found = evaluate.score(whole, IDS, say=said.append)
    assert found.keys() == expected.keys()
    for row, text in found.items():
        assert text.levels == expected[row].levels
        for own, other in zip(text.estimates, expected[row].estimates, strict=True):
            assert own == pytest.approx(other, rel=1e-5)
    # What was too much once is not tried again, and what was judged before stays judged.
    assert [many for many in tried if many > 60] == [160, 80]
    assert said == [
        "160 tokens at a time need more memory than there is: now 80",
        "80 tokens at a time need more memory than there is: now 40",
    ]
    assert "out of memory" not in said[0].lower()  # `orch` would read it as the end's cause

    monkeypatch.setattr(Classifier, "costs", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)) as raised:
        evaluate.score(whole, IDS)
    assert raised.value is error


def test_always_one_class_shows_in_the_shares() -> None:
    truth = [0] * 578 + [1] * 422
    texts = [scored(1.0, 2.0)] * 1000
    final = summary.accuracy(evaluate.decide(texts, seed=1), truth, LABELS)
    assert final["accuracy"] == final["majority_accuracy"] == 0.578
    assert final["confusion_matrix"] == [[578, 0], [422, 0]]
    assert final["predicted_share"] == {"negative": 1.0, "positive": 0.0}
    assert final["ties"] == 0


def test_rows_of_the_confusion_matrix_are_true_labels() -> None:
    texts, truth = [scored(1.0, 2.0), scored(1.0, 2.0), scored(2.0, 1.0)], [0, 1, 1]
    final = summary.accuracy(evaluate.decide(texts, seed=1), truth, LABELS)
    assert final["confusion_matrix"] == [[1, 0], [1, 1]]
    gaps = summary.gaps(texts, truth, LABELS)
    assert gaps["gap"]["mean_by_label"] == {"negative": 1.0, "positive": 0.0}
    bounds = summary.bounds(texts, truth, LABELS, draws=1)
    assert bounds["nelbo_per_token"]["negative"] == {"negative": 0.25, "positive": 0.5}


def test_a_result_of_the_most_classes_and_the_longest_labels_can_be_read(tmp_path: Path) -> None:
    """Four rows, as baselines have, and two with scores; counts have two digits."""
    most = data.MOST_CLASSES
    size = data.LONGEST_LABELS // most
    labels = [f"{name:0{size - 2}}" for name in range(most)]
    assert sum(len(json.dumps(label)) for label in labels) == data.LONGEST_LABELS
    texts, truth = [scored(*map(float, range(most)))] * most, range(most)
    final = summary.accuracy([Decision(0, False)] * most, truth, labels)
    final["confusion_matrix"] = [[99] * most] * most
    final["weights_sha256"] = dict.fromkeys(labels, "0" * 64)
    scores = summary.bounds(texts, truth, labels, draws=1) | summary.gaps(texts, truth, labels)
    assert "nelbo_per_token" not in scores
    files.write_json(tmp_path / "metrics.json", {**final, **scores, "variants": {
        "a": final, "b": final, "c": final | scores,
    }})  # fmt: skip
    assert (tmp_path / "metrics.json").stat().st_size < strictjson.MAX_BYTES


def test_the_gap_is_that_of_the_true_class_to_the_best_other() -> None:
    assert scored(1.0, 2.0, 4.0).gap(0) == 1.0
    assert scored(1.0, 2.0, 4.0).gap(2) == -3.0
    rows = list(summary.predictions([scored(1.0, 2.0)], [Decision(0, False)], [1], LABELS))
    assert (rows[0]["label"], rows[0]["predicted"], rows[0]["gap"]) == ("positive", "negative", -1)


def test_the_interval_is_wilsons() -> None:
    assert summary.wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert summary.wilson(0, 10)[0] == 0.0
    assert summary.wilson(10, 10)[1] == pytest.approx(1.0)


def test_the_error_of_a_lead_comes_from_its_draws() -> None:
    text = Scored(((1.0, 3.0), (1.0, 1.0)), tokens=2)
    assert text.gap(1) == 1.0
    assert text.gap_se(0) == text.gap_se(1) == pytest.approx(1.0)
    assert scored(1.0, 2.0).gap_se(0) is None
    three = Scored(((1.0, 1.0), (2.0, 2.0), (3.0, 9.0)), tokens=2)
    assert three.gap_se(2) == three.lead_se(0, 2) == pytest.approx(3.0)  # as `gap`, of 2 and 0
    rows = summary.predictions([three], [Decision(0, False)], [2], ("a", "b", "c"))
    assert [(row["gap"], row["gap_se"]) for row in rows] == [(-5.0, pytest.approx(3.0))]


def test_the_bound_is_that_of_draws_which_every_text_has() -> None:
    stopped, went_on = Scored(((1.0,), (9.0,)), 1), Scored(((3.0, 100.0), (3.0, 200.0)), 1)
    means = summary.bounds([stopped, went_on], [0, 1], LABELS, draws=1)
    assert means["nelbo"] == {"negative": 2.0, "positive": 6.0}
    assert means["nelbo_per_token"]["positive"] == {"negative": 3.0, "positive": 3.0}
    assert summary.gaps([stopped, went_on], [0, 1], LABELS)["draws_used"] == 1.5


def test_without_weights_a_draw_counts_as_many_tokens_as_it_masks() -> None:
    loud = Scored(((40.0, 10.0), (30.0, 12.0)), tokens=4, levels=(0.25, 1.0))
    assert evaluate.decide([loud], 1) == [Decision(1, False)]
    assert loud.unweighted.estimates == ((10.0, 10.0), (7.5, 12.0))
    assert evaluate.decide([loud.unweighted], 1) == [Decision(1, False)]
    assert loud.unweighted.gap(1) == pytest.approx(0.25)
    exact = scored(1.0, 2.0)
    assert exact.unweighted is exact


def test_a_text_is_done_by_the_score_that_decides(tree: dict[str, Any]) -> None:
    """A class that leads in the bound of every draw may lag where draws count by their masks."""
    tree["model"] |= {"classes": "added"}
    by_bound = judge(tree, [told(2)], draws=16, round=4)
    both = [replace(by_bound, by_bound=way) for way in (True, False)]
    for one in both:
        found = evaluate.score(replace(one, config=_stopping(one.config, 2.0)), IDS)
        whole = evaluate.score(one, IDS)
        for row, text in found.items():
            parts = [_first(whole[row], draws) for draws in (4, 8, 12)]
            seen = parts if one.by_bound else [part.unweighted for part in parts]
            done = [part.draws for part in seen if part.settled(2.0)]
            assert text.draws == (done[0] if done else 16)
    assert {row: t.draws for row, t in evaluate.score(
        replace(both[0], config=_stopping(both[0].config, 2.0)), IDS).items()
    } != {row: t.draws for row, t in found.items()}  # fmt: skip


def _stopping(whole: config.Config, z: float) -> config.Config:
    return replace(whole, eval=replace(whole.eval, stop_z=z))


def _first(text: Scored, draws: int) -> Scored:
    return replace(
        text,
        estimates=tuple(own[:draws] for own in text.estimates),
        levels=text.levels[:draws],
    )


def test_broken_weights_are_an_error_not_a_prediction(tree: dict[str, Any]) -> None:
    broken = model(1)
    with torch.no_grad():
        broken.backbone.output_layer.linear.weight[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="not finite"):
        evaluate.score(judge(tree, [broken, model(2)]), [[1, 2]])


def test_calibration_finds_the_levels_that_tell_the_classes_apart() -> None:
    generator = torch.Generator().manual_seed(1)
    levels = (0.1, 0.9)
    texts, truth = [], []
    for label in [0, 1] * 300:
        noise = torch.randn(4, generator=generator).tolist()
        signal = 1.0 if label == 0 else -1.0
        first = (0.0 + noise[0] * 9, 0.0)  # at few masks: noise alone
        second = (noise[1] * 9, signal + noise[2] * 0.5)
        texts.append(Scored((first, second), tokens=3, levels=levels))
        truth.append(label)
    fitted = calibrate.fit(texts[:400], truth[:400], bins=2)
    assert abs(fitted.weight_B[0]) < abs(fitted.weight_B[1]) / 5

    def share(costs: Sequence[Sequence[float]]) -> float:
        decisions = evaluate.choose(costs, 1)
        pairs = zip(decisions, truth[400:], strict=True)
        return sum(d.predicted == t for d, t in pairs) / 200

    assert share(fitted.costs(texts[400:])) > 0.9 > 0.7 > share([t.scores for t in texts[400:]])
