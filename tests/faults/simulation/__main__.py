"""`python -m tests.faults.simulation --seeds N` plays N histories; `--seed S` shows one."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.faults.simulation.many import played, replayed


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation")
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="play this one and print its history")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        holds, told = replayed(chosen.seed)
        print(told)
        return not holds
    began = time.monotonic()
    workers = os.cpu_count() or 1
    size = -(-chosen.seeds // (workers * 50))
    parts = [
        range(at, min(at + size, chosen.first + chosen.seeds))
        for at in range(chosen.first, chosen.first + chosen.seeds, size)
    ]
    total: Counter[str] = Counter()
    with ProcessPoolExecutor(workers, initializer=plain) as pool:
        for part in as_completed([pool.submit(played, each) for each in parts]):
            broken, told, kinds = part.result()
            total.update(kinds)
            if broken is not None:
                print(told)
                print(f"seed {broken} broke an invariant; replay: make simulate SEED={broken}")
                pool.shutdown(cancel_futures=True)
                return 1
    print(f"{total.pop('histories')} histories in {time.monotonic() - began:.1f} s")
    print(", ".join(f"{count} {kind}" for kind, count in sorted(total.items())))
    return 0


def plain() -> None:
    """Few variables: the agent copies its environment for each session."""
    for name in os.environ.keys() - {"PATH", "HOME", "LANG"}:
        del os.environ[name]


if __name__ == "__main__":
    sys.exit(main())
