"""A seeded source of two-class film remarks whose best possible accuracy is known exactly.

How a text is made. Draw the label c (0 or 1, each 1/2) and the number of votes m (from
`vote_counts`, uniformly). Write m voting clauses; before each one, with probability
`filler_share`, a filler clause that says nothing. Join the clauses with words drawn uniformly.
A voting clause votes v = c with probability `agreement` = p, else v = 1 - c, independently, and
says v in one of two ways, chosen with probability 1 - `order_share` and `order_share`:

  by a word     "the NOUN is ADJ"                 ADJ from `good` if v = 1, from `bad` if v = 0
  by word order "the NOUN feels ADJ but ADJ"      one of each; the last one is good iff v = 1

Nouns, adjectives, fillers and joiners are uniform and do not depend on c. The second form uses the
same words with the same frequencies in both classes: only their order speaks, so a bag of words
cannot see it.

The best possible accuracy. Everything but the votes cancels in p(text | 1) / p(text | 0), and each
vote multiplies it by r = p / (1 - p) or by 1 / r. With s votes for class 1 out of m the posterior
log-odds are (2 s - m) log r: the Bayes classifier is the majority of the votes, a tie being a coin.
A vote is right with probability p, so its accuracy is

  sum_m P(m) [ P(Binomial(m, p) > m / 2) + P(Binomial(m, p) = m / 2) / 2 ],

a finite sum (`bayes_accuracy`). No classifier does better on average; on one finite test set the
Bayes classifier itself (`log_odds` > 0) scores that value up to sampling error, so both are given.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

LABELS = ("negative", "positive")


@dataclass(frozen=True, slots=True)
class Grammar:
    """Word lists and probabilities; no word of one list may be in another."""

    nouns: tuple[str, ...] = tuple(
        "plot cast script ending humour pacing score dialogue camera story mood editing".split()
    )
    good: tuple[str, ...] = tuple(
        "fresh moving clever warm gripping funny honest vivid subtle charming".split()
    )
    bad: tuple[str, ...] = tuple(
        "stale dull clumsy cold tedious silly hollow murky loud shallow".split()
    )
    fillers: tuple[str, ...] = (
        "i saw it on a friday",
        "it runs two hours",
        "a friend came along",
        "this one had subtitles",
    )
    joiners: tuple[str, ...] = (",", "and", "while", ";")
    vote_counts: tuple[int, ...] = (3, 5)
    agreement: float = 0.84
    order_share: float = 0.5
    filler_share: float = 0.2


def generate(
    grammar: Grammar, count: int, rng: random.Random
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """`count` texts and their labels, drawn as the module's docstring says."""
    labels = tuple(rng.randrange(2) for _ in range(count))
    return tuple(_text(grammar, label, rng) for label in labels), labels


def bayes_accuracy(grammar: Grammar) -> float:
    """The expected accuracy of the best classifier there can be, exactly."""
    p = grammar.agreement
    total = 0.0
    for m in grammar.vote_counts:
        for right in range(m + 1):
            mass = math.comb(m, right) * p**right * (1 - p) ** (m - right)
            total += mass * (1.0 if 2 * right > m else 0.5 if 2 * right == m else 0.0)
    return total / len(grammar.vote_counts)


def log_odds(grammar: Grammar, text: str) -> float:
    """log p(positive | text) - log p(negative | text), exactly. Source: the derivation above."""
    votes = votes_of(grammar, text)
    ratio = math.log(grammar.agreement / (1 - grammar.agreement))
    return ratio * (2 * sum(votes) - len(votes))


def votes_of(grammar: Grammar, text: str) -> list[int]:
    """The votes of a generated text, read from its words alone; ValueError for any other text."""
    clauses: list[list[str]] = [[]]
    for word in text.removesuffix(" .").split():
        if word in grammar.joiners:
            clauses.append([])
        else:
            clauses[-1].append(word)
    votes = [_vote(grammar, words) for words in clauses]
    return [vote for vote in votes if vote is not None]


def _vote(grammar: Grammar, words: list[str]) -> int | None:
    """Of a clause; None: it is a filler."""
    match words:
        case ["the", noun, "is", adjective] if noun in grammar.nouns:
            return _pole(grammar, adjective)
        case ["the", noun, "feels", first, "but", last] if noun in grammar.nouns:
            if _pole(grammar, first) != _pole(grammar, last):
                return _pole(grammar, last)
    if " ".join(words) in grammar.fillers:
        return None
    raise ValueError(f"not a clause of this grammar: {' '.join(words)!r}")


def _pole(grammar: Grammar, adjective: str) -> int:
    if adjective not in grammar.good and adjective not in grammar.bad:
        raise ValueError(f"not an adjective of this grammar: {adjective!r}")
    return int(adjective in grammar.good)


def _text(grammar: Grammar, label: int, rng: random.Random) -> str:
    clauses = []
    for _ in range(rng.choice(grammar.vote_counts)):
        if rng.random() < grammar.filler_share:
            clauses.append(rng.choice(grammar.fillers))
        vote = label if rng.random() < grammar.agreement else 1 - label
        clauses.append(_voting_clause(grammar, vote, rng))
    text = clauses[0]
    for clause in clauses[1:]:
        text += f" {rng.choice(grammar.joiners)} {clause}"
    return f"{text} ."


def _voting_clause(grammar: Grammar, vote: int, rng: random.Random) -> str:
    noun = rng.choice(grammar.nouns)
    if rng.random() >= grammar.order_share:
        return f"the {noun} is {rng.choice(grammar.good if vote else grammar.bad)}"
    pair = (rng.choice(grammar.bad), rng.choice(grammar.good))
    first, last = pair if vote else pair[::-1]
    return f"the {noun} feels {first} but {last}"
