"""Projects and hosts: found, read strictly, made without overwriting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import projectfile, spec
from orchestrator.checks.outcome import judge
from orchestrator.domain import Host, Outcome
from orchestrator.errors import OrchError, SpecError, UsageError
from orchestrator.projectfile import ProjectConfig, load_project, resolve_host


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "orch.yaml").write_text("")
    return root


def test_project_is_the_nearest_folder_with_the_file(project: Path) -> None:
    below = project / "a" / "b"
    below.mkdir(parents=True)
    assert projectfile.find_project(below, {}) == project.resolve()
    (project / "a" / "orch.yaml").write_text("")
    assert projectfile.find_project(below, {}) == (project / "a").resolve()


def test_what_was_fetched_from_a_host_is_no_project(project: Path, tmp_path: Path) -> None:
    fetched = project / "results" / "train" / "run"
    (fetched / "deep").mkdir(parents=True)
    for folder in (fetched, fetched / "deep"):
        (folder / "orch.yaml").write_text("hosts: {local: {python: ./evil}}")
    (fetched / ".orch-fetched.jsonl").write_text("")
    for folder in (fetched, fetched / "deep"):
        assert projectfile.find_project(folder, {}) == project.resolve()
    (tmp_path / ".orch-fetched.jsonl").write_text("")
    with pytest.raises(UsageError, match="no orch project"):
        projectfile.find_project(project, {})


def test_project_named_by_the_environment_goes_first(project: Path, tmp_path: Path) -> None:
    assert projectfile.find_project(Path("/"), {"ORCH_PROJECT": str(project)}) == project.resolve()
    with pytest.raises(UsageError, match="ORCH_PROJECT is"):
        projectfile.find_project(project, {"ORCH_PROJECT": str(tmp_path)})


def test_no_project_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        projectfile.find_project(tmp_path, {})
    assert caught.value.exit_code == 2
    assert "orch init" in (caught.value.hint or "")


def test_project_file_goes_before_the_users_file(project: Path, tmp_path: Path) -> None:
    user = tmp_path / "config" / "orch" / "config.yaml"
    user.parent.mkdir(parents=True)
    user.write_text("default_host: a\nhosts: {a: {ssh: u@a}, b: {ssh: u@b}}\nmax_file_size: 1MB\n")
    (project / "orch.yaml").write_text("name: x\ndefault_host: b\nhosts: {b: {ssh: 'v@b:2222'}}\n")
    config = load_project(project, {"XDG_CONFIG_HOME": str(tmp_path / "config")})
    assert config == ProjectConfig(
        hosts={"a": Host("a", ssh="u@a"), "b": Host("b", ssh="v@b:2222")},
        default_host="b",
        max_file_size=1_000_000,
    )
    assert load_project(project, {}).hosts.keys() == {"b"}


@pytest.mark.parametrize(
    ("env", "path"),
    [
        ({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/x/orch/config.yaml"),
        ({"XDG_CONFIG_HOME": "rel", "HOME": "/h"}, "/h/.config/orch/config.yaml"),
        ({"HOME": "/h"}, "/h/.config/orch/config.yaml"),
        ({}, None),
    ],
)
def test_place_of_the_users_file(env: dict[str, str], path: str | None) -> None:
    assert projectfile.user_config_path(env) == (Path(path) if path else None)


def test_host_of_the_manual_is_read(project: Path) -> None:
    (project / "orch.yaml").write_text(
        "hosts: {nigel: {ssh: vincent@nigel.birs.ca, python: /usr/bin/python3, root: ~/.orch, "
        "session: tmux, transport: ssh, backend: direct}}\n"
    )
    assert load_project(project, {}).hosts["nigel"] == Host(
        "nigel", "vincent@nigel.birs.ca", "/usr/bin/python3", "~/.orch", "tmux", "ssh", "direct"
    )


def test_host_is_resolved_flag_environment_files_local(project: Path) -> None:
    (project / "orch.yaml").write_text("hosts: {box: {python: python3.11}}\n")
    config = load_project(project, {})
    box = Host("box", python="python3.11")
    assert resolve_host("box", config, {"ORCH_HOST": "other"}) == box
    assert resolve_host(None, config, {"ORCH_HOST": "box"}) == box
    assert resolve_host(None, config, {}) == Host("local", transport="local")
    assert resolve_host("alias.only", config, {}) == Host("alias.only")
    with pytest.raises(UsageError, match="position 1"):
        resolve_host("-oProxyCommand=x", config, {})
    (project / "orch.yaml").write_text("default_host: box\nhosts: {local: {root: /srv/orch}}\n")
    config = load_project(project, {})
    assert resolve_host(None, config, {}) == Host("box")
    local = resolve_host("local", config, {})
    assert local.is_local
    assert local.root == "/srv/orch"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("host: {}", "did you mean `hosts`?"),
        ("hosts: {a: {shh: x}}", "did you mean `ssh`?"),
        ("hosts: {-a: {}}", "position 1"),
        ("hosts: {a: {ssh: '-oProxyCommand=x'}}", "[user@]host[:port]"),
        ("hosts: {a: {ssh: 'u@-x'}}", "[user@]host[:port]"),
        ("hosts: {a: {ssh: 'u@h:0'}}", "[user@]host[:port]"),
        ("hosts: {a: {ssh: 'u@h:99999'}}", "[user@]host[:port]"),
        ("hosts: {a: {ssh: 'u@h; ls'}}", "[user@]host[:port]"),
        ("hosts: {a: {python: 'python3 -x'}}", "a command's name"),
        ("hosts: {a: {python: '-c'}}", "a command's name"),
        ("hosts: {a: {python: bin/python}}", "a command's name"),
        ("hosts: {a: {root: '$HOME/x'}}", "/path or ~/path"),
        ("hosts: {a: {root: orch}}", "/path or ~/path"),
        ("hosts: {a: {root: ~/../x}}", "/path or ~/path"),
        ('hosts: {a: {root: "/a\\nb"}}', "/path or ~/path"),
        ("hosts: {a: {session: tmuxx}}", "did you mean `tmux`?"),
        ("hosts: {a: {backend: slurm}}", "must be one of direct"),
        ("hosts: {local: {transport: ssh}}", "is this machine"),
        ("hosts: {a: {transport: local, ssh: h}}", "leave `ssh` out"),
        ("default_host: a b", "position 2"),
        ("max_file_size: 5", "not a size"),
        ("name: 5", "must be text"),
    ],
)
def test_fault_in_the_project_file_is_named_with_its_line(
    project: Path, text: str, told: str
) -> None:
    (project / "orch.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_project(project, {})
    assert told in caught.value.message
    assert caught.value.message.startswith("orch.yaml:1:")


# --- init -----------------------------------------------------------------------------------------


def test_init_writes_a_project_that_loads(tmp_path: Path) -> None:
    written = projectfile.init_project(tmp_path)
    assert written == list(projectfile.TEMPLATE_FILES)
    assert all((tmp_path / name).is_file() for name in written)
    assert spec.job_names(tmp_path) == ["hello"]
    assert projectfile.find_project(tmp_path / "jobs", {}) == tmp_path.resolve()
    assert resolve_host(None, load_project(tmp_path, {}), {}).is_local
    for profile in (None, "quick"):
        assert spec.load_job(tmp_path, "hello", profile=profile).metrics_declared


def test_init_leaves_every_file_that_is_there_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "hello.py").write_text("mine")
    (tmp_path / ".gitignore").symlink_to("nowhere")
    written = projectfile.init_project(tmp_path)
    assert set(projectfile.TEMPLATE_FILES) - set(written) == {"jobs/hello.py", ".gitignore"}
    assert (tmp_path / "jobs" / "hello.py").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert projectfile.init_project(tmp_path) == []


def test_init_says_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file")
    with pytest.raises(OrchError, match="jobs"):
        projectfile.init_project(tmp_path)
    assert (tmp_path / "jobs").read_text() == "a file"


@pytest.mark.parametrize("profile", [None, "quick"])
def test_example_job_trains_and_meets_its_own_expectation(
    tmp_path: Path, profile: str | None
) -> None:
    projectfile.init_project(tmp_path)
    job = spec.load_job(tmp_path, "hello", profile=profile)
    config, results = tmp_path / "config.json", tmp_path / "out"
    config.write_text(json.dumps(job.config))
    (stage,) = job.stages
    done = subprocess.run(
        stage.argv,
        cwd=tmp_path,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ORCH_CONFIG": str(config),
            "ORCH_RESULTS_DIR": str(results),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    series = [json.loads(line) for line in (results / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in series] == list(range(1, job.config["train"]["epochs"] + 1))
    assert series[-1]["loss"] < series[0]["loss"]
    assert done.stdout.count("loss") == len(series)
    result = judge(
        (results / "metrics.json").read_bytes(),
        metrics_declared=job.metrics_declared,
        expect=job.expect,
        primary=job.metrics_primary,
        succeeded=True,
    )
    assert result.outcome is Outcome.OK, result.reasons
