"""The process's edge: prose on stderr, exit codes, and no traceback for a user."""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

import typer

from orchestrator import outlet
from orchestrator.errors import OrchError, UsageError

if TYPE_CHECKING:
    from orchestrator.usecases.context import Context

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130
STDOUT_CLOSED = 141
INTERNAL = 70  # EX_SOFTWARE of sysexits.h; 1 would be a run's bad end


def context() -> Context:
    from orchestrator.clock import SystemClock
    from orchestrator.usecases.context import Context

    try:
        cwd = Path.cwd()
    except FileNotFoundError:
        raise UsageError(
            "the folder this was called in does not exist any more", hint="cd to one that does"
        ) from None
    return Context(env=dict(os.environ), cwd=cwd, clock=SystemClock(), say=say)


def say(text: str) -> None:
    """A line of prose on stderr, safe for a terminal; a closed stderr is no error."""
    from orchestrator import sanitize

    try:
        sys.stderr.write(sanitize.text(text) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def tell(error: OrchError) -> None:
    """The error in a sentence, and its next step on a line of its own."""
    say(f"orch: {error.message}")
    if error.hint:
        say(f"      {error.hint}")


def ask(question: str) -> bool:
    """A yes on a terminal; without one the answer is no."""
    if not sys.stdin.isatty():
        say(f"{question} [no terminal to ask on: no; `--yes` pins it]")
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def fail_softly(command: Callable[P, R]) -> Callable[P, R]:
    """Errors become a sentence, its next step, and the exit code of their kind."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except OrchError as exc:
            tell(exc)
            raise typer.Exit(exc.exit_code) from None
        except KeyboardInterrupt:
            say("orch: interrupted; `orch ls` shows what is recorded")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise typer.Exit(STDOUT_CLOSED) from None
        except OSError as exc:
            say(f"orch: {_os_words(exc)}")
            say("      nothing else is known of it; `orch ls` shows what is recorded")
            raise typer.Exit(OrchError.exit_code) from None

    return run


def _os_words(exc: OSError) -> str:
    name = os.fsdecode(exc.filename) if isinstance(exc.filename, bytes) else exc.filename
    return f"{name or 'a system call'}: {exc.strerror or exc}"


def run_main(app: typer.Typer) -> NoReturn:
    """Run and leave at once: connections and threads need no farewell, the ledger is closed."""
    code = 0
    outlet.open_streams()
    # In a C locale python takes a note's letters for bytes it cannot read.
    sys.argv = [os.fsencode(word).decode("utf-8", "surrogateescape") for word in sys.argv]
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        app(prog_name="orch")
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else OrchError.exit_code
        if isinstance(exc.__context__, BrokenPipeError):  # typer's own answer to one is 1
            code = STDOUT_CLOSED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = STDOUT_CLOSED
    except OSError as exc:  # outside of a command only help and completions are printed
        say(f"orch: stdout could not be written: {_os_words(exc)}")
        code = STDOUT_CLOSED
    except Exception as exc:  # a fault of orch itself: still no traceback unless asked for
        if os.environ.get("ORCH_DEBUG"):
            traceback.print_exc()
        say(f"orch: internal error: {type(exc).__name__}: {exc}")
        say("      set ORCH_DEBUG=1 to see where; nothing on any host was changed by the failure")
        code = INTERNAL
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        code = code or STDOUT_CLOSED
    os._exit(code)
