from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch

from jobs.textdiff import checkpoint
from jobs.textdiff.checkpoint import Checkpoint
from jobs.textdiff.errors import CheckpointError
from tests.jobs.test_model import model

pytestmark = pytest.mark.torch

EMBEDDING = "backbone.vocab_embed.embedding"


def test_weights_and_vocabulary_survive_the_file(tmp_path: Path) -> None:
    weights = model(1).state_dict()
    checkpoint.save(tmp_path / "a" / "x.pt", Checkpoint(weights, ("<unk>", "a")))
    found = checkpoint.read(tmp_path / "a" / "x.pt")
    assert found.words == ("<unk>", "a")
    other = model(2)
    assert checkpoint.load_into(other, found.weights).share == 1.0
    assert checkpoint.digest(other.state_dict()) == checkpoint.digest(weights)
    assert os.listdir(tmp_path / "a") == ["x.pt"]


@pytest.mark.parametrize("fault", ["missing", "unknown", "of another shape"])
def test_a_checkpoint_that_does_not_fit_in_full_loads_nothing(fault: str) -> None:
    target = model(2)
    before = checkpoint.digest(target.state_dict())
    weights = dict(model(1).state_dict())
    if fault == "missing":
        del weights[EMBEDDING]
    elif fault == "unknown":
        weights["sampling_eps_min"] = torch.tensor(1e-3)
    else:
        weights[EMBEDDING] = weights[EMBEDDING][:-1]
    with pytest.raises(CheckpointError, match=f"1 {fault} \\(first: ") as caught:
        checkpoint.load_into(target, weights)
    assert ("100.0%" in str(caught.value)) == (fault == "unknown")
    assert checkpoint.digest(target.state_dict()) == before


def test_the_digest_tells_any_change_of_a_weight() -> None:
    weights = dict(model(1).state_dict())
    before = checkpoint.digest(weights)
    assert checkpoint.digest(dict(reversed(weights.items()))) == before
    changed = weights[EMBEDDING].clone()
    changed[0, 0] += 1e-6
    assert checkpoint.digest({**weights, EMBEDDING: changed}) != before
    renamed = {("x" if name == EMBEDDING else name): value for name, value in weights.items()}
    assert checkpoint.digest(renamed) != before


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("sprung",)


def test_a_file_with_code_in_it_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Trap(), "words": []}, "saved.pt")
    Path("raw.pt").write_bytes(pickle.dumps(Trap()))
    for name in ("saved.pt", "raw.pt"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoint.read(Path(name))
    assert not Path("sprung").exists()


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint"])
def test_a_missing_or_torn_file_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="needs the keys state_dict and words"):
        checkpoint.read(tmp_path / "x.pt")
