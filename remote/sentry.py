"""A run's guards at their post: what fires is written down and told, and may end the run."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from remote import events, gpu, status
from remote.causes import End
from remote.guards import Guards
from remote.layout import RunFiles
from remote.voice import Voice

LAST_LOOK = 256  # pieces of metrics.jsonl, 64 MiB: what a job wrote just before its end
NEVER = float("inf")


class Sentry:
    """Of one attempt. `due` is when to look next, in seconds of the monotonic clock."""

    def __init__(
        self, run: RunFiles, rules: List[Dict[str, Any]], cards: List[gpu.Gpu], voice: Voice
    ) -> None:
        self._run = run
        self._voice = voice
        self._guards = Guards(run, rules, cards)
        self.due = self._guards.due

    def look(self, ended: bool = False) -> Optional[Tuple[End, float]]:
        """The end of a run that a guard ends, and the seconds of grace before its processes are
        killed. A job that has `ended` is only told of."""
        if self.due == NEVER:
            return None
        try:
            fired = self._guards.look(LAST_LOOK if ended else None)
        except Exception as exc:  # a guard that fails must not cost the run its owner
            self._voice.say("the guards failed and are off: %s: %s" % (type(exc).__name__, exc))
            self.due = NEVER
            return None
        self.due = self._guards.due
        ending = None
        for firing in fired:
            acts = firing.action != "warn" and not ended and ending is None
            text = firing.message
            if acts:
                reason = "a guard ended it (%s): %s" % (firing.action, text)
                ending = End("killed", "guard", reasons=(reason,)), firing.grace
            about = {"action": firing.action, "acted": acts, "evidence": firing.evidence}
            about["attempt"] = self._run.attempt
            events.append(self._run, status.now(), "guard", text, guard=firing.guard, **about)
            self._voice.say("guard (%s): %s" % (firing.action if acts else "warn", text))
            self._voice.notify(self._run, "guard", text)
        self._guards.said()
        return ending
