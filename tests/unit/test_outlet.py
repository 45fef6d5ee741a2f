"""What is written to stdout arrives whole, or the process says so and ends with 141."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import outlet

ROOT = Path(__file__).resolve().parents[2]
TEXT = "x" * 400_000 + "\n"  # more than a pipe holds
PROGRAM = """
import typer
from orchestrator import console
app = typer.Typer()
@app.command()
@console.fail_softly
def write(way: str):
    from orchestrator.output import LogSink
    from orchestrator.render import emit
    text = "x" * 400_000 + "\\n"
    if way == "emit":
        emit(text)
    else:
        with LogSink(raw=way == "raw") as sink:
            sink.log(text.encode())
console.run_main(app)
"""

unbuffered_or_not = pytest.mark.parametrize("unbuffered", ["", "1"])
ways = pytest.mark.parametrize("way", ["emit", "log", "raw"])


def started(
    way: str, unbuffered: str, stdout: int, before: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", PROGRAM, way]
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        argv, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True, preexec_fn=before
    )


@unbuffered_or_not
@ways
def test_a_descriptor_that_does_not_block_is_waited_for(way: str, unbuffered: str) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    child = started(way, unbuffered, write)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        came = stream.read()
    _, said = child.communicate(timeout=30)
    assert (child.returncode, came.decode() == TEXT) == (0, True), said


@unbuffered_or_not
@ways
def test_a_file_that_takes_a_part_is_lost_output(way: str, unbuffered: str, tmp_path: Path) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    with (tmp_path / "out").open("wb") as file:
        child = started(way, unbuffered, file.fileno(), small)
        _, said = child.communicate(timeout=30)
    assert (child.returncode, (tmp_path / "out").stat().st_size) == (141, 100_000)
    assert "stdout could not be written: File too large" in said


@unbuffered_or_not
def test_a_reader_that_leaves_after_a_part_ends_it(unbuffered: str) -> None:
    read, write = os.pipe()
    child = started("emit", unbuffered, write)
    os.close(write)
    os.read(read, 1)
    os.close(read)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 141, said


@ways
def test_a_stdout_that_was_closed_from_the_start_is_lost_output(way: str) -> None:
    child = started(way, "", subprocess.DEVNULL, lambda: os.close(1))
    _, said = child.communicate(timeout=30)
    assert child.returncode == 141
    assert "stdout is closed" in said


def test_a_file_that_could_not_be_written_whole_is_not_left_behind(tmp_path: Path) -> None:
    before = "what was there"
    (tmp_path / "old").write_text(before)
    program = (
        "import resource, sys; from pathlib import Path; from orchestrator import outlet\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "for name in sys.argv[1:]:\n"
        "  try: outlet.write(Path(name), 'x' * 100_000)\n"
        "  except outlet.UsageError as error: print(error.message)\n"
    )
    argv = [sys.executable, "-c", program, "old", "new"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.count("cannot be written: File too large") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == before


def test_a_file_is_written_where_a_link_leads_and_into_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    outlet.write(tmp_path / "link", "text\n")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "text\n"
    outlet.write(Path("/dev/null"), "text\n")
    assert Path("/dev/null").is_char_device()
