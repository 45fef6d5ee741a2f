"""What a job changed of the code that was sent: found by content, whatever it did to times."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from remote import drift, files, store, trees
from remote.attempts import mark_begun
from remote.layout import Layout, RunFiles
from tests.unit.test_remote_store import TREE, put


@pytest.fixture
def run(tmp_path: Path) -> tuple[Layout, RunFiles]:
    layout = Layout(str(tmp_path / "root"))
    layout.ensure()
    made = layout.attempt("20261123-100000-000abcde", 1)
    manifest, tree = put(layout, TREE)
    os.mkdir(made.path)
    trees.build(layout, manifest, made.tree)
    files.write_json(made.order, {"snapshot": tree, "config": "{}\n"})
    assert mark_begun(made)
    return layout, made


def other_bytes(tree: Path) -> None:
    """Of the same size, and with the time of before."""
    times = os.stat(tree / "a.py")
    (tree / "a.py").write_bytes(b"print(2)\n")
    os.utime(tree / "a.py", ns=(times.st_atime_ns, times.st_mtime_ns))


def gone(tree: Path) -> None:
    (tree / "a.py").unlink()


def another_kind(tree: Path) -> None:
    (tree / "a.py").rename(tree / "b.py")
    (tree / "a.py").symlink_to("b.py")


def another_file(tree: Path) -> None:
    (tree / "b.py").write_bytes(b"print(2)\n")
    (tree / "b.py").rename(tree / "a.py")


@pytest.mark.parametrize("change", [other_bytes, gone, another_kind, another_file])
def test_changed_code_is_found(
    change: Callable[[Path], None], run: tuple[Layout, RunFiles]
) -> None:
    layout, made = run
    assert drift.changed_code(layout, made) == []
    change(Path(made.tree))
    assert drift.changed_code(layout, made) == ["a.py"]


def test_another_link_is_found_and_an_odd_name_told(run: tuple[Layout, RunFiles]) -> None:
    layout, made = run
    Path(made.tree, "link").unlink()
    Path(made.tree, "link").symlink_to("deep/er/y")
    Path(os.fsdecode(b"odd \xff\nname").join([made.tree + "/", ""])).unlink()
    assert drift.changed_code(layout, made) == ["link", "odd \\xff\nname"]


def test_what_a_job_only_touched_or_made_is_no_change(run: tuple[Layout, RunFiles]) -> None:
    layout, made = run
    Path(made.tree, "a.py").touch()
    Path(made.tree, "bin", "run").chmod(0o700)
    Path(made.tree, "bin", "cache").write_text("new")
    assert drift.changed_code(layout, made) == []


def test_code_whose_manifest_is_gone_cannot_be_judged(run: tuple[Layout, RunFiles]) -> None:
    layout, made = run
    for tree in Path(layout.trees).iterdir():
        tree.unlink()
    assert drift.changed_code(layout, made) is None
    with pytest.raises(FileNotFoundError):
        store.manifest_of(layout, "s1:" + "0" * 64)


@pytest.mark.parametrize("now", [b"{}", b'{"lr": 99}', b"", None])
def test_a_changed_config_is_put_back(now: bytes | None, run: tuple[Layout, RunFiles]) -> None:
    _, made = run
    if now is not None:
        Path(made.config).write_bytes(now)
    assert drift.restore_config(made) is True
    assert Path(made.config).read_bytes() == b"{}\n"
    assert drift.restore_config(made) is False


def test_words_name_the_first_few() -> None:
    assert drift.words(["a"]) == "1 file of its code is not as sent: a"
    assert drift.words(list("abcdefg")).endswith(
        "7 files of its code are not as sent: a, b, c, d, e and 2 more"
    )
