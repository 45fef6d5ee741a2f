"""Files in the layouts that others publish, built at tiny size with their names and shapes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch
from torch import Tensor

from jobs.textdiff import checkpoint, pretrained
from jobs.textdiff.errors import CheckpointError
from tests.jobs import test_gpt2
from tests.jobs.test_checkpoint import Trap
from tests.jobs.test_model import model

pytestmark = pytest.mark.torch

HIDDEN, COND, HEADS, BLOCKS, ROWS = 16, 8, 2, 2, 11
BUFFER = "backbone.rotary_emb.inv_freq"


def mdlm_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes in the order in which the published network registers them."""
    found: dict[str, tuple[int, ...]] = {
        "vocab_embed.embedding": (ROWS, HIDDEN),
        "sigma_map.mlp.0.weight": (COND, 256),
        "sigma_map.mlp.0.bias": (COND,),
        "sigma_map.mlp.2.weight": (COND, COND),
        "sigma_map.mlp.2.bias": (COND,),
        "rotary_emb.inv_freq": (HIDDEN // HEADS // 2,),
    }
    for i in range(BLOCKS):
        found |= {
            f"blocks.{i}.norm1.weight": (HIDDEN,),
            f"blocks.{i}.attn_qkv.weight": (3 * HIDDEN, HIDDEN),
            f"blocks.{i}.attn_out.weight": (HIDDEN, HIDDEN),
            f"blocks.{i}.norm2.weight": (HIDDEN,),
            f"blocks.{i}.mlp.0.weight": (4 * HIDDEN, HIDDEN),
            f"blocks.{i}.mlp.0.bias": (4 * HIDDEN,),
            f"blocks.{i}.mlp.2.weight": (HIDDEN, 4 * HIDDEN),
            f"blocks.{i}.mlp.2.bias": (HIDDEN,),
            f"blocks.{i}.adaLN_modulation.weight": (6 * HIDDEN, COND),
            f"blocks.{i}.adaLN_modulation.bias": (6 * HIDDEN,),
        }
    found |= {
        "output_layer.norm_final.weight": (HIDDEN,),
        "output_layer.linear.weight": (ROWS, HIDDEN),
        "output_layer.linear.bias": (ROWS,),
        "output_layer.adaLN_modulation.weight": (2 * HIDDEN, COND),
        "output_layer.adaLN_modulation.bias": (2 * HIDDEN,),
    }
    return {f"backbone.{name}": shape for name, shape in found.items()}


def mdlm_state() -> dict[str, Tensor]:
    torch.manual_seed(7)
    return {name: torch.randn(shape) for name, shape in mdlm_names().items()}


def lightning(**changes: Any) -> dict[str, Any]:
    state = mdlm_state()
    averages = [value + 1 for name, value in state.items() if name != BUFFER]
    return {
        "epoch": 1,
        "global_step": 2500,
        "pytorch-lightning_version": "2.2.1",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "optimizer_states": [],
        "ema": {"decay": 0.9999, "num_updates": 2500, "shadow_params": averages},
        "sampler": {"random_state": None},
        **changes,
    }


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "last.ckpt")
    return folder / "last.ckpt"


def test_a_lightning_checkpoint_fits_in_full_with_its_averages_in_place(tmp_path: Path) -> None:
    found = pretrained.read(saved(tmp_path, lightning()))
    assert (found.layout, found.tokenizer) == ("lightning", None)
    target = model(1)
    fit = checkpoint.load_into(target, found.weights)
    assert (fit.share, fit.missing, fit.unexpected, fit.other_shape) == (1.0, (), (), ())
    for name, value in mdlm_state().items():
        expected = value if name == BUFFER else value + 1
        assert torch.equal(target.state_dict()[name], expected)


def test_a_compiled_one_with_the_schedules_buffers_fits_as_well(tmp_path: Path) -> None:
    content = lightning()
    state = {
        name.replace("backbone.", "backbone._orig_mod."): value
        for name, value in content["state_dict"].items()
    }
    buffers = {"sampling_eps_min": torch.tensor(1e-3), "sampling_eps_max": torch.tensor(1.0)}
    content |= {"state_dict": {**buffers, **state}, **buffers}
    found = pretrained.read(saved(tmp_path, content))
    assert checkpoint.load_into(model(1), found.weights).share == 1.0


def test_one_without_averages_is_loaded_as_it_is(tmp_path: Path) -> None:
    content = lightning()
    del content["ema"]
    found = pretrained.read(saved(tmp_path, content))
    assert torch.equal(found.weights["backbone.vocab_embed.embedding"], mdlm_state()[
        "backbone.vocab_embed.embedding"
    ])  # fmt: skip


def test_averages_that_do_not_follow_the_parameters_are_refused(tmp_path: Path) -> None:
    content = lightning()
    averages = content["ema"]["shadow_params"]
    content["ema"]["shadow_params"] = averages[:-1]
    with pytest.raises(CheckpointError, match="29 entries for 30 parameters"):
        pretrained.read(saved(tmp_path, content))
    content["ema"]["shadow_params"] = [averages[1], averages[0], *averages[2:]]
    with pytest.raises(CheckpointError, match="does not follow the parameters"):
        pretrained.read(saved(tmp_path, content))


def test_its_config_and_its_tokenizer_are_passed_over_without_running_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    tree = {"model": {"size": "small", "l": [1, 2.5, None]}, "same": "${model.size}"}
    module = ModuleType("transformers.gpt2")
    words = type("Words", (), {"__module__": "transformers.gpt2", "__reduce__": _refills})
    module.Words, words.__qualname__ = words, "Words"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    monkeypatch.setitem(sys.modules, "transformers.gpt2", module)
    beside = {"config": omegaconf.OmegaConf.create(tree), "tokenizer": words()}
    path = saved(tmp_path, lightning(hyper_parameters=beside))
    monkeypatch.delitem(sys.modules, "transformers.gpt2")
    monkeypatch.delitem(sys.modules, "transformers")
    found = pretrained.read(path)
    assert found.layout == "lightning"
    assert checkpoint.load_into(model(1), found.weights).share == 1.0


def _refills(words: object) -> tuple[object, ...]:
    """As a tokenizer is pickled: called with arguments, then filled."""
    return type(words), ("a", 1), {"state": [1]}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.update({"extra": 3}),
        lambda state: state.update({7: torch.zeros(2)}),
        lambda state: state.update({"extra": torch.zeros(2, dtype=torch.int64)}),
        lambda state: state.update({"extra": torch.zeros(2, dtype=torch.complex64)}),
        lambda state: state.update({"extra": torch.eye(2).to_sparse()}),
        lambda state: state.update({"extra": torch.zeros(2, device="meta")}),
    ],
)
def test_what_can_be_no_weight_is_named(tmp_path: Path, spoil: Callable[[Any], None]) -> None:
    content = lightning()
    spoil(content["state_dict"])
    with pytest.raises(CheckpointError, match="extra|7") as caught:
        pretrained.read(saved(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_an_average_that_is_no_tensor_is_named(tmp_path: Path) -> None:
    content = lightning()
    content["ema"]["shadow_params"][2] = None
    with pytest.raises(CheckpointError, match="is no dense tensor"):
        pretrained.read(saved(tmp_path, content))


@pytest.mark.parametrize("part", ["state_dict", "raw"])
def test_one_of_our_own_without_its_weights_is_refused(tmp_path: Path, part: str) -> None:
    weights = {"a": torch.zeros(2)}
    made = checkpoint.Checkpoint(weights, weights, ("words", "a\nb"))
    checkpoint.save(tmp_path / "own.pt", made)
    content = dict(checkpoint.content(tmp_path / "own.pt"))
    del content[part]
    checkpoint.write(tmp_path / "own.pt", content)
    with pytest.raises(CheckpointError, match="weights are missing"):
        pretrained.read(tmp_path / "own.pt")


def test_code_in_it_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, lightning(hyper_parameters=Trap()))
    with pytest.raises(CheckpointError, match="cannot be read: it wants .*, and no code is run"):
        pretrained.read(path)
    assert not Path("sprung").exists()


def test_a_truncated_one_is_refused_in_one_line(tmp_path: Path) -> None:
    path = saved(tmp_path, lightning())
    content = path.read_bytes()
    for size in (0, 100, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError) as caught:
            pretrained.read(path)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_size_names_what_does_not_fit(tmp_path: Path) -> None:
    content = lightning()
    name = "backbone.output_layer.linear.weight"
    del content["ema"]
    content["state_dict"][name] = torch.zeros(ROWS, 2 * HIDDEN)
    found = pretrained.read(saved(tmp_path, content))
    with pytest.raises(CheckpointError, match=f"1 of another shape \\(first: {name}"):
        checkpoint.load_into(model(1), found.weights)


def test_a_hubs_folder_with_safetensors_fits_in_full(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(mdlm_state(), tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):
        found = pretrained.read(place)
        assert found.layout == "mdlm-hf"
        assert checkpoint.load_into(model(1), found.weights).share == 1.0


def gpt2_state(prefix: str) -> dict[str, Tensor]:
    """GPT-2's names; its matrices map rows to columns, [in, out]."""
    torch.manual_seed(5)
    wide = 4 * HIDDEN
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (ROWS, HIDDEN),
        "wpe.weight": (1024, HIDDEN),
    }
    for i in range(2):
        shapes |= {
            f"h.{i}.ln_1.weight": (HIDDEN,),
            f"h.{i}.ln_1.bias": (HIDDEN,),
            f"h.{i}.attn.bias": (1, 1, 1024, 1024),
            f"h.{i}.attn.c_attn.weight": (HIDDEN, 3 * HIDDEN),
            f"h.{i}.attn.c_attn.bias": (3 * HIDDEN,),
            f"h.{i}.attn.c_proj.weight": (HIDDEN, HIDDEN),
            f"h.{i}.attn.c_proj.bias": (HIDDEN,),
            f"h.{i}.ln_2.weight": (HIDDEN,),
            f"h.{i}.ln_2.bias": (HIDDEN,),
            f"h.{i}.mlp.c_fc.weight": (HIDDEN, wide),
            f"h.{i}.mlp.c_fc.bias": (wide,),
            f"h.{i}.mlp.c_proj.weight": (wide, HIDDEN),
            f"h.{i}.mlp.c_proj.bias": (HIDDEN,),
        }
    shapes |= {"ln_f.weight": (HIDDEN,), "ln_f.bias": (HIDDEN,)}
    return {prefix + name: torch.randn(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("with_head", [False, True])
def test_gpt2s_published_layout_fits_in_full(tmp_path: Path, prefix: str, with_head: bool) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    state = gpt2_state(prefix)
    if with_head:
        state["lm_head.weight"] = state[prefix + "wte.weight"].clone()
    safetensors.save_file(state, tmp_path / "model.safetensors")
    found = pretrained.read(tmp_path)
    assert found.layout == "gpt2"
    target = test_gpt2.model()
    fit = checkpoint.load_into(target, found.weights)
    assert (fit.share, fit.missing, fit.unexpected) == (1.0, (), ())
    x = torch.randn(3, HIDDEN)
    name = f"{prefix}h.1.mlp.c_fc"
    expected = x @ state[f"{name}.weight"] + state[f"{name}.bias"]  # as GPT-2 multiplies
    torch.testing.assert_close(target.h[1].mlp.c_fc(x), expected)


def test_a_head_of_its_own_is_not_gpt2s(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    state = gpt2_state("") | {"lm_head.weight": torch.zeros(ROWS, HIDDEN)}
    safetensors.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not tied"):
        pretrained.read(tmp_path)


@pytest.mark.parametrize("layout", ["mdlm-hf", "gpt2"])
def test_safetensors_of_whole_numbers_are_no_weights(tmp_path: Path, layout: str) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    state = mdlm_state() if layout == "mdlm-hf" else gpt2_state("")
    masks = {name: value for name, value in state.items() if name.endswith(".attn.bias")}
    name = next(name for name in state if name not in masks)
    state |= {name: value.bool() for name, value in masks.items()}  # which are no weights
    safetensors.save_file(state, tmp_path / "model.safetensors")
    assert pretrained.read(tmp_path).layout == layout
    state[name] = (state[name] * 20).to(torch.int8)
    safetensors.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{name} holds torch.int8"):
        pretrained.read(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("layout", ["own", "lightning", "mdlm-hf"])
def test_a_start_that_is_not_finite_is_refused(tmp_path: Path, layout: str, value: float) -> None:
    state = mdlm_state()
    name = "backbone.output_layer.linear.weight"
    state[name][1, 2] = value
    path = tmp_path / "model.safetensors"
    if layout == "mdlm-hf":
        pytest.importorskip("safetensors.torch").save_file(state, path)
    elif layout == "own":
        path = tmp_path / "pretrained.pt"
        checkpoint.save(path, checkpoint.Checkpoint(state, state, ("words", "<unk>")))
    else:
        path = saved(tmp_path, lightning(state_dict=state, ema=None))
    with pytest.raises(CheckpointError, match=f"{name} has numbers that are not finite"):
        pretrained.read(path)


def test_torn_or_absent_safetensors_are_refused_in_one_line(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        pretrained.read(tmp_path)
    safetensors.save_file(mdlm_state(), path)
    content = path.read_bytes()
    for size in (0, 5, 100, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="cannot be read") as caught:
            pretrained.read(tmp_path)
        assert "\n" not in str(caught.value)


def test_our_own_checkpoint_brings_its_tokenizer(tmp_path: Path) -> None:
    weights = model(1).state_dict()
    made = checkpoint.Checkpoint(weights, weights, ("words", "<unk>"))
    checkpoint.save(tmp_path / "pretrained.pt", made)
    found = pretrained.read(tmp_path / "pretrained.pt")
    assert (found.layout, found.tokenizer) == ("own", ("words", "<unk>"))
    assert os.listdir(tmp_path) == ["pretrained.pt"]
