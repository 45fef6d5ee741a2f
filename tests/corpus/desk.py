"""The corpus's project with one case's mistake in it, and what `orch` made of it."""

from __future__ import annotations

import json
import math
import random
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.contract.desk import Desk, end_all
from tests.helpers.cli import run_orch

PROJECT = Path(__file__).parent / "project"
FEATURES = 8
MU = 1.45 / math.sqrt(FEATURES)  # the best possible accuracy is Phi(1.45), 92.6 %
SECONDS = 240


@dataclass(frozen=True, slots=True)
class Edit:
    """In `file`, `old` (which must be there) becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    edits: tuple[Edit, ...] = ()
    args: tuple[str, ...] = ()
    data: Callable[[Path], None] | None = None  # changes the project's data or checkpoint


@dataclass(frozen=True, slots=True)
class Seen:
    """When a case was caught (`check`, `canary`, `during`, `after`, empty: never) and by what."""

    when: str
    by: str
    warnings: tuple[str, ...] = ()


def write_points(path: Path, count: int, seed: int, share: float = 0.5) -> None:
    """Two round clouds, `share` of them positive; one point a line, its label last."""
    rng = random.Random(seed)
    lines = []
    for at in range(count):
        label = int(at < share * count)
        sign = 1.0 if label else -1.0
        point = [f"{rng.gauss(sign * MU, 1.0):.4f}" for _ in range(FEATURES)]
        lines.append(",".join([*point, str(label)]) + "\n")
    rng.shuffle(lines)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(lines))


def write_checkpoint(path: Path, shapes: Mapping[str, list[int]]) -> None:
    """A safetensors file of small random float32 values."""
    rng = random.Random(0)
    header, data = {}, b""
    for name, shape in shapes.items():
        size = math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape,
                        "data_offsets": [len(data), len(data) + 4 * size]}  # fmt: skip
        data += struct.pack(f"<{size}f", *(rng.gauss(0, 0.3) for _ in range(size)))
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


SHAPES: Mapping[str, list[int]] = {
    "body.w": [8, FEATURES], "body.b": [8], "head.w": [2, 8], "head.b": [2],
}  # fmt: skip


def prepare(folder: Path, case: Case) -> Desk:
    project = folder / "project"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("__pycache__"))
    write_points(project / "points" / "train.csv", 2000, seed=1)
    write_points(project / "points" / "test.csv", 600, seed=2)
    write_checkpoint(project / "start.safetensors", SHAPES)
    for edit in case.edits:
        path = project / edit.file
        text = path.read_text()
        assert edit.old in text, f"{case.name}: {edit.old!r} is not in {edit.file}"
        path.write_text(text.replace(edit.old, edit.new, 1))
    if case.data is not None:
        case.data(project)
    home = folder / "home"
    home.mkdir()
    return Desk(home, project)


def look(folder: Path, case: Case) -> Seen:
    """Submit the case and follow it to its end; what caught it, the earliest first."""
    desk = prepare(folder, case)
    try:
        # Not `desk.orch`: a traceback of the job's own may be among what is shown of its log.
        done = run_orch(
            ["submit", "train", "-f", *case.args], home=desk.home, project=desk.project,
            timeout=SECONDS,
        )  # fmt: skip
        runs = desk.runs()
        mine = [run for run in runs if run["job"] == "train"]
        if not mine:
            when = "canary" if runs else "check"
            return Seen(when if done.returncode else "", _refusal(done.stderr, when))
        shown = desk.show(mine[0]["run_id"])
    finally:
        end_all(desk.home)
    return _after(shown)


def _refusal(said: str, when: str) -> str:
    """The first rule that refused, or `spec` for what was no lawful job at all."""
    if when == "canary":
        return "canary"
    for line in said.splitlines():
        rule = line.strip().partition(":")[0]
        if rule in ("missing", "differs", "type", "relation", "checkpoint", "host"):
            return rule
    return "spec"


def _after(shown: Mapping[str, Any]) -> Seen:
    findings = [f for f in shown["findings"] if f["severity"] == "warning"]
    warnings = tuple(str(f["message"]) for f in findings)
    fired = [event["data"] for event in shown["events"] if event["kind"] == "guard"]
    if fired:
        guard = fired[0]["guard"]
        head = next(key for key in ("metric", "log", "predictions", "gpu", "disk") if key in guard)
        rule = next((k for k in ("rule", "max", "min", "steps", "seconds") if k in guard), "")
        by = f"guard {head} {guard[head]} {rule if rule != 'rule' else guard['rule']}".strip()
        return Seen("during", by, warnings)
    if shown["verdict"] != "succeeded":
        return Seen("after", str(shown["verdict"]), warnings)
    if shown["outcome"] != "ok":
        return Seen("after", str(shown["outcome"]), warnings)
    return Seen("", f"{100 * shown['accuracy']:.1f} %", warnings)
