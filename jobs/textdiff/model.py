"""The denoiser: a pre-norm transformer that looks both ways, conditioned on a constant.

The shape and the parameter names are those of the published MDLM checkpoints
(github.com/kuleshov-group/mdlm, a DiT): fused qkv without bias, rotary positions, LayerNorm with a
weight only, adaLN-zero modulation, a 4x MLP with tanh-GELU, separate embedding and head. MDLM does
not tell the model how much is masked (time_conditioning false): sigma
is 0 always, so the modulation is a learned constant, kept because the checkpoints have it, and a
place where a class can enter.

Shape suffixes: B texts, L tokens, D hidden, H heads, E = D / H, C conditioning, V vocabulary with
the mask, N masked tokens of a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jobs.textdiff import fused
from jobs.textdiff.config import Model as ModelConfig
from jobs.textdiff.errors import ConfigError

FREQUENCIES = 256
ROTARY_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class Shape:
    hidden: int
    cond: int
    blocks: int
    heads: int


SIZES = {
    "tiny": Shape(256, 64, 8, 8),
    "small": Shape(768, 128, 12, 12),
    "medium": Shape(1024, 128, 24, 16),
}


def shape_of(config: ModelConfig) -> Shape:
    """The named size with the config's own numbers over it; ConfigError if heads do not divide."""
    shape = override(SIZES[config.size], config)
    if shape.hidden % (2 * shape.heads):
        raise ConfigError(
            f"config model.hidden_size: {shape.hidden} is not a multiple of 2 x n_heads "
            f"= {2 * shape.heads} (rotary positions turn pairs)"
        )
    return shape


def override(size: Shape, config: ModelConfig) -> Shape:
    """`size` with those of the config's own numbers over it that are not null."""
    return Shape(
        config.hidden_size or size.hidden,
        config.cond_dim or size.cond,
        config.n_blocks or size.blocks,
        config.n_heads or size.heads,
    )


class Denoiser(nn.Module):
    """Predicts every token from the visible ones.

    All parameters of the published network lie under `backbone.`. With `classes` there is one more,
    `class_embed.weight`: a vector a class, zero at the start, that reaches every position, either
    added to the embeddings (`place` added) or to what the blocks' adaLN is conditioned on (adaln);
    the head's is the same for all classes.

    The published head is zero at the start, and so are the gates of every block. What such a head
    learns first is how often words occur, along the one feature that all masked places share, and
    that direction is then all the gradient that the blocks get: a small model takes a thousand
    steps and more to leave that. `head_init` uniform spares it them (figures in jobs/README.md).
    """

    def __init__(
        self,
        shape: Shape,
        vocab: int,
        dropout: float,
        classes: int = 0,
        place: str = "added",
        head_init: str = "zero",
    ) -> None:
        super().__init__()
        self.backbone = Backbone(shape, vocab, dropout, head_init)
        self.place = place
        if classes:
            self.class_embed = class_vectors(
                classes, shape.cond if place == "adaln" else shape.hidden
            )

    def features(
        self, tokens_BL: Tensor, valid_BL: Tensor | None = None, classes_B: Tensor | None = None
    ) -> Tensor:
        """[B, L, D] after the last block. `valid_BL` is False at padding, None without any.

        Without `classes_B` a model with classes is what it was before it had any.
        """
        vector_BX = None if classes_B is None else self.class_embed(classes_B)
        if self.place == "adaln":
            return self.backbone.features(tokens_BL, valid_BL, condition_BC=vector_BX)
        return self.backbone.features(tokens_BL, valid_BL, added_BD=vector_BX)

    def logits(self, features_ND: Tensor) -> Tensor:
        """[N, V] raw scores of any selection of positions; the mask's own score is included."""
        return self.backbone.head(features_ND)


class Backbone(nn.Module):
    def __init__(self, shape: Shape, vocab: int, dropout: float, head_init: str) -> None:
        super().__init__()
        self.vocab_embed = Embedding(vocab, shape.hidden)
        self.sigma_map = SigmaMap(shape.cond)
        self.rotary_emb = Rotary(shape.hidden // shape.heads)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.blocks))
        self.output_layer = Output(shape, vocab, head_init)

    def condition(self, vector_BC: Tensor | float = 0.0) -> Tensor:
        """[B or 1, C]: what texts are conditioned on; sigma is always 0."""
        weight = self.vocab_embed.embedding
        return F.silu(self.sigma_map(torch.zeros(1, device=weight.device)) + vector_BC)

    def features(
        self,
        tokens_BL: Tensor,
        valid_BL: Tensor | None,
        *,
        added_BD: Tensor | None = None,
        condition_BC: Tensor | None = None,
    ) -> Tensor:
        x_BLD = self.vocab_embed(tokens_BL)
        if added_BD is not None:
            x_BLD = x_BLD + added_BD[:, None]
        turn = self.rotary_emb(tokens_BL.shape[1])
        condition = self.condition(0.0 if condition_BC is None else condition_BC)
        seen = None if valid_BL is None else valid_BL[:, None, None, :]
        for block in self.blocks:
            x_BLD = block(x_BLD, turn, condition, seen)
        return x_BLD

    def head(self, features_ND: Tensor) -> Tensor:
        return self.output_layer(features_ND, self.condition())


class Embedding(nn.Module):
    def __init__(self, vocab: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocab, hidden))
        nn.init.kaiming_uniform_(self.embedding, a=5**0.5)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        return F.embedding(tokens_BL, self.embedding)


class SigmaMap(nn.Module):
    """Sinusoidal features of the noise level, then two linear layers."""

    def __init__(self, cond: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, cond), nn.SiLU(), nn.Linear(cond, cond))

    def forward(self, sigma_B: Tensor) -> Tensor:
        half = FREQUENCIES // 2
        steps = torch.arange(half, device=sigma_B.device, dtype=torch.float32)
        angles = sigma_B[:, None] * torch.exp(-steps * (math.log(1e4) / half))[None]
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


class Rotary(nn.Module):
    inv_freq: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        powers = torch.arange(0, width, 2, dtype=torch.float32) / width
        self.register_buffer("inv_freq", ROTARY_BASE**-powers)

    def forward(self, length: int) -> tuple[Tensor, Tensor]:
        """cos and sin, each [L, E]: the two halves of E turn together."""
        at = torch.arange(length, device=self.inv_freq.device, dtype=torch.float32)
        angles_LE = torch.outer(at, self.inv_freq).repeat(1, 2)
        return angles_LE.cos(), angles_LE.sin()


class Norm(nn.Module):
    """LayerNorm with a weight and no bias, computed in fp32."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))

    def forward(self, x: Tensor) -> Tensor:
        return _normed(x, self.weight)


class Block(nn.Module):
    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        hidden = shape.hidden
        self.heads, self.dropout = shape.heads, dropout
        self.norm1 = Norm(hidden)
        self.attn_qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.attn_out = nn.Linear(hidden, hidden, bias=False)
        self.norm2 = Norm(hidden)
        self.mlp = nn.Sequential(
            nn.Linear(hidden, 4 * hidden),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * hidden, hidden),
        )
        self.adaLN_modulation = _zeroed(nn.Linear(shape.cond, 6 * hidden))

    def forward(
        self, x_BLD: Tensor, turn: tuple[Tensor, Tensor], condition_BC: Tensor, seen: Tensor | None
    ) -> Tensor:
        modulation = self.adaLN_modulation(condition_BC)[:, None]  # the same at every position
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        dropped = self.dropout, self.training
        attended = self._attend(_modulated(x_BLD, self.norm1.weight, scale1, shift1), turn, seen)
        x_BLD, normed_BLD = _joined_and_modulated(
            x_BLD, gate1, attended, *dropped, self.norm2.weight, scale2, shift2
        )
        return _joined(x_BLD, gate2, self.mlp(normed_BLD), *dropped)

    def _attend(self, x_BLD: Tensor, turn: tuple[Tensor, Tensor], seen: Tensor | None) -> Tensor:
        batch, length, hidden = x_BLD.shape
        qkv = self.attn_qkv(x_BLD).view(batch, length, 3, self.heads, hidden // self.heads)
        q_BHLE, k_BHLE, v_BHLE = _turned(qkv, *turn)
        out_BHLE = F.scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE, attn_mask=seen)
        return self.attn_out(out_BHLE.transpose(1, 2).reshape(batch, length, hidden))


class Output(nn.Module):
    def __init__(self, shape: Shape, vocab: int, head_init: str) -> None:
        super().__init__()
        self.norm_final = Norm(shape.hidden)
        self.linear = nn.Linear(shape.hidden, vocab)
        nn.init.zeros_(self.linear.bias)
        if head_init == "zero":
            nn.init.zeros_(self.linear.weight)
        self.adaLN_modulation = _zeroed(nn.Linear(shape.cond, 2 * shape.hidden))

    def forward(self, x_ND: Tensor, condition_1C: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition_1C).chunk(2, dim=-1)
        return self.linear(self.norm_final(x_ND) * (1 + scale) + shift)


def _normed(x: Tensor, weight: Tensor) -> Tensor:
    return F.layer_norm(x.float(), weight.shape, weight.float())


def _scaled(x_BLD: Tensor, weight_D: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return fused.for_product(_normed(x_BLD, weight_D) * (1 + scale) + shift)


def _added(x: Tensor, gate: Tensor, new: Tensor, dropout: float, training: bool) -> Tensor:
    return x + gate * fused.kept(new, dropout, training)


def _half_turn(x_BHLE: Tensor, cos_LE: Tensor, sin_LE: Tensor) -> Tensor:
    first, second = x_BHLE.chunk(2, dim=-1)
    turned = x_BHLE * cos_LE + torch.cat([-second, first], dim=-1) * sin_LE
    return turned.to(x_BHLE.dtype)  # under autocast the three of attention must agree


_modulated, _joined = fused.on_gpu(_scaled), fused.on_gpu(_added)


@fused.on_gpu
def _joined_and_modulated(
    x: Tensor,
    gate: Tensor,
    new: Tensor,
    dropout: float,
    training: bool,
    weight_D: Tensor,
    scale: Tensor,
    shift: Tensor,
) -> tuple[Tensor, Tensor]:
    joined = _added(x, gate, new, dropout, training)
    return joined, _scaled(joined, weight_D, scale, shift)


@fused.on_gpu
def _turned(qkv: Tensor, cos_LE: Tensor, sin_LE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v [B, H, L, E] out of [B, L, 3, H, E], the first two turned by their position."""
    q_BHLE, k_BHLE, v_BHLE = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    turn = cos_LE, sin_LE
    return _half_turn(q_BHLE, *turn), _half_turn(k_BHLE, *turn), v_BHLE


def class_vectors(classes: int, width: int) -> nn.Embedding:
    vectors = nn.Embedding(classes, width)
    nn.init.zeros_(vectors.weight)
    return vectors


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
