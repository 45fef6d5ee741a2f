"""What a measurement is: pairs of times, facts with a limit, and the words for both."""

from __future__ import annotations

import enum
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.world import World


class Way(enum.Enum):
    """How far the host is."""

    LOCAL = "no host"
    LOOPBACK = "loopback"
    FAR = "50 ms each way"


@dataclass(frozen=True, slots=True)
class Pair:
    """Seconds of one turn: ours, then at once theirs."""

    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


@dataclass(frozen=True, slots=True)
class Compared:
    """A row's result on one way: its pairs, and the ratio it should not exceed (None: no goal)."""

    work: str
    against: str
    way: Way
    goal: float | None
    pairs: Sequence[Pair]

    @property
    def ratio(self) -> float:
        """The median of the pairs' own ratios: what the machine did to both cancels out."""
        return statistics.median(pair.ratio for pair in self.pairs)

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.ratio <= self.goal

    @property
    def ours(self) -> float:
        return statistics.median(pair.ours for pair in self.pairs)

    @property
    def theirs(self) -> float:
        return statistics.median(pair.theirs for pair in self.pairs)


@dataclass(frozen=True, slots=True)
class Fact:
    """One measured quantity and the most it may be (None: no goal)."""

    work: str
    value: float
    unit: str
    goal: float | None

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.value <= self.goal


Result = Compared | Fact


@dataclass(frozen=True, slots=True)
class Row:
    """A piece of work. `run(world, row, way, pairs)` measures it on one way."""

    name: str
    work: str
    against: str
    goals: Mapping[Way, float | None]
    run: Callable[[World, Row, Way, int], Sequence[Result]]
    includes: str = field(default="")

    def compared(self, way: Way, pairs: Sequence[Pair]) -> Compared:
        return Compared(self.work, self.against, way, self.goals[way], pairs)


def in_pairs(
    ours: Callable[[], float], theirs: Callable[[], float], count: int, *, warm: int = 1
) -> list[Pair]:
    """`count` turns of ours, theirs, after `warm` that are not counted."""
    turns = [Pair(ours(), theirs()) for _ in range(warm + count)]
    return turns[warm:]


def seconds_of(work: Callable[[], object]) -> float:
    """How long `work` took."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]
