"""A requirements file and what it includes; lines that would install a part of the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.requirements import closure


def test_included_files_belong_to_it_each_once_and_named_from_the_project(tmp_path: Path) -> None:
    files = {
        "jobs/r.txt": "-r base.txt # the same for all\n--constraint=../bounds.txt\nnumpy\n",
        "jobs/base.txt": "-r r.txt\n-c\\\n  deep/more.txt\n# -r commented-out.txt\n",
        "bounds.txt": "numpy<3\n",
        "jobs/deep/more.txt": "-c https://example.invalid/bounds.txt\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = closure(tmp_path, "jobs/r.txt")
    assert found == files
    assert next(iter(found)) == "jobs/r.txt"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("numpy\n-e .\n", "r.txt:2: `-e .`"),
        ("--editable=git+https://x.invalid/y\n", "r.txt:1: `--editable=git"),
        ("\n./lib\n", "r.txt:2: `./lib`"),
        ("lib/\n", "`lib/`"),
        (".\n", "`.`"),
        (".[dev]\n", "`.[dev]`"),
        ("wheels/x-1-py3-none-any.whl ; python_version > '3'\n", "`wheels/x"),
        ("x-1-py3-none-any.whl --hash=sha256:00\n", "`x-1"),
        ("x @ ./lib\n", "`x @ ./lib`"),
        ("x[more] @ file:lib\n", "`x[more] @ file:lib`"),
        ("/srv/lib\n", "`/srv/lib`"),
        ("-r ../r.txt\n", "outside the project"),
        ("-r /etc/r.txt\n", "outside the project"),
        ("-r absent.txt\n", "absent.txt cannot be read"),
    ],
)
def test_what_the_file_does_not_say_by_itself_is_refused(
    text: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "r.txt").write_text(text)
    with pytest.raises(UsageError) as refused:
        closure(tmp_path, "r.txt")
    assert told in refused.value.message


@pytest.mark.parametrize(
    "line",
    [
        "torch==2.5.1+cu124", "torch[extra]>=2 ; python_version < '3.12'", "-i https://x.invalid/s",
        "--find-links ./wheels", "x @ https://x.invalid/x-1-py3-none-any.whl#sha256=00",
        "git+https://x.invalid/y.git@main#egg=y", "/opt/wheels/x-1-py3-none-any.whl", "# -e .",
        "x==1 \\\n  --hash=sha256:00", "--extra-index-url=https://x.invalid", "-",
    ],
)  # fmt: skip
def test_what_pip_would_get_from_elsewhere_is_no_part_of_the_project(
    line: str, tmp_path: Path
) -> None:
    (tmp_path / "r.txt").write_text(line + "\n")
    assert list(closure(tmp_path, "r.txt")) == ["r.txt"]
