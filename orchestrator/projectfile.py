"""`orch.yaml` and the user's config.yaml: which folder is a project, which hosts it knows.

Also makes a folder into a project. Reads the two files; writes only in `init_project`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator import names, strictyaml, units
from orchestrator.domain import Host
from orchestrator.errors import UsageError
from orchestrator.fields import Field
from orchestrator.paths import PROJECT_FILE
from orchestrator.projectroot import nearest_project

LOCAL = Host(name="local", transport="local")

_KEYS = ("name", "default_host", "hosts", "max_file_size")  # `name` is a remark: never read
_CHOICES = {
    "session": ("auto", "tmux", "screen", "plain"),
    "transport": ("ssh", "openssh", "local"),
    "backend": ("direct",),
}
_HOST_KEYS = ("ssh", "python", "root", *_CHOICES)
_SAFE_PATH = re.compile(r"[A-Za-z0-9_./~+-]+")
_ADDRESS = re.compile(
    r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?"
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class ProjectConfig:
    """What both files say together; the project's word goes before the user's."""

    hosts: Mapping[str, Host] = field(default_factory=dict)
    default_host: str | None = None
    max_file_size: int | None = None  # bytes; larger files are refused at sync


def find_project(start: Path, env: Mapping[str, str]) -> Path:
    """`$ORCH_PROJECT`, or the nearest folder from `start` upward that holds orch.yaml.

    UsageError when there is none.
    """
    if given := env.get("ORCH_PROJECT"):
        root = start / given
        if not (root / PROJECT_FILE).is_file():
            raise UsageError(
                f"ORCH_PROJECT is {given}, which has no {PROJECT_FILE}",
                hint="`orch init` makes a folder into a project",
            )
        return _recordable(root.resolve())
    start = start.resolve()
    if (folder := nearest_project(start)) is not None:
        return _recordable(folder)
    raise UsageError(
        f"no {PROJECT_FILE} in {start} or above it: this is no orch project",
        hint="`orch init` makes this folder into one; or set ORCH_PROJECT",
    )


def _recordable(root: Path) -> Path:
    """The folder, if the ledger (UTF-8) can name it: a run must find the way back to it."""
    try:
        str(root).encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(
            f"the project's folder {str(root)!a} has a name that is not UTF-8",
            hint="rename the folder; nothing was changed",
        ) from None
    return root


def user_config_path(env: Mapping[str, str]) -> Path | None:
    """`$XDG_CONFIG_HOME/orch/config.yaml`; None when neither that nor HOME is known."""
    base = env.get("XDG_CONFIG_HOME") or ""
    if not Path(base).is_absolute():  # the XDG specification: a relative value is ignored
        if not env.get("HOME"):
            return None
        base = str(Path(env["HOME"]) / ".config")
    return Path(base) / "orch" / "config.yaml"


def load_project(root: Path | None, env: Mapping[str, str]) -> ProjectConfig:
    """The project's orch.yaml over the user's config.yaml, which need not exist. SpecError.

    Outside of a project (None) it is the user's config.yaml alone.
    """
    user_file = user_config_path(env)
    user: dict[str, Any] = {}
    if user_file is not None and user_file.is_file():
        user = _read(user_file, str(user_file))
    own = _read(root / PROJECT_FILE, PROJECT_FILE) if root is not None else {}
    return ProjectConfig(
        hosts={**user.get("hosts", {}), **own.get("hosts", {})},
        default_host=own.get("default_host") or user.get("default_host"),
        max_file_size=own.get("max_file_size") or user.get("max_file_size"),
    )


def resolve_host(name: str | None, config: ProjectConfig, env: Mapping[str, str]) -> Host:
    """The host to use: the name given, else `$ORCH_HOST`, the files' default_host, `local`.

    A name in neither file is taken for an alias in the user's ssh config. UsageError for a name
    that is not allowed.
    """
    if name == "":
        raise UsageError(
            "the host's name is empty",
            hint="leave --host out, or look at the variable it came from",
        )
    chosen = name or env.get("ORCH_HOST") or config.default_host or LOCAL.name
    names.host_name(chosen)
    if chosen in config.hosts:
        return config.hosts[chosen]
    return LOCAL if chosen == LOCAL.name else Host(name=chosen)


# --- reading --------------------------------------------------------------------------------------


def _read(file: Path, shown: str) -> dict[str, Any]:
    """The file's values that are not null, by key."""
    doc = strictyaml.load_file(file, shown=shown)
    top = {k: f for k, f in Field(doc.value, doc).table(_KEYS).items() if f.value is not None}
    result: dict[str, Any] = {}
    if "name" in top:
        top["name"].text()
    if "default_host" in top:
        top["default_host"].text()
        result["default_host"] = top["default_host"].read(names.host_name)
    if "max_file_size" in top:
        result["max_file_size"] = top["max_file_size"].read(units.size)
    if "hosts" in top:
        result["hosts"] = {name: _host(entry) for name, entry in top["hosts"].table().items()}
    return result


def _host(entry: Field) -> Host:
    name = entry.key(names.host_name)
    table = {k: f for k, f in entry.table(_HOST_KEYS).items() if f.value is not None}
    host = LOCAL if name == LOCAL.name else Host(name=name)
    for key, choices in _CHOICES.items():
        if key in table:
            host = replace(host, **{key: table[key].one_of(choices)})
    if name == LOCAL.name and not host.is_local:
        raise table["transport"].error("host `local` is this machine: its transport is `local`")
    if "ssh" in table:
        if host.is_local:
            raise table["ssh"].error(f"host `{name}` is on this machine: leave `ssh` out")
        host = replace(host, ssh=_address(table["ssh"]))
    if "python" in table:
        host = replace(host, python=_host_path(table["python"], bare=True))
    if "root" in table:
        host = replace(host, root=_host_path(table["root"], bare=False))
    return host


def _address(entry: Field) -> str:
    text = entry.text()
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found[1] or 22) < 65536:
        raise entry.error(
            f"`{entry.name}` is `{ascii(text)[1:-1]}`; write [user@]host[:port]",
            hint="anything more belongs in ~/.ssh/config under an alias",
        )
    return text


def _host_path(entry: Field, *, bare: bool) -> str:
    """A path on a host that means the same to every shell; `bare`: a command's name will do."""
    text = entry.text()
    absolute = text.startswith(("/", "~/"))
    named = bare and "/" not in text and text[0] not in "~-+."
    if not _SAFE_PATH.fullmatch(text) or ".." in text.split("/") or not (absolute or named):
        what = "a command's name, /path or ~/path" if bare else "/path or ~/path"
        raise entry.error(
            f"`{entry.name}` is `{ascii(text)[1:-1]}`; it must be {what}",
            hint="allowed characters: A-Z a-z 0-9 _ . / ~ + -",
        )
    return text


# --- making a project -----------------------------------------------------------------------------

# Where each template goes. Dotfiles are kept without their dot, or they would act on this package.
_TEMPLATES = {
    PROJECT_FILE: "orch.yaml",
    "jobs/hello.yaml": "hello.yaml",
    "jobs/hello.py": "hello.py",
    ".gitignore": "gitignore",
    ".orchignore": "orchignore",
}
TEMPLATE_FILES = tuple(_TEMPLATES)


def keeps_results_out(dest: Path) -> bool:
    """Whether the folder's .gitignore names `results`, which runs bring back."""
    try:
        lines = (dest / ".gitignore").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip().strip("/") in ("results", "results/*", "results/**") for line in lines)


def init_project(dest: Path) -> list[str]:
    """The folder is a project: it has every one of TEMPLATE_FILES. Returns those written now.

    A file that was there is as it was: it is in TEMPLATE_FILES and not in the list. OrchError when
    one cannot be written; running it again goes on from there.
    """
    source = Path(__file__).parent / "template"
    written = []
    for name, template in _TEMPLATES.items():
        target = dest / name
        text = (source / template).read_text(encoding="utf-8")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # "x" refuses what is there, a dangling link too, so two inits cannot overwrite either.
            with target.open("x", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
        except FileExistsError:
            if target.parent.is_dir():
                continue
            raise UsageError(f"{target.parent} is in the way: it is not a folder") from None
        except OSError as error:
            raise UsageError(
                f"{target} could not be written: {error.strerror or error}",
                hint="the files written before it are whole; run `orch init` again",
            ) from error
        written.append(name)
    return written
