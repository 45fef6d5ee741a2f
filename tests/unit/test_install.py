"""Why the agent could not be put on a host, and what helps."""

from __future__ import annotations

import pytest

from orchestrator.domain import Host
from orchestrator.errors import HostDiskFull, HostUnfit, OrchError
from orchestrator.transport.install import install


class Answering:
    """A host whose installer gives this answer: transport and pipe in one."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def run(self, command: str) -> Answering:
        return self

    def send(self, data: bytes) -> bool:
        return True

    def recv(self, count: int, timeout: float) -> bytes:
        return f"\norch-install {self._answer}\n".encode()

    def closing_words(self) -> tuple[int | None, str]:
        return 0, ""

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "error", "next_step"),
    [
        ("failed [Errno 13] Permission denied: '/usr/orchro'", HostUnfit, "set `root:`"),
        ("failed [Errno 30] Read-only file system: '/usr/orchro'", HostUnfit, "set `root:`"),
        ("failed [Errno 28] No space left on device", HostDiskFull, "free space"),
        ("old 3.6", HostUnfit, "set `python:`"),
        ("failed exit status 127: python3: not found", HostUnfit, "set `python:`"),
    ],
)
def test_the_next_step_fits_the_reason(answer: str, error: type[OrchError], next_step: str) -> None:
    with pytest.raises(error) as caught:
        install(Answering(answer), Host("h2", root="/usr/orchro"))
    assert next_step in str(caught.value.hint)
    assert ("python" in str(caught.value.hint)) == ("python" in next_step)
