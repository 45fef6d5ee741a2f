from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

import torch

from jobs.textdiff import checkpoint
from jobs.textdiff.checkpoint import Checkpoint
from jobs.textdiff.errors import CheckpointError, JobError
from tests.jobs.test_model import model

pytestmark = pytest.mark.torch

EMBEDDING = "backbone.vocab_embed.embedding"


def test_weights_and_vocabulary_survive_the_file(tmp_path: Path) -> None:
    weights, raw = model(1).state_dict(), model(3).state_dict()
    made = Checkpoint(weights, raw, ("words", "<unk>\na"), "digest")
    checkpoint.save(tmp_path / "a" / "x.pt", made)
    found = checkpoint.read(tmp_path / "a" / "x.pt")
    assert (found.tokenizer, found.config) == (made.tokenizer, "digest")
    other = model(2)
    assert checkpoint.load_into(other, found.weights).share == 1.0
    assert checkpoint.digest(other.state_dict()) == checkpoint.digest(weights)
    assert checkpoint.digest(found.raw) == checkpoint.digest(raw)
    assert os.listdir(tmp_path / "a") == ["x.pt"]


def faulty(fault: str) -> tuple[dict[str, torch.Tensor], str]:
    weights, name = dict(model(1).state_dict()), EMBEDDING
    if fault == "missing":
        del weights[EMBEDDING]
    elif fault == "unexpected":
        name = "backbone.more"
        weights[name] = torch.tensor(1e-3)
    else:
        weights[EMBEDDING] = weights[EMBEDDING][:-1]
    return weights, name


FAULTS = ["missing", "unexpected", "of another shape"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_does_not_fit_in_full_loads_nothing(fault: str) -> None:
    target = model(2)
    before = checkpoint.digest(target.state_dict())
    with pytest.raises(CheckpointError, match=f"1 {fault} \\(first: ") as caught:
        checkpoint.load_into(target, faulty(fault)[0])
    assert ("100.0%" in str(caught.value)) == (fault == "unexpected")
    assert checkpoint.digest(target.state_dict()) == before


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("how", ["waived by name", "lenient"])
def test_what_is_waived_by_name_or_lenient_is_loaded_but_told(fault: str, how: str) -> None:
    target, (weights, name) = model(2), faulty(fault)
    own = target.state_dict()[EMBEDDING].clone()
    if how == "lenient":
        fit = checkpoint.load_into(target, weights, strict=False)
    else:
        fit = checkpoint.load_into(target, weights, waived=[name])
        with pytest.raises(CheckpointError):
            checkpoint.load_into(target, weights, waived=["another"])
    assert {*fit.missing, *fit.unexpected, *fit.other_shape} == {name}
    now = target.state_dict()
    assert torch.equal(now[EMBEDDING], own) == (fault != "unexpected")
    other = "backbone.output_layer.linear.weight"
    assert torch.equal(now[other], weights[other])
    assert (fit.share < 1) == (fault != "unexpected")


def test_a_checkpoint_of_something_else_is_refused_even_leniently() -> None:
    with pytest.raises(CheckpointError, match="fits nothing"):
        checkpoint.load_into(model(2), {"x": torch.zeros(1)}, strict=False)


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


@pytest.mark.parametrize(
    "content",
    [None, b"", b"not a checkpoint", b"hello", pickle.dumps({"a": 1}, protocol=4)],
)
def test_a_missing_or_torn_file_is_one_line(
    tmp_path: Path, content: bytes | None, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "x.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    assert "\n" not in str(caught.value)
    wanted = "no such file" if content is None else "torn, or no file that torch.save writes"
    assert wanted in str(caught.value)
    assert not recwarn.list


@pytest.mark.parametrize("content", [{"weights": torch.zeros(1)}, [1], {"format": 1}])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="not one of this project's|no mapping"):
        checkpoint.read(tmp_path / "x.pt")


def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(content: object, file: Any) -> None:
        file.write(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] unexpected pos 64\nmore")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(JobError, match="cannot be written, .* MB are free there") as caught:
        checkpoint.write(tmp_path / "a" / "x.pt", {})
    assert caught.value.exit_code == 1  # it is not the checkpoint that does not fit
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_waived_name_that_nobody_has_is_an_error() -> None:
    target = model(2)
    with pytest.raises(CheckpointError, match="no backbone.typo in it or the model"):
        checkpoint.load_into(target, model(1).state_dict(), waived=["backbone.typo"])
