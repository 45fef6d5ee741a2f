"""A screen of the terminal's own that is drawn again and again, and the keys typed at it."""

from __future__ import annotations

import os
import select
import sys
from types import TracebackType

from orchestrator.tables import Style, style_of


class Screen:
    """Use in a `with`: afterwards the terminal is as it was, whatever happened."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=sys.stdout, legacy_windows=False)
        self._live = Live(console=self._console, screen=True, auto_refresh=False)
        self._before: list[object] | None = None

    def __enter__(self) -> Screen:
        import termios
        import tty

        if sys.stdin.isatty():
            self._before = termios.tcgetattr(sys.stdin.fileno())
            tty.setcbreak(sys.stdin.fileno())
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import termios

        self._live.stop()
        if self._before is not None:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)  # type: ignore[arg-type]

    @property
    def style(self) -> Style:
        return style_of(sys.stdout, os.environ)

    @property
    def height(self) -> int:
        return self._console.size.height

    def draw(self, text: str) -> None:
        """`text`, made safe by its maker, is what the screen shows."""
        from rich.text import Text

        drawn = Text.from_ansi(text.rstrip("\n"), no_wrap=True, overflow="crop", end="")
        self._live.update(drawn, refresh=True)

    def key(self, seconds: float) -> str:
        """The key typed within `seconds`, or nothing."""
        ready, _, _ = select.select([sys.stdin] if self._before else [], [], [], seconds)
        return os.read(sys.stdin.fileno(), 1).decode("latin-1") if ready else ""
