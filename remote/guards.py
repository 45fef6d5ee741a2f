"""Guards: rules that a run must keep while it goes on, looked at by its supervisor alone.

Those over metrics are in `metricguards`; here are those over time, GPUs and disks, and all of a
run's guards together. Nothing here acts: the supervisor does. A guard fires when its rule is first
broken and, where the trouble can pass, again only after it had passed.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from remote import events, files, gpu
from remote.layout import RunFiles
from remote.metricguards import Finite, Guard, Predictions, Range, Spec, Stalled, Trouble, value_of
from remote.series import LINE_MAX, Series

EVERY = 2.0  # seconds between two looks
DISK_EVERY = 10.0
IDLE_BELOW = 5.0  # per cent that a GPU is busy, unless the spec says another
FIRINGS_MAX = 5  # of one guard in one run


class Firing(NamedTuple):
    action: str  # warn | stop | kill
    grace: float  # seconds between TERM and KILL
    message: str
    evidence: Dict[str, Any]
    guard: Spec


class Silence(Guard):
    """`log: idle`: log and metrics keep growing. `log: first`: something comes at all."""

    def __init__(self, spec: Spec, sizes: Callable[[], Tuple[int, int]], now: float) -> None:
        super().__init__(spec)
        self.sizes = sizes
        self.begun = self.since = now
        self.known = sizes()

    def look(self, now: float) -> Optional[Trouble]:
        sizes = self.sizes()
        first = self.spec["log"] == "first"
        if sizes != self.known:
            self.known, self.since = sizes, now
            if first:
                self.begun = math.inf
        silent = now - (self.begun if first else self.since)
        if silent < float(self.spec["after"]):
            return None
        words = "no first output after %.0f s" if first else "no output for %.0f s"
        return words % silent, {"seconds": round(silent), "log_bytes": sizes[0]}


class IdleGpu(Guard):
    """The run's GPUs do something."""

    def __init__(self, spec: Spec, cards: List[gpu.Gpu], now: float) -> None:
        super().__init__(spec)
        self.uuids = {card.uuid for card in cards}
        self.smi = gpu.Smi()
        self.after = float(spec["after"])
        self.below = IDLE_BELOW if spec.get("below") is None else float(spec["below"])
        self.every = max(5.0, min(60.0, self.after / 5.0))
        self.due = now + self.every
        self.since: Optional[float] = None
        self.last: Optional[Trouble] = None

    def look(self, now: float) -> Optional[Trouble]:
        if self.uuids and now >= self.due:
            self.due = now + self.every
            self.last = self._judge(now, self._busy())
        return self.last

    def _judge(self, now: float, busy: Optional[int]) -> Optional[Trouble]:
        if busy is None or busy > self.below:
            self.since = None
            return None
        self.since = now if self.since is None else self.since
        if now - self.since < self.after:
            return None
        span = now - self.since
        words = "its GPU has been idle for %.0f s: %d %% busy at most"
        return words % (span, busy), {"seconds": round(span), "utilization": busy}

    def _busy(self) -> Optional[int]:
        """Per cent of the busiest card; None where nvidia-smi does not tell."""
        try:
            cards = [card for card in self.smi.cards() if card.uuid in self.uuids]
        except gpu.NoAnswer:
            return None
        told = [card.utilization for card in cards if card.utilization is not None]
        return max(told) if told and len(told) == len(self.uuids) else None


class LowDisk(Guard):
    """So much is free where the run lies."""

    def __init__(self, spec: Spec, path: str) -> None:
        super().__init__(spec)
        self.path = path
        self.due = 0.0
        self.last: Optional[Trouble] = None

    def look(self, now: float) -> Optional[Trouble]:
        if now >= self.due:
            self.due = now + DISK_EVERY
            self.last = self._judge()
        return self.last

    def _judge(self) -> Optional[Trouble]:
        try:
            free = files.free_bytes(self.path)
        except OSError:
            return None
        if free >= int(self.spec["free"]):
            return None
        words = "%d MB are free where the run lies, less than %d MB"
        return words % (free >> 20, int(self.spec["free"]) >> 20), {"free": free}


class Guards:
    """All guards of a run from its job's start on."""

    def __init__(self, run: RunFiles, specs: List[Spec], cards: List[gpu.Gpu]) -> None:
        self.run = run
        self.series = Series(run)
        now = time.monotonic()
        self.due = now + EVERY
        self.lines = 0
        self.guards = [self._made(spec, cards, now) for spec in specs]
        self.fired = [0] * len(specs)
        self.reads = any("metric" in spec or "predictions" in spec for spec in specs)
        self.troubled = [False] * len(specs)
        self._recall(specs)

    def _recall(self, specs: List[Spec]) -> None:
        """What fired in this attempt under an earlier supervisor is known already."""
        for event in events.read(self.run):
            if event.get("attempt") == self.run.attempt and event.get("guard") in specs:
                at = specs.index(event["guard"])
                self.troubled[at] = True
                self.fired[at] += 1

    def _made(self, spec: Spec, cards: List[gpu.Gpu], now: float) -> Guard:
        if "log" in spec:
            return Silence(spec, self._sizes, now)
        if "gpu" in spec:
            return IdleGpu(spec, cards, now)
        if "disk" in spec:
            return LowDisk(spec, self.run.path)
        if "predictions" in spec:
            return Predictions(spec)
        if spec.get("rule") == "finite":
            return Finite(spec)
        return Stalled(spec) if "steps" in spec or "seconds" in spec else Range(spec)

    def _sizes(self) -> Tuple[int, int]:
        try:
            return os.stat(self.run.log).st_size, self.series.size
        except OSError:
            return 0, self.series.size

    def look(self, looks: Optional[int] = None) -> List[Firing]:
        """What fired since the last look; the next one is due at `self.due` (monotonic)."""
        now = time.monotonic()
        found: List[Firing] = []

        def take(record: Dict[str, Any]) -> None:
            self.lines += 1
            told = value_of(record, "step")
            step = told if told is not None and math.isfinite(told) else float(self.lines)
            for at, guard in enumerate(self.guards):
                self._note(at, guard.take(record, step, now), False, found)

        more = False
        if self.reads:
            before = self.series.overlong
            more = self.series.read(take, looks) if looks else self.series.read(take)
            if self.series.overlong and not before:
                found.append(_overlong())
        else:
            self.series.measure()
        for at, guard in enumerate(self.guards):
            passing = isinstance(guard, (Silence, IdleGpu, LowDisk))
            self._note(at, guard.look(now), passing, found)
        self.due = now + (0.05 if more else EVERY)
        return found

    def said(self) -> None:
        """The log grew by the supervisor's own words: that is no output of the job."""
        for guard in self.guards:
            if isinstance(guard, Silence):
                guard.known = self._sizes()

    def _note(
        self, at: int, trouble: Optional[Trouble], passing: bool, found: List[Firing]
    ) -> None:
        if trouble is None:
            self.troubled[at] = self.troubled[at] and not passing
            return
        if self.troubled[at] or self.fired[at] >= FIRINGS_MAX:
            return
        self.troubled[at] = True
        self.fired[at] += 1
        spec = self.guards[at].spec
        action, grace = str(spec.get("action") or "warn"), float(spec.get("grace") or 0)
        found.append(Firing(action, grace, trouble[0], trouble[1], spec))


def _overlong() -> Firing:
    """What a guard did not see is told, once: it might have been the line that mattered."""
    words = "a line of metrics.jsonl is longer than %d MiB: the guards pass such lines over"
    return Firing("warn", 0.0, words % (LINE_MAX >> 20), {}, {"metrics": "overlong"})
