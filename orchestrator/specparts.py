"""The sections of a job spec, one reader each: a Field -> typed values, or SpecError. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from orchestrator import names, units
from orchestrator.errors import UsageError
from orchestrator.fields import Field
from orchestrator.jobspec import (
    GRACE,
    GRACE_MAX,
    Bound,
    DataSource,
    Expect,
    Reference,
    ReferenceFile,
    Resources,
    Retry,
    Stage,
)
from orchestrator.names import did_you_mean
from orchestrator.nested import leaves, lookup
from orchestrator.overlay import fit

# What the supervisor sets itself, or what would change which program a name means.
RESERVED_ENV = re.compile(r"PATH|LD_PRELOAD|CUDA_VISIBLE_DEVICES|ORCH_.*")

_GIT_FILE = re.compile(
    r"(?P<repo>[^\x00-\x1f]+)@(?P<commit>[0-9A-Za-z_][0-9A-Za-z._/-]*):(?P<path>[^/\x00-\x1f][^\x00-\x1f]*)"
)


def config(field: Field | None) -> dict[str, Any]:
    """The config as it stands; its keys can be written as dotted paths."""
    if field is None:
        return {}
    _config_keys_are_plain(field)
    return dict(field.value or {})


def _config_keys_are_plain(field: Field) -> None:
    for key, below in field.table().items():
        if not key or not key.isprintable() or set(key) & set(".= "):
            raise below.error(
                f"config key `{ascii(key)[1:-1]}`: a key must have no dot, `=` or space, "
                "or --set and reference could not name it"
            )
        if isinstance(below.value, dict):
            _config_keys_are_plain(below)


def config_keys(field: Field | None, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Dotted keys that all exist in the config (a leaf or a whole map)."""
    for item in field.items() if field else []:
        config_key(item, item.text(), config)
    return field.texts() if field else ()


def config_key(field: Field, key: str, config: Mapping[str, Any]) -> Any:
    """The value of a dotted key that must stand in the config."""
    missing = object()
    value = lookup(config, key, missing)
    if value is missing:
        known = dict(leaves(config))
        raise field.error(f"the config has no key `{ascii(key)[1:-1]}`{did_you_mean(key, known)}")
    return value


# --- what is executed -----------------------------------------------------------------------------


def stages(root: Field, top: Mapping[str, Field]) -> tuple[Stage, ...]:
    """The commands, in an order that respects `needs` and otherwise the file's."""
    if "command" in top and "stages" in top:
        raise top["stages"].error("`command` and `stages` cannot both be given")
    if "command" in top:
        return (Stage("main", argv(top["command"])),)
    if "stages" not in top:
        raise root.error("a job needs `command:` or `stages:`")
    fields = top["stages"].table()
    if not fields:
        raise top["stages"].error("`stages` is empty")
    return _ordered([_stage(field, fields) for field in fields.values()], top["stages"])


def argv(field: Field) -> tuple[str, ...]:
    """A text for `sh -c`, or a list that is executed as it is."""
    if isinstance(field.value, list):
        if not field.value:
            raise field.error(f"`{field.name}` is an empty list")
        items = field.items()
        items[0].text()
        for item in items:
            if not isinstance(item.value, str) or "\0" in item.value:
                raise item.error(f"`{field.name}` must hold texts only; quote the item")
        return tuple(item.value for item in items)
    if not isinstance(field.value, str):
        raise field.expected("text or a list")
    return ("sh", "-c", field.text())


def _stage(field: Field, known: Mapping[str, Field]) -> Stage:
    name = field.key(names.stage_name)
    table = field.table(("command", "needs"))
    if "command" not in table:
        raise field.error(f"stage `{name}` has no `command`")
    needs = table["needs"].items() if "needs" in table else []
    for need in needs:
        if need.text() not in known:
            raise need.error(
                f"stage `{name}` needs `{ascii(need.value)[1:-1]}`, which is no stage"
                + did_you_mean(need.value, known)
            )
    return Stage(name, argv(table["command"]), tuple(dict.fromkeys(n.value for n in needs)))


def _ordered(given: list[Stage], field: Field) -> tuple[Stage, ...]:
    ordered: list[Stage] = []
    done: set[str] = set()
    while len(ordered) < len(given):
        ready = next((s for s in given if s.name not in done and set(s.needs) <= done), None)
        if ready is None:
            stuck = ", ".join(s.name for s in given if s.name not in done)
            raise field.error(f"stages need each other in a circle: {stuck}")
        ordered.append(ready)
        done.add(ready.name)
    return tuple(ordered)


def env(field: Field | None) -> dict[str, str]:
    """Texts by variable name; reserved names are refused."""
    values: dict[str, str] = {}
    for key, entry in (field.table() if field else {}).items():
        entry.key(names.env_name)
        _not_reserved(entry, key)
        if not isinstance(entry.value, str):
            raise entry.error(f'`{entry.name}` must be text; quote it: "{json.dumps(entry.value)}"')
        if "\0" in entry.value:
            raise entry.error(f"`{entry.name}` holds a NUL character")
        values[key] = entry.value
    return values


def _not_reserved(field: Field, name: str) -> None:
    if RESERVED_ENV.fullmatch(name):
        raise field.error(f"`{name}` is set on the host and cannot be set by a job")


def secrets(field: Field | None, env: Mapping[str, str]) -> tuple[str, ...]:
    """Names only; none of them may also be set in `env`."""
    for item in field.items() if field else []:
        name = item.text()
        item.read(names.secret_name)
        _not_reserved(item, name)
        if name in env:
            raise item.error(f"`{name}` is in `env` and in `secrets`; keep it in `secrets`")
    return tuple(dict.fromkeys(field.texts())) if field else ()


def resources(field: Field | None) -> Resources:
    table = field.table(("gpus", "gpu_memory", "disk", "time", "grace")) if field else {}
    given = {key: entry for key, entry in table.items() if entry.value is not None}
    least, most = given["gpus"].read(units.gpus) if "gpus" in given else (0, 0)
    return Resources(
        gpus_min=least,
        gpus_max=most,
        gpu_memory=given["gpu_memory"].read(units.size) if "gpu_memory" in given else None,
        disk=given["disk"].read(units.size) if "disk" in given else None,
        time=given["time"].read(units.duration) if "time" in given else None,
        grace=_grace(given["grace"]) if "grace" in given else GRACE,
    )


def _grace(field: Field) -> float:
    seconds = field.read(units.duration)
    if seconds > GRACE_MAX:
        raise field.error(f"`{field.name}` is more than an hour; a cancel would wait that long")
    return seconds


def requirements(field: Field | None) -> str | None:
    table = field.table(("requirements",)) if field else {}
    entry = table.get("requirements")
    return entry.plain_path() if entry and entry.value is not None else None


# --- what goes in ---------------------------------------------------------------------------------


def reference(field: Field | None) -> Reference | None:
    if field is None:
        return None
    table = field.table(("config", "only", "ignore", "waive"))
    if "config" not in table or table["config"].value in (None, []):
        raise field.error("`reference` needs `config:`, a file or a list of files")
    config = table["config"]
    files = config.items() if isinstance(config.value, list) else [config]
    waive = table["waive"].table() if "waive" in table else {}
    return Reference(
        files=tuple(_reference_file(entry) for entry in files),
        only=table["only"].texts() if "only" in table else (),
        ignore=table["ignore"].texts() if "ignore" in table else (),
        waive={key: reason.text() for key, reason in waive.items()},
    )


def _reference_file(field: Field) -> ReferenceFile:
    if isinstance(field.value, str):
        return ReferenceFile(field.plain_path())
    table = field.table(("file", "git", "at", "overrides"))
    if ("file" in table) == ("git" in table):
        raise field.error(
            f"`{field.name}` must be a file name, {{file: ..., at: dotted.key}} "
            "or {git: repo@commit:path}"
        )
    at = table["at"].text() if "at" in table else None
    if at is not None and not all(at.split(".")):
        raise table["at"].error(f"`{at}` is not a dotted key")
    overrides = table["overrides"].texts() if "overrides" in table else ()
    if "file" in table:
        return ReferenceFile(table["file"].plain_path(), at, overrides=overrides)
    found = _GIT_FILE.fullmatch(table["git"].text())
    if found is None or ".." in found["path"].split("/"):
        raise table["git"].error(
            f"`{ascii(table['git'].value)[1:-1]}` must be repo@commit:path, "
            "such as ../mdlm@1a2b3c4:configs/config.yaml"
        )
    return ReferenceFile(found["path"], at, found["repo"], found["commit"], overrides)


def data(field: Field | None, config: Mapping[str, Any]) -> tuple[DataSource, ...]:
    entries = field.table() if field else {}
    return tuple(_data_source(entry, config) for entry in entries.values())


def _data_source(field: Field, config: Mapping[str, Any]) -> DataSource:
    name = field.key(names.data_name)
    table = field.table(("from", "at", "when"))
    if ("from" in table) == ("at" in table):
        raise field.error(f"data `{name}` needs `from:` or `at:`, and not both")
    at = table["at"].text() if "at" in table else None
    if at is not None and (not at.startswith(("/", "~/")) or ".." in PurePosixPath(at).parts):
        raise table["at"].error(f"`{field.name}.at` must be a path on the host: /... or ~/...")
    when = {}
    for key, entry in (table["when"].table() if "when" in table else {}).items():
        current = config_key(entry, key, config)
        try:
            when[key] = fit(current, entry.value, key)
        except UsageError as error:
            raise entry.error(error.message, error.hint) from None
    return DataSource(name, table["from"].text() if "from" in table else None, at, when)


# --- what comes out -------------------------------------------------------------------------------


def results(field: Field | None) -> tuple[str, tuple[str, ...]]:
    """The result folder and the patterns left out of a fetch."""
    table = field.table(("dir", "exclude")) if field else {}
    folder = table["dir"].plain_path() if "dir" in table else "results"
    if folder == "jobs":
        raise table["dir"].error(
            "`results.dir` is `jobs`, which holds the project's code: it would not be sent",
            hint="name a folder that only results go to, such as `results` or `jobs/out`",
        )
    exclude = table["exclude"].texts() if "exclude" in table else ()
    for pattern in exclude:
        if pattern.startswith(f"{folder}/") and pattern.strip("/") != folder:
            inner = pattern[len(folder) + 1 :]
            raise table["exclude"].error(
                f"`{pattern}` would leave out nothing: patterns are relative to `{folder}`",
                hint=f"write `{inner}`, or `./{pattern}` for a folder `{folder}` inside of it",
            )
    return folder, exclude


def metrics(field: Field | None, results_dir: str) -> tuple[str, str]:
    """The metrics file, inside the result folder, and the metric that a result owes.

    `accuracy`, the default, is not owed, whether it is written or not.
    """
    table = field.table(("file", "primary")) if field else {}
    primary = table["primary"].text() if "primary" in table else "accuracy"
    if "file" not in table:
        return f"{results_dir}/metrics.json", primary
    file = table["file"].plain_path()
    if not PurePosixPath(file).is_relative_to(results_dir) or file == results_dir:
        raise table["file"].error(
            f"`metrics.file` is `{file}`; it must lie inside `results.dir` (`{results_dir}`)"
        )
    return file, primary


def expect(field: Field | None, config: Mapping[str, Any]) -> Expect:
    bounds: dict[str, Bound] = {}
    fields = field.table() if field else {}
    for key, entry in fields.items():
        if key in ("predictions", "against", "tolerance", "same"):
            continue
        bounds[key] = _bound(key, entry)
    shape, against, tolerance = (fields.get(k) for k in ("predictions", "against", "tolerance"))
    same = fields.get("same")
    if same is not None and against is None:
        raise same.error("`same` needs `against:`: which config keys a comparable run shares")
    if tolerance is not None and against is None:
        raise tolerance.error("`tolerance` needs `against:`, `best` or a run")
    if tolerance is not None and not 0 <= tolerance.number() < 1:
        raise tolerance.error("`tolerance` is a share, such as 0.01 for one point of accuracy")
    return Expect(
        bounds,
        shape.one_of(("not-degenerate", "any")) if shape else None,
        against.text() if against else None,
        tolerance.number() if tolerance else 0.0,
        same=config_keys(same, config),
    )


def _bound(metric: str, field: Field) -> Bound:
    table = field.table(("min", "max"))
    low, high = (table[k].number() if k in table else None for k in ("min", "max"))
    if low is None and high is None:
        raise field.error(f"`{field.name}` needs `min:` or `max:`")
    for limit in (low, high):
        is_share = metric == "accuracy" or metric.endswith(".accuracy")
        if is_share and limit is not None and not 0 <= limit <= 1:
            raise field.error(
                f"`{field.name}`: {limit} is outside [0, 1], where no accuracy can be"
                + (f"; write {limit / 100:g}" if 1.01 <= limit <= 100 else "")
            )
    refuse_empty(field, low, high)
    return Bound(low, high)


def refuse_empty(field: Field, low: float | None, high: float | None) -> None:
    """SpecError for a range in which no number is."""
    if low is not None and high is not None and low > high:
        raise field.error(f"`{field.name}`: min {low:g} is above max {high:g}")


_RETRY_ON = ("lost", "oom")
_RETRY_MAX = 100


def retry(field: Field | None) -> Retry | None:
    """`{on: [lost, oom, exit: [75]], max: 2}`: every item one of two words or a map of codes."""
    if field is None:
        return None
    table = field.table(("on", "max"))
    for key in ("on", "max"):
        if key not in table:
            raise field.error(f"`retry` needs `{key}:`", "retry: {on: [lost, exit: [75]], max: 2}")
    words: list[str] = []
    codes: list[int] = []
    for item in table["on"].items():
        if isinstance(item.value, dict):
            listed = item.table(("exit",))
            codes += [_exit_code(code) for code in listed["exit"].items()] if listed else []
        else:
            words.append(item.one_of(_RETRY_ON))
    if not words and not codes:
        raise table["on"].error("`retry.on` is empty; nothing would be tried again")
    most = table["max"].value
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= _RETRY_MAX:
        raise table["max"].error(f"`retry.max` must be a whole number from 1 to {_RETRY_MAX}")
    return Retry(tuple(dict.fromkeys(words)), tuple(dict.fromkeys(codes)), most)


def _exit_code(field: Field) -> int:
    code = field.value
    if isinstance(code, bool) or not isinstance(code, int) or not 1 <= code <= 255:
        raise field.error("an exit code to retry on must be a whole number from 1 to 255")
    return code
