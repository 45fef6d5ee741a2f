"""Checkpoints as torch itself writes them, read without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote import tensors
from remote.tensors import Unreadable

torch = pytest.importorskip("torch", reason="the lane torch says why")


@pytest.mark.torch
def test_real_torch_checkpoints_of_each_form(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).half()
    expected = {
        name: (list(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in model.state_dict().items()
    }
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(2, 4, dtype=torch.half)).sum().backward()
    optimizer.step()
    path = str(tmp_path / "m.ckpt")
    torch.save(model.state_dict(), path)
    assert tensors.read(path) == expected
    whole = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    torch.save({**whole, "hyper_parameters": {"betas": (0.9, 0.99)}}, path)
    assert tensors.read(path) == expected
    assert tensors.read(path, "state_dict") == expected
    assert "state.0.exp_avg" in tensors.read(path, "optimizer")
    with pytest.raises(Unreadable, match="it has no 'ema'"):
        tensors.read(path, "ema")
    odd = {"p": torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16)),
           "f8": torch.zeros(2, dtype=torch.float8_e4m3fn), "s": torch.zeros(())}  # fmt: skip
    torch.save(odd, path)
    assert tensors.read(path) == {
        "p": ([2], "bfloat16"), "f8": ([2], "float8_e4m3fn"), "s": ([], "float32"),
    }  # fmt: skip
    torch.save(model, path)
    assert tensors.read(path) == {}
