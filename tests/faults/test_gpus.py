"""GPUs as nvidia-smi tells of them, and as it does not: a stub stands for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote import gpu, procs
from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, assert_clear, of_run, until

IDLE = "0, GPU-aaaa, NVIDIA X, 3, 24576, 0, 550.1"
BUSY = "0, GPU-aaaa, NVIDIA X, 20000, 24576, 99, 550.1"
NEEDS = {"command": "echo gpu $CUDA_VISIBLE_DEVICES; sleep 600", "resources": {"gpus": 1}}
MAY = {"command": "echo gpu $CUDA_VISIBLE_DEVICES.", "resources": {"gpus": "0-1"}}


class Cards:
    """A stub of nvidia-smi, first on the host's PATH; `say` makes it print these lines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def say(self, *lines: str) -> None:
        self.script("cat <<'EOF'\n" + "".join(f"{line}\n" for line in lines) + "EOF")

    def script(self, text: str) -> None:
        new = self.folder / "new"
        new.write_text(f"#!/bin/sh\n{text}\n")
        new.chmod(0o755)
        new.rename(self.folder / "nvidia-smi")


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cards:
    import os

    made = Cards(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    return made


def state(desk: Desk, run_id: str) -> str:
    return str(desk.show(run_id)["state"])


def test_f37_a_gpu_used_by_others_is_waited_for_and_taken_when_it_is_free(
    cards: Cards, new_desk: MakeDesk
) -> None:
    cards.say(BUSY)
    desk = new_desk({"needs": NEEDS})
    run_id = desk.submit("needs", "--queue")
    assert state(desk, run_id) == "queued"
    assert of_run(run_id) == []
    cards.say(IDLE)
    until(lambda: state(desk, run_id) == "running", 40)
    desk.orch("cancel", run_id)


def test_f38_two_runs_never_hold_one_gpu(cards: Cards, new_desk: MakeDesk) -> None:
    cards.say(IDLE)
    desk = new_desk({"needs": NEEDS})
    both = [desk.start("submit", "needs") for _ in range(2)]
    ids = [each.communicate(timeout=60)[0].strip() for each in both]
    until(lambda: sorted(state(desk, each) for each in ids) == ["queued", "running"], 40)
    first = next(each for each in ids if state(desk, each) == "running")
    desk.orch("cancel", first)
    (second,) = set(ids) - {first}
    until(lambda: state(desk, second) == "running", 40)
    desk.orch("cancel", second)


def test_f39_without_nvidia_smi_a_run_that_needs_a_gpu_is_refused_and_others_go_on(
    new_desk: MakeDesk,
) -> None:
    if procs.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    desk = new_desk({"needs": NEEDS, "may": MAY})
    assert_clear(desk.orch("submit", "needs", code=5), "GPU", "box")
    assert {row[2] for row in desk.rows()} == {"never_started"}
    assert "gpu ." in desk.orch("submit", "may", "-f").stdout


def test_f40_an_nvidia_smi_that_hangs_delays_nobody_for_long(
    cards: Cards, new_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards.script("trap '' TERM\nexec sleep 600")
    desk = new_desk({"needs": NEEDS, "may": MAY})
    assert_clear(desk.orch("submit", "needs", code=5, timeout=40), "no answer", "box")
    done = desk.orch("submit", "may", code=5, timeout=40)
    assert_clear(done, "no answer", "`resources.gpus: 0` runs it without a GPU")
    report = desk.orch("doctor", "--json", code=None, timeout=40)
    assert "no answer" in report.stdout


def test_f40_one_that_fails_is_told_in_its_own_words(cards: Cards, new_desk: MakeDesk) -> None:
    cards.script("echo 'NVIDIA-SMI has failed: no driver' >&2\nexit 9")
    desk = new_desk({"needs": NEEDS, "may": MAY})
    told = "nvidia-smi failed (exit code 9): NVIDIA-SMI has failed: no driver"
    for job in ("needs", "may"):
        assert_clear(desk.orch("submit", job, code=5), told, "was not started")
        assert told in desk.orch("check", job, "--host", "box", code=5).stdout
    assert told in desk.orch("doctor", "--json", code=None, timeout=40).stdout
    assert told in desk.orch("gpus", "--json", code=None, timeout=40).stdout


def test_f39_a_run_that_may_do_without_goes_on_where_nvidia_smi_lists_no_card(
    cards: Cards, new_desk: MakeDesk
) -> None:
    cards.script("echo 'No devices were found'\nexit 6")
    desk = new_desk({"needs": NEEDS, "may": MAY})
    assert_clear(desk.orch("submit", "needs", code=5), "shows 0")
    assert "nvidia-smi lists none" in desk.orch("doctor", "--json", code=None).stdout
    assert "gpu ." in desk.orch("submit", "may", "-f").stdout


GARBAGE = [
    "", "No devices were found", "Failed to initialize NVML: Driver/library version mismatch",
    "0, GPU-a, X, [N/A], [N/A], [N/A], 550", "0, GPU-a, X, 3,5, 24576, 0, 550", "0;GPU-a;X;3;24576",
    "x, GPU-a, X, 3, 24576, 0, 550", "0, , X, 3, 24576, 0, 550", "\x00\xff",
    "0, GPU-a, X, -3, 24576, 0, 550", "0, GPU-a, X, 3, 0x10, 0, 550",
]  # fmt: skip


@pytest.mark.parametrize("text", GARBAGE)
def test_f41_what_does_not_parse_is_never_a_free_gpu(text: str) -> None:
    assert [card for card in gpu.parse(text) if not gpu.why_not_free(card, None)] == []
    assert len(gpu.parse(f"{text}\n{IDLE}")) >= 1


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried",
            "CUDA out of memory",
        ),
        ("OSError: [Errno 28] No space left on device", "no space left"),
        ("RuntimeError: NCCL error in: ...", "NCCL"),
    ],
)
def test_f42_a_cause_of_death_that_the_log_names_is_told(
    words: str, cause: str, new_desk: MakeDesk
) -> None:
    desk = new_desk({"dies": ["sh", "-c", f"echo '{words}' >&2; exit 1"]})
    desk.orch("submit", "dies", "-f", code=1)
    shown = desk.show()
    assert (shown["verdict"], shown["exit_code"]) == ("failed", 1)
    assert cause in " ".join(shown["outcome_reasons"])
