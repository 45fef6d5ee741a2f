"""A slow link as a process of its own, so that it does not share the interpreter with the clock.

    python -m tests.bench.delay TARGET_PORT DELAY_MS

prints the port it listens on and forwards until its stdin ends.
"""

from __future__ import annotations

import sys

from tests.helpers.proxy import Proxy


def main() -> None:
    target, delay = int(sys.argv[1]), float(sys.argv[2])
    with Proxy(("127.0.0.1", target), delay_ms=delay) as proxy:
        print(proxy.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
