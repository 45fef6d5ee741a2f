"""Hosts that misbehave on purpose: a python with something done to it, a proxy in between."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.contract.conftest import box
from tests.contract.desk import Desk
from tests.helpers.proxy import Proxy
from tests.helpers.sshd import PrivateSshd


def proxied_desk(
    new_desk: Callable[..., Desk],
    sshd: PrivateSshd,
    proxy: Proxy,
    folder: Path,
    *args: Any,
    **options: Any,
) -> Desk:
    """A desk whose host is `sshd` behind `proxy`."""
    config = sshd.write_client_config(folder, port=proxy.port)
    return new_desk(*args, host=box(sshd), ssh_config=config, **options)


class Python:
    """A host's `python3` that can be changed between two calls: `host` is for `new_desk`.

    With `prefix` it runs under these words (a tracer); with `preamble` it executes that code
    before the agent, in the same process, so that the agent's forks have it too.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "python3"
        self.plain()

    @property
    def host(self) -> dict[str, str]:
        return {"transport": "local", "session": "plain", "python": str(self.path)}

    def plain(self) -> None:
        self._write(f'exec {sys.executable} "$@"')

    def prefix(self, *words: str) -> None:
        self._write(f'exec {" ".join(words)} {sys.executable} "$@"')

    def preamble(self, code: str) -> None:
        """The agent starts as always, after `code`, which may patch what it imports."""
        start = self.path.with_name("start.py")
        start.write_text(
            f"{code}\nimport os, runpy, sys\n"
            "if sys.argv[1:2] == ['-c']:\n    exec(sys.argv[2])\n"
            "elif not os.path.exists(sys.argv[1]):\n    sys.exit(2)\n"  # as python itself does
            "else:\n    del sys.argv[0]\n    sys.path.insert(0, sys.argv[0])\n"
            "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        )
        self._write(f'shift\nexec {sys.executable} -I {start} "$@"')

    def _write(self, line: str) -> None:
        new = self.path.with_name("python3.new")
        new.write_text(f"#!/bin/sh\n{line}\n")
        new.chmod(0o755)
        new.rename(self.path)
