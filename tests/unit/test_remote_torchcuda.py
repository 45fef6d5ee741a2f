"""Which torch a job would import: of the host's python, or of the environment made for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from remote import environment, torchcuda
from remote.layout import Layout

VERSION = "__version__ = {version!r}\ncuda: Optional[str] = {cuda!r}\nhip = None\n"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "root"))
    made.ensure()
    return made


def python_with(place: Path, name: str, version: str, cuda: str | None) -> None:
    """`place/name` is a python whose torch says this, and must not be imported."""
    torch = place / "site" / "torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").write_text("raise SystemExit('imported')")
    (torch / "version.py").write_text(VERSION.format(version=version, cuda=cuda))
    tool = place / name
    tool.write_text(f'#!/bin/sh\nPYTHONPATH={place}/site exec "{sys.executable}" "$@"\n')
    tool.chmod(0o755)


def made(layout: Layout, texts: list[bytes]) -> Path:
    """The bin folder of an environment for those files, complete but for its python."""
    place = Path(environment.place_of(layout, texts))
    (place / "bin").mkdir(parents=True)
    (place / environment.COMPLETE).touch()
    return place / "bin"


def test_the_first_python_on_the_path_counts_for_a_job_without_requirements(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python_with(tmp_path / "one", "python", "2.5.1+cu124", "12.4")
    monkeypatch.setenv("PATH", f"{tmp_path / 'one'}:/usr/bin:/bin")
    found = torchcuda.of_job(layout, None)
    assert found is not None
    assert (found["version"], found["cuda"], found["hip"]) == ("2.5.1+cu124", "12.4", None)


def test_the_environment_made_for_a_file_counts_and_not_the_hosts_python(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python_with(tmp_path / "one", "python", "2.5.1", "12.4")
    monkeypatch.setenv("PATH", f"{tmp_path / 'one'}:/usr/bin:/bin")
    asked = [("jobs/r.txt", "-r ../base.txt\n"), ("base.txt", "torch==999.0\n")]
    assert torchcuda.of_job(layout, asked) is None  # nobody knows yet
    texts = [text.encode() for _, text in asked]
    python_with(made(layout, texts), "python", "2.13.0", "13.0")
    found = torchcuda.of_job(layout, asked)
    assert found is not None and found["cuda"] == "13.0"
    told = sorted(str(each["cuda"]) for each in torchcuda.of_host(layout))
    assert told == ["12.4", "13.0"]


def test_a_python_without_torch_or_with_a_strange_one_tells_nothing(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python_with(tmp_path / "one", "python", "x", None)
    monkeypatch.setenv("PATH", f"{tmp_path / 'one'}:/usr/bin:/bin")
    (tmp_path / "one" / "site" / "torch" / "version.py").write_text("__version__ = compute(\n")
    assert torchcuda.of_job(layout, None) is None
    (tmp_path / "one" / "site" / "torch" / "version.py").unlink()
    assert torchcuda.of_job(layout, None) is None
