"""Hosts as they are: odd login shells, noisy start-up files, old or missing pythons, no tmux."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain import Host
from orchestrator.errors import HostUnfit
from orchestrator.transport import base
from orchestrator.transport.connect import open_transport
from remote import wire
from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import TRAIN, WORK_LOG, Desk, assert_clear, is_root
from tests.helpers.sshd import SYSTEM_PATH, PrivateSshd

pytestmark = [pytest.mark.ssh, pytest.mark.usefixtures("over")]

MakeSshd = Callable[..., PrivateSshd]
needs_root = pytest.mark.skipif(not is_root(), reason="an account with its own shell needs root")


def whole_path(desk: Desk) -> dict[str, Any]:
    """Submit, follow, fetch; the run as it is known then."""
    out = desk.orch("submit", "train", "-f").stdout
    run_id, _, log = out.partition("\n")
    assert log.encode().startswith(WORK_LOG)
    desk.orch("fetch-results", run_id)
    shown = desk.show(run_id)
    assert (shown["accuracy"], shown["fetched"]) == (0.9, "complete")
    return shown


@needs_root
@pytest.mark.shells
@pytest.mark.parametrize(
    ("shell", "root"),
    [
        ("/bin/bash", "~/with+plus/.orch"),
        ("/usr/bin/fish", "~/.orch"),
        ("/usr/bin/tcsh", "~/.orch"),
        ("/usr/bin/zsh", "~/.orch"),
        ("/bin/dash", "~/.orch"),
    ],
)
def test_f67_any_login_shell_will_do(
    shell: str, root: str, new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd(shell=shell)
    whole_path(new_desk(host=box(server, root=root), ssh_config=server.client_config))


WAITS = "until test -e ../go; do sleep 0.05; done"
NOISE = {
    "/bin/bash": (".bashrc", "echo welcome; echo warning >&2; stty sane; printf 'oRc1 torn'\n"),
    "/usr/bin/tcsh": (".cshrc", "echo welcome; echo oRc1\n"),
    "/usr/bin/zsh": (".zshenv", "echo welcome; echo warning >&2; printf 'oRc1 torn'\n"),
    "/usr/bin/fish": (".config/fish/config.fish", "echo welcome; echo oRc1\n"),
}


@needs_root
@pytest.mark.shells
@pytest.mark.parametrize("shell", NOISE)
def test_f66_noise_of_a_start_up_file_is_no_part_of_anything(
    shell: str, new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd(shell=shell)
    name, text = NOISE[shell]
    path = server.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert "welcome" in server.run("true").stdout
    whole_path(new_desk(host=box(server), ssh_config=server.client_config))


@needs_root
def test_f66_ten_megabytes_of_noise_are_an_error_that_says_so(
    new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd()
    noisy = server.home / ".bashrc"
    noisy.write_text("head -c 10485760 /dev/zero | tr '\\0' 'n'\n")
    desk = new_desk(host=box(server), ssh_config=server.client_config)
    done = desk.orch("submit", "train", code=6, timeout=60)
    assert_clear(done, "box")
    assert {row[2] for row in desk.rows()} == {"never_started"}
    noisy.unlink()
    desk.submit("train")
    desk.orch("wait")
    noisy.write_text("head -c 10485760 /dev/zero | tr '\\0' 'n'\n")
    assert_clear(desk.orch("fetch-results", code=6, timeout=60), "box")


@needs_root
def test_f67_a_login_that_may_not_run_anything_is_named(
    new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd(shell="/usr/sbin/nologin")  # noqa: S604
    desk = new_desk(host=box(server), ssh_config=server.client_config)
    done = desk.orch("submit", "train", code=6)
    assert_clear(done, "box")
    assert "not available" in done.stderr


SHELLS = ["/bin/sh -e", "dash -v", "sh -i", "bash --posix -u", "bash --norc -i"]
OTHERS = [pytest.param(shell, marks=pytest.mark.shells) for shell in ("tcsh", "zsh")]
SAYS = "x$(touch INJECTED)`touch INJECTED`\n touch INJECTED\n;touch INJECTED;exit 86"


def read_by_a_shell(desk: Desk, server: PrivateSshd) -> None:
    """A submit is refused at once, and of what it would have told the agent nothing was run."""
    spec = {**TRAIN, "config": {"right": 45, "note": SAYS}, "secrets": ["TOKEN"]}
    desk.spec("train", spec)
    started = time.monotonic()
    done = desk.orch("submit", "train", code=6, TOKEN=SAYS)
    assert time.monotonic() - started < base.BEGIN_WITHIN / 2
    assert_clear(done, "box", "start-up file", "ForceCommand", "was not started")
    assert desk.rows()[-1][1:] == ("finished", "never_started")
    assert not list(server.home.glob("**/INJECTED"))


@needs_root
@pytest.mark.parametrize("shell", [*SHELLS, *OTHERS])
def test_f66_a_shell_in_place_of_the_agent_is_ended_before_it_reads_a_word(
    shell: str, new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd()
    desk = new_desk(host=box(server), ssh_config=server.client_config)
    start_up = server.home / ".bashrc"
    start_up.write_text(f"exec {shell}\n")
    read_by_a_shell(desk, server)
    start_up.unlink()
    run_id = desk.orch("submit", "train", TOKEN="t").stdout.strip()
    desk.orch("wait")
    start_up.write_text(f"exec {shell}\n")
    read_by_a_shell(desk, server)  # on a host that has the agent
    assert_clear(desk.orch("fetch-results", run_id, code=6), "start-up file")
    assert "start-up file" in desk.orch("doctor", "box", code=6).stdout


@needs_root
@pytest.mark.shells
def test_f66_a_shell_that_reads_to_the_end_first_is_named_after_a_while_and_ran_nothing(
    over: str, make_sshd: MakeSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "BEGIN_WITHIN", 2.0)
    server = make_sshd()
    (server.home / ".bashrc").write_text("exec fish\n")
    env = {"HOME": str(tmp_path), "ORCH_SSH_CONFIG": str(server.client_config), "PATH": SYSTEM_PATH}
    host = Host(name=server.alias, root=str(server.root_dir), transport=over)
    # fish reads the frames too before it does anything: in others it may find an error, and then
    # ends otherwise, having run nothing either.
    even = base.Agent(host, open_transport(host, env), nonce=lambda: b"n" * wire.NONCE_SIZE)
    with even as agent, pytest.raises(HostUnfit) as caught:
        agent.call("status", {"run_ids": [SAYS]})
    assert "a shell read what was meant for the agent" in caught.value.message
    assert not list(server.home.glob("**/INJECTED"))


@needs_root
@pytest.mark.parametrize("command", ["/bin/bash -l", "/bin/sh"])
def test_f67_a_forced_shell_is_ended_before_it_reads_a_word(
    command: str, new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd(config={"ForceCommand": command})
    read_by_a_shell(new_desk(host=box(server), ssh_config=server.client_config), server)


@needs_root
def test_f66_a_start_up_file_that_asks_a_question_gets_an_empty_line(
    new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd()
    (server.home / ".bashrc").write_text("read -p 'name? ' answer; test -z \"$answer\" || exit 1\n")
    whole_path(new_desk(host=box(server), ssh_config=server.client_config))


# --- what the host's system does not permit -------------------------------------------------------


@needs_root
@pytest.mark.parametrize("folder", ["runs", "locks"])
def test_f30_a_root_that_may_not_be_written_is_an_answer_and_starts_nothing(
    folder: str, new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd()
    jobs = {"train": TRAIN, "waits": WAITS}
    desk = new_desk(jobs, host=box(server), ssh_config=server.client_config)
    open_run = desk.submit("waits")
    place = server.root_dir / folder
    place.chmod(0o500)
    done = desk.orch("submit", "train", code=6)
    assert_clear(done, f"box: {place}", "Permission denied", "was not started", "`orch doctor box`")
    assert desk.rows()[-1][1:] == ("finished", "never_started")
    checked = json.loads(desk.orch("doctor", "--json", code=6).stdout)["checks"]
    (failed,) = [each for each in checked if each["level"] == "fail"]
    assert failed["name"] == "file system" and f"{place}/doctor" in failed["text"]
    assert "unreachable" not in desk.orch("ls").stderr
    place.chmod(0o700)
    desk.orch("doctor")
    assert not list(server.root_dir.glob("**/doctor.making*"))
    desk.orch("cancel", open_run)
    whole_path(desk)


NO_LINKS = """#!/bin/sh
test "$2" = -c && exec python3 "$@"
shift
exec python3 -ISXutf8 -c '
import os, runpy, sys
def link(source, *_):
    raise PermissionError(1, "Operation not permitted", source)
os.link, sys.argv = link, sys.argv[1:]
sys.path.insert(0, sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
' "$@"
"""


def test_runs_start_and_end_on_a_file_system_without_hard_links(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    python = tmp_path / "python-without-links"
    python.write_text(NO_LINKS)
    python.chmod(0o755)
    host = {"transport": "local", "session": "plain", "python": str(python)}
    desk = new_desk({"train": TRAIN, "waits": WAITS}, host=host)
    whole_path(desk)
    run_id = desk.submit("waits")
    desk.orch("cancel", run_id)
    assert desk.show(run_id)["verdict"] == "cancelled"
    desk.orch("doctor")


# --- python ---------------------------------------------------------------------------------------


def shim(server: PrivateSshd, name: str, text: str) -> Path:
    """A program first on the PATH of the server's sessions."""
    path = server.bin_dir / name
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("python", ["/nonexistent/python3", "python3.99"])
def test_f35_a_python_that_is_not_there_is_named(
    python: str, new_desk: MakeDesk, sshd: PrivateSshd
) -> None:
    desk = new_desk(host=box(sshd, python=python), ssh_config=sshd.client_config)
    done = desk.orch("submit", "train", code=6)
    assert_clear(done, "box", python, "python:")
    assert {row[1:] for row in desk.rows()} == {("finished", "never_started")}


@pytest.mark.parametrize("answer", ["echo 'no python here' >&2; exit 1", "exit 0", "exit 2"])
def test_f35_a_python_that_is_none_is_an_unfit_host(
    answer: str, new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd()
    fake = shim(server, "fake-python", f"#!/bin/sh\n{answer}\n")
    desk = new_desk(host=box(server, python=str(fake)), ssh_config=server.client_config)
    done = desk.orch("submit", "train", code=6, timeout=100)
    assert_clear(done, "box")
    assert ": ;" not in done.stderr
    assert {row[1:] for row in desk.rows()} == {("finished", "never_started")}


def old_python() -> str | None:
    home = Path(os.environ.get("PYENV_ROOT") or "/root/.pyenv")
    for found in sorted(home.glob("versions/3.[67].*/bin/python3")):
        if os.access(found, os.X_OK):
            return str(found)
    return None


@needs_root
@pytest.mark.skipif(not is_root() or old_python() is None, reason="no python 3.6 or 3.7 here")
def test_f35_a_python_that_is_too_old_is_told_with_its_version(
    new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd(as_root=True)
    desk = new_desk(host=box(server, python=old_python()), ssh_config=server.client_config)
    done = desk.orch("submit", "train", code=6)
    assert_clear(done, "box", "3.8", "python:")
    assert "3.6" in done.stderr or "3.7" in done.stderr
    assert {row[1:] for row in desk.rows()} == {("finished", "never_started")}


@needs_root
@pytest.mark.py38
@pytest.mark.parametrize("session", ["plain", pytest.param("tmux", marks=pytest.mark.sessions)])
def test_f35_the_whole_path_on_python_3_8(
    session: str, new_desk: MakeDesk, make_sshd: MakeSshd, python38: Path
) -> None:
    server = make_sshd(as_root=True)
    host = box(server, python=str(python38), session=session)
    desk = new_desk(host=host, ssh_config=server.client_config)
    shown = whole_path(desk)
    assert shown["session"]["kind"] == session
    assert "3.8" in desk.orch("doctor", "box", code=None).stdout
    (desk.project / "more.py").write_text("changed = True\n")
    second = whole_path(desk)
    assert (second["supersedes"], second["snapshot"] != shown["snapshot"]) == (
        shown["run_id"], True,
    )  # fmt: skip
    desk.spec("sleep", {"command": "echo up; sleep 600 & wait"})
    run_id = desk.submit("sleep")
    desk.orch("cancel", run_id)
    assert desk.show(run_id)["verdict"] == "cancelled"


# --- sessions -------------------------------------------------------------------------------------

NEEDED = (
    "sh bash cat cp echo env head ls mkdir rm sed sleep tail test touch tr true python3".split()
)


def bare_server(make_sshd: MakeSshd) -> PrivateSshd:
    """A server whose sessions find neither tmux nor screen."""
    server = make_sshd(path="/nonexistent")
    for name in NEEDED:
        found = shutil.which(name, path=SYSTEM_PATH)
        place = server.bin_dir / name
        if found:
            place.unlink(missing_ok=True)
            place.symlink_to(found)
    return server


@pytest.mark.parametrize("session", ["auto", "tmux", "screen"])
def test_f20_without_tmux_and_screen_a_run_is_plain_and_that_is_said(
    session: str, new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = bare_server(make_sshd)
    assert server.run("command -v tmux screen").stdout == ""
    desk = new_desk(host=box(server, session=session), ssh_config=server.client_config)
    done = desk.orch("submit", "train")
    assert "tmux" in done.stderr
    desk.orch("wait")
    shown = desk.show()
    assert (shown["session"]["kind"], shown["verdict"]) == ("plain", "succeeded")
    assert "tmux" in desk.orch("doctor", "box", code=None).stdout


@pytest.mark.sessions
@pytest.mark.parametrize("kind", ["tmux", "screen"])
def test_f20_a_session_program_that_fails_does_not_touch_the_run(
    kind: str, new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd()
    shim(server, kind, "#!/bin/sh\necho 'create session failed' >&2\nexit 1\n")
    desk = new_desk(host=box(server, session=kind), ssh_config=server.client_config)
    desk.orch("submit", "train", "-f")
    assert desk.show()["verdict"] == "succeeded"


@pytest.mark.sessions
def test_f20_a_session_program_that_hangs_delays_nothing(
    new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd()
    shim(server, "tmux", "#!/bin/sh\ntrap '' TERM\nexec sleep 60\n")
    desk = new_desk(host=box(server, session="tmux"), ssh_config=server.client_config)
    desk.orch("submit", "train", "-f", timeout=30)
    assert desk.show()["verdict"] == "succeeded"
