"""A host that lies: a transport whose answers are written by the test."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.clock import SystemClock
from orchestrator.domain import Host, Run, RunState
from orchestrator.errors import CallTimeout
from orchestrator.ledger.store import Ledger
from orchestrator.transport.base import Agent
from orchestrator.transport.preface import PREFACE
from orchestrator.usecases.context import Context
from remote import wire

Answer = Callable[[dict[str, Any], bytes], bytes]  # (request, nonce) -> bytes on the wire

HOST = Host(name="liar", ssh="liar")
RUN_ID = "20261123-100000-000abcde"


class LyingPipe:
    """Answers each request at once with what `answer` makes of it."""

    def __init__(self, answer: Answer, code: int | None = None) -> None:
        self._answer, self._code = answer, code
        self._seen, self._ready = b"", b""
        self.closed = False

    def send(self, data: bytes) -> bool:
        self._seen += b"" if data == PREFACE else data
        while len(self._seen) >= wire.HEADER.size:
            _, nonce, kind, flags, _, length, _ = wire.HEADER.unpack(self._seen[:24])
            if len(self._seen) < 24 + length:
                break
            payload, self._seen = self._seen[24 : 24 + length], self._seen[24 + length :]
            if kind == wire.REQUEST:
                if flags & wire.PACKED:
                    payload = wire.unpack_payload(payload, wire.JSON_MAX)
                self._ready += self._answer(wire.decode_json(payload), nonce)
        return True

    def recv(self, count: int, timeout: float) -> bytes:
        chunk, self._ready = self._ready[:count], self._ready[count:]
        return chunk

    def closing_words(self) -> tuple[int | None, str]:
        return self._code, ""

    def close(self) -> None:
        self.closed = True


class SilentPipe(LyingPipe):
    """Takes everything and never answers."""

    def recv(self, count: int, timeout: float) -> bytes:
        raise CallTimeout(f"liar: no answer within {timeout:g} s")


class LyingTransport:
    def __init__(self, answer: Answer, pipe: type[LyingPipe] = LyingPipe) -> None:
        self._answer, self._pipe = answer, pipe

    def run(self, command: str) -> LyingPipe:
        return self._pipe(self._answer)

    def close(self) -> None:
        pass


def frames(*parts: tuple[int, Any]) -> Answer:
    """An answer of these frames: (kind, payload bytes or a JSON value)."""

    def answer(_request: dict[str, Any], nonce: bytes) -> bytes:
        out = b""
        for kind, value in parts:
            payload = value if isinstance(value, bytes) else wire.encode_json(value)
            out += wire.frame(nonce, kind, payload)
        return out

    return answer


def end(body: Any, *before: tuple[int, Any]) -> Answer:
    return frames(*before, (wire.END, body))


def statuses(*found: Any) -> Answer:
    """The answer to `status`: an item a run."""
    return end({"ok": True}, *((wire.ITEM, item) for item in found))


def verbs(**answers: Answer) -> Answer:
    """Another answer for each verb."""
    return lambda request, nonce: answers[request["verb"]](request, nonce)


def context(home: Path, project: Path, said: list[str]) -> Context:
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    (home / ".ssh" / "config").write_text("Host liar\n")
    env = {"HOME": str(home), "ORCH_HOME": str(home / "orch")}
    return Context(env=env, cwd=project, clock=SystemClock(), say=said.append)


def lie(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    """Every connection made from now on leads to the liar."""
    monkeypatch.setattr(Context, "connect", lambda _ctx, host: Agent(host, LyingTransport(answer)))


def running_run(ctx: Context, ledger: Ledger) -> Run:
    """A run that the ledger knows as running on the liar."""
    run = Run(
        run_id=RUN_ID, job="train", project=str(ctx.cwd), state=RunState.INTENT,
        config_hash="c1:" + "0" * 64, config={}, host="liar", created_at=ctx.now(),
    )  # fmt: skip
    ledger.intend(run)
    ledger.synced(RUN_ID, ctx.now(), "s1:" + "0" * 64, {})
    ledger.started(RUN_ID, ctx.now(), ctx.now(), None, RunState.RUNNING)
    return ledger.get(RUN_ID)


def assert_lawful(ledger: Ledger) -> Run:
    """What the ledger holds can be read, and its numbers are numbers."""
    known = ledger.get(RUN_ID)
    assert known.accuracy is None or (math.isfinite(known.accuracy) and 0 <= known.accuracy <= 1)
    assert (known.verdict is None) is (known.state is not RunState.FINISHED)
    json.dumps(ledger.events(RUN_ID)[-1].data, allow_nan=False)
    return known


def exit_with(**changes: Any) -> dict[str, Any]:
    """The status of RUN_ID, finished well but for the changes in its exit record."""
    record = {"verdict": "succeeded", "exit_code": 0, "metrics": {"text": '{"accuracy": 0.9}'}}
    return {"run_id": RUN_ID, "phase": "finished", "exit": {**record, **changes}}
