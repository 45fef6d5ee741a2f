"""What is written down of a run, whatever the clock, the host or the release does."""

from __future__ import annotations

import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from orchestrator import confighash
from orchestrator.usecases.context import Context
from orchestrator.usecases.plan import Request, make_plan
from orchestrator.usecases.submit import submit
from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, of_run, until
from tests.faults.truth import MARK
from tests.helpers.cli import orch_argv, orch_env
from tests.helpers.runs import refreshed


class Backwards:
    """A wall clock that goes back an hour each time it is asked."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)

    def now(self) -> datetime:
        self.moment -= timedelta(hours=1)
        return self.moment

    def monotonic(self) -> float:
        return 0.0


def test_f32_a_controller_whose_clock_goes_back_loses_and_mixes_up_no_run(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"quick": MARK})
    env = orch_env(desk.home, desk.env)
    ctx = Context(env, desk.project, Backwards(), lambda _text: None)
    ids = []
    for _ in range(3):
        request = Request("quick")
        run, agent = submit(ctx, make_plan(ctx, request), request)
        agent.close()
        ids.append(run.run_id)
    assert ids == sorted(ids)
    for run_id in ids:
        until(lambda: not of_run(run_id))  # noqa: B023
        with ctx.ledger() as ledger:
            until(lambda: not refreshed(ctx, ledger, ledger.get(run_id)).state.is_open)  # noqa: B023
        assert desk.show(run_id)["verdict"] == "succeeded"
    assert len(desk.rows()) == 3


def test_f71_what_is_hashed_and_kept_is_the_resolved_config_of_that_day(new_desk: MakeDesk) -> None:
    profiles = {"small": {"config": {"right": 46}}}
    desk = new_desk({"train": {**TRAIN, "profiles": profiles}})
    run_id = desk.submit("train", "--profile", "small", "--set", "lr=0.5")
    desk.orch("wait")
    first = desk.show(run_id)
    assert first["config"] == {"right": 46, "lr": 0.5}
    assert first["config_hash"] == confighash.config_hash(first["config"], ())
    assert first["config_hash"].startswith("c1:")
    desk.spec("train", {**TRAIN, "config": {"right": 40, "lr": 9.0, "new": 1}})
    assert desk.show(run_id)["config"] == first["config"]
    assert desk.show(run_id)["config_hash"] == first["config_hash"]


def test_f72_config_code_and_data_have_a_hash_each(new_desk: MakeDesk, tmp_path: Path) -> None:
    (tmp_path / "data" / "d").mkdir(parents=True)
    (tmp_path / "data" / "d" / "f").write_text("1")
    job = {**TRAIN, "data": {"d": {"from": "$ORCH_DATA/d"}}}
    desk = new_desk({"train": job}, git=True)
    desk.env["ORCH_DATA"] = str(tmp_path / "data")

    def identity(*args: str) -> dict[str, Any]:
        desk.orch("submit", "train", "-f", *args)
        shown = desk.show()
        return {key: shown[key] for key in ("config_hash", "snapshot", "data", "git_commit")}

    first = identity()
    assert all(first.values())
    config = identity("--set", "lr=0.25")
    (desk.project / "work.py").write_text((desk.project / "work.py").read_text() + "# edited\n")
    code = identity()
    (tmp_path / "data" / "d" / "f").write_text("2")
    data = identity()
    changed = [
        {key for key in first if one[key] != other[key]}
        for one, other in ((first, config), (first, code), (code, data))
    ]
    assert changed == [{"config_hash"}, {"snapshot"}, {"data"}]
    assert desk.show()["git_dirty"] is True


GUARD = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pickle", "_pickle", "marshal", "dill", "shelve", "torch"):
            raise SystemExit(f"{name} was imported")
sys.meta_path.insert(0, Guard())
for name in ("pickle", "_pickle"):
    sys.modules.pop(name, None)
sys.argv[0] = "orch"
from orchestrator.cli import main
main()
"""


@pytest.mark.parametrize(
    "command", [["show", "--json"], ["tail", "--no-follow"], ["fetch-results"]]
)
def test_f94_what_a_host_sends_meets_nothing_that_could_execute_it(
    command: list[str], new_desk: MakeDesk
) -> None:
    payload = '{"accuracy": 0.9, "__reduce__": "os.system", "x": "!!python/object:os.system ls"}'
    job = f"echo '{payload}' > results/metrics.json; echo '{{0.__class__}} {payload}'"
    desk = new_desk({"evil": job})
    run_id = desk.submit("evil")
    until(lambda: not of_run(run_id))
    argv = [orch_argv([])[0], "-c", GUARD, *command]
    env = orch_env(desk.home, desk.env)
    done = subprocess.run(
        argv, cwd=desk.project, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "imported" not in done.stderr
    assert "executed" not in done.stderr
