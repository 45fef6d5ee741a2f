"""Our config against the one it should follow. Pure; `orchestrator.references` reads the files.

A key they have and we do not is `missing`; another value is `differs`; another kind of value is
`type`; a key only we have is `extra`. The first three refuse a submit unless waived with a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from orchestrator.domain import Finding, Severity
from orchestrator.jobspec import Reference
from orchestrator.wording import shown


def check(
    config: Mapping[str, Any], reference: Reference | None, tree: Mapping[str, Any]
) -> list[Finding]:
    """The findings for a spec's `reference:`, whose files say `tree`; none when it has none."""
    if reference is None:
        return []
    only, ignore, waive = reference.only, reference.ignore, reference.waive
    found = compare(config, tree, only=only, ignore=ignore, waive=waive)
    return found + _compares_nothing(reference, tree)


# --- comparing ------------------------------------------------------------------------------------


def compare(
    config: Mapping[str, Any],
    reference: Mapping[str, Any],
    only: Collection[str] = (),
    ignore: Collection[str] = (),
    waive: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Findings leaf by leaf, in the reference's order, what only we have last.

    `only`, `ignore` and `waive` name dotted keys; each covers what lies under it. No `only`: all.
    A waived finding is kept with its reason. What `only` or `waive` names in vain is a warning:
    a misspelt name there would otherwise hide a difference, or look as if it allowed one.
    """
    found = [
        finding
        for finding in _differences(config, reference, ())
        if _is_compared(finding.key, only, ignore)
    ]
    reasons = waive or {}
    used: set[str] = set()
    result = []
    for finding in found:
        waiver = covering(finding.key, reasons)
        if waiver is not None:
            used.add(waiver)
            finding = _waived(finding, reasons[waiver])
        result.append(finding)
    return result + _in_vain(config, reference, only, [key for key in reasons if key not in used])


def _differences(ours: Any, theirs: Any, trail: tuple[str, ...]) -> Iterator[Finding]:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key, value in theirs.items():
            if key in ours:
                yield from _differences(ours[key], value, (*trail, key))
            else:
                yield from (_missing(*leaf) for leaf in _leaves(value, (*trail, key)))
        for key, value in ours.items():
            if key not in theirs:
                yield from (_extra(*leaf) for leaf in _leaves(value, (*trail, key)))
    elif _kind(ours) != _kind(theirs) and ours is not None and theirs is not None:
        yield _finding(
            "type", trail, ours, theirs, f"is {_kind(ours)}, the reference has {_kind(theirs)}"
        )
    elif not equal(ours, theirs):
        yield _finding(
            "differs", trail, ours, theirs, f"is {shown(ours)}, the reference has {shown(theirs)}"
        )


def _leaves(value: Any, trail: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _leaves(below, (*trail, key))
    else:
        yield trail, value


def _missing(trail: tuple[str, ...], theirs: Any) -> Finding:
    return _finding("missing", trail, None, theirs, f"is missing; it is {shown(theirs)} there")


def _extra(trail: tuple[str, ...], ours: Any) -> Finding:
    message = f"is {shown(ours)} and not in the reference"
    return _finding("extra", trail, ours, None, message, Severity.INFO)


def _finding(
    rule: str,
    trail: tuple[str, ...],
    ours: Any,
    theirs: Any,
    message: str,
    severity: Severity = Severity.ERROR,
) -> Finding:
    key = ".".join(trail)
    return Finding(severity, rule, f"{key} {message}", key=key, ours=ours, reference=theirs)


def _waived(finding: Finding, reason: str) -> Finding:
    return Finding(
        finding.severity,
        finding.rule,
        finding.message,
        key=finding.key,
        ours=finding.ours,
        reference=finding.reference,
        waived=reason,
    )


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if value is None:
        return "null"
    return "a map" if isinstance(value, Mapping) else "a list"


def equal(ours: Any, theirs: Any) -> bool:
    """Equal in value: 1 is 1.0 and 1e-3 is 0.001, but true is not 1."""
    if _kind(ours) != _kind(theirs):
        return False
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(equal, ours, theirs))
    if isinstance(ours, Mapping):
        return ours.keys() == theirs.keys() and all(equal(ours[k], theirs[k]) for k in ours)
    return bool(ours == theirs)


def covering(key: str | None, named: Collection[str]) -> str | None:
    """The longest of the dotted names that is the key or lies above it."""
    steps = (key or "").split(".")
    for length in range(len(steps), 0, -1):
        if (name := ".".join(steps[:length])) in named:
            return name
    return None


def _is_compared(key: str | None, only: Collection[str], ignore: Collection[str]) -> bool:
    return bool(not only or covering(key, only)) and not covering(key, ignore)


def _in_vain(
    config: Mapping[str, Any],
    reference: Mapping[str, Any],
    only: Collection[str],
    waivers: Collection[str],
) -> list[Finding]:
    empty = [name for name in only if not _has(config, name) and not _has(reference, name)]
    return [
        Finding(
            Severity.WARNING,
            "unused-only",
            f"reference.only names {name}, which neither side has: nothing is compared there",
            key=name,
        )
        for name in empty
    ] + [
        Finding(
            Severity.WARNING,
            "unused-waiver",
            f"reference.waive names {name}, where nothing needs a waiver",
            key=name,
        )
        for name in waivers
    ]


def _compares_nothing(reference: Reference, tree: Mapping[str, Any]) -> list[Finding]:
    """A file that is placed where nothing is compared, or files that have nothing to compare."""
    only, ignore = reference.only, reference.ignore
    told: list[tuple[str | None, str]] = []
    for file in reference.files:
        at = file.at or ""
        inside = any(name.startswith(at + ".") for name in only)
        if at and not inside and not _is_compared(at, only, ignore):
            told.append((at, f"{file.shown} is placed at {at} and nothing is compared there"))
    keys = [".".join(trail) for trail, _ in _leaves(tree, ()) if trail]
    if not told and not any(_is_compared(key, only, ignore) for key in keys):
        told.append((None, "the reference has no key that is compared"))
    why = "`at:` is the config key that a file goes to, `only:` and `ignore:` say what is compared"
    return [
        Finding(Severity.WARNING, "unused-reference", f"{what}: {why}", key=at) for at, what in told
    ]


def _has(tree: Any, dotted: str) -> bool:
    for step in dotted.split("."):
        if not isinstance(tree, Mapping) or step not in tree:
            return False
        tree = tree[step]
    return True
