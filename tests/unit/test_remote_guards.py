"""Guards over a growing metrics.jsonl, a log and a disk: what fires, when, with what evidence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote import events, gpu, guards, procs
from remote.guards import Firing, Guards
from remote.layout import RunFiles

Lines = list[Any]


class Watched:
    """A run directory, and its guards at a clock of the test's own."""

    def __init__(self, folder: Path, specs: Lines, patch: pytest.MonkeyPatch) -> None:
        self.run = RunFiles(str(folder), "run-1")
        self.metrics = folder / "results" / "metrics.jsonl"
        self.metrics.parent.mkdir()
        Path(self.run.log).touch()
        self.now = 100.0
        patch.setattr("remote.guards.time.monotonic", lambda: self.now)
        card = gpu.Gpu(0, "GPU-1", "card", 0, 10, 0, "5")
        self.guards = Guards(self.run, specs, [card])

    def write(self, *lines: Any) -> None:
        with self.metrics.open("a") as file:
            for line in lines:
                file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")

    def log(self, text: str) -> None:
        with open(self.run.log, "a") as file:
            file.write(text)

    def after(self, seconds: float) -> list[str]:
        self.now += seconds
        return [firing.message for firing in self.guards.look()]


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Watched]:
    return lambda *specs: Watched(tmp_path, list(specs), monkeypatch)


FINITE = {"metric": "loss", "rule": "finite", "action": "stop", "grace": 60.0}
MATRIX = {"step": 5, "confusion_matrix": [[578, 0], [422, 0]], "labels": ["neg", "pos"]}

CASES: dict[str, tuple[dict[str, Any], Lines, str | None]] = {
    "nan": (
        FINITE,
        [{"step": 1, "loss": 2.0}, '{"step": 2, "loss": NaN}'],
        "loss is nan at step 2",
    ),
    "inf": (FINITE, ['{"loss": -Infinity}'], "loss is -inf at step 1"),
    "nan as text": (FINITE, [{"step": 3, "loss": "nan"}], "loss is nan at step 3"),
    "an endless integer": (FINITE, ['{"step": 1, "loss": ' + "9" * 400 + "}"], "loss is inf"),
    "nested": (
        {**FINITE, "metric": "train.loss"},
        ['{"train": {"loss": NaN}}'],
        "train.loss is nan",
    ),
    "finite": (
        FINITE,
        [{"step": 1, "loss": 1e300}, {"step": 2}, {"loss": None}, {"loss": "x"}],
        None,
    ),
    "numbers that become null for good": (
        FINITE,
        [
            *({"step": s, "loss": 1.0} for s in range(3)),
            *({"step": s, "loss": None} for s in range(3, 30)),
        ],
        "loss has been null on 10 lines in a row at step 12",
    ),
    "null where nothing is measured": (
        {**FINITE, "metric": "val.loss"},
        [{"step": s, "val": {"loss": None if s % 40 else 1.0}} for s in range(240)],
        None,
    ),
    "never more than null": (FINITE, [{"step": s, "loss": None} for s in range(40)], None),
    "no longer there is not null": (
        FINITE,
        [*({"step": s, "loss": 1.0} for s in range(9)), *({"step": s} for s in range(9, 60))],
        None,
    ),
    "a matrix of 1 000 classes": (
        {"predictions": "not-degenerate"},
        [{"step": 1, "confusion_matrix": [[0, 30 * (not at)] + [0] * 998 for at in range(1000)]}],
        "class `0` is never predicted at step 1: 0 of 30",
    ),
    "too high": (
        {"metric": "loss", "max": 3},
        [{"step": 7, "loss": 3.5}],
        "loss is 3.5 at step 7, above the most allowed, 3",
    ),
    "nan is in no range": ({"metric": "loss", "max": 3}, ['{"loss": NaN}'], "loss is nan"),
    "too low": (
        {"metric": "accuracy", "min": 0.6, "from": 10},
        [{"step": 9, "accuracy": 0.1}, {"step": 10, "accuracy": 0.59}],
        "at step 10",
    ),
    "not yet": (
        {"metric": "accuracy", "min": 0.6, "from": 10},
        [{"step": 9, "accuracy": 0.1}],
        None,
    ),
    "stalled": (
        {"metric": "loss", "steps": 10, "better": "lower"},
        [{"step": s, "loss": max(1.0, 3.0 - s)} for s in range(20)],
        "loss has not improved for 10 steps: best 1 at step 2",
    ),
    "stalled upwards": (
        {"metric": "accuracy", "steps": 3, "better": "higher"},
        [{"step": s, "accuracy": 0.5} for s in range(5)],
        "has not improved",
    ),
    "nan first, then improving": (
        {"metric": "loss", "steps": 3, "better": "lower"},
        ['{"step": 0, "loss": NaN}', *({"step": s, "loss": 9.0 - s} for s in range(1, 9))],
        None,
    ),
    "minus infinity is nothing to improve on": (
        {"metric": "loss", "steps": 3, "better": "lower"},
        ['{"loss": -Infinity}', *({"step": s, "loss": 9.0 - s} for s in range(1, 9))],
        None,
    ),
    "nan for good is no improvement": (
        {"metric": "loss", "steps": 3, "better": "lower"},
        [{"step": 0, "loss": 2.0}, *(f'{{"step": {s}, "loss": NaN}}' for s in range(1, 5))],
        "loss has not improved for 3 steps: best 2 at step 0",
    ),
    "counts that no float can hold": (
        {"predictions": "not-degenerate"},
        ['{"confusion_matrix": [[1%s, 0], [0, 1]]}' % ("0" * 400), MATRIX],
        "class `pos` is never predicted at step 5",
    ),
    "improving": (
        {"metric": "loss", "steps": 10, "better": "lower"},
        [{"step": s, "loss": 3.0 - s / 100} for s in range(50)],
        None,
    ),
    "one class": (
        {"predictions": "not-degenerate"},
        [MATRIX],
        "class `pos` is never predicted at step 5: 0 of 422",
    ),
    "majority": (
        {"predictions": "not-degenerate"},
        [{"step": 5, "confusion_matrix": [[400, 100], [395, 105]]}],
        "accuracy is 50.5 % at step 5 (n = 1000), no better than the 50.0 %",
    ),
    "counts as floats": (
        {"predictions": "not-degenerate"},
        [{"confusion_matrix": [[57.5, 0], [422.0, 0]]}, {"confusion_matrix": [[50.0, 0], [50, 0]]}],
        "class `1` is never predicted at step 2: 0 of 50",
    ),
    "majority in numbers": (
        {"predictions": "not-degenerate"},
        [{"accuracy": 0.578, "majority": 0.578, "n": 1000}],
        "57.8 %",
    ),
    "a classifier": (
        {"predictions": "not-degenerate"},
        [
            {"confusion_matrix": [[60, 40], [40, 60]]},
            {"confusion_matrix": "x"},
            {"confusion_matrix": [[1, 2], [3]]},
            {"accuracy": 0.1},
        ],
        None,
    ),
    "few examples": (
        {"predictions": "not-degenerate"},
        [{"confusion_matrix": [[8, 0], [8, 0]]}],
        None,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_metric_guard_fires_on_what_it_is_for_and_on_nothing_else(
    case: str, watch: Callable[..., Watched]
) -> None:
    spec, lines, told = CASES[case]
    run = watch(spec)
    run.write(*lines)
    found = run.after(2)
    assert (told is None) is (found == []), found
    assert told is None or told in found[0]
    run.write(*lines)
    assert run.after(2) == []  # once; it is known now


def test_a_firing_carries_action_grace_and_evidence(watch: Callable[..., Watched]) -> None:
    run = watch(FINITE, {"metric": "loss", "max": 1, "action": "kill"})
    run.write('{"step": 4, "loss": NaN}', {"step": 5, "loss": 2})
    run.now += 2
    found = run.guards.look()
    assert [(f.action, f.grace) for f in found] == [("stop", 60.0), ("kill", 0.0)]
    assert found[0] == Firing(
        "stop", 60.0, "loss is nan at step 4", {"step": 4, "value": "nan"}, FINITE
    )


def test_torn_lines_noise_and_a_new_file_do_not_stop_the_reading(
    watch: Callable[..., Watched],
) -> None:
    run = watch(FINITE)
    run.write("\x00noise", "[1]", '{"step": 1, "los', "[" * 5000, '{"loss": 1}')
    with run.metrics.open("a") as file:
        file.write('{"step": 2, "loss": ')
    assert run.after(2) == []
    with run.metrics.open("a") as file:
        file.write("NaN}\n")
    assert run.after(2) == ["loss is nan at step 2"]


def test_a_file_begun_anew_is_read_from_its_start(watch: Callable[..., Watched]) -> None:
    run = watch(FINITE)
    run.write(*[{"step": n, "loss": 1.0} for n in range(100)])
    assert run.after(2) == []
    run.metrics.unlink()
    run.write('{"step": 1, "loss": NaN}')
    assert run.after(2) == ["loss is nan at step 1"]


def test_a_later_attempt_is_not_judged_by_the_lines_of_an_earlier_one(
    watch: Callable[..., Watched],
) -> None:
    run = watch(FINITE)
    run.write('{"step": 1, "loss": NaN}')
    again = RunFiles(run.run.path, "run-1", 2)
    run.guards = Guards(again, [FINITE], [])
    assert run.after(2) == []
    run.write('{"step": 2, "loss": NaN}')
    assert run.after(2) == ["loss is nan at step 2"]


def test_another_supervisor_of_the_same_attempt_does_not_tell_it_again(
    watch: Callable[..., Watched],
) -> None:
    run = watch(FINITE)
    run.write('{"step": 1, "loss": NaN}')
    assert run.after(2) == ["loss is nan at step 1"]
    events.append(run.run, "T", "guard", "loss is nan at step 1", guard=FINITE, attempt=1)
    run.guards = Guards(run.run, [FINITE], [])
    assert run.after(2) == []


def test_overlong_lines_and_large_files_cost_bounded_memory(watch: Callable[..., Watched]) -> None:
    import tracemalloc

    run = watch(FINITE)
    with run.metrics.open("w") as file:
        file.write('{"x": "' + "x" * (20 << 20) + '", "loss": NaN}\n')
        file.write('{"loss": 1.0}\n' * 200_000)
        file.write('{"step": 9, "loss": NaN}\n')
    tracemalloc.start()
    found: list[str] = []
    for _ in range(100):
        found += run.after(run.guards.due - run.now)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    overlong = "a line of metrics.jsonl is longer than 4 MiB: the guards pass such lines over"
    assert found == [overlong, "loss is nan at step 9"]
    assert peak < 16 << 20


def test_a_metrics_file_of_a_gigabyte_is_read_to_its_end_in_bounded_memory(
    watch: Callable[..., Watched],
) -> None:
    import tracemalloc

    run = watch(FINITE)
    run.write({"step": 1, "loss": 2.0}, '{"step": 2, "lo')  # torn
    os.truncate(run.metrics, 1 << 30)
    run.write("", '{"step": 9, "loss": NaN}')
    tracemalloc.start()
    found: list[str] = []
    for _ in range(1000):
        found += run.after(run.guards.due - run.now)
        if len(found) == 2:
            break
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[1:] == ["loss is nan at step 9"]
    assert peak < 16 << 20


def test_a_fifo_or_folder_in_place_of_the_metrics_is_passed_over(
    watch: Callable[..., Watched],
) -> None:
    run = watch(FINITE)
    os.mkfifo(run.metrics)
    assert run.after(2) == []
    run.metrics.unlink()
    run.metrics.mkdir()
    assert run.after(2) == []


def test_silence_fires_again_only_after_output(watch: Callable[..., Watched]) -> None:
    run = watch({"log": "idle", "after": 60.0})
    assert run.after(59) == []
    run.log("a")
    assert run.after(2) == []
    assert run.after(59) == []
    assert run.after(2) == ["no output for 61 s"]
    assert run.after(100) == []
    run.log("[orch] guard\n")
    run.guards.said()  # our own words are no output
    assert run.after(100) == []
    run.write({"step": 1})
    assert run.after(2) == []
    assert run.after(61) == ["no output for 61 s"]


def test_first_output_overdue_is_told_once_and_never_after_output(
    watch: Callable[..., Watched],
) -> None:
    run = watch({"log": "first", "after": 60.0})
    assert run.after(61) == ["no first output after 61 s"]
    assert run.after(61) == []
    run.log("a")
    assert run.after(1000) == []


def test_no_improvement_for_a_time_is_seen_without_new_lines(watch: Callable[..., Watched]) -> None:
    run = watch({"metric": "loss", "seconds": 60.0, "better": "lower"})
    assert run.after(100) == []  # nothing measured, nothing to improve on
    run.write({"step": 1, "loss": 1})
    assert run.after(2) == []
    assert run.after(61) == ["loss has not improved for 61 s: best 1 at step 1"]


def test_low_disk_fires_with_what_is_free(
    watch: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {"bytes": 10 << 30}
    monkeypatch.setattr(guards.files, "free_bytes", lambda _path: free["bytes"])
    run = watch({"disk": "low", "free": 5 << 30})
    assert run.after(2) == []
    free["bytes"] = 1 << 30
    assert run.after(2) == []  # looked at a moment ago
    assert run.after(10) == ["1024 MB are free where the run lies, less than 5120 MB"]
    assert run.after(10) == []


def test_an_idle_gpu_fires_after_its_time_and_a_busy_or_silent_one_never(
    watch: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy: dict[str, int | None] = {"per cent": 0}

    def cards(_smi: gpu.Smi) -> list[gpu.Gpu]:
        if busy["per cent"] == -1:
            raise gpu.NoAnswer("hangs")
        return [gpu.Gpu(0, "GPU-1", "card", 0, 10, busy["per cent"], "5"),
                gpu.Gpu(1, "GPU-2", "another's", 0, 10, 99, "5")]  # fmt: skip

    monkeypatch.setattr(gpu.Smi, "cards", cards)
    run = watch({"gpu": "idle", "after": 100.0})
    assert [run.after(20) for _ in range(5)] == [[]] * 5
    assert run.after(20) == ["its GPU has been idle for 100 s: 0 % busy at most"]
    for value in (90, None, -1):
        busy["per cent"] = value
        assert [run.after(20) for _ in range(8)] == [[]] * 8
    busy["per cent"] = 3
    told = [message for _ in range(8) for message in run.after(20)]
    assert told == ["its GPU has been idle for 100 s: 3 % busy at most"]


def test_a_bound_of_zero_lets_a_gpu_be_busy_with_one_per_cent(
    watch: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = {"per cent": 1}
    monkeypatch.setattr(
        gpu.Smi, "cards", lambda _: [gpu.Gpu(0, "GPU-1", "card", 0, 10, busy["per cent"], "5")]
    )
    run = watch({"gpu": "idle", "after": 100.0, "below": 0})
    assert [run.after(20) for _ in range(8)] == [[]] * 8
    busy["per cent"] = 0
    assert any(run.after(20) for _ in range(8))


def test_f40_a_guard_starts_no_second_nvidia_smi_beside_one_that_cannot_be_killed(
    watch: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(argv: list[str], _deadline: float, stuck: list[int]) -> procs.Said:
        asked.append(argv[0])
        stuck.append(4343)
        return procs.Said(None, b"")

    monkeypatch.setattr(procs, "which", lambda name: name)
    monkeypatch.setattr(procs, "ask", ask)
    monkeypatch.setattr(procs, "wait_for", lambda _pid, _deadline: None)  # it does not end
    run = watch({"gpu": "idle", "after": 100.0})
    assert [run.after(20) for _ in range(4)] == [[]] * 4
    assert asked == ["nvidia-smi"]


def test_events_are_read_back_numbered_and_torn_ones_left_out(tmp_path: Path) -> None:
    run = RunFiles(str(tmp_path), "run-1")
    assert events.read(run) == []
    events.append(run, "T", "guard", "m" * 5000, evidence={"x": 1})
    events.append(run, "T", "guard", "second", evidence={"x": "y" * 9000})
    with open(run.events, "a") as file:
        file.write('{"torn')
    first, second = events.read(run)
    assert (first["number"], first["evidence"], len(first["message"])) == (1, {"x": 1}, 1000)
    assert (second["number"], second["message"], "evidence" in second) == (2, "second", False)


def test_of_many_events_the_latest_are_told_under_their_own_numbers(tmp_path: Path) -> None:
    run = RunFiles(str(tmp_path), "run-1")
    for at in range(1, 151):
        events.append(run, "T", "guard", f"event {at}")
    with open(run.events, "a") as file:
        file.write('{"of a job": ' + "[" * 20000 + "]" * 20000 + "}\n")
    told = events.read(run)
    assert told[-1]["number"] == 150
    assert [each["message"] for each in told] == [f"event {each['number']}" for each in told]
    assert len(told) == events.COUNT_MAX - 1


def test_what_no_json_can_say_is_null_in_an_event(tmp_path: Path) -> None:
    run = RunFiles(str(tmp_path), "run-1")
    events.append(run, "T", "guard", "m", evidence={"best": float("nan"), "worst": -float("inf")})
    assert json.loads(Path(run.events).read_text())["evidence"] == {"best": None, "worst": None}
