"""Weights on disk: written whole or not at all, read only if every one of them fits.

Our own files, and how any weights are laid over a model; the published layouts are in `pretrained`.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import warnings
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jobs.textdiff import files
from jobs.textdiff.errors import CheckpointError, JobError

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The result of a phase."""

    weights: Mapping[str, Tensor]  # averaged
    raw: Mapping[str, Tensor]  # as the last step left them
    tokenizer: tuple[str, str]  # kind and content: what the embedding's rows stand for
    config: str = ""  # a digest of the config that made it


@dataclass(frozen=True, slots=True)
class Fit:
    """How much of a model some weights fill, counted in numbers, and the names that do not fit."""

    loaded: int
    total: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    other_shape: tuple[str, ...]

    @property
    def share(self) -> float:
        return self.loaded / self.total

    def __str__(self) -> str:
        parts = (
            _named("missing", self.missing),
            _named("unexpected", self.unexpected),
            _named("of another shape", self.other_shape),
        )
        return f"fits {self.share:.1%} of the model: {', '.join(parts)}"


def save(path: Path, checkpoint: Checkpoint) -> None:
    """`path` holds the checkpoint; a crash leaves the old file or the new one, never a torn one."""
    kind, content = checkpoint.tokenizer
    write(
        path,
        {
            "format": FORMAT,
            "state_dict": {name: weight.cpu() for name, weight in checkpoint.weights.items()},
            "raw": {name: weight.cpu() for name, weight in checkpoint.raw.items()},
            "tokenizer": {"kind": kind, "content": content},
            "config": checkpoint.config,
        },
    )


def write(path: Path, content: Mapping[str, Any]) -> None:
    """`path` holds `content`, tensors and plain values; whole, as above."""
    try:
        with files.whole(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch's own where a disk is full
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # empty: no checkpoint was ever written
        raise JobError(
            f"checkpoint {path}: cannot be written, {free / 1e6:.1f} MB are free there: "
            f"{first_line(error)}"
        ) from error


def read(path: Path) -> Checkpoint:
    """The checkpoint in `path`, one of ours; no code is unpickled."""
    return from_content(path, content(path))


def from_content(path: Path, found: Mapping[str, Any]) -> Checkpoint:
    tokenizer = found.get("tokenizer")
    if found.get("format") != FORMAT or not isinstance(tokenizer, dict):
        raise CheckpointError(f"checkpoint {path}: not one of this project's, format {FORMAT}")
    kind, words = str(tokenizer.get("kind")), str(tokenizer.get("content"))
    weights, raw = (tensors(path, found.get(part)) for part in ("state_dict", "raw"))
    return Checkpoint(weights, raw, (kind, words), str(found.get("config", "")))


def tensors(path: Path, named: object) -> dict[str, Tensor]:
    """`named` if it is what a model's weights can be: dense floating-point tensors by name."""
    if not isinstance(named, dict):
        raise CheckpointError(f"checkpoint {path}: its weights are missing")
    for name, value in named.items():
        dense = isinstance(value, Tensor) and value.layout is torch.strided
        if not (isinstance(name, str) and dense and value.device.type == "cpu"):
            raise CheckpointError(f"checkpoint {path}: {name!r} is no dense tensor")
        if not value.is_floating_point():
            raise CheckpointError(f"checkpoint {path}: {name} holds {value.dtype}")
    return named


def content(path: Path) -> Mapping[str, Any]:
    """What torch.save wrote to `path`: tensors and plain values only, no code is unpickled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a foreign file's kind of pickle
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path}: no such file") from None
    except Exception as error:  # torch raises a dozen kinds for a torn or foreign file
        why = first_line(error)
        if not isinstance(error, OSError) and not zipfile.is_zipfile(path):
            why = f"it is torn, or no file that torch.save writes ({why})"
        raise CheckpointError(f"checkpoint {path}: cannot be read: {why}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"checkpoint {path}: holds no mapping")
    return found


def first_line(error: Exception) -> str:
    """What an error says, without the advice that torch puts around it."""
    _, advised, cause = str(error).rpartition("WeightsUnpickler error:")
    lines = (cause if advised else str(error)).strip().splitlines()
    return "".join(filter(str.isprintable, lines[0])) if lines else type(error).__name__


def fit_of(model: nn.Module, weights: Mapping[str, Tensor]) -> Fit:
    """What `load_into` would find; nothing is loaded."""
    own = model.state_dict()
    shared = set(own) & set(weights)
    other = tuple(sorted(name for name in shared if own[name].shape != weights[name].shape))
    return Fit(
        sum(own[name].numel() for name in shared if name not in other),
        sum(weight.numel() for weight in own.values()),
        tuple(sorted(set(own) - set(weights))),
        tuple(sorted(set(weights) - set(own))),
        other,
    )


def load_into(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    waived: Collection[str] = (),
    strict: bool = True,
) -> Fit:
    """The model's weights are the given ones; gives how well they fitted.

    CheckpointError, and nothing is loaded, when a name is missing, unexpected or of another shape
    and not in `waived`, or when `waived` has a name that neither side knows. Not `strict`: what
    fits is loaded, whatever else there is.
    """
    fit = fit_of(model, weights)
    for name in waived:
        if name not in weights and name not in model.state_dict():
            raise CheckpointError(f"checkpoint: no {name} in it or the model, but it is waived")
    against = {*fit.missing, *fit.unexpected, *fit.other_shape} - set(waived)
    if strict and against:
        raise CheckpointError(f"checkpoint {fit}; nothing was loaded")
    if fit.loaded == 0:
        raise CheckpointError("checkpoint fits nothing of the model; nothing was loaded")
    usable = {name for name in model.state_dict() if name not in {*fit.missing, *fit.other_shape}}
    model.load_state_dict({name: weights[name] for name in usable}, strict=False)
    return fit


def part(whole: Checkpoint, prefix: str) -> Checkpoint:
    """Of a network the module whose names begin with `prefix`, under its own names."""

    def own(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}

    return replace(whole, weights=own(whole.weights), raw=own(whole.raw))


def digest(weights: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and bytes: equal exactly when the weights are."""
    total = hashlib.sha256()
    for name in sorted(weights):
        weight = weights[name].detach().cpu().contiguous()
        total.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        total.update(weight.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _named(what: str, names: tuple[str, ...]) -> str:
    return f"{len(names)} {what}" + (f" (first: {names[0]})" if names else "")
