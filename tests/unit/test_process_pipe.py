"""The pipe to a program on this machine."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from typing import IO, cast

import pytest

from orchestrator.domain import Host
from orchestrator.errors import CallTimeout
from orchestrator.transport.process import ProcessPipe

HIGH = 1100  # select() takes no number above 1023


@pytest.fixture
def high() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < HIGH + 10:
        pytest.skip(f"this machine lets a process open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, HIGH + 10), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def moved(stream: IO[bytes] | None) -> IO[bytes]:
    """The same file under a high number."""
    assert stream is not None
    number = fcntl.fcntl(stream.fileno(), fcntl.F_DUPFD_CLOEXEC, HIGH)
    mode = "wb" if stream.writable() else "rb"
    stream.close()
    return cast("IO[bytes]", os.fdopen(number, mode, buffering=0))


@pytest.mark.usefixtures("high")
def test_a_pipe_works_whatever_number_it_has() -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    child.stdin, child.stdout = moved(child.stdin), moved(child.stdout)
    pipe = ProcessPipe(Host("here"), child, tempfile.TemporaryFile())  # noqa: SIM115
    try:
        assert pipe.send(b"there and back") and pipe.recv(100, 5.0) == b"there and back"
        with pytest.raises(CallTimeout, match="no answer within 0.05 s"):
            pipe.recv(100, 0.05)
    finally:
        pipe.close()
