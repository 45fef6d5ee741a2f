"""What is known before a run: rules, references, checkpoints and the host."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import TRAIN, assert_clear
from tests.helpers.project import commit_all, run_git
from tests.helpers.sshd import PrivateSshd


def test_a_broken_rule_refuses_unless_waived_and_a_bad_rule_names_its_place(
    new_desk: MakeDesk,
) -> None:
    rule = "warmup < steps"
    spec = {**TRAIN, "config": {"right": 45, "warmup": 500, "steps": 200}, "rules": [rule]}
    desk = new_desk({"short": spec})
    refused = desk.orch("submit", "short", code=5)
    assert_clear(refused, "relation", rule, "warmup is 500")
    assert refused.stderr.count("warmup is 500") == 1
    assert desk.rows() == []
    desk.orch("check", "short", "--set", "steps=1000")
    desk.spec("short", {**spec, "rules": [{"rule": rule, "waive": "a smoke run"}]})
    run_id = desk.submit("short")
    desk.orch("wait")
    waived = [f["waived"] for f in desk.show(run_id)["findings"] if f["waived"]]
    assert waived == ["a smoke run"]
    desk.spec("short", {**spec, "rules": ["warmup < stepz"]})
    assert_clear(desk.orch("check", "short", code=2), "character 10", "did you mean `steps`?")


def test_a_reference_in_a_commit_of_a_clone_is_resolved_and_refuses(new_desk: MakeDesk) -> None:
    config = {"right": 45, "lr_scheduler": {"num_warmup_steps": 500}}
    git = {"git": "../theirs@v1:configs/config.yaml"}
    spec = {**TRAIN, "config": config, "reference": {"config": git, "only": ["lr_scheduler"]}}
    desk = new_desk({"short": spec})
    clone = desk.project.parent / "theirs"
    (clone / "configs" / "lr_scheduler").mkdir(parents=True)
    (clone / "configs" / "config.yaml").write_text(
        "defaults: [_self_, lr_scheduler: warmup]\nsteps: 2500\nout: ${cwd:}\n"
    )
    (clone / "configs" / "lr_scheduler" / "warmup.yaml").write_text("num_warmup_steps: ${steps}\n")
    run_git(clone, "init", "-q", "-b", "main")
    commit_all(clone, "published")
    run_git(clone, "tag", "v1")
    done = desk.orch("submit", "short", code=5)
    assert_clear(done, "lr_scheduler.num_warmup_steps is 500, the reference has 2500")
    desk.orch("check", "short", "--set", "lr_scheduler.num_warmup_steps=2500")
    run_git(clone, "tag", "-d", "v1")
    assert_clear(desk.orch("check", "short", code=2), "no commit v1", "clone or fetch")


def safetensors(path: Path, **shapes: list[int]) -> None:
    """A file of float32 zeros."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4
        for each in shape:
            size *= each
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * end)


LISTING = "import json, os; n = json.load(open(os.environ['ORCH_CONFIG']))['hidden']\n"
LISTING += "print(json.dumps({'model.w': [n, 8], 'model.b': [n]}))\n"


@pytest.mark.parametrize("where", ["local", pytest.param("ssh", marks=pytest.mark.ssh)])
def test_a_checkpoint_that_does_not_fit_refuses_wherever_it_lies(
    where: str, new_desk: MakeDesk, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    options: dict[str, Any] = {}
    weights = tmp_path / "w.safetensors"
    if where == "ssh":
        server: PrivateSshd = request.getfixturevalue("sshd")
        options = {"host": box(server), "ssh_config": server.client_config}
        weights = server.home / "w.safetensors"
    config = {"right": 45, "hidden": 4, "start": str(weights)}
    fit = {"key": "start", "model": {"command": "python3 listing.py"}, "min": 0.95}
    spec = {**TRAIN, "config": config, "checkpoint": fit}
    desk = new_desk({"tune": spec}, files={"listing.py": LISTING}, **options)
    safetensors(weights, w=[4, 8], b=[4])
    done = desk.orch("submit", "tune", code=5)
    assert_clear(done, "0.0 % of the model's parameters", "with `model.`", "100.0 % would")
    assert desk.rows() == []
    desk.spec("tune", {**spec, "checkpoint": {**fit, "add": "model."}})
    told = desk.orch("check", "tune", "--host", "box").stdout
    assert "100.0 % of the model's parameters would load" in told
    assert "lies on the host" in desk.orch("check", "tune").stdout
    desk.orch("submit", "tune", "--set", "hidden=5", code=5)
    run_id = desk.submit("tune")
    desk.orch("wait")
    rules = {each["rule"]: each for each in desk.show(run_id)["findings"]}
    assert rules["checkpoint"]["ours"]["share"] == 1.0
    weights.write_bytes(b"torn")
    assert_clear(desk.orch("submit", "tune", code=5), "neither a safetensors file nor")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("none.json", ["No such file", '"shape"']),
        ("bad.json", ["no JSON"]),
        ({"command": "echo oh >&2; exit 3"}, ["exit code 3", "oh"]),
        ({"command": ["/no/such"]}, ["/no/such", "No such file"]),
    ],
)
def test_a_model_that_cannot_be_listed_is_a_usage_error(
    model: Any, words: list[str], new_desk: MakeDesk
) -> None:
    checkpoint = {"file": "w.safetensors", "model": model}
    desk = new_desk({"tune": {**TRAIN, "checkpoint": checkpoint}}, files={"bad.json": "{"})
    safetensors(desk.project / "w.safetensors", w=[4, 8])
    assert_clear(desk.orch("check", "tune", code=2), *words)


@pytest.mark.parametrize("where", ["local", pytest.param("ssh", marks=pytest.mark.ssh)])
def test_the_model_is_listed_on_the_host_with_the_jobs_code_and_python(
    where: str, new_desk: MakeDesk, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server: PrivateSshd | None = request.getfixturevalue("sshd") if where == "ssh" else None
    weights = (server.home if server else tmp_path) / "there.safetensors"
    safetensors(weights, **{"model.w": [4, 8], "model.b": [4]})
    listing = LISTING + "import sys; assert os.getcwd() != sys.argv[1]\n"
    desk = new_desk(
        files={"listing.py": listing, "requirements.txt": "no-such-package-at-all==1\n"},
        host=box(server) if server else None,
        ssh_config=server.client_config if server else None,
    )
    command = f"python3 listing.py {desk.project}"
    spec = {
        **TRAIN, "config": {"right": 45, "hidden": 4},
        "checkpoint": {"at": str(weights), "model": {"command": command, "on": "host"}},
    }  # fmt: skip
    desk.spec("tune", spec)
    told = desk.orch("check", "tune", "--host", "box").stdout
    assert "100.0 % of the model's parameters would load" in told
    assert_clear(desk.orch("submit", "tune", "--set", "hidden=5", code=5), "0.0 % of the model")
    desk.spec("tune", {**spec, "setup": {"requirements": "requirements.txt"}})
    assert "still to be made on box" in desk.orch("check", "tune", "--host", "box").stdout
    spec["checkpoint"]["model"]["command"] = "echo oh >&2; sleep 600 & exit 3"
    desk.spec("tune", spec)
    done = desk.orch("check", "tune", "--host", "box", code=2)
    assert_clear(done, "on box", "exit code 3: oh")


def test_a_project_file_is_measured_by_check_alone_and_a_missing_one_refuses(
    new_desk: MakeDesk,
) -> None:
    spec = {**TRAIN, "checkpoint": {"file": "w.safetensors", "model": "model.json"}}
    desk = new_desk({"tune": spec}, files={"model.json": '{"w": {"shape": [4, 8]}}'})
    assert "No such file" in desk.orch("check", "tune", code=5).stdout
    safetensors(desk.project / "w.safetensors", w=[4, 8])
    assert "100.0 %" in desk.orch("check", "tune").stdout


def test_what_the_host_lacks_is_found_before_a_submit(new_desk: MakeDesk) -> None:
    spec = {
        **TRAIN, "secrets": ["HF_TOKEN"], "data": {"d": {"at": "/no/such/folder"}},
        "resources": {"disk": "900TiB", "gpus": 99},
    }  # fmt: skip
    desk = new_desk({"needs": spec})
    report = json.loads(desk.orch("check", "needs", "--host", "box", "--json", code=5).stdout)
    asked = [each for each in report["findings"] if each["rule"] in ("host", "shell")]
    found = {each["key"]: each["message"] for each in asked}
    assert set(found) == {"secrets", "data.d", "resources.disk", "resources.gpus"}
    assert "HF_TOKEN is not set" in found["secrets"]
    assert "/no/such/folder does not exist on box" in found["data.d"]
    desk.spec("needs", TRAIN)
    desk.orch("check", "needs", "--host", "box")


@pytest.mark.parametrize(
    ("part", "code", "words"),
    [
        ({"data": {"a": {"from": "/no/such/folder"}}}, 3, "data `a`: /no/such/folder does not"),
        ({"data": {"a": {"from": "$ORCH_DATA/x"}}}, 2, "ORCH_DATA is not set"),
        ({"setup": {"requirements": "absent.txt"}}, 2, "yaml:12:3: setup.requirements: no file ab"),
        ({"reference": {"config": "no.yaml"}}, 2, "not exist (jobs/needs.yaml names it under"),
        ({"secrets": ["HF_TOKEN"]}, 5, "HF_TOKEN"),
        ({"notify": {"webhook": "$HOOK"}}, 5, "HOOK"),
    ],
)
def test_what_is_not_here_ends_a_check_as_it_ends_a_submit(
    part: dict[str, Any], code: int, words: str, new_desk: MakeDesk
) -> None:
    desk = new_desk({"needs": {**TRAIN, **part}})
    desk.env["ORCH_DATA"] = ""
    for command in (["check"], ["check", "--host", "box"], ["submit"], ["submit", "--force"]):
        done = desk.orch(*command, "needs", code=code)
        assert words in done.stderr + done.stdout
    assert desk.rows() == []


def test_a_file_too_large_for_code_ends_a_check_as_it_ends_a_submit(new_desk: MakeDesk) -> None:
    desk = new_desk(files={"weights.bin": b"x" * 3_000_000})
    settings = desk.project / "orch.yaml"
    settings.write_text(settings.read_text() + "max_file_size: 1MB\n")
    for command in ("check", "submit"):
        assert_clear(desk.orch(command, "train", code=2), "weights.bin", "too large for code")


@pytest.mark.parametrize(
    ("part", "words", "next_step"),
    [
        (
            {"data": {"d": {"at": "/no/such/folder"}}},
            "/no/such/folder does not exist on",
            "put it there, or name another place in the job's file",
        ),
        ({"resources": {"disk": "900TiB"}}, "the run needs 989560.5 GB", "less in `resources"),
        ({"resources": {"gpus": 99}}, "the run needs 99 GPU(s)", "less in `resources"),
    ],
)
def test_what_the_host_lacks_ends_a_submit_as_it_ends_a_check(
    part: dict[str, Any], words: str, next_step: str, new_desk: MakeDesk
) -> None:
    desk = new_desk({"needs": {**TRAIN, **part}})
    done = desk.orch("check", "needs", "--host", "box", code=5)
    assert words in done.stdout
    assert next_step in done.stderr
    assert "--force" not in done.stderr
    assert_clear(desk.orch("submit", "needs", code=5), words, "was not started", next_step)


GPU = """#!/bin/sh
echo "0, GPU-1, A100, 20000, 24000, 99, 999.1"
echo "1, GPU-2, A100, 100, 24000, 0, 999.1"
"""


def test_gpu_memory_is_judged_as_it_is_now(new_desk: MakeDesk, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").write_text(GPU)
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    desk = new_desk()
    desk.env["PATH"] = f"{tmp_path / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    for gpus, memory, code, word in (
        (1, "16GiB", 0, ""),
        (2, "16GiB", 5, "the run needs 2 GPU(s) of 16384 MiB; GPU 0 is in use by others"),
        (1, "40GiB", 5, "needs 1 GPU(s) of 40960 MiB, box has 0"),
    ):
        desk.spec("train", {**TRAIN, "resources": {"gpus": gpus, "gpu_memory": memory}})
        assert word in desk.orch("check", "train", "--host", "box", code=code).stdout
    done = desk.orch("submit", "train", code=5)
    assert_clear(done, word, "ask for less in `resources`", "another --host")
    assert "--force" not in done.stderr
