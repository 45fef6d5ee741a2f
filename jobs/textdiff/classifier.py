"""Models as a classifier: what each class makes of a text, in nats; lower is likelier.

Either a model a class, or one model that is told the class. A diffusion model gives an estimate of
its bound a draw; a causal model its exact -log p, as one draw without noise.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from jobs.textdiff import checkpoint, gpt2, nelbo
from jobs.textdiff.batches import collate
from jobs.textdiff.config import Config
from jobs.textdiff.diffusion import LogLinear
from jobs.textdiff.errors import TrainingError
from jobs.textdiff.gpt2 import GPT2, BothWays
from jobs.textdiff.tokenizer import Tokenizer
from jobs.textdiff.train import precision

CLASS_VECTORS = "class_embed.weight"


@dataclass(frozen=True, slots=True)
class Classifier:
    models: Sequence[nn.Module]  # one a class, or one for all
    labels: Sequence[str]
    tokenizer: Tokenizer
    config: Config
    by_bound: bool = True  # texts are judged by the bound; else by `Scored.unweighted`

    @property
    def exact(self) -> bool:
        return isinstance(self.models[0], (GPT2, BothWays))

    @property
    def device(self) -> torch.device:
        return next(self.models[0].parameters()).device

    @property
    def conditional(self) -> bool:
        return len(self.models) < len(self.labels)

    @property
    def copies(self) -> int:
        """Rows of one forward pass per text and draw."""
        return len(self.labels) if self.conditional else 1

    def digests(self, told: Collection[int] | None = None) -> dict[str, str]:
        """sha256 of each class's weights; TrainingError if two classes have the same.

        With one model for all: of its weights with this class's vector alone. Those it was not
        `told` in training (None: it was told all) have the vector they began with.
        """
        found = []
        for label in range(len(self.labels)):
            weights = self.models[0 if self.conditional else label].state_dict()
            if self.conditional:
                vectors = [name for name in weights if name.endswith(CLASS_VECTORS)]
                weights = {**weights, **{name: weights[name][label] for name in vectors}}
            found.append(checkpoint.digest(weights))
        learnt = [own for label, own in enumerate(found) if told is None or label in told]
        if len(set(learnt)) < len(learnt):
            twice = next(own for own in learnt if learnt.count(own) > 1)
            raise TrainingError(f"the classes' models are the same weights ({twice[:12]})")
        return dict(zip(self.labels, found, strict=True))

    def costs(self, tokens: Sequence[list[int]], draws: Sequence[Sequence[nelbo.Draws]]) -> Tensor:
        """[C, B, K] nats, on the device, which may still be at work on them; `draws` has each
        class's draws for each text, [C][B]."""
        with precision(self.config, self.device):
            if self.exact:
                return self._exact(tokens)
            mask_id, device = self.tokenizer.mask_id, self.device
            if self.conditional:
                classes = list(range(len(self.labels)))
                return nelbo.class_estimates(
                    self.models[0], tokens, draws, mask_id, device, classes
                )
            pairs = zip(self.models, draws, strict=True)
            return torch.stack(
                [nelbo.estimates(model, tokens, own, mask_id, device) for model, own in pairs]
            )

    def _exact(self, tokens: Sequence[list[int]]) -> Tensor:
        batch = collate(tokens, range(len(tokens)))
        texts_BL, valid_BL = batch.tokens_BL.to(self.device), batch.valid_BL.to(self.device)
        found = []
        for label in range(len(self.labels)):
            model = self.models[0 if self.conditional else label]
            own_B = texts_BL.new_full((len(tokens),), label) if self.conditional else None
            with torch.inference_mode():
                found.append(gpt2.nll(model, texts_BL, valid_BL, self.tokenizer.start_id, own_B))
        return torch.stack(found)[:, :, None]

    def draws(self, length: int, row: int, first: int, last: int) -> list[nelbo.Draws]:
        """Each class's draws number `first` to `last` for a text; noise of its seed and row alone.

        The shared estimator gives every class the same.
        """
        settings, classes = self.config.eval, range(len(self.labels))
        if settings.estimator == "shared":
            drawn = nelbo.shared_draws(
                length,
                settings.draws,
                _generator(f"{self.config.seed}:{row}"),
                rounds=settings.draws // settings.round,
            )
            return [drawn.part(first, last)] * len(classes)
        return [
            nelbo.independent_draws(
                length,
                settings.draws,
                _generator(f"{self.config.seed}:{row}:{label}"),
                noise=LogLinear(self.config.noise.eps),
                low=self.config.training.sampling_eps_min,
                high=self.config.training.sampling_eps_max,
            ).part(first, last)
            for label in classes
        ]


def _generator(name: str) -> Generator:
    return Generator().manual_seed(random.Random(name).getrandbits(62))
