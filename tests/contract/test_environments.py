"""`setup.requirements`: environments are made once for their content, waited for, and given up."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, of_run, supervisor_of, until
from tests.helpers import processes

SETUP = {"requirements": "jobs/r.txt"}
TELL = "python -c 'import tiny; print(\"tiny is\", tiny.VERSION)'"


def wheel(version: str) -> bytes:
    """A package `tiny` of that version."""
    info = f"tiny-{version}.dist-info"
    files = {
        "tiny.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
        record += f"{name},sha256={digest.rstrip('=')},{len(text)}\n"
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(name, text)
    return packed.getvalue()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a package index that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"


def log(desk: Desk, run_id: str) -> str:
    path = desk.home / ".orch" / "runs" / run_id / "log"
    return path.read_text() if path.exists() else ""


def installing(run_id: str) -> list[int]:
    """The run's pip that fills an environment."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in of_run(run_id)}
    return [pid for pid, line in lines.items() if b"install" in line and b"/envs/" in line]


def test_an_included_file_that_changed_makes_another_environment(new_desk: MakeDesk) -> None:
    files = {f"wheels/tiny-{v}-py3-none-any.whl": wheel(v) for v in ("1.0", "2.0")}
    included = "--no-index\n--find-links wheels\n-r base.txt\n"
    texts = {"jobs/r.txt": included, "jobs/base.txt": "tiny==1.0\n"}
    desk = new_desk({"told": {"command": TELL, "setup": SETUP}}, files={**files, **texts})
    assert "tiny is 1.0" in desk.orch("submit", "told", "-f").stdout
    (desk.project / "jobs" / "base.txt").write_text("tiny==2.0\n")
    assert "tiny is 2.0" in desk.orch("submit", "told", "-f").stdout
    again = desk.orch("submit", "told", "-f").stdout
    assert "tiny is 2.0" in again
    assert "making the environment" not in again


def test_a_part_of_the_project_among_the_requirements_is_refused_before_anything_starts(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"lib": {"command": "true", "setup": SETUP}}, files={"jobs/r.txt": "-e .\n"})
    for command in ("check", "submit"):
        done = desk.orch(command, "lib", code=2)
        assert "jobs/r.txt:1: `-e .`" in done.stderr
        assert "PYTHONPATH" in done.stderr
    assert desk.rows() == []


def test_who_waits_for_anothers_environment_says_so_and_can_be_cancelled(
    new_desk: MakeDesk, silent: str
) -> None:
    asked = f"--index-url {silent}\ntiny==1.0\n"
    desk = new_desk({"slow": {"command": TELL, "setup": SETUP}}, files={"jobs/r.txt": asked})
    makes = desk.submit("slow")
    until(lambda: installing(makes), 60)
    waits = desk.submit("slow")
    until(lambda: "waits for the environment for jobs/r.txt: another run" in log(desk, waits), 60)
    desk.orch("cancel", waits)
    assert desk.show(waits)["verdict"] == "cancelled"
    assert installing(makes)
    desk.orch("cancel", makes)
    assert of_run(makes) == []


def test_of_a_supervisor_that_is_killed_while_it_makes_an_environment_no_tool_stays(
    new_desk: MakeDesk, silent: str
) -> None:
    asked = f"--index-url {silent}\ntiny==1.0\n"
    desk = new_desk({"slow": {"command": TELL, "setup": SETUP}}, files={"jobs/r.txt": asked})
    run_id = desk.submit("slow")
    until(lambda: installing(run_id), 60)
    place = desk.home / ".orch" / "runs" / run_id
    assert processes.end([supervisor_of(place)]) == []
    other = desk.submit("slow")
    until(lambda: "waits for the environment" in log(desk, other), 60)  # never beside a live pip
    desk.orch("wait", run_id, code=1)
    assert of_run(run_id) == []
    assert desk.show(run_id)["verdict"] == "never_started"
    assert json.loads((place / "exit.json").read_text())["verdict"] == "never_started"
    until(lambda: installing(other), 60)
    desk.orch("cancel", other)
