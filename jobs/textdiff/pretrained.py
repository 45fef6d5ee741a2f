"""Checkpoints in the layouts that their makers publish, as weights under this project's names.

Read from facts, not from their code:
  lightning  github.com/kuleshov-group/mdlm, bd3lms: a Lightning `.ckpt` with `state_dict` under
             `backbone.`, perhaps behind torch.compile's `_orig_mod.`, perhaps with the buffers
             sampling_eps_min and sampling_eps_max, and `ema` {decay, num_updates, shadow_params}, a
             list in the order of the parameters
  mdlm-hf    the safetensors of kuleshov-group/mdlm-owt*: the same names, EMA already in place
  gpt2       the safetensors of `gpt2`: matrices of attention and MLP transposed, names with or
             without `transformer.`, causal masks beside the weights, the head tied
  own        what `checkpoint` writes
No code is unpickled. Classes that a Lightning file names beside its tensors (its config of
omegaconf, its tokenizer) are replaced by one that takes anything and does nothing; a file that
names anything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.textdiff import checkpoint
from jobs.textdiff.errors import CheckpointError

COMPILED = "_orig_mod."
BUFFERS = ("sampling_eps_min", "sampling_eps_max")  # of bd3lms's schedule, no weights
NOT_PARAMETERS = re.compile(r"(^|\.)(inv_freq|sampling_eps_min|sampling_eps_max)$")
TRANSPOSED = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")
CAUSAL_MASK = re.compile(r"\.attn\.(bias|masked_bias)$")
PASSIVE = re.compile(
    r"(omegaconf|transformers|tokenizers|typing|collections|pathlib|(pytorch_)?lightning)\..+"
    r"|builtins\.(dict|list|tuple|set|int|float|bool|str)"
)


@dataclass(frozen=True, slots=True)
class Found:
    weights: Mapping[str, Tensor]
    layout: str  # own | lightning | mdlm-hf | gpt2
    tokenizer: tuple[str, str] | None = None  # own only; the published ones use GPT-2's


def read(path: Path) -> Found:
    """The weights in `path`: a file, or a folder with `model.safetensors` as a hub keeps it. They
    are floating-point numbers, all of them finite."""
    if path.is_dir():
        path = path / "model.safetensors"
    found = _found(path)
    for name, weight in found.weights.items():
        if not bool(torch.isfinite(weight.float()).all()):
            raise CheckpointError(f"checkpoint {path}: {name} has numbers that are not finite")
    return found


def _found(path: Path) -> Found:
    if path.suffix == ".safetensors":
        return _safetensors(path)
    content = _content(path)
    if content.get("format") == checkpoint.FORMAT:
        own = checkpoint.from_content(path, content)
        return Found(own.weights, "own", own.tokenizer)
    if not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(
            f"checkpoint {path}: no state_dict; it has {', '.join(map(str, content)) or 'nothing'}"
        )
    return Found(_lightning(path, content), "lightning")


class _Passive:
    """In place of a class beside the tensors: however it is made and filled, it stays empty."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> _Passive:
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __call__(self, *_args: Any, **_kwargs: Any) -> _Passive:
        return self

    def __setstate__(self, _state: Any) -> None:
        pass


def _content(path: Path) -> Mapping[str, Any]:
    """`checkpoint.content`, with nothing in place of what Lightning keeps beside the tensors."""
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # no zip file, or none at all: the reading itself says what is wrong
        named = []
    code = sorted(name for name in named if not PASSIVE.fullmatch(name))
    if code:
        raise CheckpointError(
            f"checkpoint {path}: cannot be read: it wants {code[0]}, and no code is run"
        )
    passive = [(_Passive, name) for name in named]
    with torch.serialization.safe_globals(passive):  # type: ignore[arg-type]
        return checkpoint.content(path)


def _lightning(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    state = {
        name.replace(COMPILED, ""): value
        for name, value in checkpoint.tensors(path, content["state_dict"]).items()
        if name.rpartition(".")[2] not in BUFFERS
    }
    ema = content.get("ema")
    if ema is None:
        return state
    shadow = ema.get("shadow_params") if isinstance(ema, dict) else None
    names = [name for name in state if not NOT_PARAMETERS.search(name)]
    if not isinstance(shadow, list) or len(shadow) != len(names):
        count = len(shadow) if isinstance(shadow, list) else "no"
        raise CheckpointError(
            f"checkpoint {path}: ema.shadow_params has {count} entries for {len(names)} parameters"
        )
    averages = checkpoint.tensors(path, dict(zip(names, shadow, strict=True)))
    for name, average in averages.items():
        if average.shape != state[name].shape:
            raise CheckpointError(
                f"checkpoint {path}: ema.shadow_params does not follow the parameters: {name} is "
                f"{tuple(state[name].shape)}, its average {tuple(average.shape)}"
            )
    return state | averages


def _safetensors(path: Path) -> Found:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(
            f"checkpoint {path}: needs the package `safetensors`: pip install 'orch[jobs]'"
        ) from None
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path}: no such file")
    try:
        state = load_file(path)
    except Exception as error:  # the package has one kind of its own, and lets OSError through
        text = checkpoint.first_line(error)
        raise CheckpointError(f"checkpoint {path}: cannot be read: {text}") from error
    state = {name.replace(COMPILED, ""): value for name, value in state.items()}
    if any(name.removeprefix("transformer.") == "wte.weight" for name in state):
        return Found(_gpt2(path, state), "gpt2")
    weights = {n: w for n, w in state.items() if n not in BUFFERS}
    return Found(checkpoint.tensors(path, weights), "mdlm-hf")


def _gpt2(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weights = {}
    for name, value in state.items():
        name = name.removeprefix("transformer.")
        if not CAUSAL_MASK.search(name):
            weights[name] = value.T.contiguous() if TRANSPOSED.search(name) else value
    checkpoint.tensors(path, weights)
    head = weights.pop("lm_head.weight", None)
    if head is not None and not torch.equal(head, weights["wte.weight"]):
        raise CheckpointError(f"checkpoint {path}: lm_head is not tied to wte, as GPT-2's is")
    return weights
