"""GPUs: what nvidia-smi may say, who holds which card, and one that hangs."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from remote import gpu, preparation, procs
from remote.layout import Layout

GIB = 1024**3
IDLE = "0, GPU-a, NVIDIA H100, 4, 81559, 0, 570.86"
BUSY = "1, GPU-b, NVIDIA H100, 40000, 81559, 99, 570.86"


def free(line: str, needed: int | None = None) -> bool:
    (card,) = gpu.parse(line)
    return gpu.why_not_free(card, needed) is None


def test_f37_a_card_is_free_when_nobody_uses_it_and_it_is_large_enough() -> None:
    assert free(IDLE)
    assert not free(BUSY)
    assert free(IDLE, 70 * GIB)
    assert not free(IDLE, 90 * GIB)


@pytest.mark.parametrize(
    "line",
    [
        "0, GPU-a, NVIDIA A100, [N/A], [N/A], [N/A], 570.86",
        "0, GPU-a, NVIDIA A100, [Insufficient Permissions], 81559, 0, 570.86",
        "0, GPU-a, NVIDIA A100, 4 MiB, 81559 MiB, 0, 570.86",
        "0, GPU-a, NVIDIA A100, -1, 81559, 0, 570.86",
        "0, GPU-a, NVIDIA A100, 4.5, 81559, 0, 570.86",
    ],
)
def test_f41_what_is_not_told_is_never_free(line: str) -> None:
    assert not free(line)


@pytest.mark.parametrize(
    "text",
    [
        "", "\n\n", "No devices were found\n",
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 570.1",
        "0, GPU-a, NVIDIA H100, 4, 81,559, 0, 570.86", "x, GPU-a, n, 4, 8, 0, 5",
        "0, , n, 4, 8, 0, 5",
        "\x00\xff" * 50,
    ],
)  # fmt: skip
def test_f41_garbage_is_no_card(text: str) -> None:
    assert gpu.parse(text) == []


def test_f38_a_card_is_leased_once_and_free_when_its_holder_lets_go(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    layout.ensure()
    seen = gpu.parse(IDLE + "\n" + IDLE.replace("0, GPU-a", "1, GPU-c"))
    first = gpu.lease(layout, seen, 1, 1, None)
    second = gpu.lease(layout, seen, 1, 2, None)
    assert [card.number for card in (*first.cards, *second.cards)] == [0, 1]
    with pytest.raises(gpu.Busy, match="GPU 0 is leased by another run; GPU 1 is leased"):
        gpu.lease(layout, seen, 1, 1, None)
    assert gpu.lease(layout, seen, 0, 2, None) == ([], [])
    os.close(first.locks[0])
    assert gpu.lease(layout, seen, 1, 2, None).cards == first.cards


def test_a_full_disk_costs_a_lease_its_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(str(tmp_path))
    layout.ensure()
    seen = gpu.parse(IDLE)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(2):
        lease = gpu.lease(layout, seen, 1, 1, None, "some-run")
        assert gpu.holder(layout, seen[0]) == ""
        os.close(lease.locks[0])
        assert gpu.holder(layout, seen[0]) is None


def test_a_lease_that_is_one_short_holds_none(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    layout.ensure()
    seen = gpu.parse(f"{IDLE}\n{BUSY}")
    with pytest.raises(gpu.Busy, match="GPU 1 is in use by others"):
        gpu.lease(layout, seen, 2, 2, None)
    assert len(gpu.lease(layout, seen, 1, 2, None).cards) == 1


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi first in PATH, for the test to write."""
    path = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(gpu, "DEADLINE", 0.5)
    return path


def written(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_f40_a_probe_that_hangs_is_given_up_in_time(smi: Path) -> None:
    written(smi, "trap '' TERM; sleep 60")
    began = time.monotonic()
    with pytest.raises(gpu.NoAnswer):
        gpu.probe()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("echo; echo Failed to initialize NVML >&2; exit 9", r"\(exit code 9\): Failed to init"),
        ("exit 3", r"\(exit code 3\): it said nothing"),
        ("echo 'Driver/library version mismatch'", "but said: Driver/library version"),
        ("exec sleep 60", "no answer within"),
    ],
)
def test_f40_why_a_probe_told_nothing_is_told(smi: Path, text: str, told: str) -> None:
    written(smi, text)
    with pytest.raises(gpu.NoAnswer, match=told):
        gpu.probe()


def test_f39_a_driver_without_a_card_is_no_failure(smi: Path) -> None:
    written(smi, "echo 'No devices were found'; exit 6")
    assert gpu.probe() == []


def test_a_run_must_have_one_of_0_to_n_where_the_host_has_one() -> None:
    for least, most, cards, must in [
        (0, 1, 0, 0), (0, 1, 1, 1), (0, 4, 8, 1), (0, 0, 8, 0), (2, 2, 0, 2), (1, 2, 8, 1),
    ]:  # fmt: skip
        assert gpu.must_have({"gpus_min": least, "gpus_max": most}, cards) == must


def test_f40_no_second_probe_is_started_beside_one_that_cannot_be_killed(
    smi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(smi, f"echo x >> {smi}.calls; sleep 60")
    real = procs.send
    killed: list[int] = []
    monkeypatch.setattr(procs, "send", lambda pid, _number: killed.append(pid))
    asked = gpu.Smi()
    for _ in range(3):
        with pytest.raises(gpu.NoAnswer):
            asked.cards()
    assert Path(f"{smi}.calls").read_text() == "x\n"
    real(killed[0], 9)
    end = time.monotonic() + 20
    while os.waitid(os.P_PID, killed[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    written(smi, f"echo '{IDLE}'")
    assert [card.uuid for card in asked.cards()] == ["GPU-a"]


def test_f39_without_the_tool_there_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert gpu.probe() == []


def test_f38_who_waits_for_leased_cards_asks_nvidia_smi_only_when_one_is_let_go(
    smi: Path, tmp_path: Path
) -> None:
    written(smi, f"echo x >> {smi}.calls; echo '{IDLE}'")
    layout = Layout(str(tmp_path / "root"))
    layout.ensure()
    held = gpu.lease(layout, gpu.parse(IDLE), 1, 1, None, "another-run").locks
    said: list[str] = []
    pauses = iter(range(5))

    def pause() -> None:
        if next(pauses) == 3:
            os.close(held[0])

    run = layout.attempt("20261123-091929-123k3x7q", 1)
    os.makedirs(run.path)
    order = {"gpus_min": 1, "gpus_max": 1}
    cards, locks = preparation.lease(layout, run, order, said.append, pause)
    assert [card.uuid for card in cards] == ["GPU-a"]
    assert said == ["waits for 1 GPU(s): GPU 0 is leased by another run"]
    assert Path(f"{smi}.calls").read_text() == "x\n" * 2
    os.close(locks[0])
