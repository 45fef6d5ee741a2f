"""Token lists to rectangular batches of texts of about one length, epoch after epoch."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens_BL` holds id 0 at padding, where `valid_BL` is False."""

    tokens_BL: Tensor
    valid_BL: Tensor
    rows: tuple[int, ...]  # which texts these are

    @property
    def tokens(self) -> int:
        """How many, padding not counted."""
        return int(self.valid_BL.sum())


class Batches:
    """Every text once an epoch, in batches of `size`; the order is new in each epoch.

    Texts are sorted by length before they are cut into batches, so that on a large set next to no
    position is padding; the batches then come in random order, and so do the texts of a batch: what
    is stratified over a batch, as noise levels are, must not follow the length. An epoch
    has ceil(texts / size) batches that are equally large but for one text, so that none is a
    handful (129 texts at size 128: 64 and 65). A batch is a function of the seed and its step
    alone, so that training can go on at any step.
    """

    def __init__(self, ids: Sequence[Sequence[int]], size: int, seed: str) -> None:
        self._seed = seed
        self._lengths = torch.tensor([len(own) for own in ids])
        self._starts = self._lengths.cumsum(0) - self._lengths
        self._tokens = torch.tensor(list(chain.from_iterable(ids)), dtype=torch.int32)
        self._epoch, self._groups = -1, [list[int]()]
        self._per_epoch = math.ceil(len(ids) / size)

    def at(self, step: int) -> Batch:
        """The batch of step 1, 2, ..."""
        epoch, place = divmod(step - 1, self._per_epoch)
        if epoch != self._epoch:
            self._epoch, self._groups = epoch, self._ordered(epoch)
        return self._collated(self._groups[place])

    def _collated(self, rows: Sequence[int]) -> Batch:
        """As `collate`, out of one tensor: ten times faster than out of lists."""
        at_B = torch.tensor(rows)
        lengths_B = self._lengths[at_B]
        places_L = torch.arange(int(lengths_B.max()))
        valid_BL = places_L < lengths_B[:, None]
        places_BL = (self._starts[at_B, None] + places_L).masked_fill(~valid_BL, 0)
        tokens_BL = self._tokens[places_BL].long().masked_fill(~valid_BL, 0)
        return Batch(tokens_BL, valid_BL, tuple(rows))

    def _ordered(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self._seed}:{epoch}")
        lengths = self._lengths.tolist()
        rows = list(range(len(lengths)))
        rng.shuffle(rows)
        rows.sort(key=lengths.__getitem__)  # stable: a shuffle within one length
        ends = [len(rows) * place // self._per_epoch for place in range(self._per_epoch + 1)]
        groups = [rows[first:last] for first, last in pairwise(ends)]
        for group in groups:
            rng.shuffle(group)
        rng.shuffle(groups)
        return groups


def collate(ids: Sequence[Sequence[int]], rows: Sequence[int]) -> Batch:
    """The texts at `rows` as one batch, padded to the longest of them."""
    lengths_B = torch.tensor([len(ids[row]) for row in rows])
    valid_BL = torch.arange(int(lengths_B.max())) < lengths_B[:, None]
    tokens_BL = torch.zeros(valid_BL.shape, dtype=torch.long)
    tokens_BL[valid_BL] = torch.tensor(list(chain.from_iterable(ids[row] for row in rows)))
    return Batch(tokens_BL, valid_BL, tuple(rows))


def by_length(
    ids: Sequence[Sequence[int]], rows: Sequence[int], tokens: int, *, copies: int = 1
) -> Iterator[tuple[int, ...]]:
    """Each of `rows` once, shortest first, so that a group times `copies` fits into `tokens`.

    A group holds at least one row, also when that one is too long.
    """
    group: list[int] = []
    for row in sorted(rows, key=lambda row: (len(ids[row]), row)):
        if group and (len(group) + 1) * len(ids[row]) * copies > tokens:
            yield tuple(group)
            group = []
        group.append(row)
    if group:
        yield tuple(group)
