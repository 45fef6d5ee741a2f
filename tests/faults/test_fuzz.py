"""Bytes and values nobody sane would send: an answer in words, soon, and in bounded memory.

`make fuzz` runs each of these with 17 000 cases.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import resource
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import compare, comparetext, export, render, runjson, runtext
from orchestrator.errors import OrchError, SpecError
from orchestrator.ledger.store import Ledger
from orchestrator.recorded import Orders, orders_of
from orchestrator.report.content import Account, report_of
from orchestrator.report.html import to_html
from orchestrator.report.markdown import to_markdown
from orchestrator.spec import load_job
from orchestrator.transport.base import Agent
from orchestrator.unpack import Folder
from orchestrator.usecases import fetch, reconcile, settle, verify
from orchestrator.usecases.context import Context
from remote import agent, wire
from remote.channel import Channel
from remote.layout import Layout
from tests.contract import liar
from tests.helpers.runs import a_run

SECONDS = 2.0  # of processor time for one case; the slowest seen took a fiftieth
GROWTH = 256 << 10  # KiB by which the process may grow over all cases of a test

shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """The process has not grown past the cap when the test is over."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH


class soon:
    """The block took less than SECONDS of processor time."""

    def __enter__(self) -> None:
        self.began = time.process_time()

    def __exit__(self, *_exc: object) -> None:
        assert time.process_time() - self.began < SECONDS


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10), st.integers(), st.floats(),
    st.text(max_size=8),
    st.sampled_from(["../x", "/etc/passwd", "a/../b", "finished", "running", "\x1b[2J", "\ud800",
                     "main", "sh", "NaN", "0" * 64, 2**63, -1, 1e308]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=6), x, max_size=4),
    max_leaves=12,
)


# A few places in a text, as shares of its length, with what is cut there and what is put in; None
# doubles what would be cut.
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.none() | st.binary(max_size=12)), max_size=3
)
Edits = list[tuple[float, int, bytes | None]]


def mutated(data: bytes, edits: Edits) -> bytes:
    for share, count, put in edits:
        at = int(share * len(data))
        gone = data[at : at + count]
        data = data[:at] + (gone * 2 if put is None else put) + data[at + count :]
    return data


NONCE = b"n" * wire.NONCE_SIZE

# --- frames ---------------------------------------------------------------------------------------

PAYLOADS = st.one_of(
    VALUES.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.binary(max_size=60),
    st.just(b"[" * 50_000),
    st.sampled_from([zlib.compress(bytes(size)) for size in (1, 1 << 20, (1 << 20) + 1, 9 << 20)]),
)
FRAMES = st.lists(
    st.tuples(st.integers(0, 6), PAYLOADS, st.sampled_from([0, wire.PACKED, 255])), max_size=5
)


@given(frames=FRAMES, edits=EDITS)
@shared
def test_f08_f81_any_answer_of_a_host_is_taken_or_refused(
    frames: list[tuple[int, bytes, int]], edits: Edits
) -> None:
    made = [wire.frame(NONCE, kind, payload, flags) for kind, payload, flags in frames]
    sent = mutated(b"".join(made), edits)
    transport = liar.LyingTransport(lambda _request, _nonce: sent)
    with soon(), Agent(liar.HOST, transport, nonce=lambda: NONCE) as caller:
        try:
            for frame in caller.exchange("status", {"run_ids": []}):
                if isinstance(frame, wire.Frame):
                    assert len(frame.payload) <= wire.JSON_MAX
                    assert frame.kind != wire.DATA or len(frame.payload) <= wire.DATA_MAX
                    if frame.kind == wire.ITEM:
                        frame.json()
        except OrchError as error:
            assert error.message


# --- what an agent is asked -----------------------------------------------------------------------


class Asked(Channel):
    """An agent's channel over bytes in memory."""

    def __init__(self, data: bytes) -> None:
        super().__init__(-1, -1)
        self.left, self.told = data, b""
        self._reader = wire.FrameReader(self._read)

    def _read(self, count: int) -> bytes:
        chunk, self.left = self.left[:count], self.left[count:]
        return chunk

    def _write(self, data: bytes) -> None:
        self.told += data


VERBS = st.sampled_from(["status", "cancel", "results", "runs", "sync", "nonsense", "start"])
FIELDS = (
    "run_id run_ids have parts exclude size tree dataset delta base order data spec config"
).split()


@given(
    verb=VERBS, body=st.dictionaries(st.sampled_from(FIELDS), VALUES), rest=st.binary(max_size=99)
)
@shared
def test_f79_any_request_to_an_agent_is_answered_and_stays_inside_its_root(
    verb: str, body: dict[str, Any], rest: bytes, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    request = {"protocol": wire.PROTOCOL, **body, "verb": verb}
    data = json.dumps(request).encode("ascii")
    channel = Asked(wire.frame(NONCE, wire.REQUEST, data) + wire.frame(NONCE, wire.DATA, rest))
    with soon():
        agent._answer(Layout(str(root)), channel, channel.request() or {})
    reader = wire.FrameReader(Asked(channel.told)._read, NONCE)
    kinds = []
    while (frame := reader.next()) is not None:
        kinds.append(frame.kind)
    assert kinds[-1] == wire.END
    assert {path.name for path in tmp_path.iterdir()} <= {"root"}


# --- specs ----------------------------------------------------------------------------------------

SPEC = """\
description: a job
command: python train.py
config:
  lr: 1e-4
  layers: [1, 2]
  deep: {flag: true, name: base}
profiles:
  cpu: {config: {lr: 0.5}}
resources: {gpus: 0-1, gpu_memory: 16GiB, disk: 20GiB, time: 24h}
env: {A: "1"}
secrets: [TOKEN]
data: {sst2: {from: $ORCH_DATA/sst2}, x: {at: /mnt}}
results: {dir: results, exclude: ["a/**"]}
metrics: {file: results/metrics.json, primary: accuracy}
expect: {accuracy: {min: 0.85}, predictions: not-degenerate}
guards: [{metric: loss, rule: finite}, {log: idle, after: 30m}]
canary: {command: python train.py --canary, time: 5m}
"""
WORDS = st.one_of(
    st.text(alphabet="ab01:-[]{}&*!|>'\"%#,?\n\t .~<é$", max_size=12),
    st.sampled_from(["no", "010", "1:30", ".nan", "!!python/object:os.system x", "&a [*a]", "<<: ",
                     "[" * 40, "{" * 40, "2026-11-25", "\x00", "\ufeff", "...\n---\n", "'"]),
)  # fmt: skip


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), WORDS), min_size=1, max_size=4)


@given(changes=CHANGES, profile=st.sampled_from([None, "cpu"]))
@shared
def test_f68_f69_any_spec_loads_or_is_refused_with_its_place(
    changes: list[tuple[float, int, str]], profile: str | None, tmp_path: Path
) -> None:
    text = SPEC
    for share, count, word in changes:
        at = int(share * len(text))
        text = text[:at] + word + text[at + count :]
    (tmp_path / "jobs").mkdir(exist_ok=True)
    (tmp_path / "jobs" / "j.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with soon():
        try:
            spec = load_job(tmp_path, "j", profile=profile)
        except OrchError as error:
            assert error.exit_code in (2, 3)
            assert not isinstance(error, SpecError) or error.path
        else:
            json.dumps(spec.config, allow_nan=False)


# --- metrics.json and the exit record around it ---------------------------------------------------

METRICS = b"""{"accuracy": 0.873, "confusion_matrix": [[400, 50], [61, 361]],
 "labels": ["negative", "positive"], "n": 872, "loss": 1.5e-3, "f1": {"macro": 0.8}}"""


LOOKED_AT = {"expect": {"predictions": "not-degenerate"}}
KEYS = st.sampled_from(["accuracy", "n", "labels", "confusion_matrix"])
TEXTS = st.one_of(
    EDITS.map(lambda edits: mutated(METRICS, edits).decode("utf-8", "replace")),
    st.dictionaries(KEYS, VALUES).map(json.dumps),
    VALUES.map(json.dumps),
)


@given(text=TEXTS, verdict=SCALARS | st.just("succeeded"), code=SCALARS | st.just(0))
@shared
def test_f84_any_metrics_in_any_exit_record_are_judged_lawfully(
    text: str, verdict: Any, code: Any
) -> None:
    raw = {"verdict": verdict, "exit_code": code, "metrics": {"text": text}, "reasons": [verdict]}
    with soon():
        record = settle.exit_record(raw)
        judged = settle.judge_record(
            a_run(spec={"expect": {"predictions": "not-degenerate"}}), record
        )
    assert judged.accuracy is None or (math.isfinite(judged.accuracy) and 0 <= judged.accuracy <= 1)
    json.dumps(dict(judged.metrics), allow_nan=False)


# --- runs that only a host tells of ---------------------------------------------------------------

LAWFUL: dict[str, Any] = {
    "job": "train", "project": "/p", "created_at": "2026-11-23T10:00:00Z", "config_hash": "c1:1",
    "config": {"lr": 0.1}, "recorded": {"expect": {"metrics": {"accuracy": {"min": 0.5}}}},
}  # fmt: skip
OTHERS = ("profile", "overrides", "findings", "forced", "snapshot", "data", "git_commit",
          "git_dirty", "supersedes", "tags", "note", "host")  # fmt: skip
FINDING = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("severity", "rule", "key", "message", "waived", "ours"), VALUES)
)
TERMS = st.fixed_dictionaries(
    {},
    optional={
        "expect": VALUES | st.fixed_dictionaries(
            {}, optional={
                "metrics": VALUES | st.dictionaries(st.just("accuracy"), VALUES | st.dictionaries(
                    st.sampled_from(["min", "max"]), SCALARS)),
                "baseline": VALUES, "tolerance": SCALARS, "predictions": SCALARS,
            }),
        **dict.fromkeys(("metrics", "results", "volatile", "retry", "secrets", "notify"), VALUES),
    },
)  # fmt: skip
ABOUT = st.builds(
    lambda *parts: {key: value for part in (LAWFUL, *parts) for key, value in part.items()},
    st.dictionaries(st.sampled_from(OTHERS), VALUES, max_size=4),
    st.dictionaries(st.just("findings"), st.lists(FINDING, max_size=2)),
    st.dictionaries(st.sampled_from(["config", "overrides"]),
                    st.dictionaries(st.text(max_size=4), VALUES, max_size=3)),
    st.dictionaries(st.just("recorded"), TERMS | VALUES),
)  # fmt: skip
EVENT = st.fixed_dictionaries(
    {"kind": st.just("guard"), "message": st.text(max_size=4), "number": st.integers(0, 3)},
    optional=dict.fromkeys(("at", "guard", "action", "acted", "evidence"), VALUES),
)
STATUS = st.builds(
    lambda exit_, more: {**liar.exit_with(**exit_), **more},
    st.dictionaries(
        st.sampled_from(["ended_at", "started_at", "reasons", "cause", "signal", "attempt"]), VALUES
    ),
    st.dictionaries(st.sampled_from(["session", "started_at", "attempt", "gpus"]), VALUES)
    | st.fixed_dictionaries({"events": st.lists(EVENT | VALUES, max_size=3)}),
)


@given(about=ABOUT, status=STATUS, other=STATUS)
@shared
def test_f94_any_run_that_a_host_tells_of_can_be_shown_or_is_left_out(
    about: dict[str, Any], status: dict[str, Any], other: dict[str, Any],
    tmp_path: Path,
) -> None:  # fmt: skip
    ctx = liar.context(tmp_path, tmp_path, [])
    Ledger.open(ctx.layout.ledger).close()
    described = {"ok": True, "run_ids": [liar.RUN_ID], "described": {liar.RUN_ID: about}}

    def statuses(request: dict[str, Any], nonce: bytes) -> bytes:
        runs = [status] if request["run_ids"] else []
        return liar.end(json.dumps({"ok": True, "runs": runs}).encode())(request, nonce)

    answer = liar.verbs(runs=liar.end(json.dumps(described).encode()), status=statuses)
    with (
        soon(),
        pytest.MonkeyPatch.context() as patch,
        Ledger.copy_of(ctx.layout.ledger) as ledger,  # in memory
    ):
        liar.lie(patch, answer)
        (account,) = reconcile.reconcile(ctx, ledger, None, [liar.HOST], take=())
        assert account.error is None
        runs = ledger.runs()
        assert len(runs) == len(account.taken)
        for run in runs:
            assert orders_of(run.spec) == Orders() and ctx.host_of(run) == liar.HOST
            settle.settle(ledger, run, other, ctx.now())
            show_everything(ctx, ledger, run.run_id)


def show_everything(ctx: Context, ledger: Ledger, run_id: str) -> None:
    run, events, now = ledger.get(run_id), ledger.events(run_id), ctx.clock.now()
    runtext.show_text(run, events, now)
    render.ls_table([run], now)
    runjson.json_text(runjson.to_json(run, events))
    export.to_csv([run])
    list(verify._row(run))
    found = compare.compare([run, run], [{}, {}], [])
    comparetext.compare_text(found, everything=True)
    account = Account(run=run, events=events, now=now, comparison=found)
    made = report_of(account)
    to_html(made), to_markdown(made)


# --- manifests and results ------------------------------------------------------------------------


def line(path: bytes, mode: int = 0o644, kind: str = "f", size: int = 1) -> bytes:
    return wire.Entry(mode, kind, size, "ab" * 32, path).line()


PATHS = st.one_of(
    st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=4).map(b"/".join),
    st.sampled_from([b"../x", b"/etc", b"a//b", b".", b"", b"a/..", b"x" * 300, b"a\nb", b"-rf"]),
)
MANIFESTS = st.lists(PATHS.filter(lambda path: b"\0" not in path), max_size=6).map(
    lambda paths: wire.encode_manifest(line(path) for path in paths)
)


@given(manifest=MANIFESTS, other=MANIFESTS, edits=EDITS)
@shared
def test_f79_any_manifest_is_a_safe_tree_or_refused(
    manifest: bytes, other: bytes, edits: Edits
) -> None:
    given_ = mutated(manifest, edits)
    with soon():
        try:
            entries = wire.parse_manifest(given_)
        except wire.WireError:
            entries = []
        try:
            delta, _ = wire.make_delta(manifest, other)
            wire.parse_manifest(wire.apply_delta(given_, mutated(delta, edits)))
        except wire.WireError:
            pass
    for entry in entries:
        assert not entry.path.startswith(b"/")
        assert {b"", b".", b".."}.isdisjoint(entry.path.split(b"/"))


NAMES = st.sampled_from(["a", "b/c", "../x", "/tmp/evil", ".orch-parts", "d", "", "d/e", 7])
SIZES = st.sampled_from([0, 1, 3, -1, 2**70, "1", None])
HASHES = st.sampled_from([hashlib.sha256(b"def").hexdigest(), "x"])
BATCH = st.lists(st.tuples(NAMES, st.just(0o644), SIZES, HASHES), max_size=3)
ITEMS = st.one_of(
    BATCH.map(lambda rows: {"batch": rows}),
    st.builds(
        lambda path, size, offset: {"large": path, "mode": 0o644, "size": size, "offset": offset},
        NAMES, SIZES, SIZES,
    ),
    HASHES.map(lambda sha: {"sha256": sha}),
    NAMES.map(lambda name: {"torn": name}),
    VALUES,
    st.just(b"{"),
)  # fmt: skip
STREAMS = st.lists(st.one_of(ITEMS, st.sampled_from([b"def", b"", b"d", b"x" * 70])), max_size=6)


@given(stream=STREAMS)
@shared
def test_f13_f80_any_stream_of_results_leaves_only_what_was_promised(
    stream: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    parts = [
        (wire.DATA, piece) if isinstance(piece, bytes) and piece != b"{" else (wire.ITEM, piece)
        for piece in stream
    ]
    answer = liar.end({"ok": True, "run_id": liar.RUN_ID, "phase": "running"}, *parts)
    base = tmp_path_factory.mktemp("fetch")
    report = fetch.Report(base / "to")
    transport = liar.LyingTransport(answer)
    with (
        soon(),
        contextlib.suppress(OrchError),
        Agent(liar.HOST, transport) as caller,
        Folder(base / "to") as to,
    ):
        fetch._Receiver(caller, to, report, lambda _report: None).run(a_run(liar.RUN_ID), b"{}")
    assert {path.name for path in base.iterdir()} <= {"to"}
    for path in (base / "to").rglob("*"):
        if path.is_file() and not path.relative_to(base / "to").parts[0].startswith(".orch-"):
            assert path.read_bytes() == b"def", path
    shutil.rmtree(base)
