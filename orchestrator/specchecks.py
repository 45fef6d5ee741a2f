"""The sections of a job spec that say what must hold: before a run, during it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator import units
from orchestrator.checks import relations
from orchestrator.expressions import BadExpression
from orchestrator.fields import Field
from orchestrator.jobspec import Canary, Checkpoint, Rule
from orchestrator.specparts import argv, config_key, expect, refuse_empty


def checkpoint(field: Field | None, config: Mapping[str, Any]) -> Checkpoint | None:
    """The file a job starts from; None when there is none, or the config key for it is null."""
    if field is None:
        return None
    table = field.table(("file", "at", "key", "model", "min", "root", "strip", "add", "waive"))
    places = [key for key in ("file", "at", "key") if key in table]
    if len(places) != 1 or "model" not in table:
        raise field.error(
            "`checkpoint` needs `model:` and one of `file:` (in the project), `at:` (on the host) "
            "or `key:` (a config key that holds the path)"
        )
    path = table[places[0]].text()
    if places == ["key"]:
        value = config_key(table["key"], path, config)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise table["key"].error(f"config key `{path}` is no path")
        path = value
    on_host = path.startswith(("/", "~/")) and places != ["file"]
    if places == ["at"] and not on_host:
        raise table["at"].error("`checkpoint.at` must be a path on the host: /... or ~/...")
    least = table["min"].number() if "min" in table else 1.0
    if not 0 < least <= 1:
        raise table["min"].error(f"`checkpoint.min` is {least:g}; it is a share, such as 0.95")
    texts = {key: table[key].text() for key in ("root", "strip", "add", "waive") if key in table}
    file, command, there = _model(table["model"])
    return Checkpoint(path, on_host, file, command, there, least, **texts)


def _model(field: Field) -> tuple[str | None, tuple[str, ...], bool]:
    if isinstance(field.value, str):
        return field.plain_path(), (), False
    table = field.table(("command", "on"))
    if "command" not in table:
        raise field.error("`checkpoint.model` must be a file, or {command: ...} that prints JSON")
    there = "on" in table and table["on"].one_of(("host", "here")) == "host"
    return None, argv(table["command"]), there


CANARY_TIME = 300.0  # seconds


def rules(field: Field | None, config: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Expressions over the config, each as a text or {rule: TEXT, why: TEXT, waive: REASON}."""
    return tuple(_rule(item, config) for item in field.items()) if field else ()


def _rule(field: Field, config: Mapping[str, Any]) -> Rule:
    table = {"rule": field}
    if not isinstance(field.value, str):
        table = field.table(("rule", "why", "waive"))
        if "rule" not in table:
            raise field.error(f"`{field.name}` must be an expression or {{rule: ..., why: ...}}")
    text = _parsed(table["rule"], config)
    why, waive = (table[key].text() if key in table else None for key in ("why", "waive"))
    return Rule(text, why, waive)


def _parsed(field: Field, config: Mapping[str, Any]) -> str:
    text = field.text().strip()
    try:
        relations.parse(text, config)
    except BadExpression as error:
        raise field.error(
            f"`{ascii(text)[1:-1]}`, character {error.position}: {error}",
            "it is made of config keys, as in a.b < c.d, with and, or, not, + - * /, min, max",
        ) from None
    return text


def canary(field: Field | None, config: Mapping[str, Any]) -> Canary | None:
    """The short command that runs first; five minutes when no time is given."""
    if field is None:
        return None
    table = field.table(("command", "time", "metrics", "expect", "scale"))
    if "command" not in table:
        raise field.error("`canary` needs `command:`")
    scale = table.get("scale")
    if scale is not None and not isinstance(scale.value, (int, float)):
        _parsed(scale, config)
    wanted = expect(table.get("expect"), config)
    if wanted.against is not None:
        raise table["expect"].error("a canary is held against no earlier run; leave `against` out")
    return Canary(
        argv=argv(table["command"]),
        time=table["time"].read(units.duration) if "time" in table else CANARY_TIME,
        metrics_file=table["metrics"].plain_path() if "metrics" in table else None,
        expect=wanted,
        scale=str(scale.value) if scale is not None else None,
    )


# --- during a run ---------------------------------------------------------------------------------

ACTIONS = ("warn", "stop", "kill")
CHECKPOINT_GRACE = 60.0  # seconds a stopped job has to write a checkpoint and leave
HEADS = {
    "metric": ("rule", "min", "max", "no_improvement", "better", "from"),
    "log": ("after",),
    "gpu": ("after", "below"),
    "disk": ("free",),
    "predictions": ("from",),
}
FORMS = (
    "{metric: NAME, rule: finite}, {metric: NAME, max: 10, from: 100}, "
    "{metric: NAME, no_improvement: 500}, {log: idle, after: 30m}, {log: first, after: 10m}, "
    "{gpu: idle, after: 20m}, {disk: low, free: 5GiB} or {predictions: not-degenerate}"
)


def guards(field: Field | None, grace: float) -> tuple[Mapping[str, Any], ...]:
    """Each guard as its host takes it: durations in seconds, sizes in bytes, its action named.

    One that stops a job gives it its own `grace`, else the run's, and no less than a minute."""
    usual = max(CHECKPOINT_GRACE, grace)
    return tuple(_guard(item, usual) for item in field.items()) if field else ()


def _guard(field: Field, grace: float) -> Mapping[str, Any]:
    known = {"action", "grace", *HEADS, *(key for more in HEADS.values() for key in more)}
    table = field.table(sorted(known))
    heads = [key for key in HEADS if key in table]
    if len(heads) != 1 or not set(table) <= {heads[0], *HEADS[heads[0]], "action", "grace"}:
        raise field.error(f"`{field.name}` is no guard", hint=f"a guard is one of {FORMS}")
    guard = _GUARDS[heads[0]](field, table)
    usual = "stop" if guard.get("rule") == "finite" else "warn"
    guard["action"] = table["action"].one_of(ACTIONS) if "action" in table else usual
    if guard["action"] == "stop":
        given = table.get("grace")
        guard["grace"] = given.read(units.duration) if given else grace
    elif "grace" in table:
        raise table["grace"].error("only `action: stop` has a `grace`")
    return guard


def _metric_guard(field: Field, table: Mapping[str, Field]) -> dict[str, Any]:
    guard: dict[str, Any] = {"metric": table["metric"].text(), **_from(table)}
    kinds = [bool({"rule"} & set(table)), bool({"min", "max"} & set(table)),
             "no_improvement" in table]  # fmt: skip
    if sum(kinds) != 1 or ("better" in table and not kinds[2]):
        raise field.error(
            f"`{field.name}` must be {{metric: NAME, rule: finite}}, with `min:` or `max:`, "
            "or with `no_improvement:`"
        )
    if kinds[0]:
        guard["rule"] = table["rule"].one_of(("finite",))
    for key in ("min", "max"):
        if key in table:
            guard[key] = table[key].number()
    refuse_empty(field, guard.get("min"), guard.get("max"))
    if kinds[2]:
        span = table["no_improvement"]
        if isinstance(span.value, str):
            guard["seconds"] = span.read(units.duration)
        else:
            guard["steps"] = span.number()
            if guard["steps"] <= 0:
                raise span.error(f"`{span.name}` must be more than 0 steps, or such as 30m")
        better = table["better"].one_of(("lower", "higher")) if "better" in table else "lower"
        guard["better"] = better
    return guard


def _log_guard(field: Field, table: Mapping[str, Field]) -> dict[str, Any]:
    return {"log": table["log"].one_of(("idle", "first")), "after": _after(field, table)}


def _gpu_guard(field: Field, table: Mapping[str, Field]) -> dict[str, Any]:
    guard = {"gpu": table["gpu"].one_of(("idle",)), "after": _after(field, table)}
    return {**guard, "below": table["below"].number()} if "below" in table else guard


def _disk_guard(field: Field, table: Mapping[str, Field]) -> dict[str, Any]:
    if "free" not in table:
        raise field.error(f"`{field.name}` needs `free:`, such as 5GiB")
    return {"disk": table["disk"].one_of(("low",)), "free": table["free"].read(units.size)}


def _predictions_guard(field: Field, table: Mapping[str, Field]) -> dict[str, Any]:
    return {"predictions": table["predictions"].one_of(("not-degenerate",)), **_from(table)}


_GUARDS = {
    "metric": _metric_guard, "log": _log_guard, "gpu": _gpu_guard, "disk": _disk_guard,
    "predictions": _predictions_guard,
}  # fmt: skip


def _after(field: Field, table: Mapping[str, Field]) -> float:
    if "after" not in table:
        raise field.error(f"`{field.name}` needs `after:`, such as 30m")
    return table["after"].read(units.duration)


def _from(table: Mapping[str, Field]) -> dict[str, Any]:
    return {"from": table["from"].number()} if "from" in table else {}


def notify(field: Field | None) -> Mapping[str, Any] | None:
    """{webhook, format, argv, events, by}: whom to tell; `webhook` may be a `$VARIABLE`."""
    if field is None:
        return None
    table = field.table(("webhook", "format", "command", "events", "by"))
    if "webhook" not in table and "command" not in table:
        raise field.error("`notify` needs `webhook:` or `command:`")
    told: dict[str, Any] = {"events": ["guard", "end"], "by": "host"}
    if "by" in table:
        told["by"] = table["by"].one_of(("host", "controller", "both"))
    if "events" in table:
        told["events"] = [item.one_of(("guard", "end")) for item in table["events"].items()]
    if "webhook" in table:
        url = table["webhook"].text()
        if not url.startswith(("https://", "http://", "$")) or not url.isprintable():
            raise table["webhook"].error("`notify.webhook` must be http(s)://... or $VARIABLE")
        told["webhook"] = url
        told["format"] = table["format"].one_of(("slack", "ntfy")) if "format" in table else "slack"
    if "command" in table:
        told["argv"] = list(argv(table["command"]))
    return told
