"""Progress at the bottom of a terminal, log lines above it; plain lines where there is none.

The drawing library is imported when the first bar is drawn, which most commands never reach.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from orchestrator import outlet, sanitize
from orchestrator.clock import span_words
from orchestrator.tables import Style, clip, width_of

_REDRAW = 0.125  # seconds between two drawings of a bar
_PLAIN_EVERY = 30.0  # seconds between two lines where nothing can be redrawn
_LONGEST_HELD = 65536  # characters of an unfinished log line kept back while a bar stands below it
_ERASE = "\r\x1b[K"


class FollowProgress:
    """A followed run: `log` is its output, `update` moves the bar. Use it in a `with`.

    On a terminal that can write over itself the bar is the last line, on `bar`; elsewhere a plain
    line goes there at most every 30 s. The log goes to `out`, made safe by the caller, and not a
    character of it is changed, delayed past the end, or lost.
    """

    def __init__(
        self, out: TextIO, bar: TextIO, style: Style, monotonic: Callable[[], float]
    ) -> None:
        self._out, self._bar, self._style, self._monotonic = out, bar, style, monotonic
        self._held = ""
        self.at_line_start = True  # whether the log written so far ends its line
        self._told: tuple[float | None, str, float | None] | None = None
        self._standing = False
        self._drawn_at: float | None = None

    def __enter__(self) -> FollowProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def log(self, text: str) -> None:
        """The next piece of the log, cut anywhere."""
        if not self._style.redraws or self._told is None:
            self._write(text)
            return
        text = self._held + text
        whole = text.rfind("\n") + 1
        if len(text) - whole > _LONGEST_HELD:
            whole = len(text)
        self._held = text[whole:]
        if whole:
            self._erase()
            self._write(text[:whole])
            self._draw()

    def update(self, fraction: float | None, phase: str = "", eta: float | None = None) -> None:
        """`fraction` in [0, 1] or None when not known; `eta` in seconds."""
        self._told = (fraction, phase, eta)
        if self._style.redraws:
            self._draw()
        elif self._due(_PLAIN_EVERY):
            self._bar.write(_words(self._told) + "\n")
            self._bar.flush()

    def interrupt(self) -> None:
        """Make room for a line of somebody else's below the log.

        Where both streams are one, an unfinished line of the log is ended on `bar`: `out` gets no
        byte that is not the log's.
        """
        self._erase()
        if not self.at_line_start and _is_one(self._out, self._bar):
            self._bar.write("\n")
            self._bar.flush()
            self.at_line_start = True

    def close(self) -> None:
        """The bar is gone and the log whole."""
        self._erase()
        if self._held:
            held, self._held = self._held, ""
            self._write(held)
        self._told = None

    def _write(self, text: str) -> None:
        if text:
            with outlet.to_stdout():
                self._out.write(text)
                self._out.flush()
            self.at_line_start = text.endswith("\n")

    def _erase(self) -> None:
        if self._standing:
            self._bar.write(_ERASE)
            self._bar.flush()
            self._standing = False

    def _draw(self) -> None:
        # Below an unfinished line there is no place of the bar's own.
        if self._told is None or not self._style.redraws or not self.at_line_start:
            return
        if not self._standing or self._due(_REDRAW):
            self._bar.write(_ERASE + bar_line(*self._told, self._style))
            self._bar.flush()
            self._standing = True

    def _due(self, every: float) -> bool:
        now = self._monotonic()
        if self._drawn_at is not None and now - self._drawn_at < every:
            return False
        self._drawn_at = now
        return True


def _is_one(out: TextIO, bar: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(out.fileno()), os.fstat(bar.fileno()))
    except (OSError, ValueError):
        return False


def bar_line(fraction: float | None, phase: str, eta: float | None, style: Style) -> str:
    """One line that never wraps, not even with the ^C of an interrupt behind it; no line feed."""
    width = (style.width or 80) - 3
    words = clip(_words((fraction, phase, eta)), width)
    room = min(40, width - width_of(words) - 1)
    if fraction is None or room < 8:
        return words
    return f"{_drawn(fraction, room, style)} {words}"


def _drawn(fraction: float, room: int, style: Style) -> str:
    from rich.console import Console
    from rich.progress_bar import ProgressBar

    console = Console(
        force_terminal=style.colour,
        color_system="standard" if style.colour else None,
        no_color=not style.colour,
        width=room,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(ProgressBar(total=1.0, completed=_share(fraction), width=room), end="")
    return captured.get().replace("\n", "")


def _words(told: tuple[float | None, str, float | None]) -> str:
    fraction, phase, eta = told
    parts = [sanitize.line(phase)] if phase else []
    if fraction is not None:
        parts.append(f"{_share(fraction) * 100:.0f} %")
    if eta is not None and 0 <= eta < 1e8:
        parts.append(f"{span_words(eta)} left")
    return ", ".join(parts) or "running"


def _share(fraction: float) -> float:
    return min(1.0, max(0.0, fraction)) if fraction == fraction else 0.0
