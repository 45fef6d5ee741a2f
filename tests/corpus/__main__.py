"""Measures the checks: every mistake and every healthy run of the corpus, run for real.

python -m tests.corpus                     the table, on stdout
python -m tests.corpus --write docs/checks.md
python -m tests.corpus --only NAME         cases whose name holds NAME
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.corpus.desk import Case, Seen, look
from tests.corpus.healthy import HEALTHY
from tests.corpus.mistakes import MISTAKES

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
WHEN = ("check", "canary", "during", "after")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.corpus")
    parser.add_argument("--write", type=Path, help="put the table into this file")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--jobs", type=int, default=3, help="cases at a time")
    args = parser.parse_args()
    mistakes = [case for case in MISTAKES if args.only in case.name]
    healthy = [case for case in HEALTHY if args.only in case.name]
    seen = measure([*mistakes, *healthy], args.jobs)
    text = table(mistakes, healthy, seen)
    print(text)
    if args.write:
        page = args.write.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        args.write.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")
    missed = [case for case in mistakes if not seen[case.name].when]
    alarms = [case for case in healthy if is_alarm(seen[case.name])]
    return 1 if alarms or len(missed) > 0.05 * len(mistakes) else 0


def measure(cases: list[Case], jobs: int) -> dict[str, Seen]:
    def one(case: Case) -> tuple[str, Seen]:
        folder = Path(tempfile.mkdtemp(prefix="orch-corpus-"))
        try:
            found = look(folder, case)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{found.when or '-':<8}{case.name}: {found.by}", file=sys.stderr, flush=True)
        return case.name, found

    with ThreadPoolExecutor(jobs) as pool:
        return dict(pool.map(one, cases))


def is_alarm(seen: Seen) -> bool:
    return bool(seen.when or seen.warnings)


def table(mistakes: list[Case], healthy: list[Case], seen: dict[str, Seen]) -> str:
    caught = [case for case in mistakes if seen[case.name].when]
    counts = {when: sum(seen[c.name].when == when for c in mistakes) for when in WHEN}
    alarms = [case for case in healthy if is_alarm(seen[case.name])]
    lines = [
        f"{len(caught)} of {len(mistakes)} mistakes were caught: {counts['check']} before anything "
        f"was started, {counts['canary']} by the canary, {counts['during']} by a guard, "
        f"{counts['after']} by verdict or outcome. Of {len(healthy)} healthy runs {len(alarms)} "
        "gave an alarm.",
        "",
        "| mistake | caught | by |",
        "|---|---|---|",
        *(
            _row(case, seen[case.name].when or "**missed**", seen[case.name].by)
            for case in mistakes
        ),
        "",
        "| healthy run | alarm | accuracy |",
        "|---|---|---|",
        *(_row(case, _alarm(seen[case.name]), seen[case.name].by) for case in healthy),
    ]
    return "\n".join(lines) + "\n"


def _row(case: Case, *cells: str) -> str:
    return "| " + " | ".join([case.name, *cells]) + " |"


def _alarm(seen: Seen) -> str:
    return "; ".join([*([seen.when] if seen.when else []), *seen.warnings]) or "none"


if __name__ == "__main__":
    sys.exit(main())
