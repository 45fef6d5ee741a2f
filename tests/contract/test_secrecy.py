"""Who could read what: the values of secrets, and the files on a host."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, of_run, until
from tests.helpers import processes

JOB = """
import hashlib, json, os, time
print("up", flush=True)
while not os.path.exists("../go"):
    time.sleep(0.05)
open("results/proof", "w").write(hashlib.sha256(os.environ["TOKEN"].encode()).hexdigest())
"""


def holders(what: str, word: bytes) -> set[int]:
    """The processes of this machine in whose `cmdline` or `environ` the word is."""
    found = set()
    for pid in processes.all_pids():
        try:
            if word in Path(f"/proc/{pid}/{what}").read_bytes():
                found.add(pid)
        except OSError:
            continue
    return found


def files_below(*folders: Path) -> list[Path]:
    every = [path for folder in folders for path in folder.rglob("*")]
    return [path for path in every if path.is_file() and not path.is_symlink()]


@pytest.mark.parametrize("session", ["plain", pytest.param("tmux", marks=pytest.mark.sessions)])
def test_f91_a_secret_is_in_the_environment_of_its_job_and_nowhere_else(
    session: str, new_desk: MakeDesk
) -> None:
    canary = secrets.token_hex(16)
    job = {"command": "python3 job.py", "secrets": ["TOKEN"]}
    host = {"transport": "local", "session": session}
    desk = new_desk({"secretive": job}, files={"job.py": JOB}, host=host)
    desk.env["TOKEN"] = canary
    run_id = desk.submit("secretive")
    del desk.env["TOKEN"]
    place = desk.home / ".orch" / "runs" / run_id
    until(lambda: "up" in (place / "log").read_text(), 60)
    assert holders("cmdline", canary.encode()) == set()
    knowing = holders("environ", canary.encode())
    assert knowing
    assert knowing <= set(of_run(run_id))
    (place / "go").touch()
    said = [desk.orch(*words) for words in (("wait",), ("fetch-results",), ("show", "--json"),
                                            ("report",), ("ls", "--json"))]  # fmt: skip
    proof = desk.results("secretive", run_id) / "proof"
    assert len(proof.read_text()) == 64  # the job knew it, and a file of it is looked at here
    assert proof in files_below(desk.home, desk.project)
    assert not [path for path in files_below(desk.home, desk.project)
                if canary.encode() in path.read_bytes()]  # fmt: skip
    assert not [done.args for done in said if canary in done.stdout + done.stderr]


def test_f93_what_orch_writes_on_a_host_is_its_users_alone_even_with_an_open_umask(
    desk: Desk,
) -> None:
    before = os.umask(0)
    try:
        run_id = desk.submit("train")
        desk.orch("wait")
    finally:
        os.umask(before)
    root = desk.home / ".orch"
    tree = root / "runs" / run_id / "tree"
    assert root.stat().st_mode & 0o777 == 0o700
    # Python makes folders for its bytecode before any line of ours is run.
    others = [path for path in root.rglob("*") if path.name != "__pycache__"]
    written = [path for path in others if tree not in path.parents]
    assert root / "runs" / run_id / "log" in written
    assert [path for path in written if not path.is_symlink() and path.stat().st_mode & 0o077] == []
