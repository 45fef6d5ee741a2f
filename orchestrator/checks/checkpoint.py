"""How much of a model a checkpoint would fill: names, shapes and dtypes, side by side. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.domain import Finding, Severity
from orchestrator.wording import counted

RULE = "checkpoint"
SHOWN = 3
PREFIXES_MAX = 64
WRAPPERS = ("model.", "module.", "_orig_mod.", "backbone.", "net.")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    shape: tuple[int, ...]
    dtype: str | None = None  # None: not told

    @property
    def size(self) -> int:
        return math.prod(self.shape)


Tensors = Mapping[str, TensorInfo]


class NoTensors(ValueError):
    """The value is no list of tensors; the message says what is wrong with it."""


def tensors_of(value: Any) -> dict[str, TensorInfo]:
    """Tensors of {name: [shape, dtype]}, {name: {"shape":, "dtype":}} or {name: shape}."""
    if not isinstance(value, Mapping) or not value:
        raise NoTensors("it is no object of names and shapes")
    return {str(name): _info(str(name), entry) for name, entry in value.items()}


def _info(name: str, entry: Any) -> TensorInfo:
    shape, dtype = entry, None
    if isinstance(entry, Mapping):
        shape, dtype = entry.get("shape"), entry.get("dtype")
    elif isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], list):
        shape, dtype = entry
    if not isinstance(shape, list) or not all(type(each) is int and each >= 0 for each in shape):
        raise NoTensors(f"{ascii(name)[1:81]} has no shape")
    return TensorInfo(tuple(shape), None if dtype is None else str(dtype).removeprefix("torch."))


@dataclass(frozen=True, slots=True)
class Fit:
    """Which of the model's tensors the file has, in the same shape."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    reshaped: tuple[str, ...]
    extra: tuple[str, ...]
    share: float  # of the model's parameters that would load, 0 to 1


def fit(model: Tensors, file: Tensors) -> Fit:
    loaded = tuple(name for name, own in model.items() if _same(own, file.get(name)))
    total = sum(own.size for own in model.values())
    return Fit(
        loaded=loaded,
        missing=tuple(name for name in model if name not in file),
        reshaped=tuple(n for n, own in model.items() if n in file and file[n].shape != own.shape),
        extra=tuple(name for name in file if name not in model),
        share=sum(model[name].size for name in loaded) / total if total else 0.0,
    )


def _same(own: TensorInfo, theirs: TensorInfo | None) -> bool:
    return theirs is not None and theirs.shape == own.shape


def renamed(file: Tensors, strip: str | None, add: str | None) -> dict[str, TensorInfo]:
    """The file's tensors under the names the job gives them before it loads."""
    taken = {name.removeprefix(strip or ""): info for name, info in file.items()}
    return {(add or "") + name: info for name, info in taken.items()}


def check(
    model: Tensors, file: Tensors, *, least: float, shown: str, waive: str | None = None
) -> list[Finding]:
    """One finding on the share that would load, an error below `least`; one on dtypes that differ.

    `shown` names the file. A shift of all names by a prefix, where it would help, is told.
    """
    got = fit(model, file)
    share = f"{100 * got.share:.1f} % of the model's parameters"
    about = {"share": got.share, "loaded": len(got.loaded), "of": len(model)}
    if got.share >= least:
        tensors = f"{len(got.loaded)} of {counted(len(model), 'tensor')}"
        told = f"{share} would load from {shown} ({tensors})"
        found = [Finding(Severity.INFO, RULE, told + _extras(got), key=RULE, ours=about)]
    else:
        reasons = "; ".join([f"{share} would load from {shown}, {100 * least:g} % are asked for",
                             *_reasons(model, file, got)])  # fmt: skip
        found = [Finding(Severity.ERROR, RULE, reasons, key=RULE, ours=about, waived=waive)]
    other = [n for n in got.loaded if None not in (model[n].dtype, file[n].dtype)
             and model[n].dtype != file[n].dtype]  # fmt: skip
    if other:
        first = other[0]
        has = counted(len(other), "tensor has", "tensors have")
        told = f"{has} another dtype in {shown}: {first} is "
        told += f"{file[first].dtype} there, {model[first].dtype} in the model"
        found.append(Finding(Severity.WARNING, RULE, told, key=RULE))
    return found


def _extras(got: Fit) -> str:
    if not got.extra:
        return ""
    of = counted(len(got.extra), "tensor of the file has", "tensors of the file have")
    return f"; {of} no place"


def _reasons(model: Tensors, file: Tensors, got: Fit) -> Iterator[str]:
    if got.missing:
        yield f"not in the file: {_some(got.missing)}"
    if got.reshaped:
        first = got.reshaped[0]
        there, here = list(file[first].shape), list(model[first].shape)
        yield f"{len(got.reshaped)} of another shape: {first} is {there} there, {here} in the model"
    if got.extra:
        yield f"only in the file: {_some(got.extra)}"
    shift = _shift(model, file, got.share)
    if shift is not None:
        yield shift


def _some(names: tuple[str, ...]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def _shift(model: Tensors, file: Tensors, share: float) -> str | None:
    """The one prefix that, taken off or put before the file's names, helps most; if any does."""
    trials: list[tuple[float, str]] = []
    for prefix in _prefixes(file):
        taken = fit(model, renamed(file, prefix, None)).share
        trials.append((taken, f"without `{prefix}` before the file's names"))
    for prefix in _prefixes(model):
        added = fit(model, renamed(file, None, prefix)).share
        trials.append((added, f"with `{prefix}` before the file's names"))
    best = max(trials, default=(0.0, ""))
    if best[0] <= share + 0.01:
        return None
    return f"{best[1]} {100 * best[0]:.1f} % would"


def _prefixes(tensors: Collection[str]) -> list[str]:
    """First and first two parts of the names, and the wrappers people use."""
    found: set[str] = set()
    for name in tensors:
        first, second = (*name.split("."), "")[:2]
        found |= {f"{first}.", f"{first}.{second}."} if second else set()
        if len(found) > PREFIXES_MAX:
            break
    named = {prefix for prefix in WRAPPERS if any(name.startswith(prefix) for name in tensors)}
    return sorted(found | named)
