"""TensorBoard over fetched results, which are fetched again and again while a run goes on.

Nothing is forwarded and nothing runs on the host: event files come over the one SSH connection of a
fetch, verified like any result.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence

from orchestrator.domain import Run
from orchestrator.errors import ManifestMismatch, NotFound, OrchError, UsageError
from orchestrator.ledger.store import Ledger
from orchestrator.usecases.context import Context
from orchestrator.usecases.fetch import fetch

SIGN = "tfevents"
EVERY_S = 20.0
ENDING_S = 10.0


def serve(ctx: Context, selectors: Sequence[str | None], port: int | None) -> int:
    """TensorBoard's exit code, when it ends; its own words go where ours go.

    Runs that go on are fetched every EVERY_S seconds, as long as their host answers.
    """
    tool = shutil.which("tensorboard", path=ctx.env.get("PATH"))
    if tool is None:
        raise UsageError("tensorboard is not installed here", hint="pip install tensorboard")
    with ctx.ledger() as ledger:
        runs = [_brought(ctx, ledger, ctx.run(ledger, each)) for each in selectors]
        if not any(map(_has_events, runs)):
            told = ", ".join(run.run_id for run in runs)
            raise NotFound(
                f"the results of {told} hold no TensorBoard event files (*{SIGN}*)",
                hint="the job writes them into $ORCH_RESULTS_DIR; `results: exclude:` of its spec "
                "may leave them on the host",
            )
        argv = [tool, "--logdir_spec", ",".join(f"{r.run_id}:{r.results_path}" for r in runs)]
        # A fetch puts a new file in the old one's place, which the fast loader would not notice.
        argv += ["--load_fast=false", "--reload_interval=5"]
        argv += ["--host=127.0.0.1", *([f"--port={port}"] if port else [])]
        child = subprocess.Popen(argv, env=dict(ctx.env), stdin=subprocess.DEVNULL)
        try:
            return _watch(ctx, ledger, runs, child)
        finally:
            _end(child)


def _brought(ctx: Context, ledger: Ledger, run: Run) -> Run:
    """The run with its results here, as far as they can be had."""
    try:
        known, _ = fetch(ctx, ledger, run, lambda _report: None)
    except ManifestMismatch as exc:
        ctx.say(f"{exc.message}; what is here is shown")
        return ledger.get(run.run_id)
    return known


def _watch(
    ctx: Context, ledger: Ledger, runs: Sequence[Run], child: subprocess.Popen[bytes]
) -> int:
    known = list(runs)
    while True:
        try:
            return child.wait(EVERY_S)
        except subprocess.TimeoutExpired:
            pass
        for at, run in enumerate(known):
            if run.state.is_open:
                try:
                    known[at] = _brought(ctx, ledger, run)
                except OrchError as exc:
                    ctx.say(f"{run.run_id}: {exc.message}; what was here is shown")


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(ENDING_S)
            return
        child.kill()
        child.wait()


def _has_events(run: Run) -> bool:
    """Whether an event file is under the run's results; links are not followed."""
    walked = os.walk(run.results_path) if run.results_path else ()
    return any(SIGN in name for _, _, files in walked for name in files)
