"""What `--profile` and `--set` change in a job spec. Pure.

A profile is merged key by key: maps merge, lists and single values replace, null takes the entry
away. The config is stricter: a key must exist and keeps its type, because a misspelt
hyper-parameter would otherwise train with its default and be recorded as if it had been set.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from orchestrator import strictyaml
from orchestrator.errors import UsageError
from orchestrator.fields import Field, kind_of
from orchestrator.names import did_you_mean
from orchestrator.nested import leaves, lookup
from orchestrator.strictyaml import Document

SECTIONS = (
    "config", "reference", "rules", "env", "resources", "expect", "data", "setup", "results",
    "metrics", "checkpoint", "guards", "notify", "canary", "command", "stages",
)  # fmt: skip


def with_profile(doc: Document, profile: str) -> Document:
    """The document with the profile's sections merged in; `config` is left as it was.

    Places of merged keys are those in the profile, so that a later complaint points there.
    """
    base = dict(doc.value)
    over = base["profiles"][profile] or {}
    for rivals in (("command", "stages"), ("stages", "command")):
        if over.get(rivals[0]) is not None:
            base.pop(rivals[1], None)
    for section, value in over.items():
        if section == "config":
            continue
        if value is None:
            base.pop(section, None)
        elif section == "data":
            base[section] = _merged_data(base.get(section), value)
        else:
            base[section] = _merged(base.get(section), value)
    above = ("profiles", profile)
    marks = dict(doc.marks)
    marks.update({trail[2:]: at for trail, at in doc.marks.items() if trail[:2] == above})
    marks[()] = doc.marks.get((), (1, 1))
    return Document(base, doc.path, marks)


def _merged(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _merged_data(base: Any, over: Any) -> Any:
    merged = _merged(base, over)
    if isinstance(base, dict) and isinstance(over, dict):
        for name, entry in over.items():
            for given, other in (("from", "at"), ("at", "from")):
                if isinstance(entry, dict) and given in entry and other not in entry:
                    merged[name].pop(other, None)  # an entry has one source: the later one
    return merged


def profile_config(config: Mapping[str, Any], over: Field) -> dict[str, Any]:
    """The config with a profile's values; SpecError for an unknown key or another type."""
    result = dict(config)
    for key, field in over.table().items():
        shown = ".".join(str(step) for step in field.trail[3:])
        if key not in config:
            raise field.error(
                f"the profile sets `{shown}`, which the config does not have"
                + did_you_mean(key, config)
            )
        current = config[key]
        if isinstance(current, dict) and isinstance(field.value, dict):
            result[key] = profile_config(current, field)
        else:
            try:
                result[key] = fit(current, field.value, shown)
            except UsageError as error:
                raise field.error(error.message, error.hint) from None
    return result


def parse_set(text: str) -> tuple[str, str]:
    """`k.e.y=value` as its two halves."""
    key, found, value = text.partition("=")
    key = key.strip()
    if not found or not key:
        raise UsageError(f"--set {text!a}: write --set key.subkey=value")
    return key, value


def with_override(
    config: Mapping[str, Any], key: str, text: str, base: Mapping[str, Any]
) -> tuple[dict[str, Any], Any]:
    """The config with one dotted key set from the command line, and the value as it was typed.

    null is taken where `base`, the config without its profile, has it too.
    """
    try:
        given = strictyaml.scalar(text)
    except UsageError as error:
        raise UsageError(f"--set {ascii(key)[1:-1]}: {error.message}") from None
    known = dict(leaves(config))
    if key not in known and not isinstance(lookup(config, key), dict):
        hint = None
        if key.startswith("config.") and key[len("config.") :] in known:
            hint = f"leave `config.` out: --set {key[len('config.') :]}=..."
        raise UsageError(
            f"--set: the config has no key `{ascii(key)[1:-1]}`{did_you_mean(key, known)}",
            hint=hint or "a key must stand in the job's config before it can be set",
        )
    return _set(config, key.split("."), given, key, text, nullable=lookup(base, key) is None)


def _set(
    config: Mapping[str, Any], steps: list[str], given: Any, key: str, text: str, *, nullable: bool
) -> tuple[dict[str, Any], Any]:
    result = dict(config)
    first, rest = steps[0], steps[1:]
    if rest:
        result[first], value = _set(config[first], rest, given, key, text, nullable=nullable)
    elif given is None and nullable:
        value = result[first] = None
    else:
        value = result[first] = fit(config[first], given, key, text)
    return result, value


def fit(current: Any, given: Any, key: str, typed: str | None = None) -> Any:
    """`given` in the type of `current`: an integer becomes a float in a float's place, maps merge.

    A null of the base takes any type. UsageError names the type that is expected, and shows how to
    write what was `typed`, when all of it is meant, as a text.
    """
    if current is None:
        return given
    if isinstance(current, dict) and isinstance(given, dict):
        merged = dict(current)
        for name, value in given.items():
            if name not in current:
                raise UsageError(
                    f"the config has no key `{key}.{ascii(name)[1:-1]}`"
                    + did_you_mean(name, current)
                )
            merged[name] = fit(current[name], value, f"{key}.{name}")
        return merged
    if isinstance(current, list) and isinstance(given, list):
        kinds = {type(item) for item in current}
        if len(kinds) != 1 or kinds & {list, dict, type(None)}:
            return given
        return [fit(current[0], item, f"{key}.{at}") for at, item in enumerate(given)]
    if type(current) is type(given):
        return given
    if isinstance(current, float) and type(given) is int:
        return float(given)
    raise _mismatch(current, given, key, typed)


def _mismatch(current: Any, given: Any, key: str, typed: str | None) -> UsageError:
    hint = None
    if type(current) is int and isinstance(given, float) and given.is_integer():
        hint = f"write {int(given)}"
    elif isinstance(current, str):
        as_text = None if typed is None else shlex.quote(json.dumps(typed))
        hint = f"quote it inside: {as_text}" if as_text else "quote it if it is a text"
    return UsageError(
        f"`{key}` expects {kind_of(current)} (it is {_shown(current)}), got {_shown(given)}"
        + ("" if given is None else f", which is {kind_of(given)}"),
        hint=hint,
    )


def _shown(value: Any) -> str:
    """A value in at most 40 characters; null, true and false as they are typed."""
    text = ascii(value)
    if value is None or isinstance(value, bool):
        text = "null" if value is None else text.lower()
    return text if len(text) <= 40 else text[:37] + "..."
