"""The embedded host `local`: the same agent as on any host, started as a child, without SSH."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from orchestrator import errors
from orchestrator.domain import Host
from orchestrator.transport.process import ProcessPipe

# What a login over SSH would have, and what tools need to reach a package index or a GPU. Not the
# rest: a run on `local` must not depend on what the submitting shell happened to export.
KEPT = frozenset(
    "HOME USER LOGNAME SHELL PATH LANG LANGUAGE TZ TMPDIR LD_LIBRARY_PATH VIRTUAL_ENV "
    "http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY".split()
)
KEPT_PREFIXES = ("LC_", "XDG_", "CUDA_", "NVIDIA_", "PIP_", "SSL_CERT_", "HF_HOME")


def login_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in environ.items()
        if (key in KEPT or key.startswith(KEPT_PREFIXES)) and key != "CUDA_VISIBLE_DEVICES"
    }


class LocalTransport:
    """Runs the constant command in the user's home folder, as sshd would."""

    def __init__(self, host: Host, environ: Mapping[str, str]) -> None:
        self._host = host
        self._env = login_environment(environ)
        self._home = Path(environ.get("HOME") or Path.home())

    def run(self, command: str) -> ProcessPipe:
        argv = [self._expanded(word) for word in shlex.split(command)]
        argv = argv[1:] if argv[0] == "exec" else argv
        if argv[0] == "python3":
            argv[0] = sys.executable
        errors_file = tempfile.TemporaryFile()  # noqa: SIM115 - the pipe closes it
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors_file,
                cwd=self._home,
                env=self._env,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as exc:
            errors_file.close()
            raise errors.HostUnfit(f"{self._host.name}: {argv[0]}: {exc.strerror}") from None
        return ProcessPipe(self._host, process, errors_file)

    def _expanded(self, word: str) -> str:
        return str(self._home) + word[1:] if word.startswith("~/") else word

    def close(self) -> None:
        pass
