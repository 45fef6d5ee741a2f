"""Files on the host: whole or not at all, once only, and locks the kernel frees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from remote import files
from remote.layout import BadName, Layout

ROOT = Path(__file__).resolve().parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_atomic_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "f"
    files.write_atomic(str(path), b"one")
    files.write_atomic(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["f"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_failed_atomic_write_keeps_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x").write_text("x")
    with pytest.raises(OSError):
        files.write_atomic(str(tmp_path / "f"), b"new")
    assert names(tmp_path) == ["f"]


NO_LINKS = "def link(*_): raise PermissionError(1, 'not permitted')\nimport os; os.link = link\n"


@pytest.mark.parametrize("system", ["", NO_LINKS], ids=["links", "no links"])
def test_of_many_writers_at_once_exactly_one_writes_once(system: str, tmp_path: Path) -> None:
    code = system + "import sys; from remote import files; sys.stdin.read(1); "
    code += "print(files.write_once(sys.argv[1], sys.argv[2].encode()))"
    argv = [sys.executable, "-c", code, str(tmp_path / "f")]
    started = [
        subprocess.Popen(
            [*argv, str(number)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(6)
    ]
    for process in started:
        assert process.stdin
        process.stdin.write("g")
        process.stdin.flush()
    told = [process.communicate(timeout=20)[0].strip() for process in started]
    assert sorted(told) == ["False"] * 5 + ["True"]
    assert (tmp_path / "f").read_text() == str(told.index("True"))
    assert names(tmp_path) == ["f"]


def test_a_link_that_a_file_server_was_asked_for_twice_is_known_as_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first answer was lost, and the client asked again."""
    link = os.link

    def twice(source: str, target: str) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert files.write_once(str(tmp_path / "f"), b"one")
    assert not files.write_once(str(tmp_path / "f"), b"two")
    assert (tmp_path / "f").read_bytes() == b"one"
    assert names(tmp_path) == ["f"]


def test_what_a_killed_writer_of_the_same_number_left_costs_the_record_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "f").write_bytes(b"one")
    os.link(tmp_path / "f", tmp_path / f"f.once.{os.getpid()}")
    assert not files.write_once(str(tmp_path / "f"), b"two")
    assert (tmp_path / "f").read_bytes() == b"one"
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"pid": 1'], ids=range(7)
)
def test_a_torn_or_foreign_json_file_reads_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    assert files.read_json(str(tmp_path / "f")) is None
    assert files.read_json(str(tmp_path / "absent")) is None


def test_a_fifo_in_place_of_a_file_does_not_hang_and_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert files.read_regular(str(tmp_path / "pipe"), 10) is None
    assert files.read_regular(str(tmp_path), 10) is None
    (tmp_path / "f").write_bytes(b"x" * 100)
    assert files.read_regular(str(tmp_path / "f"), 10) == b"x" * 11


def test_a_lock_is_seen_and_probing_neither_takes_nor_makes_it(tmp_path: Path) -> None:
    path = str(tmp_path / "l")
    assert files.is_locked(path) is False
    assert names(tmp_path) == []
    held = files.try_lock(path)
    assert held is not None
    assert files.is_locked(path) is True
    assert files.try_lock(path) is None
    os.close(held)
    assert files.is_locked(path) is False


def test_probes_at_once_do_not_take_each_other_for_the_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "l")
    os.close(files.try_lock(path) or -1)
    wrong = []

    def probe() -> None:
        wrong.extend(1 for _ in range(300) if files.is_locked(path))

    threads = [threading.Thread(target=probe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_kernel_frees_a_lock_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = str(tmp_path / "l")
    code = "import sys, time; from remote import files; files.try_lock(sys.argv[1]); "
    code += "print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], cwd=ROOT, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        assert files.is_locked(path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not files.is_locked(path)


def test_f34_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        files.try_lock(str(tmp_path / "l"))
    assert not (tmp_path / "elsewhere").exists()


def test_waiting_for_a_lock_ends_when_it_is_free(tmp_path: Path) -> None:
    path = str(tmp_path / "l")
    held = files.try_lock(path)
    assert held is not None
    threading.Timer(0.2, os.close, [held]).start()
    began = time.monotonic()
    os.close(files.lock(path))
    assert 0.1 < time.monotonic() - began < 30


# --- layout ---------------------------------------------------------------------------------------


def test_f93_the_root_is_private_even_with_an_open_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        layout = Layout(str(tmp_path / "root"))
        layout.ensure()
    finally:
        os.umask(before)
    assert (tmp_path / "root").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "run_id",
    ["", "..", "../x", "a/b", "short", "A" * 12, "x" * 65, "20260101-000000\n", "-012345678"],
)
def test_f79_what_is_no_run_id_never_becomes_a_path(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(BadName):
        Layout(str(tmp_path)).run(run_id)


@pytest.mark.parametrize(
    "tree", ["", "s1:", "s1:../../x", "s2:" + "0" * 64, "s1:" + "0" * 64 + "\n"]
)
def test_what_is_no_tree_hash_never_becomes_a_path(tmp_path: Path, tree: str) -> None:
    layout = Layout(str(tmp_path))
    for path in (layout.tree, layout.spare, layout.dataset):
        with pytest.raises(BadName):
            path(tree)
