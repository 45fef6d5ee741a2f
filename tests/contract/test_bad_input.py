"""Whatever is wrong with what a user wrote: a fitting exit code, a clear text, nothing lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, Desk, assert_clear, is_root
from tests.helpers.cli import assert_exit, run_orch

GOOD = """\
command: "true"
config:
  lr: 1e-4
  steps: 10
  name: base
  layers: [1, 2]
  deep: {flag: true}
"""

# text of jobs/bad.yaml -> a word the error must hold, and the line it must name (None: any)
BAD_YAML: Mapping[str, tuple[str | bytes, str, int | None]] = {
    "unknown key": ("command: ls\ncomand: ls\n", "comand", 2),
    "unknown inner key": ("command: ls\nresources:\n  gpu: 1\n", "gpu", 3),
    "duplicate key": ("command: ls\nconfig:\n  a: 1\n  a: 2\n", "a", 4),
    "tag": ("command: ls\nconfig:\n  a: !!python/object:os.system x\n", "tag", 3),
    "alias": ("command: ls\nconfig:\n  a: &x 1\n  b: *x\n", "bad.yaml", None),
    "merge key": ("command: ls\nconfig:\n  <<: {a: 1}\n", "<<", 3),
    "norway": ("command: ls\nconfig:\n  country: no\n", "no", 3),
    "octal": ("command: ls\nconfig:\n  mode: 010\n", "010", 3),
    "sexagesimal": ("command: ls\nconfig:\n  at: 1:30\n", "1:30", 3),
    "date": ("command: ls\nconfig:\n  day: 2026-11-23\n", "2026-11-23", 3),
    "nan": ("command: ls\nconfig:\n  x: .nan\n", "nan", 3),
    "infinity": ("command: ls\nconfig:\n  x: -.inf\n", "inf", 3),
    "open bracket": ("command: ls\nconfig: {a: [1, 2\n", "bad.yaml", None),
    "tab": ("command: ls\nconfig:\n\ta: 1\n", "token", 3),
    "no command": ("config: {a: 1}\n", "command", None),
    "empty": ("", "bad.yaml", None),
    "a list": ("- command: ls\n", "bad.yaml", 1),
    "two documents": ("command: ls\n---\ncommand: ls\n", "document", None),
    "not utf-8": (b"command: ls\nconfig: {a: \xff\xfe}\n", "bad.yaml", None),
    "control character": ("command: \"ls\x07\"\n", "bad.yaml", None),
    "deep": ("command: ls\nconfig: " + "[" * 5000 + "]" * 5000 + "\n", "bad.yaml", None),
    "huge": ("command: ls\n#" + "x" * (2 << 20) + "\n", "bad.yaml", None),
    "bomb": ("a: &a [1,1]\nb: &b [*a,*a]\nc: &c [*b,*b]\ncommand: ls\n", "bad.yaml", None),
    "command a number": ("command: 7\n", "command", 1),
    "bad time": ("command: ls\nresources: {time: soon}\n", "soon", 2),
    "bad gpus": ("command: ls\nresources: {gpus: 2-1}\n", "2-1", 2),
    "metrics out of results": ("command: ls\nmetrics: {file: ../../etc/passwd}\n", "metrics", 2),
    "results outside": ("command: ls\nresults: {dir: ../out}\n", "results", 2),
    "stage needs unknown": ("stages:\n  a: {command: ls, needs: [gone]}\n", "gone", 2),
    "stage cycle": (
        "stages:\n  a: {command: ls, needs: [b]}\n  b: {command: ls, needs: [a]}\n", "a", None,
    ),
    "stages a list": ("stages:\n  - {name: a, command: ls}\n", "stages", 1),
    "env takes PATH": ("command: ls\nenv: {PATH: /tmp}\n", "PATH", 2),
    "env takes ours": ("command: ls\nenv: {ORCH_RUN_ID: x}\n", "ORCH_RUN_ID", 2),
    "nested in per cent": ("command: ls\nexpect: {a.accuracy: {min: 85}}\n", "0.85", 2),
    "accuracy in per cent": ("command: ls\nexpect: {accuracy: {min: 85}}\n", "0.85", 2),
    "reference missing": ("command: ls\nreference: {config: nope.yaml}\n", "nope.yaml", None),
    "requirements missing": ("command: ls\nsetup: {requirements: nope.txt}\n", "nope.txt", None),
}  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    from tests.contract.desk import make_desk

    return make_desk(tmp_path_factory.mktemp("shared"), {"good": TRAIN, "bad": "ls"})


@pytest.mark.parametrize("kind", BAD_YAML)
def test_f68_a_bad_spec_is_named_with_its_line_and_nothing_is_recorded(
    kind: str, shared: Desk
) -> None:
    text, word, line = BAD_YAML[kind]
    raw = text if isinstance(text, bytes) else text.encode()
    (shared.project / "jobs" / "bad.yaml").write_bytes(raw)
    done = shared.orch("submit", "bad", code=2)
    assert done.stdout == ""
    assert word in done.stderr
    assert "internal error" not in done.stderr
    if line is not None:
        assert f"bad.yaml:{line}" in done.stderr
    assert shared.rows() == []


def test_a_bad_job_does_not_hide_the_good_ones(shared: Desk) -> None:
    (shared.project / "jobs" / "bad.yaml").write_text("comand: ls\n")
    said = shared.orch("jobs")
    assert "good" in said.stdout
    assert "comand" in said.stdout + said.stderr


SETS = {
    "unknown key": ("learning_rate=1", "learning_rate"),
    "unknown deep key": ("deep.flags=true", "deep.flags"),
    "no equals": ("lr", "lr"),
    "empty key": ("=1", "="),
    "text for a number": ("steps=many", "steps"),
    "fraction for an integer": ("steps=1.5", "steps"),
    "number for a flag": ("deep.flag=1", "deep.flag"),
    "nan": ("lr=.nan", "lr"),
    "infinity": ("lr=1e999", "lr"),
    "a map for a number": ("lr={a: 1}", "lr"),
    "below a leaf": ("lr.x=1", "lr.x"),
    "yaml tag": ("name=!!python/name:os.system", "name"),
    "torn yaml": ("layers=[1, 2", "layers"),
}


@pytest.mark.parametrize("kind", SETS)
def test_an_override_that_does_not_fit_is_refused_by_name(kind: str, shared: Desk) -> None:
    shared.spec("bad", GOOD)
    given, word = SETS[kind]
    done = shared.orch("check", "bad", "--set", given, code=2)
    assert word in done.stderr
    assert "internal error" not in done.stderr


@pytest.mark.parametrize("given", ["lr=1e-3", "lr=1", "steps=0", "deep.flag=false", "name=10 %"])
def test_an_override_that_fits_is_taken(given: str, shared: Desk) -> None:
    shared.spec("bad", GOOD)
    shared.orch("check", "bad", "--set", given)


COMMANDS: Mapping[str, tuple[list[str], int, list[str]]] = {
    "unknown job": (["submit", "trian"], 3, ["trian", "good"]),
    "unknown job, check": (["check", "nope"], 3, ["nope"]),
    "job outside": (["submit", "../x"], 2, ["../x"]),
    "hostile job": (["submit", "a; touch canary"], 2, ["a; touch canary"]),
    "unknown profile": (["submit", "good", "--profile", "huge"], 2, ["huge"]),
    "hostile host": (["submit", "good", "--host", "-oProxyCommand=x"], 2, ["-oProxyCommand=x"]),
    "bad tag": (["submit", "good", "--tag", "novalue"], 2, ["novalue"]),
    "unknown option": (["submit", "good", "--gpu"], 2, ["--gpu"]),
    "no job": (["submit"], 2, ["JOB"]),
    "unknown command": (["sumbit", "good"], 2, ["sumbit"]),
    "bad timeout": (["wait", "--timeout", "soon"], 2, ["soon"]),
    "no run yet": (["show"], 3, ["no run"]),
    "unknown run": (["tail", "20260101-000000-000zzzzz"], 3, ["20260101-000000-000zzzzz"]),
    "fetch unknown": (["fetch-results", "nope"], 3, ["nope"]),
    "bad format": (["ledger", "export", "--format", "xml"], 2, ["xml"]),
    "csv as json": (["ledger", "export", "--format", "csv", "--json"], 2, ["--json", "csv"]),
    "csv to a store": (["ledger", "export", "--to", "x"], 2, ["--to"]),
    "mlflow to a file": (["ledger", "export", "--format", "mlflow", "-o", "x"], 2, ["-o"]),
    "export over a file": (["ledger", "export", "-o", "orch.yaml"], 2, ["orch.yaml", "left alone"]),
    "export over a folder": (["ledger", "export", "-o", "jobs"], 2, ["jobs", "left alone"]),
    "export to no folder": (["ledger", "export", "-o", "no/such/x.csv"], 2, ["no/such/x.csv"]),
    "trust local": (["host", "trust", "local"], 2, ["local"]),
    "unknown host": (["submit", "good", "--host", "no-such-host-x"], 3, ["no-such-host-x"]),
    "trust nobody": (["host", "trust", "no-such-host-x"], 3, ["no-such-host-x"]),
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_mistaken_command_says_what_and_leaves_nothing(kind: str, shared: Desk) -> None:
    args, code, words = COMMANDS[kind]
    before = shared.rows()
    done = shared.orch(*args, code=code)
    for word in words:
        assert word in done.stderr, done.stderr
    assert "internal error" not in done.stderr
    assert done.stdout == ""
    assert shared.rows() == before
    assert not list(shared.project.rglob("canary"))


@pytest.mark.parametrize(
    "args", [["jobs"], ["check", "x"], ["submit", "x"]], ids=lambda args: args[0]
)
def test_outside_of_a_project_the_next_step_is_init(args: list[str], tmp_path: Path) -> None:
    done = run_orch(args, home=tmp_path / "home", project=tmp_path)
    assert_exit(done, 2)
    assert "orch init" in done.stderr


def test_a_project_named_by_the_environment_that_is_none_is_said(tmp_path: Path) -> None:
    env = {"ORCH_PROJECT": str(tmp_path)}
    done = run_orch(["jobs"], home=tmp_path / "home", project=tmp_path, env=env)
    assert_exit(done, 2)
    assert_clear(done, str(tmp_path))


@pytest.mark.parametrize("where", ["orch.yaml", "user"])
def test_a_bad_project_or_user_file_is_named(where: str, desk: Desk) -> None:
    path = desk.project / "orch.yaml"
    if where == "user":
        path = desk.home / "config" / "orch" / "config.yaml"
        path.parent.mkdir(parents=True)
    path.write_text("default_host: box\nhots: {}\n")
    done = desk.orch("submit", "train", code=2)
    assert "hots" in done.stderr
    assert f"{path.name}:2" in done.stderr


def test_a_default_host_that_is_not_described_is_said(desk: Desk) -> None:
    (desk.project / "orch.yaml").write_text("default_host: gone-host-x\n")
    assert "gone-host-x" in desk.orch("submit", "train", code=3).stderr


def test_a_secret_that_is_not_set_is_named_before_anything_happens(new_desk: MakeDesk) -> None:
    desk = new_desk({"secretive": {"command": "true", "secrets": ["HF_TOKEN"]}})
    done = desk.orch("submit", "secretive", code=5)
    assert_clear(done, "HF_TOKEN")
    assert desk.rows() == []
    desk.orch("submit", "secretive", "-f", HF_TOKEN="s3cr3t-canary")
    for path in [*desk.home.rglob("*"), *desk.project.rglob("*")]:
        if path.is_file() and not path.is_symlink():
            assert b"s3cr3t-canary" not in path.read_bytes(), path


def test_data_that_does_not_lie_there_is_named(new_desk: MakeDesk) -> None:
    spec: dict[str, Any] = {"command": "true", "data": {"sst2": {"from": "$ORCH_DATA/absent"}}}
    desk = new_desk({"reader": spec})
    done = desk.orch("submit", "reader", code=3, ORCH_DATA=str(desk.home))
    assert_clear(done, "sst2", f"{desk.home}/absent")
    spec["data"] = {"imdb": {"at": "/no/such/place"}}
    desk.spec("reader", spec)
    done = desk.orch("submit", "reader", code=5)
    assert "/no/such/place" in done.stderr
    assert [row[1:] for row in desk.rows()] == [("finished", "never_started")]


@pytest.mark.skipif(not is_root(), reason="a read-only mount needs root")
@pytest.mark.root
def test_a_project_that_may_not_be_written_still_runs_and_says_where_fetch_stops(
    desk: Desk,
) -> None:
    import subprocess

    subprocess.run(["mount", "--bind", desk.project, desk.project], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", desk.project], check=True)
        run_id = desk.submit("train")
        desk.orch("wait", run_id)
        done = desk.orch("fetch-results", run_id, code=10)
        assert str(desk.project) in done.stderr
        assert desk.show(run_id)["fetched"] == "none"
        assert desk.show(run_id)["accuracy"] == 0.9
        init = desk.orch("init", "new", code=2)
        assert "new" in init.stderr
    finally:
        subprocess.run(["umount", desk.project], check=True)
    desk.orch("fetch-results", run_id)
    assert desk.show(run_id)["fetched"] == "complete"
