"""What `torch.compile` fuses on a GPU: there the time goes into memory traffic between small
operations, not into matrix products.

Only what lies between matrix products and attention is compiled, with shapes left open: one
compilation serves all blocks and all lengths. Whole blocks would be compiled anew for every kind of
length that attention's kernels tell apart. On a CPU nothing is compiled and every number stays as
it is; where compiling fails on a GPU, the part runs uncompiled.

Shape suffixes: see `model`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = -1e6  # as a logit or a log-probability

Made = TypeVar("Made")


def on_gpu(plain: Callable[..., Made]) -> Callable[..., Made]:
    """The function, compiled where its first argument is a tensor on a GPU."""

    @functools.cache  # not at import: the compiler takes seconds to import
    def compiled() -> Callable[..., Made]:
        torch._dynamo.config.suppress_errors = True
        torch._dynamo.config.cache_size_limit = 64  # 8 are soon used up: each model, each precision
        return torch.compile(plain, dynamic=True)

    @functools.wraps(plain)
    def chosen(first: Tensor, *others: object) -> Made:
        return (compiled() if pays(first) else plain)(first, *others)

    return chosen


def pays(x: Tensor) -> bool:
    """Whether compiling does, for what works on it."""
    return x.is_cuda


def eager() -> AbstractContextManager[None]:
    """Nothing is compiled within."""
    if not torch.cuda.is_available():
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def places(wanted_BL: Tensor) -> tuple[Tensor, Tensor]:
    """([N] rows, [N] places in B x L): where it is True."""
    rows_N, columns_N = wanted_BL.nonzero(as_tuple=True)
    return rows_N, rows_N * wanted_BL.shape[1] + columns_N


def for_product(x: Tensor) -> Tensor:
    """Under autocast on a GPU: in the type that a matrix product would cast it to."""
    if x.is_cuda and torch.is_autocast_enabled("cuda"):
        return x.to(torch.get_autocast_dtype("cuda"))
    return x


@on_gpu
def token_nll(logits_NV: Tensor, targets_N: Tensor, never: int | None = None) -> Tensor:
    """[N] -log p of the targets in nats, in fp32; `never`: a token that cannot be.

    The scores are used up: on a CPU they are written into, since a copy costs as much as the head.
    Fused, they are read as they are: in fp32 they would be the largest tensor by far.
    """
    scores_NV = logits_NV.float()  # on a CPU the same tensor
    if never is not None:
        scores_NV[:, never] = NEVER
    return F.cross_entropy(scores_NV, targets_N, reduction="none")


def kept(x: Tensor, dropout: float, training: bool) -> Tensor:
    """Dropout, and nothing at all where there is none."""
    return F.dropout(x, dropout, training) if dropout else x
