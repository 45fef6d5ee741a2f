"""The ssh config as ssh reads it: the same file is held against `ssh -G` where a line tells."""

from __future__ import annotations

import dataclasses
import getpass
import subprocess
from pathlib import Path

import pytest

from orchestrator.domain import Host
from orchestrator.errors import UsageError
from orchestrator.transport import ssh_names, sshconfig
from orchestrator.transport.ssh_options import Destination, destination
from orchestrator.transport.sshconfig import DEPTH, SshConfig
from tests.helpers.programs import require_program


def write(folder: Path, text: str, **more: str) -> Path:
    """`folder/config`, and other files beside it; `@/` in a text is that folder."""
    for name, content in {"config": text, **more}.items():
        (folder / name).write_text(content.replace("@/", f"{folder}/"))
    return folder / "config"


def meant(config: Path, name: str = "box") -> Destination:
    return destination(Host(name), SshConfig(config, config.parent))


def by_ssh(config: Path, name: str = "box") -> dict[str, str]:
    require_program("ssh")
    argv = ["ssh", "-F", str(config), "-G", name]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    pairs = (line.partition(" ") for line in done.stdout.splitlines())
    return {keyword: value for keyword, _, value in pairs}


# What is said after it would be, were it not for what the first lines say.
REST = "\nHost *\n  HostName last.example\n  Port 9\n  User last\n"

SAME = {
    "the first value": "Host box\n  Port 1\n  Port 2\n",
    "a comment": "Host box # mine\n  Port 41111 # my port\n  HostName a.example # it\n",
    "signs of equality and quotes": 'Host "box"\n  Port=7\n  User = "ada"\n',
    "patterns": "Host !b* *\n  Port 1\nHost b?x\n  Port 2\nHost [b]ox\n  User x\n",
    "an included file": "Include @/more\n",
    "files of a pattern": "Include @/mo* @/absent\n",
    "a block goes on after what it includes": "Host box\n  Include @/other\n  Port 5\n",
    "a file included by another's block": "Host other\n  Include @/more\nHost box\n  Port 4\n",
    "a file included by a match": "Match originalhost box\n  Include @/more\n",
    "the name in the host's name": "Host box\n  HostName %h.example\n  Port 2\n",
    "a match": "Match host box user root,!ada localuser *\n  User ada\nMatch all\n  Port 5\n",
    "a match that is not": "Match !host box\n  Port 1\nMatch originalhost b*,!box\n  Port 2\n",
    "a match by the name so far": "Host box\n HostName a.b\nMatch host *.b\n Port 3\n",
    "a command": 'Match exec "test %n = box -a %h = box"\n  Port 3\nMatch exec false\n  User x\n',
    "a final match": "Match final all\n  Port 6\nHost box\n  User ada\n",
    "what a final match does not replace": "Match final\n  Port 6\nHost box\n  Port 7\n",
    "a final match by the name so far": "Host box\n HostName a.b\nMatch final host a.b\n User x\n",
    "a block for the name, in the second pass": "Host a.b\n Port 6\nHost box\n HostName a.b\n"
    "Match final all\n",
    "no final match in the first pass": "Match !final host box\n  Port 6\n",
    "canonical, and it is off": "Match canonical all\n  Port 6\n",
    "canonical, and none is found": "Host box\n  HostName localhost\n"
    "CanonicalizeHostname yes\nCanonicalDomains x.invalid\nCanonicalizeFallbackLocal yes\n"
    "Match canonical all\n  Port 6\n",
    "no canonical domains": "CanonicalizeHostname always\nHost box\n  HostName 127.0.0.1\n",
    "no jump": "Host box\n  ProxyJump none\nHost *\n  ProxyJump far\n",
    "jumps": "Host box\n  ProxyJump ada@one:2222,two\n  ProxyCommand nc %h %p\n",
    "a command first": "Host box\n  ProxyCommand none\n  ProxyJump far\n",
    "a key's name": "Host box\n  HostKeyAlias nigel\n",
}


@pytest.mark.ssh
@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_f89_a_config_means_what_it_means_to_ssh(text: str, tmp_path: Path) -> None:
    config = write(
        tmp_path,
        text + REST,
        more="User first\nHost box\n  Port 3\nHost other\n  User none\n",
        other="User second\nHost other\n  Port 3\n",
    )
    there, told = meant(config), by_ssh(config)
    assert (there.hostname, str(there.port), there.user) == (
        told["hostname"], told["port"], told["user"],
    )  # fmt: skip
    jumps = told.get("proxyjump", "none")
    assert there.jumps == (() if jumps == "none" else tuple(jumps.split(",")))
    assert there.host_key_alias == told.get("hostkeyalias")
    assert "proxycommand" not in told and there.command is None


def test_names_are_found_in_every_file(tmp_path: Path) -> None:
    config = write(tmp_path, "Host a *.b\nMatch all\n Include @/more\n", more="Host c !d\nHost a\n")
    assert ssh_names.aliases(config, tmp_path) == ["a", "c"]
    ssh_names.check_name(Host("c"), config, tmp_path)


def test_files_without_a_folder_are_looked_for_in_the_users_ssh_folder(tmp_path: Path) -> None:
    (tmp_path / ".ssh" / "conf.d" / "folder").mkdir(parents=True)
    (tmp_path / ".ssh" / "conf.d" / "one").write_text("Host box\n  Port 1\n")
    (tmp_path / "two").write_text("Host two\n  Port 2\n")
    config = write(tmp_path, "Include conf.d/* ~/two\n")
    assert (meant(config).port, meant(config, "two").port) == (1, 2)


def test_files_and_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", "/ke%ys")
    me = getpass.getuser()
    config = write(
        tmp_path,
        "Host box\n  HostName a.example\n  Port 2200\n  User ada\n"
        "  IdentityFile ~/k-%n-%h-%r-%p-%u\n  IdentityFile ${KEYS}/k\n  IdentityFile %d/%%\n"
        '  UserKnownHostsFile "/a b/kh" ~/%k "/c d" # all\n  GlobalKnownHostsFile none\n'
        "Host plain\n  IdentitiesOnly yes\nHost none\n  IdentityFile none\n",
    )
    there = meant(config)
    assert there.identity_files == (
        f"{tmp_path}/k-box-a.example-ada-2200-{me}", "/ke%ys/k", f"{tmp_path}/%",
    )  # fmt: skip
    assert there.known_hosts == (Path("/a b/kh"), tmp_path / "box", Path("/c d"))
    assert there.known_as == "[a.example]:2200"
    plain = meant(config, "plain")
    assert (plain.identity_files, plain.only_named) == (None, True)
    assert plain.known_hosts[0] == tmp_path / ".ssh" / "known_hosts"
    assert meant(config, "none").identity_files == ()


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("", "/run/usual"),
        ("IdentityAgent SSH_AUTH_SOCK", "/run/usual"),
        ("IdentityAgent $OTHER_SOCK", "/run/other"),
        ("IdentityAgent $NO_SUCH_SOCK", None),
        ('IdentityAgent "~/a folder/%r.sock"', "{home}/a folder/ada.sock"),
        ("IdentityAgent ${KEYS}/agent", "/ke%ys/agent"),
        ("IdentityAgent none", None),
    ],
)
def test_whose_agent_is_asked(
    named: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/usual")
    monkeypatch.setenv("OTHER_SOCK", "/run/other")
    monkeypatch.setenv("KEYS", "/ke%ys")
    config = write(tmp_path, f"Host box\n  User ada\n  {named}\n")
    assert meant(config).agent == (expected and expected.format(home=tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK")
    if expected == "/run/usual":
        assert meant(config).agent is None


def test_a_canonical_name_is_looked_for_and_the_file_read_again_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sshconfig, "_resolves", lambda name: name == "box.a.example")
    config = write(
        tmp_path,
        "CanonicalizeHostname yes\nCanonicalDomains x.example a.example b.example\n"
        "Match canonical host *.example\n  Port 5\nHost *.example\n  User ada\n",
    )
    there = meant(config)
    assert (there.hostname, there.port, there.user) == ("box.a.example", 5, "ada")


def test_a_proxy_command_keeps_its_quotes_for_the_shell(tmp_path: Path) -> None:
    config = write(tmp_path, "Host box\n  ProxyCommand nc -x '%r' %h %p 2>/dev/null # %%\n")
    assert meant(config).command == f"nc -x '{getpass.getuser()}' box 22 2>/dev/null # %"


def test_the_jump_host_of_all_hosts_is_itself_entered_straight(tmp_path: Path) -> None:
    config = write(tmp_path, "Host gate\n  HostName g.example\nHost *\n  ProxyJump gate\n")
    assert meant(config).jumps == ("gate",)
    assert meant(config, "gate").jumps == ()


NOT_FOLLOWED = {
    "Host other\n\nMatch tagged x\n": (3, "`tagged`"),
    "Match host\n": (1, "no value"),
    "Host box\n IdentityFile %C\n": (2, "%C"),
    "IdentityFile ${ORCH_NO_SUCH}/k\n": (1, "ORCH_NO_SUCH"),
    'User "ada\n': (1, "quotation"),
    "User\n": (1, "missing"),
    "User # ada\n": (1, "missing"),
    "ProxyJump a:b\n": (1, "a:b"),
    "RevokedHostKeys /x\n": (1, "followed"),
    "ProxyUseFdpass yes\n": (1, "followed"),
    "CanonicalizeHostname yes\nCanonicalizeMaxDots x\n": (2, "number"),
    "CanonicalizeHostname yes\nCanonicalizeFallbackLocal no\n": (2, "CanonicalDomains"),
    "Include @/config\n": (1, f"more than {DEPTH}"),
}


@pytest.mark.parametrize("text", NOT_FOLLOWED)
def test_what_cannot_be_followed_is_told_with_its_line(text: str, tmp_path: Path) -> None:
    config = write(tmp_path, text)
    line, word = NOT_FOLLOWED[text]
    with pytest.raises(UsageError) as caught:
        meant(config)
    assert f"the ssh config {config}, line {line}" in caught.value.message
    assert word in caught.value.message
    assert "transport: openssh" in str(caught.value.hint)


def test_a_hop_is_named_with_the_host_that_it_leads_to(tmp_path: Path) -> None:
    config = SshConfig(write(tmp_path, "Host gate\n  Port 9\n"), tmp_path)
    box = dataclasses.replace(destination(Host("box"), config), origin="box")
    hop = destination(Host("gate", "ada@gate"), config, box)
    assert (hop.label, hop.name, hop.origin) == ("box, by way of gate", "gate", "box")
    assert hop.where == "ada@gate:9"


def test_a_user_without_a_name_is_told_to_give_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nameless)
    config = write(tmp_path, "")
    with pytest.raises(UsageError) as caught:
        meant(config)
    assert "USER=name orch" in str(caught.value.hint)
