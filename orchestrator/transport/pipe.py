"""What differs between ways to a host: how a command is run there, and its bytes go and come."""

from __future__ import annotations

from typing import Protocol

CONNECT_TIMEOUT = 20.0  # seconds that each step towards a session may take
SEND_DEADLINE = 20.0  # seconds without a byte taken after which the other side counts as stopped


class Pipe(Protocol):
    """A running remote command: bytes in, bytes out."""

    def send(self, data: bytes) -> bool:
        """All of `data` is on its way. False: it has hung up, and what it said is still to be read.

        CallTimeout when it takes nothing for SEND_DEADLINE seconds.
        """

    def recv(self, count: int, timeout: float) -> bytes:
        """1 to `count` bytes; b"" at the end; CallTimeout after `timeout` seconds of nothing."""

    def closing_words(self) -> tuple[int | None, str]:
        """No more is sent, and soon: the command's exit status (None: it has not ended, or nobody
        knows) and the start of its stderr."""

    def close(self) -> None: ...


class Transport(Protocol):
    """A way to one host. `run` starts the one constant command; nothing else is ever run."""

    def run(self, command: str) -> Pipe: ...

    def close(self) -> None: ...
