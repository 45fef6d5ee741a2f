"""Commands that show what goes on now: gpus, top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from orchestrator import complete
from orchestrator.commands.arguments import Json
from orchestrator.console import INTERRUPTED, context, fail_softly
from orchestrator.errors import shared_code

if TYPE_CHECKING:
    from orchestrator.usecases.board import Board
    from orchestrator.usecases.context import Context

TICK = 0.2  # seconds a key waits at most


@fail_softly
def gpus(
    hosts: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            help="Hosts; nothing: `local` and those of orch.yaml, config.yaml, ORCH_HOST and open "
            "runs.",
            autocompletion=complete.hosts,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """The hosts' GPUs, and who computes on each."""
    from orchestrator import boardtext, output, render
    from orchestrator.usecases.board import Board

    ctx = context()
    board = Board(ctx, hosts or [], runs=False)
    board.look()
    if json:
        output.document(boardtext.gpus_document(board.places))
    else:
        render.emit(boardtext.gpus_text(board.places, output.STDOUT))
    _tell_silent(ctx, board)


def _tell_silent(ctx: Context, board: Board) -> None:
    """What to do about the hosts that somebody named and that gave no answer."""
    for error in board.errors:
        if error.hint:
            ctx.say(error.hint)
    if board.errors:
        raise typer.Exit(shared_code(board.errors))


@fail_softly
def top(
    interval: Annotated[
        float, typer.Option("--interval", min=0.5, help="Seconds between two looks.")
    ] = 2.0,
    host: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--host", help="Only this host.", autocompletion=complete.hosts),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print it once, and leave.")] = False,
    json: Json = False,
) -> None:
    """A live screen of open runs, GPUs and what ended lately. q or Ctrl-C leaves.

    Without a terminal, and where TERM is dumb, it is printed once.
    """
    from orchestrator import boardtext, output, render
    from orchestrator.usecases.board import Board

    ctx = context()
    board = Board(ctx, host or [])
    if not json and not once and output.STDOUT.redraws:
        try:
            _live(ctx, board, interval)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        return
    board.look()
    if json:
        output.document(boardtext.board_document(board))
    else:
        render.emit(boardtext.board_text(board, ctx.clock.now(), output.STDOUT))
    _tell_silent(ctx, board)


def _live(ctx: Context, board: Board, interval: float) -> None:
    from orchestrator import boardtext
    from orchestrator.screen import Screen

    asked = drawn = float("-inf")
    with Screen() as screen:
        while True:
            now = ctx.clock.monotonic()
            if now - asked >= interval:
                board.ask()
                asked = now
            if board.hear(0.0) or now - drawn >= 1.0:
                text = boardtext.board_text(board, ctx.clock.now(), screen.style, screen.height)
                screen.draw(text)
                drawn = now
            if screen.key(TICK) in ("q", "Q"):
                return
