"""GPT-2's architecture: a causal transformer whose likelihood of a text is exact, in one pass.

Learned positions, LayerNorm before each part, fused qkv, 4x MLP with tanh-GELU, the head tied to
the embedding. Names are those of the published weights without their `transformer.` prefix; the
published matrices of attention and MLP are transposed (see `pretrained`).
Source: Radford et al. 2019; sizes and initialisation as in the published model.

Shape suffixes: see `model`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jobs.textdiff import fused
from jobs.textdiff.config import GPT2_BOTH_WAYS
from jobs.textdiff.config import Model as ModelConfig
from jobs.textdiff.errors import ConfigError
from jobs.textdiff.model import Shape, class_vectors, override

POSITIONS = 1024
SIZES = {
    "tiny": Shape(256, 0, 4, 4),  # ours; the others are published
    "small": Shape(768, 0, 12, 12),
    "medium": Shape(1024, 0, 24, 16),
}


def shape_of(config: ModelConfig) -> Shape:
    """The named size with the config's own numbers over it; ConfigError if it cannot be built."""
    shape = override(SIZES[config.size], config)
    if shape.hidden % shape.heads:
        raise ConfigError(
            f"config model.hidden_size: {shape.hidden} is not a multiple of n_heads {shape.heads}"
        )
    if config.length > POSITIONS:
        raise ConfigError(
            f"config model.length: gpt2 has {POSITIONS} positions, not {config.length}"
        )
    return shape


class GPT2(nn.Module):
    """Predicts each token from those before it; with `classes`, also from the text's class."""

    def __init__(self, shape: Shape, vocab: int, dropout: float, classes: int = 0) -> None:
        super().__init__()
        self.dropout = dropout
        self.wte = nn.Embedding(vocab, shape.hidden)
        self.wpe = nn.Embedding(POSITIONS, shape.hidden)
        self.h = nn.ModuleList(Block(shape, dropout) for _ in range(shape.blocks))
        self.ln_f = nn.LayerNorm(shape.hidden)
        self.apply(_initialised)
        for block in self.h:  # the stream is a sum of 2 x blocks terms
            for layer in (block.attn.c_proj, block.mlp.c_proj):
                nn.init.normal_(layer.weight, std=0.02 / (2 * shape.blocks) ** 0.5)
        if classes:
            self.class_embed = class_vectors(classes, shape.hidden)

    def features(
        self, tokens_BL: Tensor, valid_BL: Tensor | None = None, classes_B: Tensor | None = None
    ) -> Tensor:
        """[B, L, D] after the last norm. Padding stands at the end, so no token sees it."""
        places_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
        x_BLD = self.wte(tokens_BL) + self.wpe(places_L)
        if classes_B is not None:
            x_BLD = x_BLD + self.class_embed(classes_B)[:, None]
        x_BLD = F.dropout(x_BLD, self.dropout, self.training)
        for block in self.h:
            x_BLD = block(x_BLD)
        return self.ln_f(x_BLD)

    def logits(self, features_ND: Tensor) -> Tensor:
        """[N, V] raw scores of the next token."""
        return F.linear(features_ND, self.wte.weight)


class BothWays(nn.Module):
    """Two of them, one that reads a text from its beginning and one from its end. Each has an exact
    likelihood of it; what one takes for chance the other may have a reason for."""

    def __init__(self, shape: Shape, vocab: int, dropout: float, classes: int = 0) -> None:
        super().__init__()
        self.onwards = GPT2(shape, vocab, dropout, classes)
        self.back = GPT2(shape, vocab, dropout, classes)


class Block(nn.Module):
    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.ln_1 = nn.LayerNorm(shape.hidden)
        self.attn = Attention(shape, dropout)
        self.ln_2 = nn.LayerNorm(shape.hidden)
        self.mlp = Mlp(shape)

    def forward(self, x_BLD: Tensor) -> Tensor:
        dropped = self.dropout, self.training
        x_BLD = _joined(x_BLD, self.attn(_normed(x_BLD, self.ln_1)), *dropped)
        return _joined(x_BLD, self.mlp(_normed(x_BLD, self.ln_2)), *dropped)


class Attention(nn.Module):
    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = shape.heads, dropout
        self.c_attn = nn.Linear(shape.hidden, 3 * shape.hidden)
        self.c_proj = nn.Linear(shape.hidden, shape.hidden)

    def forward(self, x_BLD: Tensor) -> Tensor:
        batch, length, hidden = x_BLD.shape
        qkv = self.c_attn(x_BLD).view(batch, length, 3, self.heads, hidden // self.heads)
        q_BHLE, k_BHLE, v_BHLE = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        out_BHLE = F.scaled_dot_product_attention(
            q_BHLE, k_BHLE, v_BHLE, dropout_p=dropout, is_causal=True
        )
        return self.c_proj(out_BHLE.transpose(1, 2).reshape(batch, length, hidden))


class Mlp(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.c_fc = nn.Linear(shape.hidden, 4 * shape.hidden)
        self.c_proj = nn.Linear(4 * shape.hidden, shape.hidden)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x_BLD), approximate="tanh"))


def _normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return _layer_norm(x, norm.weight, norm.bias, norm.eps)


@fused.on_gpu
def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return fused.for_product(F.layer_norm(x, weight.shape, weight, bias, eps))


@fused.on_gpu
def _joined(x: Tensor, new: Tensor, dropout: float, training: bool) -> Tensor:
    return x + fused.kept(new, dropout, training)


def nll(
    model: GPT2 | BothWays,
    tokens_BL: Tensor,
    valid_BL: Tensor | None,
    start_id: int,
    classes_B: Tensor | None = None,
) -> Tensor:
    """[B] -log p(text) in nats, exactly; the text's end is not predicted. Of both ways their mean:
    then it is a score, and no probability's logarithm."""
    if isinstance(model, BothWays):
        back_BL = reversed_texts(tokens_BL, valid_BL)
        onwards_B = nll(model.onwards, tokens_BL, valid_BL, start_id, classes_B)
        return (onwards_B + nll(model.back, back_BL, valid_BL, start_id, classes_B)) / 2
    real_BL = torch.ones_like(tokens_BL, dtype=torch.bool) if valid_BL is None else valid_BL
    rows_N, at_N = fused.places(real_BL)  # first: a GPU is waited for here
    start_B1 = torch.full_like(tokens_BL[:, :1], start_id)
    features_BLD = model.features(
        torch.cat([start_B1, tokens_BL[:, :-1]], dim=1), valid_BL, classes_B
    )
    logits_NV = model.logits(features_BLD.flatten(0, 1).index_select(0, at_N))
    nll_N = fused.token_nll(logits_NV, tokens_BL.flatten()[at_N])
    return torch.zeros(len(tokens_BL), device=nll_N.device).index_add(0, rows_N, nll_N)


def reversed_texts(tokens_BL: Tensor, valid_BL: Tensor | None) -> Tensor:
    """Each text from its last token to its first; padding stays at the end."""
    if valid_BL is None:
        return tokens_BL.flip(1)
    places_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
    at_BL = valid_BL.sum(dim=1, keepdim=True) - 1 - places_L
    return tokens_BL.gather(1, at_BL.clamp(min=0)).where(valid_BL, tokens_BL)


def made(config: ModelConfig, vocab: int, classes: int) -> GPT2 | BothWays:
    kind = BothWays if config.architecture == GPT2_BOTH_WAYS else GPT2
    return kind(shape_of(config), vocab, config.dropout, classes)


def _initialised(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
