from __future__ import annotations

import json
import math
import os
from pathlib import Path

from orchestrator.report.curves import BUCKETS, LINE_MAX, SERIES_MAX, Curves, read_curves


def read(path: Path, text: str | bytes, **options: int) -> Curves:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found = read_curves(path, **options)
    assert found is not None
    return found


def line(**values: object) -> str:
    return json.dumps(values) + "\n"


def test_a_metric_is_a_series_for_each_phase_and_when_it_was_is_none(tmp_path: Path) -> None:
    text = line(step=1, phase="a", loss=2.0, progress=0.1, eta_s=9, done=True, word="x")
    text += line(step=2, phase="b", loss=1.0, accuracy=0.5)
    found = read(tmp_path / "m", text).metrics()
    assert [(each.phase, each.latest) for each in found["loss"]] == [("a", 2.0), ("b", 1.0)]
    assert list(found) == ["loss", "accuracy"]


def test_a_long_series_stays_small_and_loses_no_peak(tmp_path: Path) -> None:
    count = 20_000
    values = [math.sin(at / 100) for at in range(count)]
    values[12_345] = 50.0
    text = "".join(line(step=at, loss=value) for at, value in enumerate(values))
    (series,) = read(tmp_path / "m", text).metrics()["loss"]
    assert len(series.buckets) <= 2 * BUCKETS
    assert series.count == sum(bucket.count for bucket in series.buckets) == count
    assert max(bucket.high for bucket in series.buckets) == 50.0
    assert abs(sum(bucket.total for bucket in series.buckets) - sum(values)) < 1e-6
    assert (series.buckets[0].first, series.buckets[-1].last) == (0, count - 1)


def test_torn_lines_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    text = line(step=1, loss=1) + '{"step": 2, "lo\n' + "[1]\n" + "\n" + line(step=3, loss=3)
    text += "x" * (3 * LINE_MAX) + "\n" + line(step=4, loss=4) + '{"step": 5, "loss"'
    found = read(tmp_path / "m", text.encode() + b"\xff\xfe")
    assert (found.metrics()["loss"][0].count, found.torn, found.lines) == (3, 4, 7)


def test_where_a_value_first_was_not_finite_is_kept(tmp_path: Path) -> None:
    text = '{"step": 1, "loss": 1}\n{"step": 2, "loss": NaN}\n{"step": 3, "loss": Infinity}\n'
    (series,) = read(tmp_path / "m", text).metrics()["loss"]
    assert (series.count, series.not_finite, series.latest) == (1, 2.0, 1.0)


def test_of_a_large_file_equally_spaced_pieces_are_read(tmp_path: Path) -> None:
    text = "".join(line(step=at, loss=float(at), pad="x" * 200) for at in range(20_000))
    found = read(tmp_path / "m", text, read_max=512 * 1024)
    assert found.sampled and found.read < 700 * 1024 < found.size
    (series,) = found.metrics()["loss"]
    assert found.torn == 0
    assert series.buckets[0].first < 500 and series.buckets[-1].last == 19_999
    gaps = [
        two.first - one.last for one, two in zip(series.buckets, series.buckets[1:], strict=False)
    ]
    assert max(gaps) < 20_000 / 5


def test_names_without_end_do_not_fill_the_memory(tmp_path: Path) -> None:
    text = "".join(line(**{f"loss{at}": 1.0, "step": at}) for at in range(500))
    found = read(tmp_path / "m", text)
    assert len(found.series) == SERIES_MAX
    assert found.dropped == 500 - SERIES_MAX


def test_what_is_no_regular_file_is_no_curve(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "secret").write_text(line(step=1, loss=1))
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    assert read_curves(tmp_path / "fifo") is None
    assert read_curves(tmp_path / "link") is None
    assert read_curves(tmp_path) is None
    assert read_curves(tmp_path / "absent") is None
    assert read(tmp_path / "empty", "").metrics() == {}
