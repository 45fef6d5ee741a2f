"""Many logs on one terminal: whole lines, each behind its run's name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orchestrator import outlet, output, render, sanitize, tables
from orchestrator.domain import Run

LONGEST = 65536  # bytes of a line that are held back until its end comes


class ManyLogs:
    """Lines of several logs, never mixed; a longer one is shown in pieces that end with `\\`."""

    def __init__(self, runs: Sequence[Run], raw: bool) -> None:
        names = {run.run_id: f"{run.job} {run.run_id[-5:]}" for run in runs}
        width = max(map(tables.width_of, names.values()))
        self._labels = {
            run_id: name + " " * (width - tables.width_of(name)) + " | "
            for run_id, name in names.items()
        }
        self._logs = {run_id: _Lines(raw) for run_id in names}

    def log(self, run_id: str, data: bytes) -> None:
        self._show(run_id, self._logs[run_id].feed(data))

    def marker(self, run_id: str, text: str) -> None:
        self._show(run_id, self._logs[run_id].rest())
        self._show(run_id, [f"[orch] {sanitize.line(text)}".encode()])

    def ended(self, run: Run) -> None:
        """What was held back is shown; then how the run ended, if it did."""
        self._show(run.run_id, self._logs[run.run_id].rest())
        if not run.state.is_open:
            render.say(output.ended_line(run))

    def notice(self, text: str) -> None:
        render.say(f"orch: {text}")

    def look(self) -> None:
        outlet.look()

    def close(self) -> None:
        for run_id, lines in self._logs.items():
            self._show(run_id, lines.rest())

    def _show(self, run_id: str, lines: Sequence[bytes]) -> None:
        label = self._labels[run_id].encode()
        out = b"".join(label + line + b"\n" for line in lines)
        if out:
            with outlet.to_stdout():
                sys.stdout.buffer.write(out)
                sys.stdout.buffer.flush()


class _Lines:
    """One log cut into lines; at most LONGEST bytes of an unfinished one are kept."""

    def __init__(self, raw: bool) -> None:
        self._sanitizer = None if raw else sanitize.LogSanitizer()
        self._held = b""

    def feed(self, data: bytes) -> list[bytes]:
        text = data if self._sanitizer is None else self._sanitizer.feed(data).encode()
        *whole, self._held = (self._held + text).split(b"\n")
        pieces = [piece for line in whole for piece in _pieces(line)]
        *full, self._held = _pieces(self._held)
        return pieces + full

    def rest(self) -> list[bytes]:
        held, self._held = self._held, b""
        return [held] if held else []


def _pieces(line: bytes) -> list[bytes]:
    """The line in pieces of at most LONGEST bytes, cut between characters; the last has no mark."""
    pieces = []
    begin = 0
    while len(line) - begin > LONGEST:
        end = begin + LONGEST
        while end > begin + LONGEST - 4 and line[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(line[begin:end] + b"\\")
        begin = end
    return [*pieces, line[begin:]]
