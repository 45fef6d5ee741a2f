"""docs/results.md from runs in the ledger, and the runs that it still lacks.

    python -m jobs.results                                    render what was measured
    python -m jobs.results --run --data sst2 --profile cpu    submit what is missing first

Rows are runs with the tag results=DATA/PROFILE. Everything goes through the command `orch`: what
stands on the page came out of a ledger, with its config hash, and out of the fetched metrics. What
the page needs of each run is kept in docs/results/runs.json, so that ledgers of several machines
add up; of a row and seed the newest run counts. A run that was not judged on test, or whose result
is invalid, is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs import resultspage
from jobs.textdiff import files

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
# What a submit or a fetch may end with and still have told us something: 1, 7 are verdicts.
TOLD = (0, 1, 7)


@dataclass(frozen=True, slots=True)
class Row:
    job: str
    force: bool = False
    table: bool = False  # judged in eight more ways, which takes longer than an hour's training


ROWS = [
    Row("baselines"),
    Row("mdlm-pretrained", force=True, table=True),
    Row("mdlm-pretrained-fixed", table=True),
    Row("mdlm-conditional"),
    Row("simple-diffusion"),
    Row("gpt2"),
]
DATA = ("sst2", "imdb", "selfmade")
PROFILES = ("cpu", "cpu-hour", "cpu-imdb", "gpu")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.results", description=__doc__)
    parser.add_argument("--run", action="store_true", help="submit the rows that are missing")
    parser.add_argument("--again", action="store_true", help="also those that are there already")
    parser.add_argument("--host", default="local")
    parser.add_argument("--data", choices=DATA, default="sst2")
    parser.add_argument("--profile", choices=PROFILES, default="cpu")
    parser.add_argument("--seed", type=int, action="append", help="default 1; repeatable")
    parser.add_argument("--job", action="append", help="only these rows")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("more", nargs="*", help="after --: more arguments for `orch submit`")
    args = parser.parse_args(argv)
    for given in [*args.more, *(["--again"] if args.again else [])]:
        if not args.run:
            parser.error(f"{given}: only --run submits anything")
    folder = args.page.with_suffix("")
    kept = folder / "runs.json"
    if args.run:
        for seed in args.seed or [1]:
            for row in ROWS:
                if not args.job or row.job in args.job:
                    runs = [] if args.again else known(kept)
                    submit(row, args.data, args.profile, seed, args.host, runs, args.more)
    runs = known(kept)
    files.write_json(kept, {"runs": [asdict(run) for run in runs]})
    cost = _needed(folder / "cost.json") if (folder / "cost.json").is_file() else None
    files.write_text(args.page, resultspage.page(runs, cost))
    print(f"{args.page}: {len(runs)} runs", file=sys.stderr)
    return 0


def known(kept: Path) -> list[resultspage.Run]:
    """Of each row and seed the newest run, of those kept and those in this ledger."""
    before: list[resultspage.Run] = []
    if kept.is_file():
        try:
            before = [resultspage.Run(**run) for run in _needed(kept)["runs"]]
        except (TypeError, KeyError):
            raise SystemExit(f"error: {kept}: not the records that this command keeps") from None
    return newest(run for run in [*before, *measured()] if _counts(run))


def _counts(run: resultspage.Run) -> bool:
    """Whether it may stand on the page; what may not is told."""
    split = run.metrics.get("split", "test")
    if split != "test":
        return _left_out(run.run_id, f"it was judged on {split}, and the page is about test")
    if run.outcome == "invalid_result":
        return _left_out(run.run_id, "its result is invalid")
    return True


def _left_out(run_id: str, why: str) -> bool:
    print(f"left out: {run_id}: {why}", file=sys.stderr)
    return False


def newest(runs: Iterable[resultspage.Run]) -> list[resultspage.Run]:
    """One run for each job, tag and seed; ids sort by time."""
    found = {(run.job, run.tag, run.seed): run for run in sorted(runs, key=lambda r: r.run_id)}
    return [found[key] for key in sorted(found)]


def submit(
    row: Row,
    data: str,
    profile: str,
    seed: int,
    host: str,
    runs: Sequence[resultspage.Run],
    more: Sequence[str] = (),
) -> None:
    """The row's run is in the ledger with its results here, unless `runs` has one of its config."""
    tag = f"{data}/{profile}"
    settings = [f"data.name={data}", f"seed={seed}"]
    if row.table and profile == "cpu":
        settings.append("eval.table=true")
    argv = ["submit", row.job, "--profile", profile, "--host", host, "--tag", f"results={tag}"]
    argv += [part for setting in settings for part in ("--set", setting)]
    argv += [*(["--force"] if row.force else []), *more]
    wanted = json.loads(orch(*argv, "--dry-run", "--json"))["config_hash"]
    for run in runs:
        if (run.job, run.tag, run.seed, run.config_hash) == (row.job, tag, seed, wanted):
            there = f"{row.job} {tag} seed {seed}: there already, {run.run_id}"
            print(f"{there}; --again measures it anew", file=sys.stderr)
            return
    orch("fetch-results", orch(*argv, "-f").split()[0])


def measured() -> Iterator[resultspage.Run]:
    """The tagged runs that succeeded and whose metrics are here, oldest first."""
    for run in reversed(json.loads(orch("ls", "--json"))):
        tag = run["tags"].get("results")
        if tag is None or run["verdict"] != "succeeded" or not run["results_path"]:
            continue
        folder, config = Path(run["results_path"]), dict(run["config"])
        if not (folder / "metrics.json").is_file():
            continue
        try:
            found, facts = _read(folder / "metrics.json"), _facts(folder)
        except ValueError as error:
            _left_out(run["run_id"], str(error))
            continue
        lacking = _lacking(found | {"device": facts.get("device", found.get("device"))}, config)
        if lacking:
            _left_out(run["run_id"], f"it has no {lacking[0]}")
            continue
        yield resultspage.Run(
            run_id=run["run_id"],
            job=run["job"],
            tag=tag,
            seed=config.pop("seed"),
            config_hash=run["config_hash"],
            outcome=run["outcome"],
            metrics=found,
            facts={**facts, "recipe": _recipe(config), **_note(run)},
            curve=_curve(folder / "metrics.jsonl"),
        )


def _lacking(found: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """What the page needs and is not there, or is not what it must be."""
    seconds = found.get("seconds")
    wanted = {
        "accuracy": isinstance(found.get("accuracy"), float),
        "n": isinstance(found.get("n"), int),
        "labels": isinstance(found.get("labels"), list),
        "seconds.total": isinstance(seconds, dict)
        and isinstance(seconds.get("total"), (int, float)),
        "device": isinstance(found.get("device"), str),
        "seed in its config": isinstance(config.get("seed"), int),
    }
    return [name for name, there in wanted.items() if not there]


def _facts(folder: Path) -> Mapping[str, Any]:
    """What the job told of itself before its first step; the baselines do not."""
    path = folder / "config.resolved.json"
    facts = _read(path).get("facts") if path.is_file() else None
    return facts if isinstance(facts, dict) else {}


def _recipe(config: Mapping[str, Any]) -> str:
    """Of a config without its seed: runs that share it are one row."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def _note(run: Mapping[str, Any]) -> Mapping[str, str]:
    return {"note": run["note"]} if run["note"] else {}


def orch(*arguments: str) -> str:
    """What the command printed; SystemExit with its code when it could not do its work."""
    argv = [str(Path(sys.executable).with_name("orch")), *arguments]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if done.returncode not in TOLD:
        raise SystemExit(done.returncode)
    return done.stdout


def _curve(path: Path) -> list[Mapping[str, Any]]:
    """The points with a validation; a torn line is none."""
    lines = path.read_text(encoding="utf8").splitlines() if path.is_file() else []
    points = []
    for line in lines:
        with contextlib.suppress(ValueError):
            points.append(json.loads(line))
    return [point for point in points if isinstance(point, dict) and "val_nelbo" in point]


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in the file; ValueError where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not a JSON object")
    return found


def _needed(path: Path) -> dict[str, Any]:
    """The same of a file that the command cannot do without."""
    try:
        return _read(path)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        sys.exit(f"error: {error}; what was there before is untouched")
    except KeyboardInterrupt:
        print(
            "stopped; a run that was started goes on: once it has ended, `orch fetch-results` it, "
            "and the same command takes its row and goes on from there",
            file=sys.stderr,
        )
        sys.exit(130)
