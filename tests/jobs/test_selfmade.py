from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import pytest

from jobs.textdiff import selfmade
from jobs.textdiff.selfmade import Grammar

TINY = Grammar(
    nouns=("plot", "cast"),
    good=("fresh", "warm"),
    bad=("dull",),
    fillers=("so it goes",),
    joiners=(",", "and"),
    vote_counts=(1, 2),
    agreement=0.8,
    order_share=0.3,
    filler_share=0.25,
)


def every_text(grammar: Grammar, label: int) -> dict[str, float]:
    """Each text the grammar can make and its probability, by walking all choices."""
    clauses: list[tuple[str, float]] = []
    for vote in (0, 1):
        right = grammar.agreement if vote == label else 1 - grammar.agreement
        words = grammar.good if vote else grammar.bad
        pairs = [(b, g) if vote else (g, b) for g in grammar.good for b in grammar.bad]
        for noun in grammar.nouns:
            chance = right / len(grammar.nouns)
            by_word = chance * (1 - grammar.order_share) / len(words)
            by_order = chance * grammar.order_share / len(pairs)
            clauses += [(f"the {noun} is {word}", by_word) for word in words]
            clauses += [(f"the {noun} feels {a} but {b}", by_order) for a, b in pairs]
    units = [((text,), p * (1 - grammar.filler_share)) for text, p in clauses]
    for filler in grammar.fillers:
        share = grammar.filler_share / len(grammar.fillers)
        units += [((filler, text), p * share) for text, p in clauses]
    total: Counter[str] = Counter()
    for count in grammar.vote_counts:
        for chosen in itertools.product(units, repeat=count):
            parts = [part for unit, _ in chosen for part in unit]
            joints = list(itertools.product(grammar.joiners, repeat=len(parts) - 1))
            chance = math.prod(p for _, p in chosen) / len(grammar.vote_counts) / len(joints)
            for joint in joints:
                tail = (f" {j} {part}" for j, part in zip(joint, parts[1:], strict=True))
                total[parts[0] + "".join(tail) + " ."] += chance
    return dict(total)


def test_the_known_best_accuracy_is_that_of_brute_force() -> None:
    negative, positive = every_text(TINY, 0), every_text(TINY, 1)
    assert sum(negative.values()) == pytest.approx(1)
    best = sum(max(negative[text], positive[text]) / 2 for text in negative)
    assert selfmade.bayes_accuracy(TINY) == pytest.approx(best, abs=1e-12)


def test_the_log_odds_of_every_text_are_those_of_brute_force() -> None:
    negative, positive = every_text(TINY, 0), every_text(TINY, 1)
    for text in negative:
        expected = math.log(positive[text] / negative[text])
        assert selfmade.log_odds(TINY, text) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "text", ["the plot", "the plot is so", "the fresh is dull .", "the plot feels dull but dull ."]
)
def test_a_text_that_no_grammar_makes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        selfmade.log_odds(TINY, text)


def test_the_best_classifier_scores_its_known_accuracy_on_a_sample() -> None:
    grammar = Grammar()
    texts, labels = selfmade.generate(grammar, 20_000, random.Random(1))
    pairs = zip(texts, labels, strict=True)
    right = sum((selfmade.log_odds(grammar, text) > 0) == bool(label) for text, label in pairs)
    expected = selfmade.bayes_accuracy(grammar)
    assert 0.93 < expected < 0.97
    assert right / 20_000 == pytest.approx(expected, abs=4 * math.sqrt(0.05 * 0.95 / 20_000))


def test_half_of_the_signal_is_in_word_order_alone() -> None:
    """A vote by order uses the same words in both classes, so counting words cannot see it."""
    grammar = Grammar(order_share=1.0, filler_share=0.0)
    texts, labels = selfmade.generate(grammar, 20_000, random.Random(2))
    counts = [Counter[str](), Counter[str]()]
    for text, label in zip(texts, labels, strict=True):
        counts[label].update(text.split())
    sizes = [sum(count.values()) for count in counts]
    for word in (*grammar.good, *grammar.bad):
        shares = [count[word] / size for count, size in zip(counts, sizes, strict=True)]
        assert shares[0] == pytest.approx(shares[1], rel=0.12)
    assert selfmade.bayes_accuracy(grammar) > 0.93


def test_the_same_seed_makes_the_same_texts() -> None:
    first = selfmade.generate(Grammar(), 50, random.Random(7))
    assert first == selfmade.generate(Grammar(), 50, random.Random(7))
    assert first != selfmade.generate(Grammar(), 50, random.Random(8))
