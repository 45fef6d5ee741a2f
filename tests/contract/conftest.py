"""Desks for the contract tests: a private home and project each; their processes end with them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain import Run
from orchestrator.ledger.store import Ledger
from orchestrator.usecases.context import Context
from tests.contract import liar
from tests.contract.desk import Desk, end_all, make_desk
from tests.helpers.project import commit_all, run_git, write_yaml
from tests.helpers.sshd import PrivateSshd

MakeDesk = Callable[..., Desk]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def new_desk(tmp_path: Path) -> Iterator[MakeDesk]:
    """Makes desks with the arguments of `make_desk`, in a folder of their own."""
    made: list[Desk] = []

    def make(*args: Any, **options: Any) -> Desk:
        folder = tmp_path / f"desk{len(made)}"
        folder.mkdir()
        made.append(make_desk(folder, *args, **options))
        return made[-1]

    yield make
    for each in made:
        each.end_started()
        end_all(each.home)


@pytest.fixture
def desk(new_desk: MakeDesk) -> Desk:
    """A desk whose host is this machine, without tmux or screen."""
    return new_desk()


@pytest.fixture
def far_desk(new_desk: MakeDesk, sshd: PrivateSshd) -> Desk:
    """A desk whose host is reached over SSH: the module's server."""
    return new_desk(host=box(sshd), ssh_config=sshd.client_config)


@pytest.fixture
def jobs_desk(tmp_path: Path, make_sshd: Callable[..., PrivateSshd]) -> Desk:
    """A desk in a copy of this repository's training jobs; its host's python has torch."""
    # The same user on both sides: this interpreter must be readable there.
    server = make_sshd(as_root=os.getuid() == 0)
    project = tmp_path / "project"
    shutil.copytree(ROOT / "jobs", project / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    host = {"ssh": server.alias, "root": str(server.root_dir), "python": sys.executable}
    write_yaml(project / "orch.yaml", {"hosts": {"box": host}, "default_host": "box"})
    run_git(project, "init", "-q")
    commit_all(project, "as it is")
    return Desk(tmp_path / "home", project, {"ORCH_SSH_CONFIG": str(server.client_config)})


TRANSPORT = "ORCH_TEST_TRANSPORT"


@pytest.fixture(params=["ssh", "openssh"])
def over(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs over each SSH transport: hosts made by `box` use this one."""
    monkeypatch.setenv(TRANSPORT, request.param)
    return str(request.param)


def box(server: PrivateSshd, **more: Any) -> dict[str, Any]:
    """The host entry for a private server, known to the ssh config under its alias."""
    described = {"ssh": server.alias, "root": str(server.root_dir), "session": "plain"}
    return {**described, "transport": os.environ.get(TRANSPORT, "ssh"), **more}


# --- a host that lies -----------------------------------------------------------------------------


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    """What a command knows, in a project of its own, with something precious beside it."""
    (tmp_path / "project").mkdir()
    (tmp_path / "beside").write_text("precious")
    return liar.context(tmp_path / "home", tmp_path / "project", [])


@pytest.fixture
def ledger(ctx: Context) -> Iterator[Ledger]:
    with Ledger.open(ctx.layout.ledger) as opened:
        yield opened


@pytest.fixture
def run(ctx: Context, ledger: Ledger) -> Run:
    """A run that the ledger knows as running on the lying host."""
    return liar.running_run(ctx, ledger)
