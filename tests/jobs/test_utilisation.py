from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch

from jobs.textdiff import config, objectives, utilisation
from jobs.textdiff.gpt2 import GPT2
from jobs.textdiff.model import Denoiser, Shape
from jobs.textdiff.parallel import World
from jobs.textdiff.train import Hooks, Schedule, StepReport, fit
from tests.jobs.test_model import SHAPE
from tests.jobs.test_train import ALONE, IDS, WORDS

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA GeForce RTX 4090", 165),
    ],
)
def test_a_gpus_peak_is_known_by_the_name_its_driver_gives(name: str, teraflops: float) -> None:
    assert utilisation.peak_of(name) == teraflops * 1e12


def test_a_cpu_and_an_unknown_gpu_have_no_peak() -> None:
    assert utilisation.peak(torch.device("cpu")) is None
    assert utilisation.peak_of("NVIDIA GeForce RTX 4070 Ti SUPER") is None


def test_what_is_counted_is_six_operations_a_token_and_weight() -> None:
    shape, vocab, length, texts = Shape(64, 0, 3, 4), 50, 16, 8
    model = GPT2(shape, vocab, 0.0)
    weights = 12 * shape.blocks * shape.hidden**2 + vocab * shape.hidden
    tokens = torch.randint(2, vocab, (texts, length))
    found = utilisation.counted(
        lambda: torch.nn.functional.cross_entropy(
            model.logits(model.features(tokens)).flatten(0, 1), tokens.flatten()
        )
    )
    assert found == 6 * weights * texts * length  # torch counts attention on a GPU only


def reports(tree: dict[str, Any], world: World, steps: int = 3) -> list[StepReport]:
    torch.manual_seed(0)
    built, found = config.from_tree(tree), list[StepReport]()
    ticks = iter(range(100))
    fit(
        objectives.Diffusion(Denoiser(SHAPE, 11, 0.1), built, WORDS),
        IDS,
        built,
        Schedule(steps, 1e-2, 0),
        world,
        seed="a",
        hooks=Hooks(report=found.append, clock=lambda: float(next(ticks))),
    )
    return found


def test_where_the_peak_is_known_each_step_says_how_much_of_it_was_used(
    tree: dict[str, Any],
) -> None:
    plain, known = reports(tree, ALONE), reports(tree, replace(ALONE, peak=1e9))
    assert [step.mfu for step in plain] == [None] * 3
    assert all(step.flops > 0 for step in known)
    for step in known:
        assert step.mfu == pytest.approx(step.flops / step.tokens * step.tokens_per_s / 1e9)
    assert [step.loss for step in plain] == [step.loss for step in known]
