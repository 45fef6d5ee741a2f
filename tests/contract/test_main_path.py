"""The main path, from nothing to a ledger row, over every way to a host and every session."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import TRAIN, WORK_LOG, Desk
from tests.helpers.sshd import PrivateSshd

RUN_ID = re.compile(r"\d{8}-\d{6}-\d{3}[a-z0-9]{5}")
PROMISED = """run_id job state verdict exit_code signal outcome outcome_reasons config_hash config
snapshot git_commit git_dirty host session created_at started_at ended_at last_seen_at accuracy
metrics confusion_matrix labels results_path fetched supersedes tags note""".split()
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


def way(name: str, session: str) -> pytest.param:
    marks = [pytest.mark.sessions] if session in ("tmux", "screen") else []
    marks += [pytest.mark.ssh] if name != "local" else []
    return pytest.param((name, session), id=f"{name}-{session}", marks=marks)


SESSIONS = ("tmux", "screen", "plain")
WAYS = [way(name, session) for name in ("local", "ssh", "openssh") for session in SESSIONS]


@pytest.fixture(scope="module")
def server() -> PrivateSshd | None:
    from tests.helpers.lanes import PROBES

    if PROBES["ssh"]() is not None:
        yield None
        return
    with PrivateSshd() as running:
        yield running


def desk_for(kind: tuple[str, str], new_desk: MakeDesk, server: PrivateSshd | None) -> Desk:
    name, session = kind
    if name == "local":
        return new_desk(host={"transport": "local", "session": session}, git=True)
    assert server is not None
    host = box(server, session=session, transport=name)
    return new_desk(host=host, ssh_config=server.client_config, git=True)


@pytest.mark.parametrize("kind", WAYS)
def test_the_whole_path(
    kind: tuple[str, str], new_desk: MakeDesk, server: PrivateSshd | None
) -> None:
    desk = desk_for(kind, new_desk, server)
    assert "train" in desk.orch("jobs").stdout
    assert json.loads(desk.orch("check", "train", "--json").stdout)["ok"] is True
    first = desk.submit("train", "--tag", "kind=first", "--note", "a \x1b[31mnote")
    assert RUN_ID.fullmatch(first)
    desk.orch("wait", "--timeout", "60s")
    raw = desk.orch("tail", "--raw", "--no-follow").stdout
    assert raw.encode() == WORK_LOG
    _assert_shown(desk, first, kind[1])
    _assert_job_environment(desk, first)
    _assert_second_supersedes(desk, first)


def _assert_shown(desk: Desk, run_id: str, session: str) -> None:
    shown = desk.show(run_id)
    assert set(PROMISED) <= set(shown)
    assert (shown["run_id"], shown["job"], shown["host"]) == (run_id, "train", "box")
    assert (shown["state"], shown["verdict"], shown["exit_code"]) == ("finished", "succeeded", 0)
    assert (shown["outcome"], shown["accuracy"], shown["signal"]) == ("ok", 0.9, None)
    assert shown["confusion_matrix"] == [[45, 5], [5, 45]]
    assert shown["labels"] == ["neg", "pos"]
    assert shown["config"] == {"right": 45, "lr": 0.0001}
    assert re.fullmatch(r"c1:[0-9a-f]{64}", shown["config_hash"])
    assert re.fullmatch(r"s1:[0-9a-f]{64}", shown["snapshot"])
    assert shown["session"]["kind"] == session
    assert (shown["git_dirty"], len(shown["git_commit"])) == (False, 40)
    assert (shown["tags"], shown["note"]) == ({"kind": "first"}, "a \x1b[31mnote")
    assert (shown["fetched"], shown["results_path"], shown["supersedes"]) == ("none", None, None)
    for name in ("created_at", "started_at", "ended_at", "last_seen_at"):
        assert TIME.fullmatch(shown[name]), (name, shown[name])
    assert shown["created_at"] <= shown["started_at"] <= shown["ended_at"]


def _assert_job_environment(desk: Desk, run_id: str) -> None:
    done = desk.orch("fetch-results")
    assert run_id in done.stdout
    folder = desk.results("train", run_id)
    assert json.loads((folder / "metrics.json").read_text())["accuracy"] == 0.9
    told = json.loads((folder / "sub" / "env.json").read_text())
    base = told["ORCH_RUN_DIR"]
    assert told["ORCH_RUN_ID"] == run_id
    assert base.endswith(f"/runs/{run_id}")
    assert told["cwd"].startswith(base)
    assert told["ORCH_RESULTS_DIR"] == f"{base}/results"
    assert told["ORCH_CONFIG"] == f"{base}/config.json"
    assert told["ORCH_DATA"]
    assert told["CUDA_VISIBLE_DEVICES"] == ""
    assert told["GREETING"] == TRAIN["env"]["GREETING"]
    assert told["stdin"] == "/dev/null"
    shown = desk.show(run_id)
    assert (shown["fetched"], shown["results_path"]) == ("complete", str(folder))


def _assert_second_supersedes(desk: Desk, first: str) -> None:
    before = _tree(desk.results("train", first))
    done = desk.orch("submit", "train", "-f")
    second, _, log = done.stdout.partition("\n")
    assert log.encode().startswith(WORK_LOG)
    assert "\x1b" not in done.stdout + done.stderr
    desk.orch("fetch-results", second)
    assert desk.show()["supersedes"] == first
    listed = desk.runs()
    assert [run["run_id"] for run in listed] == [second, first]
    assert all(set(PROMISED) <= set(run) for run in listed)
    assert (desk.project / "results" / "train" / "latest").readlink() == Path(second)
    assert _tree(desk.results("train", first)) == before
    rows = list(csv.DictReader(io.StringIO(desk.orch("ledger", "export").stdout)))
    assert [row["run_id"] for row in rows] == [first, second]
    assert {row["accuracy"] for row in rows} == {"0.9"}


def _tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }
