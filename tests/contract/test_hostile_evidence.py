"""A host that lies when it is asked for evidence: accounts are made without it, and say so."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from orchestrator.domain import Run
from orchestrator.errors import TransportError
from orchestrator.ledger.store import Ledger
from orchestrator.usecases import report, verify
from orchestrator.usecases.context import Context
from orchestrator.usecases.evidence import CodeStore, Hosts
from remote import wire
from tests.contract import liar
from tests.contract.liar import RUN_ID, assert_lawful, end, exit_with

BASE = {"run_id": RUN_ID, "phase": "running"}
ITEMS: dict[str, Any] = {
    "no object": [1],
    "another run": {**BASE, "run_id": "20261123-100000-000zzzzz"},
    "nothing but a status": BASE,
    "records of other kinds": {**BASE, "config": 1, "spec": [], "environment": 7, "log": {}},
    "a torn config": {**BASE, "config": "{", "spec": {"job": "train"}},
    "an environment of nonsense": {
        **BASE,
        "environment": {"python": [], "gpus": 3, "driver": {"a": 1}, "cpus": "<b>\x1b[2J"},
        "log": "\x1b]0;title\x07<script>",
    },
    "hostile records": {
        **exit_with(reasons=["\x1b[2J<script>"]),
        "spec": {"job": "../../../etc", "project": "/", "created_at": "now", "config_hash": "x"},
        "config": '{"a": 1}',
    },
}


def answers(item: Any, **content: Any) -> liar.Answer:
    return liar.verbs(
        evidence=end({"ok": True, "runs": 1}, (wire.ITEM, item)),
        content=end({"ok": True}, *content.get("frames", [])),
        status=liar.statuses(BASE),
    )


@pytest.mark.parametrize("kind", ITEMS)
def test_a_report_is_made_whatever_the_host_says(
    kind: str, ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie(monkeypatch, answers(ITEMS[kind]))
    _, paths = report.report(ctx, RUN_ID, None, None)
    for path in paths:
        text = path.read_text()
        assert "\x1b" not in text and "\x07" not in text
    assert "<script" not in paths[0].read_text()


DEEP: Any = 1
for _ in range(200):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize("environment", [{"a": "x" * (2 << 20)}, DEEP], ids=["large", "deep"])
def test_an_environment_beyond_measure_is_not_kept(
    environment: Any, ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie(monkeypatch, answers({**BASE, "environment": environment}))
    report.report(ctx, RUN_ID, None, None)
    assert "environment" not in [event.kind for event in ledger.events(RUN_ID)]


@pytest.mark.parametrize("kind", ITEMS)
def test_verify_concludes_nothing_from_nonsense_and_changes_nothing(
    kind: str, ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie(monkeypatch, answers(ITEMS[kind]))
    before = ledger.get(RUN_ID)
    checks = verify.verify(ctx, [RUN_ID], everywhere=True, offline=False)
    assert any(check.name == "host" and check.level != verify.OK for check in checks)
    assert ledger.get(RUN_ID) == before == assert_lawful(ledger)


@pytest.mark.parametrize(
    "frames",
    [
        [(wire.DATA, b"before any item")],
        [(wire.ITEM, {"tree": "s1:x", "size": 3}), (wire.DATA, b"abc")],
        [(wire.ITEM, {"tree": "s1:" + hashlib.sha256(b"abc").hexdigest(), "size": 3}),
         (wire.DATA, b"abc")],
        [(wire.ITEM, {"object": "0" * 64, "size": 3}), (wire.DATA, b"abc")],
        [(wire.ITEM, [])],
        [(wire.ITEM, {"tree": None, "size": None})],
    ],
)  # fmt: skip
def test_code_is_taken_only_under_its_own_hash(
    frames: list[tuple[int, Any]], ctx: Context, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie(monkeypatch, answers(BASE, frames=frames))
    with Hosts(ctx) as hosts:
        store = CodeStore(hosts, [run])
        assert hosts.objects(run, ["0" * 64]) == {}
    assert store.codes == {} and len(store.missing) == 1


def test_a_silent_host_is_asked_once(
    ctx: Context, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def connect(_ctx: Context, host: Any) -> Any:
        asked.append(host.name)
        raise TransportError("unreachable")

    monkeypatch.setattr(Context, "connect", connect)
    with Hosts(ctx) as hosts:
        assert hosts.ask([run]) == {} and hosts.manifests(run, ["s1:x"]) == {}
        assert hosts.silent(run) == "unreachable"
    assert asked == ["liar"]
