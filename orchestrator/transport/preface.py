"""What goes before all else on a connection, in case no agent reads it but a shell.

A start-up file of the login (`exec zsh` in .bashrc) or a ForceCommand may put one in the agent's
place, and a shell executes what it reads. These lines end every kind of it with an exit status of
their own before it comes to anything a config or a secret says; an agent skips them as noise.
"""

from __future__ import annotations

from orchestrator.domain import Host
from orchestrator.errors import CallTimeout, HostUnfit, OrchError
from orchestrator.transport.pipe import Pipe

SHELL = 86  # no agent and no installer ends so
# The first line ends one that something else has begun. An interactive shell with stopped jobs
# leaves only when it is told a second time.
PREFACE = b"\nexit %d\nexit %d\n" % (SHELL, SHELL)
_FILES = "a start-up file there (.bashrc, config.fish)"


def refuse_shell(host: Host, code: int | None) -> None:
    """HostUnfit when the command ended as PREFACE ends a shell; nothing was done there then."""
    if code == SHELL:
        raise HostUnfit(
            f"{host.name}: a shell read what was meant for the agent, and was ended at once: "
            f"{_FILES} starts another shell, or sshd's ForceCommand does",
            hint="let it do so only in a terminal: `[ -t 0 ] && exec zsh`; of a ForceCommand "
            "ask who runs the host",
        )


def silence(host: Host, pipe: Pipe, seconds: float) -> CallTimeout:
    """Of a connection on which nothing has been heard of the agent, which has no use any more.

    HostUnfit when a shell was there that reads all before it does anything (fish).
    """
    try:
        code = pipe.closing_words()[0]
    except OrchError:  # what a client says of its link tells nothing of what was begun there
        code = None
    refuse_shell(host, code)
    return CallTimeout(
        f"{host.name}: no answer within {seconds:g} s; its agent did not begin",
        hint=f"the host may be frozen, or {_FILES} waits for input or starts another program; "
        f"`ssh` to it by hand shows it",
    )
