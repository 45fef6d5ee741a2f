"""How much of a model a checkpoint fills: shares, shapes, dtypes, the prefix that would help."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.checks import checkpoint
from orchestrator.checks.checkpoint import NoTensors, TensorInfo, renamed, tensors_of
from orchestrator.domain import Finding, Severity

MODEL = tensors_of({
    "embed.weight": [[100, 8], "float32"],
    "block.0.weight": [[8, 8], "float32"],
    "head.weight": [[2, 8], "float32"],
})  # fmt: skip  # 800 + 64 + 16 parameters


def check(file: Any, least: float = 1.0, **more: Any) -> list[Finding]:
    return checkpoint.check(MODEL, file, least=least, shown="m.ckpt", **more)


def test_a_checkpoint_that_fits_is_told_with_its_share() -> None:
    (finding,) = check({**MODEL, "optimizer.step": TensorInfo(())})
    assert (finding.severity, finding.refuses) == (Severity.INFO, False)
    assert finding.message == (
        "100.0 % of the model's parameters would load from m.ckpt (3 of 3 tensors); "
        "1 tensor of the file has no place"
    )


def test_missing_and_reshaped_tensors_refuse_below_the_share() -> None:
    file = {"embed.weight": TensorInfo((100, 8)), "head.weight": TensorInfo((5, 8))}
    (finding,) = check(file, least=0.95)
    assert finding.refuses
    assert finding.message.startswith(
        "90.9 % of the model's parameters would load from m.ckpt, 95 % are asked for; "
        "not in the file: block.0.weight; 1 of another shape: head.weight is [5, 8] there, "
        "[2, 8] in the model"
    )
    assert not check(file, least=0.9)[0].refuses
    (waived,) = check(file, waive="the head is new")
    assert (waived.waived, waived.refuses) == ("the head is new", False)


@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.", "module.", "odd.inner."])
def test_a_prefix_shift_is_found_in_both_directions(prefix: str) -> None:
    shifted = {prefix + name: info for name, info in MODEL.items()}
    (finding,) = check(shifted)
    assert "0.0 % of the model's parameters" in finding.message
    assert f"without `{prefix}` before the file's names 100.0 % would" in finding.message
    assert not check(renamed(shifted, prefix, None))[0].refuses
    (finding,) = checkpoint.check(shifted, MODEL, least=1.0, shown="m.ckpt")
    assert f"with `{prefix}` before the file's names 100.0 % would" in finding.message
    assert not checkpoint.check(shifted, renamed(MODEL, None, prefix), least=1, shown="f")[
        0
    ].refuses


def test_another_dtype_is_a_warning_where_both_are_known() -> None:
    half = {name: TensorInfo(info.shape, "bfloat16") for name, info in MODEL.items()}
    _, warning = check(half)
    assert warning.severity is Severity.WARNING
    assert "embed.weight is bfloat16 there, float32 in the model" in warning.message
    assert len(check({name: TensorInfo(info.shape) for name, info in MODEL.items()})) == 1


def test_listings_are_read_in_each_form_and_others_refused() -> None:
    assert tensors_of({"a": [2, 3], "b": {"shape": [], "dtype": "torch.float16"}}) == {
        "a": TensorInfo((2, 3)), "b": TensorInfo((), "float16"),
    }  # fmt: skip
    for bad in ([], {}, {"a": "x"}, {"a": [-1]}, {"a": {"dtype": "float32"}}, {"a": [True]}):
        with pytest.raises(NoTensors):
            tensors_of(bad)
