"""The training loop: AdamW, constant rate after a linear warm-up, clipped, averaged.

Everything random in a step follows from (seed, step), so training that was interrupted and goes on
ends with the same bits, on the same machine, as training that was not.
"""

from __future__ import annotations

import contextlib
import math
import random
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jobs.textdiff import fused, utilisation
from jobs.textdiff.batches import Batches
from jobs.textdiff.config import Config
from jobs.textdiff.errors import TrainingError
from jobs.textdiff.objectives import Objective
from jobs.textdiff.parallel import World


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
    loss: float  # nats per token; per text for the class likelihood
    lr: float
    grad_norm: float  # before clipping
    tokens: int
    tokens_per_s: float  # of this step, over all processes
    memory_mb: float  # peak: of the GPU's allocator, else of the process
    validation: Mapping[str, float]  # empty except every few minutes and at the last step
    flops: float = 0.0  # of the model, over all processes; 0 where the GPU's peak is not known
    mfu: float | None = None  # flops a second as a share of that peak; see `utilisation`


class Stopped(Exception):
    """A signal asked for the end; the state is saved."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What happens beside training; nothing here changes its numbers."""

    report: Callable[[StepReport], None] = lambda step: None
    save: Callable[[dict[str, Any]], None] = lambda state: None
    validate: Callable[[Mapping[str, Tensor]], Mapping[str, float]] = lambda weights: {}
    stopping: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic


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
        shadows = list(self.shadow.values())  # in the order of the parameters
        with torch.no_grad():
            torch._foreach_lerp_(shadows, list(model.parameters()), 1 - decay)

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """A whole state dict: the averages, and the model's buffers as they are."""
        return {name: self.shadow.get(name, value) for name, value in model.state_dict().items()}


@dataclass(frozen=True, slots=True)
class Given:
    """What stays the same through a training, beside the model and its texts."""

    seed: str
    config: Config
    schedule: Schedule
    world: World
    hooks: Hooks


@dataclass(frozen=True, slots=True)
class Drawn:
    """All that is random in a step, and its texts."""

    seed: int  # dropout's
    rows: tuple[Tensor, ...]  # of the whole batch, for the objective
    tokens: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was taken. On a GPU both tensors may still be in the making, and neither is known
    to be finite."""

    loss: Tensor  # this process's share of it
    norm: Tensor  # of the gradient, before clipping
    tokens: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of it, over all processes."""

    loss: float
    norm: float
    tokens: int


@dataclass(slots=True)
class Training:
    """All that a step changes."""

    model: nn.Module
    optimizer: torch.optim.AdamW
    ema: Ema
    step: int = 0
    flops_per_token: float = 0.0
    timers: dict[str, float] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Tensors and plain values; `resume` of it is this."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.shadow,
            "updates": self.ema.updates,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        if state["step"] < 1:
            raise TrainingError("the checkpoint to go on from is of step 0: that is no resume")
        self.model.load_state_dict(state["model"], strict=True)
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["ema"].items():
            self.ema.shadow[name].copy_(value)
        self.ema.updates, self.step = state["updates"], state["step"]


def fit(
    objective: Objective,
    ids: Sequence[Sequence[int]],
    config: Config,
    schedule: Schedule,
    world: World,
    *,
    seed: str,
    hooks: Hooks = Hooks(),
    resume: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Trains `objective.model` in place up to `schedule.steps`; gives (averaged, last) weights.

    Goes on from `resume`, a state that `hooks.save` was given. Stopped: `hooks.stopping` said so,
    and `hooks.save` has the state. TrainingError: no text, or a loss or gradient that is not
    finite.
    """
    if not ids:
        raise TrainingError(f"{seed}: no training text")
    given, model = Given(seed, config, schedule, world, hooks), objective.model
    stream = Batches(ids, config.loader.global_batch_size, seed)
    now = Training(model, _optimizer(model, config, schedule), Ema(model, config.training.ema))
    if resume is not None:
        now.resume(resume)
    net = world.wrap(objective)  # type: ignore[arg-type]
    model.train()
    if world.peak is not None:
        now.flops_per_token = _flops_per_token(net, objective, stream, given)
    for name in ("step", "save", "validate"):
        now.timers[name] = hooks.clock()

    def drawn(step: int) -> Drawn | None:
        return _drawn(objective, stream, seed, step) if step <= schedule.steps else None

    ahead = drawn(now.step + 1)
    while ahead is not None:
        taken = _step(now, net, ahead, given)
        ahead = drawn(now.step + 1)  # a GPU is still at work on the step
        _beside(now, _finished(now, taken, given), given)
    return now.ema.weights(model), {k: v.detach().clone() for k, v in model.state_dict().items()}


def precision(config: Config, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bf16 autocast where the config asks for it and a GPU is there; fp32 otherwise."""
    if config.trainer.precision == "bf16" and device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def _flops_per_token(
    net: Callable[..., Tensor],
    objective: Objective,
    stream: Batches,
    given: Given,
) -> float:
    """Counted on the first batch, whose gradients the first step clears away unused."""
    batch, world = stream.at(1), given.world
    rows = world.share(objective.prepare(batch, Generator().manual_seed(0)))
    with precision(given.config, world.device), fused.eager():
        own = utilisation.counted(lambda: net(*rows))
    return world.total(torch.tensor(float(own), device=world.device)) / batch.tokens


def _drawn(objective: Objective, stream: Batches, seed: str, step: int) -> Drawn:
    """What step 1, 2, ... of a phase is made of."""
    drawn, batch = random.Random(f"{seed}:{step}").getrandbits(62), stream.at(step)
    rows = objective.prepare(batch, Generator().manual_seed(drawn))
    return Drawn(drawn, rows, batch.tokens)


def _step(now: Training, net: Callable[..., Tensor], drawn: Drawn, given: Given) -> Taken:
    """One optimizer step."""
    config, world = given.config, given.world
    now.step += 1
    torch.manual_seed(drawn.seed + world.rank)  # dropout
    for group in now.optimizer.param_groups:
        group["lr"] = given.schedule.rate(now.step)
    with precision(config, world.device):
        loss = net(*world.share(drawn.rows)).sum()
    now.optimizer.zero_grad(set_to_none=True)
    (loss * world.size).backward()  # the processes' gradients are averaged, the loss is a sum
    norm = nn.utils.clip_grad_norm_(now.model.parameters(), config.trainer.gradient_clip_val)
    now.optimizer.step()
    now.ema.update(now.model)
    return Taken(loss.detach().clone(), norm, drawn.tokens)


def _finished(now: Training, taken: Taken, given: Given) -> Figures:
    """The GPU is waited for. TrainingError when a figure is not finite."""
    loss, norm = given.world.total(taken.loss), float(taken.norm)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        what = f"gradient is {norm}" if math.isfinite(loss) else f"loss is {loss}"
        raise TrainingError(f"{given.seed}: {what} at step {now.step} of {given.schedule.steps}")
    return Figures(loss, norm, taken.tokens)


def _beside(now: Training, figures: Figures, given: Given) -> None:
    """Validates, reports, saves, stops: each when it is time. Whoever asks for the end does not
    wait for a validation; after the last step the weights are the caller's to save."""
    trainer, world, hooks = given.config.trainer, given.world, given.hooks
    last, spent = now.step == given.schedule.steps, hooks.clock() - now.timers["step"]
    validation: Mapping[str, float] = {}
    due = last or _due(now, "validate", trainer.validate_minutes, hooks)
    if due and world.first and not hooks.stopping():
        validation = hooks.validate(now.ema.weights(now.model))
        now.model.train()
        now.timers["validate"] = hooks.clock()
    hooks.report(_reported(now, figures, spent, validation, given))
    if last:
        return
    stop = world.any(hooks.stopping())
    if stop or _due(now, "save", trainer.checkpoint_minutes, hooks):
        if world.first:
            hooks.save(now.state())
        now.timers["save"] = hooks.clock()
    if stop:
        raise Stopped
    now.timers["step"] = hooks.clock()  # a step's speed is its own, without all this


def _reported(
    now: Training, figures: Figures, spent: float, validation: Mapping[str, float], given: Given
) -> StepReport:
    world = given.world
    speed = figures.tokens / spent if spent > 0 else 0.0
    return StepReport(
        step=now.step,
        loss=figures.loss,
        lr=given.schedule.rate(now.step),
        grad_norm=figures.norm,
        tokens=figures.tokens,
        tokens_per_s=speed,
        memory_mb=memory_mb(world.device),
        validation=validation,
        flops=now.flops_per_token * figures.tokens,
        mfu=now.flops_per_token * speed / (world.peak * world.size) if world.peak else None,
    )


def _due(now: Training, timer: str, minutes: float, hooks: Hooks) -> bool:
    return hooks.clock() - now.timers[timer] >= 60 * minutes


def memory_mb(device: torch.device) -> float:
    """The peak so far: what the GPU's allocator gave out, or this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _optimizer(model: nn.Module, config: Config, schedule: Schedule) -> torch.optim.AdamW:
    optim = config.optim
    return torch.optim.AdamW(
        model.parameters(),
        lr=schedule.lr,
        betas=(optim.beta1, optim.beta2),
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        fused=next(model.parameters()).is_cuda,
    )
