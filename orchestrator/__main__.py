"""The entry point: `orch` and `python -m orchestrator`."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line. Ctrl-C while it is still being imported leaves at once, quietly."""
    signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(130))
    from orchestrator.cli import main as run

    run()


if __name__ == "__main__":
    main()
