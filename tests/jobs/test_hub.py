"""`data.name: hub` with the real package `datasets`, on a data set that is a folder: no network."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

from tests.jobs.conftest import ROOT

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(
        importlib.util.find_spec("datasets") is None, reason="the hub extra is not installed"
    ),
]

CARD = """---
dataset_info:
  features:
  - name: body
    dtype: string
  - name: mood
    dtype:
      class_label:
        names:
          '0': sad
          '1': glad
          '2': calm
---
"""
SHOW = """
import json, pathlib, sys
from jobs.textdiff import data, typed
from jobs.textdiff.config import Data
from jobs.textdiff.errors import JobError
tree = json.loads(sys.argv[1])
try:
    found = data.load(typed.build(Data, tree), 1, None)
except JobError as error:
    sys.exit(f"error: {error}")
print(json.dumps([found.name, found.labels, len(found.train), len(found.dev), found.test.texts,
                  found.test.labels]))
"""


def folder(place: Path, *splits: str) -> Path:
    """A data set as the hub has them: a card with the names of the classes, and a table a split."""
    place.mkdir()
    (place / "README.md").write_text(CARD)
    for split in splits:
        rows = [{"body": f"{split} text {i}", "mood": i % 3} for i in range(9)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (place / f"{split}.jsonl").write_text(lines)
    return place


def loaded(
    tree: dict[str, Any], tmp_path: Path, hub: Path, text: str = "body"
) -> subprocess.CompletedProcess[str]:
    """A process of its own: the package reads its environment when it is imported."""
    settings = {**tree["data"], "name": "hub", "hub": str(hub), "text": text, "label": "mood"}
    env = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    argv = [sys.executable, "-c", SHOW, json.dumps({**settings, "dev_examples": 2})]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def test_a_data_set_of_the_hub_brings_its_classes_names_and_its_splits(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    hub = folder(tmp_path / "moods", "train", "validation", "test")
    done = loaded(tree, tmp_path, hub)
    assert done.returncode == 0, done.stderr
    name, labels, train, dev, texts, own = json.loads(done.stdout)
    assert (name, labels, train, dev) == (str(hub), ["sad", "glad", "calm"], 9, 9)
    assert (texts[4], own[:4]) == ("test text 4", [0, 1, 2, 0])


def test_without_a_validation_split_dev_is_cut_off_train(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    done = loaded(tree, tmp_path, folder(tmp_path / "moods", "train", "test"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[2:4] == [7, 2]


@pytest.mark.parametrize(
    ("splits", "column", "message"),
    [
        (("train",), "body", "no split test; it has train"),
        (("train", "test"), "words", "no column words in train"),
        ((), "body", "cannot be loaded"),
    ],
)
def test_what_a_data_set_of_the_hub_lacks_is_one_line(
    tree: dict[str, Any], tmp_path: Path, splits: tuple[str, ...], column: str, message: str
) -> None:
    done = loaded(tree, tmp_path, folder(tmp_path / "moods", *splits), column)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr.splitlines()[-1]
