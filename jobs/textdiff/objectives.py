"""What training minimises. Each objective is a module around a model, so that several processes can
share one batch: `prepare` draws all of the batch's noise, `forward` takes any rows of what it gave.

The loss of a batch is the sum of `forward` over its rows; the weights are already divided by what
the loss is a mean over. A batch's noise follows from the generator alone, whatever the number of
processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from jobs.textdiff import diffusion, gpt2
from jobs.textdiff.batches import Batch
from jobs.textdiff.config import Config
from jobs.textdiff.diffusion import LogLinear, sample_t
from jobs.textdiff.tokenizer import Tokenizer


class Objective(Protocol):
    model: nn.Module

    def prepare(self, batch: Batch, generator: Generator) -> tuple[Tensor, ...]: ...

    def __call__(self, *rows: Tensor) -> Tensor: ...


class Diffusion(nn.Module):
    """The bound on -log p in nats per token of the batch: summed masked NLL x weight, over all
    tokens. As a batch holds texts of about one length, texts count alike whatever theirs is. Of
    `noise.type` unweighted no bound: see `draw_masks`.
    """

    def __init__(
        self,
        model: nn.Module,
        config: Config,
        tokenizer: Tokenizer,
        labels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.config, self.mask_id = model, config, tokenizer.mask_id
        self.labels = labels

    def prepare(self, batch: Batch, generator: Generator) -> tuple[Tensor, ...]:
        masked_BL, weight_B = draw_masks(self.config, batch.valid_BL, generator)
        rows = (batch.tokens_BL, batch.valid_BL, masked_BL, weight_B / batch.tokens)
        return rows if self.labels is None else (*rows, _classes(self.labels, batch))

    def forward(
        self,
        clean_BL: Tensor,
        valid_BL: Tensor,
        masked_BL: Tensor,
        weight_B: Tensor,
        classes_B: Tensor | None = None,
    ) -> Tensor:
        seen = _or_none(valid_BL)
        nll_B = diffusion.masked_nll(self.model, clean_BL, masked_BL, self.mask_id, seen, classes_B)
        return weight_B * nll_B


class NextToken(nn.Module):
    """-log p in nats per token, exactly."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        labels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.start_id, self.labels = model, tokenizer.start_id, labels

    def prepare(self, batch: Batch, generator: Generator) -> tuple[Tensor, ...]:
        weight_B = torch.full((len(batch.rows),), 1 / batch.tokens)
        rows = (batch.tokens_BL, batch.valid_BL, weight_B)
        return rows if self.labels is None else (*rows, _classes(self.labels, batch))

    def forward(
        self,
        tokens_BL: Tensor,
        valid_BL: Tensor,
        weight_B: Tensor,
        classes_B: Tensor | None = None,
    ) -> Tensor:
        return weight_B * gpt2.nll(
            self.model, tokens_BL, _or_none(valid_BL), self.start_id, classes_B
        )


class ClassRows(NamedTuple):
    """What `ClassLikelihood` takes of a text."""

    classes_B: Tensor
    mean_B: Tensor  # weights: of the class likelihood
    tokens_B: Tensor  # and of what the text costs
    clean_BL: Tensor
    valid_BL: Tensor
    masked_BL: Tensor  # of an exact likelihood neither masks nor weight count
    weight_B: Tensor


class ClassLikelihood(nn.Module):
    """-log p(class | text) by Bayes' rule, in nats per text, and beside it `generative` x what the
    text costs under its own class, per token.

    A causal model has likelihoods to put into the rule. A diffusion model has what the masked
    tokens cost, without the bound's weight L / k: with it a draw of few masks is by far the
    loudest and says the least. All classes of a text see the same masks, so their noise cancels in
    the gradient. They are counted masks whatever `noise.type` says, as those a text is judged by:
    exactly k of L tokens, k uniform in 1..L.
    """

    def __init__(
        self,
        model: nn.Module,
        config: Config,
        tokenizer: Tokenizer,
        labels: Sequence[int],
        classes: int,
    ) -> None:
        super().__init__()
        self.model, self.labels, self.classes = model, labels, classes
        self.tokenizer, self.config = tokenizer, config
        self.exact = config.model.exact
        self.generative = config.class_likelihood.generative

    def prepare(self, batch: Batch, generator: Generator) -> ClassRows:
        count = len(batch.rows)
        masked_BL, weight_B = batch.valid_BL, torch.ones(count)
        if not self.exact:
            masked_BL, weight_B = _counted(self.config, batch.valid_BL, generator)
        return ClassRows(
            classes_B=_classes(self.labels, batch),
            mean_B=torch.full((count,), 1 / count),
            tokens_B=torch.full((count,), self.generative / batch.tokens),
            clean_BL=batch.tokens_BL,
            valid_BL=batch.valid_BL,
            masked_BL=masked_BL,
            weight_B=weight_B,
        )

    def forward(self, *prepared: Tensor) -> Tensor:
        rows = ClassRows(*prepared)
        count, every = len(rows.clean_BL), self.classes
        labels = torch.arange(every, device=rows.clean_BL.device).repeat_interleave(count)
        clean, valid = rows.clean_BL.repeat(every, 1), _or_none(rows.valid_BL.repeat(every, 1))
        if self.exact:
            nll = gpt2.nll(self.model, clean, valid, self.tokenizer.start_id, labels)
        else:
            masked, mask_id = rows.masked_BL.repeat(every, 1), self.tokenizer.mask_id
            nll = diffusion.masked_nll(self.model, clean, masked, mask_id, valid, labels)
        nll_BC = nll.view(every, count).T
        own_B = nll_BC.gather(1, rows.classes_B[:, None])[:, 0]
        chosen_B = F.cross_entropy(-nll_BC, rows.classes_B, reduction="none")
        return rows.mean_B * chosen_B + rows.tokens_B * rows.weight_B * own_B


def draw_masks(config: Config, valid_BL: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Masks and weights of a batch, as `noise` and `training` of the config say."""
    training, count = config.training, len(valid_BL)
    if config.noise.counted:
        return _counted(config, valid_BL, generator)
    t_B = sample_t(
        count,
        training.sampling_eps_min,
        training.sampling_eps_max,
        stratified=training.antithetic_sampling,
        generator=generator,
    )
    return diffusion.token_masks(valid_BL, t_B, LogLinear(config.noise.eps), generator)


def _counted(config: Config, valid_BL: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Masks of exactly k tokens, and the bound's weight L / k.

    Unweighted: of each text one weight for every k, such that the mean over k of what it gives a
    token is 1 as it is under the bound. The bound's own weights make of a batch's gradient that of
    the few texts with few masks. Source: the "simple" objective of Ho et al. 2020, section 3.4.
    """
    u_B = sample_t(
        len(valid_BL),
        0.0,
        1.0,
        stratified=config.training.antithetic_sampling,
        generator=generator,
    )
    masked_BL, weight_B = diffusion.count_masks(valid_BL, u_B, generator)
    if config.noise.type == "unweighted":
        length_B = valid_BL.sum(1)
        weight_B = 2 * length_B / (length_B + 1)
    return masked_BL, weight_B


def _classes(labels: Sequence[int], batch: Batch) -> Tensor:
    return torch.tensor([labels[row] for row in batch.rows])


def _or_none(valid_BL: Tensor) -> Tensor | None:
    """Attention is faster without a mask."""
    return None if bool(valid_BL.all()) else valid_BL
