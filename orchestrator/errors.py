"""Every error a user can meet, cut by what the caller should do next.

    OrchError               2   something on this machine is in the way
    ├── UsageError          2   the command line or a spec is wrong; mend it
    │   └── SpecError       2   a YAML file is wrong; carries file and line
    ├── NotFound            3   no such job, run, host, folder
    ├── NotFinished         4   the run goes on past the time given
    ├── PreflightRefused    5   a check said no, or the host before a start; waive, mend or --force
    │   └── GpuBusy         5   no free GPU for what the spec asks
    ├── TransportError      6   the host was not reached; the run's state is unchanged
    │   ├── ConnectFailed   6   no connection could be made
    │   │   └── HostFull    6   the host takes no more logins or sessions just now
    │   ├── LinkLost        6   the connection ended before the reply's trailer
    │   ├── CallTimeout     6   no answer within the deadline
    │   ├── FrameGarbled    6   what came back is not our protocol
    │   ├── HostFailed      6   the agent met an error of its own in the middle of a call
    │   └── HostUnfit       6   reached, but it cannot run jobs (no python, too old, ...)
    ├── TrustError          8   never retried
    │   ├── HostKeyUnknown  8
    │   ├── HostKeyChanged  8
    │   └── AuthFailed      8
    ├── OutcomeUnknown      9   the action may or may not have happened; `orch reconcile`
    ├── TransferError      10   bytes did not arrive as promised; nothing wrong was kept
    │   ├── ManifestMismatch, UnsafePath, SourceChanged, LocalDiskFull, HostDiskFull,
    │   │   FolderBusy
    ├── LedgerError        11   the ledger cannot be read or written
    ├── Interrupted       130   Ctrl-C; says what is true of the run now
    └── StdoutLost        141   stdout did not take what was to go there

Exit codes 1 (the run ended badly), 7 (it succeeded and its result does not pass) and 141 (stdout
closed by its reader) are results, not errors. A run that fails is a value, never an exception. Any
other exception is a fault of orch itself: 70.
"""

from __future__ import annotations

from collections.abc import Iterable


class OrchError(Exception):
    """Says what was tried and what is true now; `hint` says what to do next."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(OrchError):
    exit_code = 2


class SpecError(UsageError):
    """A YAML file is wrong. `line` and `column` count from 1."""

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        line: int | None = None,
        column: int | None = None,
        hint: str | None = None,
    ) -> None:
        where = path or ""
        if line is not None:
            where += f":{line}" + (f":{column}" if column is not None else "")
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.path, self.line, self.column = path, line, column


class NotFound(OrchError):
    exit_code = 3


class NotFinished(OrchError):
    exit_code = 4


class PreflightRefused(OrchError):
    exit_code = 5


class GpuBusy(PreflightRefused):
    pass


class TransportError(OrchError):
    exit_code = 6


class ConnectFailed(TransportError):
    pass


class HostFull(ConnectFailed):
    pass


class LinkLost(TransportError):
    pass


class CallTimeout(TransportError):
    pass


class FrameGarbled(TransportError):
    pass


class HostFailed(TransportError):
    pass


class HostUnfit(TransportError):
    pass


class TrustError(OrchError):
    exit_code = 8


class HostKeyUnknown(TrustError):
    pass


class HostKeyChanged(TrustError):
    pass


class AuthFailed(TrustError):
    pass


class OutcomeUnknown(OrchError):
    exit_code = 9


class TransferError(OrchError):
    exit_code = 10


class ManifestMismatch(TransferError):
    pass


class UnsafePath(TransferError):
    pass


class SourceChanged(TransferError):
    pass


class LocalDiskFull(TransferError):
    pass


class HostDiskFull(TransferError):
    pass


class FolderBusy(TransferError):
    pass


class LedgerError(OrchError):
    exit_code = 11


class Interrupted(OrchError):
    exit_code = 130


class StdoutLost(OrchError):
    exit_code = 141


def answer_words(exc: BaseException) -> str:
    """What became of the answer to an action that was sent and did not end well."""
    if isinstance(exc, HostFailed):
        return f"it answered with an error ({exc})"
    return f"its answer was lost ({exc})"


def shared_code(errors: Iterable[OrchError]) -> int:
    """The exit code of a command that met all of these: theirs if it is one, else 6."""
    codes = {error.exit_code for error in errors}
    return codes.pop() if len(codes) == 1 else TransportError.exit_code
