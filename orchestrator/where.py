"""`orch ls --where`: which runs are meant, as an expression over a run's document. Pure.

Names are dotted paths into what `orch show --json` prints (`config.training.lr`), or metrics by
their bare name (`loss`). A run that lacks what a comparison needs does not match it; a bare name
that no run has at all is a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.domain import Outcome, RunState, Verdict
from orchestrator.errors import UsageError
from orchestrator.expressions import BadExpression, Unfit, parse

HINT = "such as --where 'accuracy > 0.8 and config.training.lr < 1e-3'; names are those of --json"
KINDS = {
    "state": tuple(each.value for each in RunState),
    "verdict": tuple(each.value for each in Verdict),
    "outcome": tuple(each.value for each in Outcome),
}
WORDS = frozenset(word for words in KINDS.values() for word in words)


class Where:
    """An expression that was checked; call it with a run's document."""

    def __init__(self, text: str, fields: frozenset[str]) -> None:
        """UsageError names the position of what is not allowed. `fields`: a document's keys."""
        self._fields = fields
        try:
            self._expression = parse(text, self._refused)
        except BadExpression as error:
            raise _usage(text, error) from None
        for name in KINDS:
            for word in self._expression.texts_for(name):
                _refuse_unheard(name, word)

    def __call__(self, document: Mapping[str, Any]) -> bool:
        try:
            value = self._expression.value(
                lambda name: find(document, tuple(name.split("."))), lenient=True
            )
        except Unfit:
            return False
        return bool(value)

    def refuse_unknown(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """UsageError for a bare name that is neither a field nor a metric of any of the runs.

        Nothing is said where there are no runs to compare.
        """
        metrics = {key for document in documents for key in document.get("metrics") or ()}
        for name in self._expression.names if documents else ():
            bare = "." not in name and name not in self._fields | metrics
            if bare:
                raise UsageError(f"--where: {unknown(name, self._fields, documents)}", hint=HINT)

    def _refused(self, name: str) -> str | None:
        """A dotted path must begin with a field; a bare name may be a metric of any run."""
        first, _, below = name.partition(".")
        if not below or first in self._fields:
            return None
        from orchestrator.names import did_you_mean  # loads difflib, for a mistake only

        return f"a run has no `{first}`{did_you_mean(first, sorted(self._fields))}"


def _refuse_unheard(name: str, word: str) -> None:
    """UsageError for a word that a run's state, verdict or outcome (`name`) never is."""
    if word in KINDS[name]:
        return
    from orchestrator.names import did_you_mean

    near = did_you_mean(word, KINDS[name])
    for other, words in KINDS.items():
        near = f"; did you mean `{other}`?" if word in words else near
    raise UsageError(
        f"--where: `{name}` is never {word!a}{near}",
        hint=f"it is one of {', '.join(KINDS[name])}" + ("" if name == "state" else ", or null"),
    )


def unknown(name: str, fields: frozenset[str], documents: Sequence[Mapping[str, Any]]) -> str:
    """What to say of a name that no run has, with what was probably meant."""
    from orchestrator.names import did_you_mean
    from orchestrator.nested import leaves

    values = {each for document in documents for each in document.values() if type(each) is str}
    if name in WORDS | values:
        return f"no run has `{name}`; a text is written in quotes: '{name}'"
    metrics = {key for document in documents for key in document.get("metrics") or ()}
    near = did_you_mean(name, sorted(fields | metrics))
    keys = {key for document in documents for key, _ in leaves(document.get("config") or {})}
    paths = sorted(key for key in keys if key.rpartition(".")[2] == name)
    return f"no run has `{name}`" + (f"; did you mean `config.{paths[0]}`?" if paths else near)


def _usage(text: str, error: BadExpression) -> UsageError:
    shown = ascii(text)[1:-1]
    mark = " " * max(error.position - 1, 0) + "^"
    lines = f"\n  {shown}\n  {mark}" if shown == text and error.position <= len(text) + 1 else ""
    return UsageError(f"--where: position {error.position}: {error}{lines}", hint=HINT)


def find(document: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at the path, or None. A bare name that is no field is looked for in the metrics."""
    if len(path) == 1 and path[0] not in document:
        metrics = document.get("metrics")
        return metrics.get(path[0]) if isinstance(metrics, Mapping) else None
    value: Any = document
    for at, name in enumerate(path):
        if not isinstance(value, Mapping):
            return None
        rest = ".".join(path[at:])
        if rest in value:  # a key with a dot of its own
            return value[rest]
        value = value.get(name)
    return value
