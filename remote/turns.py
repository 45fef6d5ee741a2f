"""Whose turn it is when a GPU gets free: first come, first served.

Who wants GPUs draws a ticket, a file named after the moment, and holds its lock for as long as it
waits: the ticket of one that was killed counts no more.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Dict, Iterator, Sequence, Set

from remote import files, gpu
from remote.layout import Layout

PREFIX = "turn-"


class Turn:
    """A ticket: up to `most` GPUs with `memory` free bytes, `shared` with others or not."""

    def __init__(self, layout: Layout, run_id: str, **want: Any) -> None:
        drawn = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._layout = layout
        self._path = layout.lock("%s%020d-%s" % (PREFIX, drawn, run_id))
        self._held = files.lock(self._path)
        files.note(self._held, json.dumps(want))

    def kept(self, cards: Sequence[gpu.Gpu]) -> Set[str]:
        """The uuids of free cards that those who came earlier would take, or are gathering."""
        kept: Set[str] = set()
        for want in self._earlier():
            good = [card for card in cards if card.uuid not in kept and self._suits(card, want)]
            kept.update(card.uuid for card in good[: int(want["most"])])
        return kept

    def _earlier(self) -> Iterator[Dict[str, Any]]:
        folder, own = os.path.split(self._path)
        start = own[: own.index(PREFIX) + len(PREFIX)]
        for name in sorted(os.listdir(folder)):
            if name.startswith(start) and name < own:
                path = os.path.join(folder, name)
                want = files.read_json(path)
                if want is not None and files.is_locked(path):
                    yield want

    def _suits(self, card: gpu.Gpu, want: Dict[str, Any]) -> bool:
        free = gpu.why_not_free(card, want.get("memory"), bool(want.get("shared"))) is None
        return free and gpu.holder(self._layout, card) is None

    def close(self) -> None:
        files.remove(self._path)
        os.close(self._held)
