from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch
from torch import Tensor

from jobs.textdiff import batches, checkpoint, config, objectives, phases, train
from jobs.textdiff.batches import Batches
from jobs.textdiff.errors import TrainingError
from jobs.textdiff.model import Denoiser
from jobs.textdiff.parallel import World
from jobs.textdiff.tokenizer import Tokenizer
from jobs.textdiff.train import Ema, Hooks, Schedule, StepReport, Stopped, fit
from tests.jobs import conftest
from tests.jobs.conftest import ROOT
from tests.jobs.test_model import SHAPE

pytestmark = pytest.mark.torch

# Two patterns: what stands at one end tells the other.
IDS = [[1, 2, 3, 1], [4, 5, 6, 4, 5]] * 48
WORDS = Tokenizer("words", "\n".join("abcdefghij"), 10, 8)
ALONE = World(0, 1, torch.device("cpu"))

# Of `trained` below with 20 steps at lr 1e-2, dropout 0.1: a change that does not mean to change
# the numbers keeps them.
GOLDEN = [
    2.0773, 2.4693, 1.9313, 2.1081, 1.4782, 2.4414, 1.8032, 1.7561, 1.6422, 1.8203,
    1.4539, 1.9387, 1.7085, 1.3805, 1.7321, 1.5302, 2.5437, 1.6190, 1.3305, 1.4771,
]  # fmt: skip


def trained(
    tree: dict[str, Any],
    steps: int = 40,
    *,
    seed: str = "a",
    lr: float = 1e-2,
    dropout: float = 0.0,
    resume: Mapping[str, Any] | None = None,
    **hooks: Any,
) -> tuple[dict[str, Tensor], list[StepReport], Denoiser]:
    torch.manual_seed(0)
    model = Denoiser(SHAPE, 11, dropout)
    built = config.from_tree(tree)
    reports: list[StepReport] = []

    def report(step: StepReport) -> None:
        reports.append(step)
        if "report" in hooks:
            hooks["report"](model, step)

    weights, _ = fit(
        objectives.Diffusion(model, built, WORDS),
        IDS,
        built,
        Schedule(steps, lr, 5),
        ALONE,
        seed=seed,
        hooks=Hooks(**{**hooks, "report": report}),
        resume=resume,
    )
    return weights, reports, model


def test_the_loss_falls(tree: dict[str, Any]) -> None:
    losses = [report.loss for report in trained(tree, 150)[1]]
    assert losses[0] > 1.5
    assert sum(losses[-30:]) / 30 < losses[0] / 2


def test_the_loss_curve_of_a_tiny_config_is_what_it_was(tree: dict[str, Any]) -> None:
    losses = [report.loss for report in trained(tree, 20, dropout=0.1)[1]]
    assert losses == pytest.approx(GOLDEN, rel=2e-3)  # other CPUs round otherwise


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(
    tree: dict[str, Any],
) -> None:
    first, again, other = (trained(tree, 5, seed=seed)[0] for seed in "aab")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_interrupted_and_resumed_training_ends_with_the_same_bits(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    whole, reports, last = trained(tree, 12, dropout=0.1)
    path, asked = tmp_path / "state.pt", []

    def save(state: dict[str, Any]) -> None:
        checkpoint.write(path, state)

    with pytest.raises(Stopped):
        trained(
            tree,
            12,
            dropout=0.1,
            save=save,
            report=lambda model, step: asked.append(step.step),
            stopping=lambda: len(asked) == 7,
        )
    torch.manual_seed(99)  # nothing outside the state may matter
    resumed, rest, now = trained(tree, 12, dropout=0.1, resume=checkpoint.content(path))
    assert [report.step for report in rest] == [8, 9, 10, 11, 12]
    assert [r.loss for r in rest] == [r.loss for r in reports[7:]]
    assert checkpoint.digest(resumed) == checkpoint.digest(whole)
    assert checkpoint.digest(now.state_dict()) == checkpoint.digest(last.state_dict())


def test_state_is_saved_every_few_minutes_and_validation_changes_nothing(
    tree: dict[str, Any],
) -> None:
    plain = trained(tree, 6)[0]
    minutes, steps = iter(range(10_000)), []
    tree["trainer"] |= {"checkpoint_minutes": 10.0, "validate_minutes": 4.0}
    weights, reports, _ = trained(
        tree,
        6,
        clock=lambda: 60.0 * next(minutes),
        save=lambda state: steps.append(state["step"]),
        validate=lambda weights: {"val_nelbo": float(torch.rand(1))},
    )
    assert steps
    assert steps[-1] < 6  # the end is another file's matter
    assert [bool(report.validation) for report in reports][-1]
    assert sum(bool(report.validation) for report in reports) > 1
    assert checkpoint.digest(weights) == checkpoint.digest(plain)


@pytest.mark.parametrize("asked", [3, 6])
def test_whoever_asks_for_the_end_does_not_wait_for_a_validation(
    tree: dict[str, Any], asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree["trainer"] |= {"validate_minutes": 1e-9}
    steps: list[int] = []
    validated: list[int] = []
    saved: list[int] = []
    plain = train._step

    def step(now: Any, *others: Any) -> Any:
        steps.append(now.step + 1)
        return plain(now, *others)

    def validate(weights: Mapping[str, Tensor]) -> Mapping[str, float]:
        validated.append(steps[-1])
        return {}

    monkeypatch.setattr(train, "_step", step)
    with contextlib.suppress(Stopped):
        trained(
            tree,
            6,
            validate=validate,
            save=lambda state: saved.append(state["step"]),
            stopping=lambda: steps[-1] == asked,
        )
    assert validated == list(range(1, asked))
    assert saved == ([asked] if asked < 6 else [])  # the end is another file's matter


def test_a_resume_from_step_0_is_an_error(tree: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="step 0"):
        trained(tree, 3, resume={"step": 0})


def test_a_report_says_what_a_person_watches(tree: dict[str, Any]) -> None:
    report = trained(tree, 1)[1][0]
    assert report.grad_norm > 0
    assert 32 * 4 <= report.tokens <= 32 * 5
    assert report.tokens_per_s > 0
    assert report.memory_mb > 50


def test_the_result_is_the_average_not_the_last_weights(tree: dict[str, Any]) -> None:
    weights, _, model = trained(tree, 20)
    last = model.state_dict()
    assert set(weights) == set(last)
    name = "backbone.output_layer.linear.weight"
    assert not torch.allclose(weights[name], last[name])


def test_the_average_begins_quickly_and_slows_down() -> None:
    weight = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        weight.weight.fill_(0.0)
    ema = Ema(weight, 0.9)
    expected = 0.0
    for n in range(1, 200):
        with torch.no_grad():
            weight.weight.fill_(float(n))
        ema.update(weight)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
        assert float(ema.shadow["weight"]) == pytest.approx(expected, rel=1e-5)
        if n == 1:
            assert expected == pytest.approx(1 - 2 / 11)


def test_the_rate_rises_to_its_peak_and_stays() -> None:
    schedule = Schedule(steps=100, lr=2.0, warmup=4)
    assert [schedule.rate(step) for step in (1, 2, 4, 5, 100)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    assert Schedule(steps=10, lr=2.0, warmup=0).rate(1) == 2.0


def test_a_loss_that_is_not_finite_stops_the_job_at_its_step(tree: dict[str, Any]) -> None:
    def poison(model: Denoiser, step: StepReport) -> None:
        if step.step == 3:
            torch.nn.init.constant_(model.backbone.output_layer.linear.bias, float("nan"))

    with pytest.raises(TrainingError, match="a: loss is nan at step 4 of 60"):
        trained(tree, 60, report=poison)


def test_no_training_text_is_an_error(tree: dict[str, Any]) -> None:
    built = config.from_tree(tree)
    objective = objectives.Diffusion(Denoiser(SHAPE, 11, 0.0), built, WORDS)
    with pytest.raises(TrainingError, match="no training text"):
        fit(objective, [], built, Schedule(1, 1.0, 0), ALONE, seed="a")


def test_gradients_are_clipped(tree: dict[str, Any]) -> None:
    tree["trainer"] |= {"gradient_clip_val": 1e-12}
    tree["optim"] |= {"eps": 1.0}  # AdamW divides by the gradient's size; this keeps it visible
    weights, _, _ = trained(tree, 3, lr=1.0)
    torch.manual_seed(0)
    start = Denoiser(SHAPE, 11, 0.0).state_dict()
    assert all(torch.allclose(weights[name], start[name], atol=1e-9) for name in weights)
    tree["trainer"] |= {"gradient_clip_val": 1.0}
    loose, _, _ = trained(tree, 3, lr=1.0)
    assert any(not torch.allclose(loose[name], start[name], atol=1e-9) for name in start)


@pytest.mark.parametrize("shared", [slice(None), slice(0, 0)], ids=["all texts", "no text"])
@pytest.mark.parametrize("phase", ["pretrain", "train", "class-likelihood"])
@pytest.mark.parametrize("classes", ["added", "adaln"])
@pytest.mark.parametrize("architecture", ["mdlm", "gpt2", "gpt2-both-ways"])
def test_every_weight_has_a_gradient_in_every_step(
    architecture: str, classes: str, phase: str, shared: slice
) -> None:
    """Several processes wait for the gradients of all weights, and look for no unused ones."""
    if architecture != "mdlm":
        classes = "added"
    tree = conftest.tiny("mdlm-conditional" if architecture == "mdlm" else "gpt2", "cpu")
    tree["model"] |= {"architecture": architecture, "classes": classes}
    built = config.from_tree(tree)
    job = SimpleNamespace(
        config=built,
        conditional=True,
        dataset=SimpleNamespace(labels=("a", "b")),
        tokenizer=WORDS,
        world=ALONE,
    )
    labels = [0, 1] * (len(IDS) // 2)
    model = phases.Job.fresh_model(job, classes=phase != "pretrain")  # type: ignore[arg-type]
    objective: Any = phases.Job.objective(
        job,
        model,
        labels if phase == "train" else None,  # type: ignore[arg-type]
    )
    if phase == "class-likelihood":
        objective = objectives.ClassLikelihood(model, built, WORDS, labels, 2)
    rows = objective.prepare(batches.collate(IDS, range(8)), torch.Generator().manual_seed(1))
    objective(*(x[shared] for x in rows)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


TWO_PROCESSES = """
import json, pathlib, sys
import torch
from jobs.textdiff import checkpoint, config, objectives, parallel
from jobs.textdiff.model import Denoiser, Shape
from jobs.textdiff.tokenizer import Tokenizer
from jobs.textdiff.train import Schedule, fit
tree, ids, out = json.loads(pathlib.Path(sys.argv[1]).read_text())
torch.set_num_threads(1)
world = parallel.world()
torch.manual_seed(0)
model = Denoiser(Shape(16, 8, 2, 2), 11, 0.0)
words = Tokenizer("words", chr(10).join("abcdefghij"), 10, 8)
built = config.from_tree(tree)
objective = objectives.Diffusion(model, built, words)
weights, _ = fit(objective, ids, built, Schedule(6, 1e-2, 5), world, seed="a")
if world.first:
    torch.save(weights, out)
parallel.leave(world)
"""


@pytest.mark.slow
def test_two_processes_that_share_each_batch_learn_what_one_does(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(TWO_PROCESSES)
    out = tmp_path / "weights.pt"
    (tmp_path / "in.json").write_text(json.dumps([tree, IDS, str(out)]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-addr", "127.0.0.1", "--master-port", str(port),
        str(tmp_path / "train.py"), str(tmp_path / "in.json"),
    ]  # fmt: skip
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "find_unused_parameters" not in done.stderr  # a warning, and a walk in each step
    shared, alone = torch.load(out, weights_only=True), trained(tree, 6)[0]
    for name, value in alone.items():
        torch.testing.assert_close(shared[name], value, rtol=2e-3, atol=2e-4)


@pytest.mark.filterwarnings("ignore")  # torch's compiler uses what torch itself calls deprecated
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_training_on_a_gpu_in_bf16_learns_too(tree: dict[str, Any]) -> None:
    tree["trainer"] |= {"precision": "bf16"}
    built, device = config.from_tree(tree), torch.device("cuda", 0)
    torch.manual_seed(0)
    model = Denoiser(SHAPE, 11, 0.0).to(device)
    reports: list[StepReport] = []
    fit(
        objectives.Diffusion(model, built, WORDS),
        IDS,
        built,
        Schedule(150, 1e-2, 5),
        World(0, 1, device),
        seed="a",
        hooks=Hooks(report=reports.append),
    )
    assert sum(r.loss for r in reports[-30:]) / 30 < reports[0].loss / 2
    assert reports[-1].memory_mb > 0


def test_an_epoch_holds_every_text_once_in_batches_of_one_length() -> None:
    ids = [[1] * length for length in (3, 5) for _ in range(8)]
    stream = Batches(ids, 4, "a")
    epochs = [[stream.at(4 * epoch + step) for step in (1, 2, 3, 4)] for epoch in (0, 1)]
    for epoch in epochs:
        assert sorted(row for batch in epoch for row in batch.rows) == list(range(16))
        assert all(bool(batch.valid_BL.all()) for batch in epoch)
    assert [b.rows for b in epochs[0]] != [b.rows for b in epochs[1]]


def test_a_batch_of_the_stream_holds_its_texts_as_a_batch_made_of_lists_does() -> None:
    ids = [list(range(100 * row, 100 * row + 1 + row % 5)) for row in range(23)]
    stream = Batches(ids, 4, "a")
    for step in range(1, 13):
        batch = stream.at(step)
        expected = batches.collate(ids, batch.rows)
        assert torch.equal(batch.tokens_BL, expected.tokens_BL)
        assert torch.equal(batch.valid_BL, expected.valid_BL)


def test_a_batch_follows_from_the_seed_and_the_step_alone() -> None:
    ids = [[1] * (1 + i % 5) for i in range(23)]
    stream = Batches(ids, 4, "a")
    forward = [stream.at(step).rows for step in range(1, 20)]
    other = Batches(ids, 4, "a")
    steps = list(range(1, 20))
    random.Random(1).shuffle(steps)
    assert {step: other.at(step).rows for step in steps} == dict(enumerate(forward, start=1))
    assert [Batches(ids, 4, "b").at(step).rows for step in range(1, 20)] != forward


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9, 13, 129])
def test_no_batch_is_much_smaller_than_the_others(count: int) -> None:
    stream = Batches([[1]] * count, 4, "a")
    sizes = [len(stream.at(step + 1).rows) for step in range(-(-count // 4))]
    assert sum(sizes) == count
    assert max(sizes) <= 4 and max(sizes) - min(sizes) <= 1


def test_where_a_text_stands_in_its_batch_does_not_follow_its_length() -> None:
    """Noise levels are stratified over the places of a batch."""
    stream = Batches([[1] * (row + 1) for row in range(16)], 16, "a")
    longest = [stream.at(step).rows.index(15) for step in range(1, 200)]
    assert len(set(longest)) == 16


def test_texts_of_different_lengths_are_padded_and_the_padding_is_known() -> None:
    batch = batches.collate([[1, 2], [3]], [0, 1])
    assert batch.tokens_BL.tolist() == [[1, 2], [3, 0]]
    assert batch.valid_BL.tolist() == [[True, True], [True, False]]
    assert batch.tokens == 3


@pytest.mark.parametrize("tokens", [1, 12, 1000])
def test_evaluation_groups_hold_every_text_once_within_the_budget(tokens: int) -> None:
    ids = [[1] * (1 + i % 7) for i in range(30)]
    groups = list(batches.by_length(ids, range(30), tokens, copies=2))
    assert sorted(row for group in groups for row in group) == list(range(30))
    for group in groups:
        longest = max(len(ids[row]) for row in group)
        assert len(group) == 1 or len(group) * longest * 2 <= tokens
