from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch

from jobs.textdiff.errors import ConfigError
from jobs.textdiff.model import SIZES, Denoiser, Shape, shape_of

pytestmark = pytest.mark.torch

SHAPE = Shape(hidden=16, cond=8, blocks=2, heads=2)


def model(seed: int = 0, *, random_gates: bool = True) -> Denoiser:
    """Small; with `random_gates` no layer is left at zero, so that every path matters."""
    torch.manual_seed(seed)
    made = Denoiser(SHAPE, 11, 0.0).eval()
    if random_gates:
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def test_the_small_model_has_the_names_and_shapes_of_the_published_checkpoints() -> None:
    with torch.device("meta"):
        weights = Denoiser(SIZES["small"], 50_258, 0.1).state_dict()
    block = {
        "norm1.weight": (768,),
        "attn_qkv.weight": (2304, 768),
        "attn_out.weight": (768, 768),
        "norm2.weight": (768,),
        "mlp.0.weight": (3072, 768),
        "mlp.0.bias": (3072,),
        "mlp.2.weight": (768, 3072),
        "mlp.2.bias": (768,),
        "adaLN_modulation.weight": (4608, 128),
        "adaLN_modulation.bias": (4608,),
    }
    expected = {
        "vocab_embed.embedding": (50_258, 768),
        "sigma_map.mlp.0.weight": (128, 256),
        "sigma_map.mlp.0.bias": (128,),
        "sigma_map.mlp.2.weight": (128, 128),
        "sigma_map.mlp.2.bias": (128,),
        "rotary_emb.inv_freq": (32,),
        "output_layer.norm_final.weight": (768,),
        "output_layer.linear.weight": (50_258, 768),
        "output_layer.linear.bias": (50_258,),
        "output_layer.adaLN_modulation.weight": (1536, 128),
        "output_layer.adaLN_modulation.bias": (1536,),
    } | {f"blocks.{i}.{name}": shape for i in range(12) for name, shape in block.items()}
    found = {name.removeprefix("backbone."): tuple(w.shape) for name, w in weights.items()}
    assert found == expected
    assert all(name.startswith("backbone.") for name in weights)


def test_a_fresh_model_is_undecided_and_its_blocks_pass_everything_through() -> None:
    fresh = model(random_gates=False)
    tokens = torch.tensor([[1, 2, 3, 4]])
    features = fresh.features(tokens)
    assert torch.equal(features, fresh.backbone.vocab_embed(tokens))
    assert torch.equal(fresh.logits(features[0]), torch.zeros(4, 11))


def test_every_position_sees_both_ways() -> None:
    some = model()
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    before = some.features(tokens)[0, 2]
    for place in (0, 4):
        changed = tokens.clone()
        changed[0, place] = 9
        assert not torch.allclose(some.features(changed)[0, 2], before, atol=1e-4)


def test_padding_changes_nothing() -> None:
    some = model()
    text = torch.tensor([[1, 2, 3]])
    padded = torch.tensor([[1, 2, 3, 7, 7]])
    valid = torch.tensor([[True, True, True, False, False]])
    torch.testing.assert_close(some.features(padded, valid)[:, :3], some.features(text))


def test_attention_knows_the_order_of_words() -> None:
    some = model()
    one = some.features(torch.tensor([[1, 2, 3]]))[0, 0]
    other = some.features(torch.tensor([[1, 3, 2]]))[0, 0]
    assert not torch.allclose(one, other, atol=1e-4)


def test_every_parameter_learns() -> None:
    some = model()
    some.logits(some.features(torch.tensor([[1, 2, 3]]))[0]).square().sum().backward()
    idle = [name for name, p in some.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_only_a_head_that_is_not_zero_passes_a_gradient_on_at_the_first_step() -> None:
    reached = {}
    for init in ("zero", "uniform"):
        torch.manual_seed(0)
        some = Denoiser(SHAPE, 11, 0.0, head_init=init)
        scores = some.logits(some.features(torch.tensor([[1, 2, 3]]))[0])
        scores.log_softmax(-1)[:, 4].sum().backward()
        gates = [block.adaLN_modulation.bias.grad for block in some.backbone.blocks]
        reached[init] = any(bool(gate.any()) for gate in gates if gate is not None)
        head = some.backbone.output_layer.linear
        assert not head.bias.any()
        assert head.weight.abs().max() <= (0 if init == "zero" else SHAPE.hidden**-0.5)
    assert reached == {"zero": False, "uniform": True}


def test_a_class_reaches_every_position_either_way() -> None:
    tokens = torch.tensor([[1, 2, 3], [1, 2, 3]])
    for place in ("added", "adaln"):
        torch.manual_seed(0)
        told = Denoiser(SHAPE, 11, 0.0, classes=2, place=place).eval()
        for name, parameter in told.named_parameters():
            if name != "class_embed.weight":
                torch.nn.init.normal_(parameter, std=0.3)
        untold = told.features(tokens)
        new = told.features(tokens, None, torch.tensor([0, 1]))
        torch.testing.assert_close(new, untold)  # vectors are zero at the start
        torch.nn.init.normal_(told.class_embed.weight)
        first, second = told.features(tokens, None, torch.tensor([0, 1]))
        assert bool(((first - second).abs().amax(1) > 1e-3).all())


def test_sizes_have_the_published_numbers_of_parameters() -> None:
    counts = {}
    for size in ("tiny", "small", "medium"):
        with torch.device("meta"):
            made = Denoiser(SIZES[size], 50_258, 0.1)
        counts[size] = sum(weight.numel() for weight in made.parameters())
    # small: 2 x 38.6 M of vocabulary and 92.2 M of blocks
    assert counts["small"] / 1e6 == pytest.approx(169.6, abs=0.1)
    blocks = sum(p.numel() for p in Denoiser(SIZES["tiny"], 2, 0.0).backbone.blocks.parameters())
    assert blocks == 8 * (2 * 256 + 4 * 256**2 + 2 * 4 * 256**2 + 5 * 256 + 65 * 6 * 256)
    assert counts["tiny"] < counts["small"] < counts["medium"]


def test_heads_that_do_not_divide_the_width_are_a_config_error(tree: dict) -> None:
    from jobs.textdiff import config

    tree["model"] |= {"hidden_size": 30, "n_heads": 4}
    with pytest.raises(ConfigError, match=r"model\.hidden_size: 30"):
        shape_of(config.from_tree(tree).model)
