from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jobs.textdiff import diffusion, fused, gpt2, model, parallel, utilisation

VOCAB, MASK = 101, 100
KINDS = ("mdlm", "gpt2")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
DEVICES = (pytest.param("cuda", marks=GPU), "cpu")  # what is compiled first is kept


def network(kind: str, device: str) -> Any:
    torch.manual_seed(0)
    shape = model.Shape(64, 32, 3, 4)
    made: nn.Module
    if kind == "mdlm":
        made = model.Denoiser(shape, VOCAB, 0.0, classes=2)
    else:
        made = gpt2.GPT2(shape, VOCAB, 0.0, classes=2)
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.05)  # nothing starts at zero
    return made.to(device)


def cost(made: Any, kind: str, device: str, length: int, *, padded: bool) -> Tensor:
    """[8] nats of some texts, the same ones for the same length."""
    generator = torch.Generator().manual_seed(length)
    clean = torch.randint(0, MASK, (8, length), generator=generator)
    ends = torch.randint(length // 2, length + 1, (8, 1), generator=generator)
    valid = torch.arange(length) < ends
    masked = (torch.rand(8, length, generator=generator) < 0.5) & valid
    classes = torch.arange(8).to(device) % 2
    seen = valid.to(device) if padded else None
    if kind == "mdlm":
        return diffusion.masked_nll(made, clean.to(device), masked.to(device), MASK, seen, classes)
    return gpt2.nll(made, clean.to(device), seen, MASK, classes)


def test_the_cost_of_a_token_is_that_of_the_definition_and_what_cannot_be_has_no_share() -> None:
    logits, targets = torch.randn(7, VOCAB), torch.arange(7)
    plain = fused.token_nll(logits.clone(), targets)
    torch.testing.assert_close(plain, F.cross_entropy(logits, targets, reduction="none"))
    without = fused.token_nll(logits.clone(), targets, MASK)
    expected = F.cross_entropy(logits[:, :MASK], targets, reduction="none")
    torch.testing.assert_close(without, expected)


def test_on_a_cpu_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(torch, "compile", refuse)
    for kind in KINDS:
        assert bool(torch.isfinite(cost(network(kind, "cpu"), kind, "cpu", 16, padded=True)).all())


@pytest.mark.filterwarnings("ignore")  # torch's compiler uses what torch itself calls deprecated
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_costs_and_gradients_are_what_they_were(
    kind: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU with its own compiler; elsewhere without one, which shows that all can be traced."""
    if device == "cpu":
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, quick = network(kind, device), network(kind, device)
    for length, padded in [(16, True), (24, False), (40, True), (33, False)]:
        with torch.autocast(device, dtype=torch.bfloat16):
            monkeypatch.setattr(fused, "pays", lambda x: False)
            expected = cost(plain, kind, device, length, padded=padded)
            monkeypatch.setattr(fused, "pays", lambda x: True)
            found = cost(quick, kind, device, length, padded=padded)
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
        found.sum().backward()
        expected.sum().backward()
    for one, other in zip(plain.parameters(), quick.parameters(), strict=True):
        if one.grad is not None:
            assert other.grad is not None
            difference = (one.grad - other.grad).norm() / one.grad.norm().clamp(min=1e-6)
            assert float(difference) < 0.05


def test_attention_on_a_gpu_is_never_cudnns(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(utilisation, "peak", lambda device: None)
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        parallel.world({})
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
