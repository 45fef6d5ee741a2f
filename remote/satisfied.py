"""Whether a python has all that a requirements file asks for, as pip would judge it.

Asked of the installed packages' metadata, not of `pip install --dry-run`, which is no older than
pip 22.2. A child does it: it sees what a job would, this process may be isolated.
"""

from __future__ import annotations

import sys
from typing import List

CANNOT_TELL = 3
SCRIPT = r"""
import os, re, sys
from importlib.metadata import distributions
try:
    from pip._vendor.packaging.requirements import Requirement
except ImportError:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        sys.exit(3)
INCLUDED = re.compile(r"(-r|--requirement|-c|--constraint)[\s=]*(\S+)$")
asked, bounds, read = [], [], set()
def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()
def take(path, into):
    if path in read:
        return
    read.add(path)
    with open(path, encoding="utf-8") as file:
        text = file.read().replace("\\\n", "")
    for line in text.splitlines():
        line = re.sub(r"(^|\s)#.*|\s--.*", "", line).strip()
        found = INCLUDED.match(line)
        if found:
            bound = found.group(1) in ("-c", "--constraint")
            take(os.path.join(os.path.dirname(path), found.group(2)), bounds if bound else into)
        elif re.match(r"-e|--editable", line):
            sys.exit(1)
        elif line and not line.startswith("-"):
            into.append((Requirement(line), ""))
take(sys.argv[1], asked)
there = {}
for each in distributions():
    try:
        there.setdefault(plain(each.metadata["Name"]), each)
    except Exception:  # what an interrupted pip has left: no package
        continue
done = set()
def check(wanted, extra, must):
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
        return
    found = there.get(plain(wanted.name))
    if found is None and not must:
        return
    if found is None or wanted.url:
        sys.exit(1)
    if not wanted.specifier.contains(found.version, prereleases=True):
        sys.exit(1)
    for more in ("", *wanted.extras) if must else ():
        if (plain(wanted.name), more) not in done:
            done.add((plain(wanted.name), more))
            asked.extend((Requirement(text), more) for text in found.requires or ())
while asked:
    check(*asked.pop(), True)
for bound, _ in bounds:
    if any(plain(bound.name) == name for name, _ in done):
        check(bound, "", False)
"""


def command(requirements: str) -> List[str]:
    """Ends with 0 when this very python has all that the file asks for, with CANNOT_TELL when it
    has no pip to judge by."""
    return [sys.executable, "-c", SCRIPT, requirements]
