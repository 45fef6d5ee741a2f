"""Which class finds a text likelier: scores and decisions.

The score of class c is the estimated bound on -log p(text | c) in nats or, after training on class
likelihood, the same without its weights; the lowest one wins. The prior is uniform. Draws come in
rounds; a text whose best class leads every other one by more than `eval.stop_z` standard errors of
the difference is done and costs no more.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jobs.textdiff import batches, errors
from jobs.textdiff.classifier import Classifier
from jobs.textdiff.errors import TrainingError

SETTLED_FROM = 4


@dataclass(frozen=True, slots=True)
class Scored:
    """One text: the draws' estimates by class, [C][K] nats, and each draw's share of masks."""

    estimates: tuple[tuple[float, ...], ...]
    tokens: int
    levels: tuple[float, ...] = ()

    @property
    def scores(self) -> tuple[float, ...]:
        return tuple(statistics.fmean(draws) for draws in self.estimates)

    def bounds(self, draws: int) -> tuple[float, ...]:
        """The same of the first `draws`. A text that needs no more draws is one whose first gap
        happened to be large: all that it has are a biased estimate, those of the first round are
        not."""
        return tuple(statistics.fmean(own[:draws]) for own in self.estimates)

    @property
    def unweighted(self) -> Scored:
        """The same text by what masked tokens cost, without the bound's weight L / k; an exact
        likelihood stays as it is. What is trained on class likelihood is judged by it."""
        if not self.levels:
            return self
        pairs = (zip(own, self.levels, strict=True) for own in self.estimates)
        return replace(self, estimates=tuple(tuple(a * b for a, b in own) for own in pairs))

    @property
    def draws(self) -> int:
        return len(self.estimates[0])

    def gap(self, label: int) -> float:
        """The lowest other class's score less that of `label`: above zero, `label` wins."""
        return self.scores[self.rival(label)] - self.scores[label]

    def rival(self, label: int) -> int:
        """The best of the other classes."""
        others = (c for c in range(len(self.estimates)) if c != label)
        return min(others, key=self.scores.__getitem__)

    def lead_se(self, label: int, other: int) -> float | None:
        """Standard error over the draws of score(other) - score(label); None at one draw.

        Strata are not credited, so it errs on the large side.
        """
        if self.draws < 2:
            return None
        pairs = zip(self.estimates[other], self.estimates[label], strict=True)
        leads = [a - b for a, b in pairs]
        mean = statistics.fmean(leads)  # statistics.stdev, in exact fractions, is ten times slower
        return math.sqrt(sum((lead - mean) ** 2 for lead in leads) / (len(leads) - 1) / len(leads))

    def gap_se(self, label: int) -> float | None:
        """The same for `gap`."""
        return self.lead_se(label, self.rival(label))

    def settled(self, z: float) -> bool:
        """Whether the best class leads each other one by more than `z` standard errors.

        A standard error of fewer than SETTLED_FROM draws is too often far too small.
        """
        if self.draws < SETTLED_FROM:
            return False
        scores = self.scores
        best = scores.index(min(scores))
        for other, score in enumerate(scores):
            error = self.lead_se(best, other)
            if other != best and (error is None or score - scores[best] <= z * error):
                return False
        return True

    def more(self, other: Scored) -> Scored:
        """With the draws of the next round."""
        pairs = zip(self.estimates, other.estimates, strict=True)
        return replace(
            other,
            estimates=tuple(mine + theirs for mine, theirs in pairs),
            levels=self.levels + other.levels,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    predicted: int
    tie: bool


def score(
    classifier: Classifier,
    ids: Sequence[list[int]],
    *,
    report: Callable[[float], None] = lambda done: None,
    say: Callable[[str], None] = lambda line: None,
    rows: Sequence[int] | None = None,
) -> dict[int, Scored]:
    """Every text of `rows` (all, when None) under every class.

    The noise of a text depends on the seed and its row alone, not on how texts are grouped: in
    smaller groups, which are taken where memory is short, its score is the same but for rounding.
    `report` is told the share of the work that is done, `say` a person. TrainingError: a score that
    is not finite.
    """
    settings = classifier.config.eval
    open_rows = list(range(len(ids)) if rows is None else rows)
    total, each = max(1, len(open_rows)), settings.round
    rounds = 1 if classifier.exact else settings.draws // each
    result: dict[int, Scored] = {}
    asking = _Asking(classifier, ids, settings.batch_tokens, say)
    for model in classifier.models:
        model.eval()
    for turn in range(rounds):
        before = turn * each
        done = 0
        for question in _one_behind(asking.questions(open_rows, before, before + each)):
            for row, found in _answers(question):
                result[row] = result[row].more(found) if row in result else found
            done += len(question.rows)
            closed = total - len(open_rows)  # their later rounds are saved
            report(min(0.999, (closed * rounds + len(open_rows) * turn + done) / (total * rounds)))
        if settings.stop_z:
            seen = judged(classifier, [result[row] for row in open_rows])
            pairs = zip(open_rows, seen, strict=True)
            open_rows = [row for row, text in pairs if not text.settled(settings.stop_z)]
    report(1.0)
    return result


def judged(classifier: Classifier, scored: Sequence[Scored]) -> Sequence[Scored]:
    """The texts by the score that the classifier goes by."""
    return scored if classifier.by_bound else [text.unweighted for text in scored]


def decide(scored: Sequence[Scored], seed: int) -> list[Decision]:
    """The likeliest class of each text. A tie is decided by a seeded coin and marked as a tie."""
    return choose([text.scores for text in scored], seed)


def choose(costs: Sequence[Sequence[float]], seed: int) -> list[Decision]:
    """The class of lowest cost in each row; ties as above."""
    coin = random.Random(f"{seed}:ties")
    decisions = []
    for row in costs:
        lowest = min(row)
        best = [label for label, cost in enumerate(row) if cost == lowest]
        predicted = best[0] if len(best) == 1 else coin.choice(best)
        decisions.append(Decision(predicted, len(best) > 1))
    return decisions


@dataclass(frozen=True, slots=True)
class _Question:
    """A group of texts and what the classes make of it; a GPU may still be at work on that."""

    rows: Sequence[int]
    tokens: Sequence[int]
    levels: Sequence[tuple[float, ...]]
    costs_CBK: Tensor


@dataclass(slots=True)
class _Asking:
    """Texts in groups of at most `tokens`, which becomes less where the memory is not enough."""

    classifier: Classifier
    ids: Sequence[list[int]]
    tokens: int
    say: Callable[[str], None]

    def questions(self, rows: Sequence[int], first: int, last: int) -> Iterator[_Question]:
        """Draws `first` to `last` of every row, shortest text first."""
        copies = self.classifier.copies * (1 if self.classifier.exact else last - first)
        left = set(rows)
        while left:
            for group in batches.by_length(self.ids, list(left), self.tokens, copies=copies):
                question = self._one(group, first, last)
                if question is None:
                    self._smaller(len(group) * len(self.ids[group[-1]]) * copies)
                    break
                left.difference_update(group)
                yield question

    def _one(self, group: Sequence[int], first: int, last: int) -> _Question | None:
        """None: the memory was not enough, and a smaller group can be tried."""
        try:
            return _asked(self.classifier, self.ids, group, first, last)
        except Exception as error:
            if len(group) == 1 or not errors.no_memory(error):
                raise
        return None

    def _smaller(self, tried: int) -> None:
        torch.cuda.empty_cache()  # now that the error no longer holds what was computed
        self.tokens = tried // 2
        self.say(f"{tried:,} tokens at a time need more memory than there is: now {self.tokens:,}")


def _asked(
    classifier: Classifier, ids: Sequence[list[int]], group: Sequence[int], first: int, last: int
) -> _Question:
    tokens = [ids[row] for row in group]
    levels: list[tuple[float, ...]] = [()] * len(group)
    by_class = []
    if not classifier.exact:
        drawn = [classifier.draws(len(ids[row]), row, first, last) for row in group]
        by_class = [[own[label] for own in drawn] for label in range(len(classifier.labels))]
        levels = [tuple(own[0].level_K.tolist()) for own in drawn]
    return _Question(group, list(map(len, tokens)), levels, classifier.costs(tokens, by_class))


def _one_behind(asked: Iterable[_Question]) -> Iterator[_Question]:
    """The same in order, each one when the next has been asked: a GPU never waits for words."""
    before: deque[_Question] = deque()
    for question in asked:
        before.append(question)
        if len(before) > 1:
            yield before.popleft()
    yield from before


def _answers(question: _Question) -> Iterator[tuple[int, Scored]]:
    costs = question.costs_CBK.float().cpu()
    if not bool(torch.isfinite(costs).all()):
        raise TrainingError("a text's score is not finite: the weights are broken")
    by_text = costs.transpose(0, 1).tolist()
    for row, tokens, levels, found in zip(
        question.rows, question.tokens, question.levels, by_text, strict=True
    ):
        yield row, Scored(tuple(map(tuple, found)), tokens, levels)
