"""A host that lies: a transport whose answers are written by the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.clock import SystemClock
from orchestrator.domain import Host
from orchestrator.errors import CallTimeout
from orchestrator.transport.base import Agent
from orchestrator.usecases.context import Context
from remote import wire

Answer = Callable[[dict[str, Any], bytes], bytes]  # (request, nonce) -> bytes on the wire

HOST = Host(name="liar", ssh="liar")


class LyingPipe:
    """Answers each request at once with what `answer` makes of it."""

    def __init__(self, answer: Answer, code: int | None = None) -> None:
        self._answer, self._code = answer, code
        self._seen, self._ready = b"", b""
        self.closed = False

    def send(self, data: bytes) -> None:
        self._seen += data
        while len(self._seen) >= wire.HEADER.size:
            _, nonce, kind, flags, _, length, _ = wire.HEADER.unpack(self._seen[:24])
            if len(self._seen) < 24 + length:
                return
            payload, self._seen = self._seen[24 : 24 + length], self._seen[24 + length :]
            if kind == wire.REQUEST:
                if flags & wire.PACKED:
                    payload = wire.unpack_payload(payload, wire.JSON_MAX)
                self._ready += self._answer(wire.decode_json(payload), nonce)

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


def verbs(**answers: Answer) -> Answer:
    """Another answer for each verb."""
    return lambda request, nonce: answers[request["verb"]](request, nonce)


def context(home: Path, project: Path, said: list[str]) -> Context:
    env = {"HOME": str(home), "ORCH_HOME": str(home / "orch")}
    return Context(env=env, cwd=project, clock=SystemClock(), say=said.append)


def lie(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    """Every connection made from now on leads to the liar."""
    monkeypatch.setattr(Context, "connect", lambda _ctx, host: Agent(host, LyingTransport(answer)))
