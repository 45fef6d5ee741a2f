"""A driver against torch's CUDA: NVIDIA's table of least drivers, and who is refused by it."""

from __future__ import annotations

import pytest

from orchestrator.checks import cuda
from orchestrator.checks.cuda import Torch
from orchestrator.domain import Severity


def test_any_driver_of_a_major_release_runs_all_its_toolkits_and_older_ones() -> None:
    for driver, version in (
        ("580.65.06", "13.0"), ("580", "13.9"), ("525.60.13", "12.8"), ("570.86", "12.0"),
        ("450.80.02", "11.8"), ("580.65.06", "11.8"), ("440.33", "10.2"),
    ):  # fmt: skip
        assert not cuda.too_old(driver, version), (driver, version)


def test_a_driver_from_before_the_major_release_is_too_old() -> None:
    for driver, version in (
        ("570.86", "13.0"), ("525.60.12", "12.1"), ("470.57.02", "12.0"), ("450.80.01", "11.1"),
        ("418.39", "10.2"),
    ):  # fmt: skip
        assert cuda.too_old(driver, version), (driver, version)


@pytest.mark.parametrize(
    ("driver", "version"), [("", "12.1"), ("[N/A]", "12.1"), ("470.57", "14.0"), ("470.57", "?")]
)
def test_of_what_is_not_known_nothing_is_concluded(driver: str, version: str) -> None:
    assert not cuda.too_old(driver, version)


def found(
    torch: Torch | None, *, needs: bool = True, asked: bool = True, forward: bool = False
) -> list[Severity]:
    told = cuda.check("470.57.02", torch, host="box", needs_gpu=needs, asked=asked, forward=forward)
    return [each.severity for each in told]


def test_only_a_run_that_must_have_a_gpu_and_asks_for_this_torch_is_refused() -> None:
    new = Torch("/usr/bin/python3", "2.5.1", "12.4")
    assert found(new) == [Severity.ERROR]
    assert found(new, needs=False) == [Severity.WARNING]
    assert found(new, asked=False) == [Severity.WARNING]
    assert found(new, forward=True) == [Severity.WARNING]
    assert found(Torch("p", "1.13.1", "11.7")) == []


def test_a_torch_without_cuda_is_told_where_a_gpu_was_asked_for() -> None:
    plain = Torch("p", "2.5.1+cpu", None)
    assert found(plain) == [Severity.WARNING]
    assert found(plain, needs=False) == []
    assert found(Torch("p", "2.5.1+rocm6.2", None, rocm=True)) == []
    assert found(None) == []


@pytest.mark.parametrize("value", [None, [], {"python": "p"}, {"python": 1, "version": "2"}])
def test_what_a_host_says_of_torch_may_be_anything(value: object) -> None:
    assert cuda.torch_of(value) is None
    odd = cuda.torch_of({"python": "p", "version": "2.5", "cuda": 12.4, "hip": None})
    assert odd == Torch("p", "2.5", None)
