"""Our config against the one it should follow. `compare` is pure; `reference_tree` reads files.

A key they have and we do not is `missing`; another value is `differs`; another kind of value is
`type`; a key only we have is `extra`. The first three refuse a submit unless waived with a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator import strictjson, strictyaml
from orchestrator.domain import Finding, Severity
from orchestrator.errors import SpecError
from orchestrator.jobspec import Reference, ReferenceFile
from orchestrator.strictyaml import Document, Trail


def check(config: Mapping[str, Any], reference: Reference | None, project: Path) -> list[Finding]:
    """The findings for a spec's `reference:`; none when it has no reference."""
    if reference is None:
        return []
    return compare(
        config,
        reference_tree(project, reference),
        only=reference.only,
        ignore=reference.ignore,
        waive=reference.waive,
    )


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
        if (not only or _covering(finding.key, only)) and not _covering(finding.key, ignore)
    ]
    reasons = waive or {}
    used: set[str] = set()
    result = []
    for finding in found:
        waiver = _covering(finding.key, reasons)
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
    elif not _equal(ours, theirs):
        yield _finding(
            "differs", trail, ours, theirs, f"is {_shown(ours)}, the reference has {_shown(theirs)}"
        )


def _leaves(value: Any, trail: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _leaves(below, (*trail, key))
    else:
        yield trail, value


def _missing(trail: tuple[str, ...], theirs: Any) -> Finding:
    return _finding("missing", trail, None, theirs, f"is missing; it is {_shown(theirs)} there")


def _extra(trail: tuple[str, ...], ours: Any) -> Finding:
    message = f"is {_shown(ours)} and not in the reference"
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


def _equal(ours: Any, theirs: Any) -> bool:
    """Equal in value: 1 is 1.0 and 1e-3 is 0.001, but true is not 1."""
    if _kind(ours) != _kind(theirs):
        return False
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(_equal, ours, theirs))
    if isinstance(ours, Mapping):
        return ours.keys() == theirs.keys() and all(_equal(ours[k], theirs[k]) for k in ours)
    return bool(ours == theirs)


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _covering(key: str | None, named: Collection[str]) -> str | None:
    """The longest of the dotted names that is the key or lies above it."""
    steps = (key or "").split(".")
    for length in range(len(steps), 0, -1):
        if (name := ".".join(steps[:length])) in named:
            return name
    return None


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


def _has(tree: Any, dotted: str) -> bool:
    for step in dotted.split("."):
        if not isinstance(tree, Mapping) or step not in tree:
            return False
        tree = tree[step]
    return True


# --- loading --------------------------------------------------------------------------------------


def reference_tree(project: Path, reference: Reference) -> dict[str, Any]:
    """The reference files as one tree; two files that disagree on a key are a SpecError.

    Plain YAML and JSON. A Hydra `defaults:` list or an OmegaConf `${...}` is a SpecError: a tree
    that is not resolved would give findings about texts, not about values.
    """
    tree: dict[str, Any] = {}
    for file in reference.files:
        content: Any = _content(project, file)
        for step in reversed(file.at.split(".") if file.at else []):
            content = {step: content}
        tree = _joined(tree, content, (), file)
    return tree


def _content(project: Path, file: ReferenceFile) -> Any:
    path = project / file.path
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise SpecError("a reference must be a .yaml, .yml or .json file", path=file.path)
    if not path.is_file():
        raise SpecError("the reference file does not exist", path=file.path)
    if path.suffix == ".json":
        doc = Document(_json(path, file.path), file.path)
    else:
        doc = strictyaml.load_file(path, shown=file.path)
    if not isinstance(doc.value, dict) and not file.at:
        raise SpecError("a reference must hold a map, or be placed with `at:`", path=file.path)
    if isinstance(doc.value, dict) and isinstance(doc.value.get("defaults"), list):
        raise _unresolved(doc, ("defaults",), "a Hydra `defaults:` list")
    _has_no_interpolation(doc, doc.value, ())
    return doc.value


def _json(path: Path, shown: str) -> Any:
    try:
        with path.open("rb") as stream:
            return strictjson.loads(stream.read(strictjson.MAX_BYTES + 1))
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror or error}", path=shown) from error
    except strictjson.JsonRefused as error:
        raise SpecError(f"not usable: {error}", path=shown) from None


def _has_no_interpolation(doc: Document, value: Any, trail: Trail) -> None:
    if isinstance(value, str) and "${" in value:
        raise _unresolved(doc, trail, f"the interpolation {_shown(value)}")
    if isinstance(value, (dict, list)):
        for step, below in value.items() if isinstance(value, dict) else enumerate(value):
            _has_no_interpolation(doc, below, (*trail, step))


def _unresolved(doc: Document, trail: Trail, what: str) -> SpecError:
    return doc.error(
        trail,
        f"{what} is not supported in this version of orch",
        hint="save the resolved config (the program's --cfg job --resolve) and name that file",
    )


def _joined(
    tree: Mapping[str, Any], more: Any, trail: tuple[str, ...], file: ReferenceFile
) -> dict[str, Any]:
    result = dict(tree)
    for key, value in more.items():
        below = (*trail, key)
        if key not in result:
            result[key] = value
        elif isinstance(result[key], dict) and isinstance(value, dict):
            result[key] = _joined(result[key], value, below, file)
        elif not _equal(result[key], value):
            raise SpecError(
                f"`{'.'.join(below)}` is {_shown(value)} here and {_shown(result[key])} in a "
                "reference file named before it",
                path=file.path,
            )
    return result
