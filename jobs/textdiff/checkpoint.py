"""Weights on disk: written whole or not at all, read only if every one of them fits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from jobs.textdiff.errors import CheckpointError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    weights: Mapping[str, Tensor]
    words: tuple[str, ...]  # the vocabulary that the embedding's rows stand for


@dataclass(frozen=True, slots=True)
class Fit:
    """How much of a model a checkpoint filled, counted in numbers, not in names."""

    loaded: int
    total: int

    @property
    def share(self) -> float:
        return self.loaded / self.total


def save(path: Path, checkpoint: Checkpoint) -> None:
    """`path` holds the checkpoint; a crash leaves the old file or the new one, never a torn one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    content = {
        "format": FORMAT,
        "state_dict": {name: weight.cpu() for name, weight in checkpoint.weights.items()},
        "words": list(checkpoint.words),
    }
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read(path: Path) -> Checkpoint:
    """The checkpoint in `path`; tensors and plain values only, no code is unpickled."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path}: no such file") from None
    except Exception as error:  # torch raises a dozen kinds for a torn or foreign file
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"checkpoint {path}: cannot be read: {first}") from error
    if not isinstance(content, dict) or not {"state_dict", "words"} <= set(content):
        raise CheckpointError(f"checkpoint {path}: needs the keys state_dict and words")
    return Checkpoint(content["state_dict"], tuple(content["words"]))


def load_into(model: nn.Module, weights: Mapping[str, Tensor]) -> Fit:
    """Every weight of the model is the checkpoint's, or CheckpointError and none is.

    Refused: a key that is missing, one that is left over, one of another shape.
    """
    own = model.state_dict()
    missing, extra = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    other = sorted(
        name for name in set(own) & set(weights) if own[name].shape != weights[name].shape
    )
    total = sum(weight.numel() for weight in own.values())
    fitting = sum(own[n].numel() for n in set(own) & set(weights) if n not in other)
    if missing or extra or other:
        raise CheckpointError(
            f"checkpoint fits {fitting / total:.1%} of the model: {_named('missing', missing)}, "
            f"{_named('unknown', extra)}, {_named('of another shape', other)}; nothing was loaded"
        )
    model.load_state_dict(dict(weights), strict=True)
    return Fit(fitting, total)


def digest(weights: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and bytes: equal exactly when the weights are."""
    total = hashlib.sha256()
    for name in sorted(weights):
        weight = weights[name].detach().cpu().contiguous()
        total.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        total.update(weight.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _named(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}" + (f" (first: {names[0]})" if names else "")
