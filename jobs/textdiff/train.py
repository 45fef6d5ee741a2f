"""The training loop: AdamW, constant rate after a linear warm-up, clipped, averaged.

The averaged (EMA) weights are the result; the raw ones are not used again.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from jobs.textdiff import batches
from jobs.textdiff.config import Config
from jobs.textdiff.diffusion import LogLinear, sample_t, training_loss
from jobs.textdiff.errors import TrainingError
from jobs.textdiff.model import Denoiser


@dataclass(frozen=True, slots=True)
class Schedule:
    steps: int
    lr: float
    warmup: int

    def rate(self, step: int) -> float:
        """The learning rate of step 1, 2, ...: a straight line to `lr` at `warmup`, then `lr`."""
        return self.lr * min(1.0, step / max(1, self.warmup))


@dataclass(frozen=True, slots=True)
class StepReport:
    step: int
    loss: float  # nats per token, the bound
    lr: float
    tokens: int


class Ema:
    """A running average of the parameters, by name.

    The decay is min(decay, (1 + n) / (10 + n)) at update n = 1, 2, ...: a fixed 0.9999 would keep
    two thirds of the random start after 4 000 steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}

    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                self.shadow[name].lerp_(parameter, 1 - decay)

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """A whole state dict: the averages, and the model's buffers as they are."""
        return {name: self.shadow.get(name, value) for name, value in model.state_dict().items()}


def fit(
    model: Denoiser,
    ids: Sequence[Sequence[int]],
    config: Config,
    schedule: Schedule,
    *,
    mask_id: int,
    seed: str,
    report: Callable[[StepReport], None],
) -> dict[str, Tensor]:
    """Trains in place for `schedule.steps` steps and gives the averaged weights.

    The same `seed` gives the same batches, noise levels and masks. TrainingError: no text to train
    on, or a loss that is not finite.
    """
    if not ids:
        raise TrainingError(f"{seed}: no training text")
    device = next(model.parameters()).device
    stream = batches.endless(ids, config.loader.global_batch_size, random.Random(seed))
    loss_of = _loss_function(model, config, mask_id, random.Random(f"{seed}:noise"))
    optimizer = _optimizer(model, config, schedule)
    ema = Ema(model, config.training.ema)
    model.train()
    for step in range(1, schedule.steps + 1):
        batch = next(stream)
        rate = schedule.rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with precision(config, device):
            loss = loss_of(batch, device)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f"{seed}: loss is {value} at step {step} of {schedule.steps}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.trainer.gradient_clip_val)
        optimizer.step()
        ema.update(model)
        report(StepReport(step, value, rate, batch.tokens))
    return ema.weights(model)


def precision(config: Config, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bf16 autocast where the config asks for it and a GPU is there; fp32 otherwise."""
    if config.trainer.precision == "bf16" and device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def _loss_function(
    model: Denoiser, config: Config, mask_id: int, rng: random.Random
) -> Callable[[batches.Batch, torch.device], Tensor]:
    generator = Generator().manual_seed(rng.getrandbits(62))
    noise, training = LogLinear(config.noise.eps), config.training

    def draw_t(count: int) -> Tensor:
        return sample_t(
            count,
            training.sampling_eps_min,
            training.sampling_eps_max,
            stratified=training.antithetic_sampling,
            generator=generator,
        )

    def loss_of(batch: batches.Batch, device: torch.device) -> Tensor:
        valid = None if batch.valid_BL is None else batch.valid_BL.to(device)
        return training_loss(
            model,
            batch.tokens_BL.to(device),
            valid,
            mask_id=mask_id,
            noise=noise,
            draw_t=draw_t,
            generator=generator,
        )

    return loss_of


def _optimizer(model: nn.Module, config: Config, schedule: Schedule) -> torch.optim.AdamW:
    optim = config.optim
    return torch.optim.AdamW(
        model.parameters(),
        lr=schedule.lr,
        betas=(optim.beta1, optim.beta2),
        eps=optim.eps,
        weight_decay=optim.weight_decay,
    )
