"""Which runs `orch ls` shows, in which order, with which columns. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from orchestrator import names, units
from orchestrator.clock import iso, parse_iso
from orchestrator.domain import Outcome, Run, RunState, Verdict
from orchestrator.errors import UsageError
from orchestrator.names import did_you_mean
from orchestrator.runjson import FIELDS, json_text, to_json
from orchestrator.runtext import ran_seconds
from orchestrator.where import Where, find, unknown

# Columns under the names of the table; any other name is a path into the run's document.
SHORT = {
    "run": "run_id",
    "config": "config_hash",
    "created": "created_at",
    "started": "started_at",
    "ended": "ended_at",
}
RAN = ("ran", "ran_for")  # seconds from the start to the end, or to now
STATUS = "status"  # the verdict, or, while there is none, the state
COLUMNS = list(dict.fromkeys([*SHORT, STATUS, *FIELDS, RAN[0]]))
STATES = [*(each.value for each in RunState), *(each.value for each in Verdict)]
OUTCOMES = [*(each.value for each in Outcome), "none"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Empty means any. `since` is an ISO time; a tag is a name and a value or None (any)."""

    jobs: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    tags: tuple[tuple[str, str | None], ...] = ()
    since: str | None = None
    where: Where | None = None
    sort: str | None = None
    now: datetime | None = None  # the moment until which an open run ran

    def matches(self, run: Run) -> bool:
        words = {run.state.value, run.verdict.value if run.verdict else ""}
        outcome = run.outcome.value if run.outcome else "none"
        return (
            (not self.jobs or run.job in self.jobs)
            and (not self.hosts or run.host in self.hosts)
            and (not self.states or bool(words & set(self.states)))
            and (not self.outcomes or outcome in self.outcomes)
            and (self.since is None or run.created_at >= self.since)
            and (not self.tags or any(_is_tagged(run, *tag) for tag in self.tags))
            and (self.where is None or self.where(to_json(run)))
        )

    def apply(self, runs: Sequence[Run]) -> list[Run]:
        """The runs that match, newest first or as `sort` says; those without that value last.

        UsageError for a name in `where` or `sort` that none of the runs has.
        """
        if self.where is not None:
            self.where.refuse_unknown([to_json(run) for run in runs])
        if self.sort is not None:
            self._refuse_unsortable(self.sort.removeprefix("-"), runs)
        kept = [run for run in runs if self.matches(run)]
        if self.sort is None:
            return kept
        name = self.sort.removeprefix("-")
        known = [(run, self._key(run, name)) for run in kept]
        with_it = [(run, _order(key)) for run, key in known if key is not None]
        with_it.sort(key=lambda pair: pair[1], reverse=self.sort.startswith("-"))
        return [run for run, _ in with_it] + [run for run, key in known if key is None]

    def _key(self, run: Run, name: str) -> int | float | str | None:
        """What a column sorts by: its number or text; of a map or a list its text as JSON."""
        if name in RAN:
            return None if self.now is None else ran_seconds(run, self.now)
        if name == STATUS:
            return str((run.verdict or run.state).value)
        value = tags_words(run) if name == "tags" else value_of(run, name)
        if isinstance(value, (Mapping, list)):
            return json_text(value) if value else None
        if value == "" or (isinstance(value, float) and math.isnan(value)):
            return None
        return value

    def _refuse_unsortable(self, name: str, runs: Sequence[Run]) -> None:
        """UsageError for a name that no run has; a column that is empty in all is fine."""
        if name in COLUMNS or name in RAN or not runs:
            return
        if all(self._key(run, name) is None for run in runs):
            told = unknown(name, frozenset(COLUMNS), [to_json(run) for run in runs])
            raise UsageError(f"--sort: {told}", hint="`orch show RUN --json` shows what a run has")


def selection(
    now: datetime,
    *,
    jobs: Sequence[str] = (),
    hosts: Sequence[str] = (),
    states: Sequence[str] = (),
    outcomes: Sequence[str] = (),
    tags: Sequence[str] = (),
    since: str | None = None,
    where: str | None = None,
    sort: str | None = None,
) -> Selection:
    """From a command line's words; UsageError for a word that can match nothing."""
    return Selection(
        jobs=_words(jobs, None, "--job"),
        hosts=_words(hosts, None, "--host"),
        states=_words(states, STATES, "--state"),
        outcomes=_words(outcomes, OUTCOMES, "--outcome"),
        # A value may have commas of its own, so what was given counts as a whole too.
        tags=tuple(map(_tag, dict.fromkeys((*tags, *_words(tags, None, "--tag"))))),
        since=None if since is None else moment(since, now),
        where=None if where is None else Where(where, frozenset(FIELDS)),
        sort=None if sort is None else ("-" if sort.startswith("-") else "") + _named(sort),
        now=now,
    )


def _words(given: Sequence[str], known: Sequence[str] | None, option: str) -> tuple[str, ...]:
    words = names.words(given)
    for word in words:
        if known is not None and word not in known:
            raise UsageError(
                f"{option}: nothing is ever {word!a}{did_you_mean(word, known)}",
                hint=f"one of: {', '.join(known)}",
            )
    return tuple(words)


def _is_tagged(run: Run, name: str, value: str | None) -> bool:
    return name in run.tags if value is None else run.tags.get(name) == value


def _tag(text: str) -> tuple[str, str | None]:
    key, found, value = text.partition("=")
    return key, value if found else None


def moment(text: str, now: datetime) -> str:
    """`2d`, `3h` before now, a date or a time (UTC unless it says otherwise), as ISO."""
    if text[-1:] in "smhd" and text[:1].isdigit() and "-" not in text:
        return iso(now - timedelta(seconds=units.duration(text)))
    zoned = text if "T" in text or " " in text else f"{text}T00:00"
    for spelled in (zoned, zoned + "Z"):
        try:
            return iso(parse_iso(spelled.replace(" ", "T", 1)))
        except ValueError:
            continue
    raise UsageError(
        f"--since: {text!a} is no time", hint="write 2d, 3h, 2026-11-23 or 2026-11-23T09:30"
    )


def columns(text: str) -> list[str]:
    """The names in `run,accuracy,config.training.lr`; UsageError for one that no run has."""
    named = names.words([text])
    if not named:
        raise UsageError("--columns: no column is named", hint="e.g. run,accuracy,config.lr")
    return [_named(name) for name in named]


def _named(text: str) -> str:
    name = text.removeprefix("-")
    first = name.partition(".")[0]
    if "." in name and first not in FIELDS:
        near = did_you_mean(first, FIELDS)
        raise UsageError(f"a run has no {first!a}{near}", hint=f"one of: {', '.join(COLUMNS)}")
    return name


def value_of(run: Run, name: str) -> Any:
    """The value under a column's name: a field, a dotted path, or a metric's bare name."""
    return find(to_json(run), tuple(SHORT.get(name, name).split(".")))


def tags_words(run: Run) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(run.tags.items()))


def _order(value: int | float | str) -> tuple[int, float, str]:
    """Numbers before texts."""
    return (1, 0.0, value) if isinstance(value, str) else (0, float(value), "")
