"""Token lists to rectangular batches of texts of about one length, epoch after epoch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens_BL` holds id 0 at padding, where `valid_BL` is False; None: there is no padding."""

    tokens_BL: Tensor
    valid_BL: Tensor | None
    rows: tuple[int, ...]  # which texts these are

    @property
    def tokens(self) -> int:
        """How many, padding not counted."""
        return self.tokens_BL.numel() if self.valid_BL is None else int(self.valid_BL.sum())


def endless(ids: Sequence[Sequence[int]], size: int, rng: random.Random) -> Iterator[Batch]:
    """Every text once an epoch, in batches of `size`, for ever; the order is new in each epoch.

    Texts are sorted by length before they are cut into batches, so that on a large set next to no
    position is padding; the batches then come in random order.
    """
    while True:
        for rows in _epoch(ids, size, rng):
            yield collate(ids, rows)


def collate(ids: Sequence[Sequence[int]], rows: Sequence[int]) -> Batch:
    """The texts at `rows` as one batch, padded to the longest of them."""
    lengths = torch.tensor([len(ids[row]) for row in rows])
    longest = int(lengths.max())
    tokens_BL = torch.tensor([[*ids[row], *[0] * (longest - len(ids[row]))] for row in rows])
    if int(lengths.min()) == longest:
        return Batch(tokens_BL, None, tuple(rows))
    return Batch(tokens_BL, torch.arange(longest) < lengths[:, None], tuple(rows))


def by_length(
    ids: Sequence[Sequence[int]], tokens: int, *, copies: int = 1
) -> Iterator[tuple[int, ...]]:
    """Every row once, shortest first, so that each group times `copies` fits into `tokens`.

    A group holds at least one row, also when that one is too long.
    """
    group: list[int] = []
    for row in sorted(range(len(ids)), key=lambda row: (len(ids[row]), row)):
        if group and (len(group) + 1) * len(ids[row]) * copies > tokens:
            yield tuple(group)
            group = []
        group.append(row)
    if group:
        yield tuple(group)


def _epoch(ids: Sequence[Sequence[int]], size: int, rng: random.Random) -> list[list[int]]:
    rows = list(range(len(ids)))
    rng.shuffle(rows)
    rows.sort(key=lambda row: len(ids[row]))  # stable: the shuffle stays within one length
    groups = [rows[at : at + size] for at in range(0, len(rows), size)]
    rng.shuffle(groups)
    return groups
