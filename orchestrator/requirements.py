"""A job's `setup.requirements`: the file, and the files that it includes with -r and -c.

Their contents name the environment on the host, which all runs with the same contents share. So a
line whose meaning lies elsewhere in the project is an error: `-e .`, a folder, an archive.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import UsageError

_INCLUDED = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s+|=)?(\S.*)")
_NAMED_URL = re.compile(r"[\w.-]+\s*(?:\[[^]]*\])?\s*@\s*(\S+)")
_ARCHIVES = (".whl", ".zip", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


def closure(project: Path, name: str) -> dict[str, str]:
    """Path in the project -> text, of the file `name` first. UsageError for one that is not there,
    or whose lines do not say by themselves what is to be installed."""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        at = waiting.pop(0)
        if at in found:
            continue
        try:
            found[at] = (project / at).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise UsageError(f"setup.requirements: {project / at} cannot be read as text") from None
        waiting += [_beside(at, number, each) for number, each in _included(at, found[at])]
    return found


def _included(at: str, text: str) -> Iterator[tuple[int, str]]:
    """(line, path as written) of the files that a requirements file includes, without URLs."""
    for number, line in _lines(text):
        included = _INCLUDED.fullmatch(line)
        if included:
            if "://" not in included[1]:
                yield number, included[1]
        elif _is_of_project(line):
            raise UsageError(
                f"{at}:{number}: `{ascii(line)[1:-1]}` installs a part of the project into an "
                "environment that other runs share",
                hint="a job runs in its own copy of the project: take the line out, and name the "
                "folder of its modules in the spec's env: {PYTHONPATH: ...}",
            )


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(number of its first line, logical line) without comments, as pip reads them."""
    begun, first = "", 0
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        first = first or number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            begun += line[:-1]
            continue
        whole = re.sub(r"(^|\s)#.*", "", begun + line).strip()
        if whole:
            yield first, whole
        begun, first = "", 0


def _is_of_project(line: str) -> bool:
    if re.match(r"-e\b|--editable\b", line):
        return True
    if line.startswith("-"):
        return False
    place = re.split(r"\s+--|\s*;\s", line)[0].strip()
    named = _NAMED_URL.fullmatch(place)
    place = named[1] if named else place
    if "://" in place:
        return False
    path = re.sub(r"^file:|\[[^]]*\]$", "", place)
    is_archive = path.endswith(_ARCHIVES)
    if path.startswith("/") and is_archive:
        return False  # a file of the host's own
    return place.startswith((".", "file:")) or "/" in path or is_archive


def _beside(at: str, number: int, written: str) -> str:
    """The path in the project of a file that the file `at` includes."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(at), written.strip("\"'")))
    if path.startswith(("/", "..")):
        raise UsageError(f"{at}:{number}: {written} lies outside the project, so it is not sent")
    return path
