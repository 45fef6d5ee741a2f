"""How surprising a number of hits is, and how sure a share. Pure; no array library."""

from __future__ import annotations

import math

EXACT_UP_TO = 10_000_000  # trials; beyond, the normal curve differs by less than it matters

_Z95 = 1.959963984540054


def upper_tail(hits: int, trials: int, chance: float) -> float:
    """P(X >= hits) for X ~ Binomial(trials, chance), in [0, 1].

    Exact by summing the terms outward from `hits`, away from the mean, so that each is smaller than
    the one before and the sum ends when a term no longer counts. Up to EXACT_UP_TO trials.
    """
    if hits <= 0 or chance >= 1.0:
        return 1.0
    if hits > trials or chance <= 0.0:
        return 0.0
    if trials > EXACT_UP_TO:
        spread = math.sqrt(2.0 * trials * chance * (1.0 - chance))
        return 0.5 * math.erfc((hits - 0.5 - trials * chance) / spread)
    odds = chance / (1.0 - chance)
    if hits > trials * chance:
        return min(1.0, _sum_up(hits, trials, chance, odds))
    return max(0.0, 1.0 - _sum_down(hits - 1, trials, chance, odds))


def _sum_up(hits: int, trials: int, chance: float, odds: float) -> float:
    term = total = _term(hits, trials, chance)
    while hits < trials and term > total * 1e-17:
        term *= (trials - hits) / (hits + 1) * odds
        hits += 1
        total += term
    return total


def _sum_down(hits: int, trials: int, chance: float, odds: float) -> float:
    term = total = _term(hits, trials, chance)
    while hits > 0 and term > total * 1e-17:
        term *= hits / (trials - hits + 1) / odds
        hits -= 1
        total += term
    return total


def _term(hits: int, trials: int, chance: float) -> float:
    """P(X = hits); the logarithms keep factorials of large numbers in range."""
    ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return math.exp(ways + hits * math.log(chance) + (trials - hits) * math.log1p(-chance))


def wilson(share: float, trials: int) -> tuple[float, float]:
    """Wilson's score interval at 95 % for a share of `trials`, within [0, 1] (Wilson 1927)."""
    z2 = _Z95 * _Z95 / trials
    middle = (share + z2 / 2.0) / (1.0 + z2)
    half = _Z95 / (1.0 + z2) * math.sqrt(share * (1.0 - share) / trials + z2 / (4.0 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(ours: float, n: int, theirs: float, m: int) -> tuple[float, float]:
    """95 % interval of `ours - theirs`, shares of n and of m other examples (Newcombe 1998, 10)."""
    low, high = wilson(ours, n)
    their_low, their_high = wilson(theirs, m)
    middle = ours - theirs
    down = math.hypot(ours - low, their_high - theirs)
    return middle - down, middle + math.hypot(high - ours, theirs - their_low)
