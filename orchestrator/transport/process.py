"""A program started here as the byte stream to an agent: the agent itself, or an ssh client."""

from __future__ import annotations

import os
import select
import subprocess
from typing import IO

from orchestrator import errors
from orchestrator.domain import Host
from orchestrator.transport.pipe import SEND_DEADLINE


class ProcessPipe:
    """A child process as the pipe; its stderr goes to a file, which no grandchild can keep open."""

    def __init__(
        self,
        host: Host,
        process: subprocess.Popen[bytes],
        errors_file: IO[bytes],
    ) -> None:
        self._host = host
        self._process = process
        self._errors = errors_file
        assert process.stdin is not None and process.stdout is not None
        self._input = process.stdin.fileno()
        self._output = process.stdout.fileno()
        os.set_blocking(self._input, False)

    def send(self, data: bytes) -> bool:
        view = memoryview(data)
        while view:
            if not _ready(self._input, select.POLLOUT, SEND_DEADLINE):
                raise errors.CallTimeout(
                    f"{self._host.name}: the host took no data for {SEND_DEADLINE:g} s"
                )
            try:
                view = view[os.write(self._input, view) :]
            except BlockingIOError:  # there is room, if not for all of it
                continue
            except BrokenPipeError:
                return False
        return True

    def recv(self, count: int, timeout: float) -> bytes:
        if not _ready(self._output, select.POLLIN, timeout):
            raise errors.CallTimeout(f"{self._host.name}: no answer within {timeout:g} s")
        return os.read(self._output, count)

    def closing_words(self) -> tuple[int | None, str]:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            code: int | None = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            code = None
        self._errors.seek(0)
        return code, self._errors.read(4096).decode("utf-8", "replace")

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def _ready(descriptor: int, event: int, seconds: float) -> bool:
    """Whether it can be read or written, or has been hung up on; its number may be above 1024."""
    waiting = select.poll()
    waiting.register(descriptor, event)
    return bool(waiting.poll(seconds * 1000))
