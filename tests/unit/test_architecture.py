"""Who may import whom, read from the syntax trees; and what `orch --help` must not load."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator import cli

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "remote", "jobs")

# The floor: types, errors and arithmetic. A module that is not listed is a library module.
FLOOR, LIBRARY, USECASE, SURFACE = range(4)
LAYER_OF = {
    "orchestrator": FLOOR,
    "orchestrator.domain": FLOOR,
    "orchestrator.errors": FLOOR,
    "orchestrator.jobspec": FLOOR,
    "orchestrator.names": FLOOR,
    "orchestrator.paths": FLOOR,
    "orchestrator.usecases": USECASE,
    **{
        f"orchestrator.{name}": SURFACE
        for name in (
            "__main__",
            "cli",
            "commands",
            "complete",
            "console",
            "manylogs",
            "output",
            "progress",
            "render",
            "screen",
        )
    },
}

LIBRARIES = "orchestrator.transport.ssh_libraries"

# Library -> the modules that may import it. `x` also owns for `x_more` and `x.more`.
OWNERS = {
    "typer": [f"orchestrator.{name}" for name in ("cli", "commands", "complete", "console")],
    "click": ["orchestrator.cli", "orchestrator.complete", "orchestrator.console"],
    "rich": ["orchestrator.progress", "orchestrator.screen"],
    "sqlite3": ["orchestrator.ledger"],
    "fabric": [LIBRARIES],
    "paramiko": [LIBRARIES],
    "tenacity": ["orchestrator.retry"],
    "mlflow": ["orchestrator.mlflowstore"],
    "yaml": ["orchestrator.spec", "orchestrator.strictyaml"],
    "hydra": ["orchestrator.references"],
    "omegaconf": ["orchestrator.references"],
    "torch": ["jobs"],
    "numpy": ["jobs"],
    "sklearn": ["jobs"],
    "tokenizers": ["jobs"],
    "safetensors": ["jobs"],
}

# No input, output, clock or chance in these: equal arguments give equal results.
PURE = [
    "domain", "errors", "jobspec", "names", "nested", "confighash", "checks", "expressions",
    "where",
]  # fmt: skip
IMPURE = {"os", "io", "time", "random", "secrets", "socket", "subprocess", "threading", "shutil"}

STDLIB_3_8 = set(sys.stdlib_module_names) - {"graphlib", "tomllib", "zoneinfo"}

HEAVY = ("fabric", "paramiko", "tenacity", "yaml", "torch")
BANNED_NAMES = {"utils", "util", "helpers", "manager", "common", "misc"}


@dataclass(frozen=True, slots=True)
class Source:
    """One module: its dotted name, its file and what it imports where."""

    name: str
    path: Path
    imports: Mapping[str, int]  # dotted name -> line


def read_sources(root: Path) -> dict[str, Source]:
    """Every module of the three packages under `root`, by dotted name."""
    found: dict[str, Source] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if "template" in parts:
                continue
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Source(name, path, {})
    for name, source in list(found.items()):
        tree = ast.parse(source.path.read_text(encoding="utf-8"), str(source.path))
        is_package = source.path.name == "__init__.py"
        imports = dict(imports_of(tree, name, is_package, set(found)))
        found[name] = Source(name, source.path, imports)
    return found


def imports_of(
    tree: ast.Module, name: str, is_package: bool, known: set[str]
) -> Iterator[tuple[str, int]]:
    """(module, line) of each import, also those within functions; not those for types only."""
    typing_only = {id(n) for block in type_checking_blocks(tree) for n in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, name, is_package)
            for alias in node.names:
                # `from package import module` means the module, not the package.
                inner = f"{base}.{alias.name}"
                yield (inner if inner in known else base, node.lineno)


def type_checking_blocks(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from node.body


def absolute(node: ast.ImportFrom, name: str, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    up = node.level - 1 if is_package else node.level
    parts = name.split(".")
    base = parts[: len(parts) - up]
    return ".".join([*base, *([node.module] if node.module else [])])


def top(name: str) -> str:
    return name.partition(".")[0]


def layer(name: str) -> int:
    while name not in LAYER_OF:
        parent, _, _ = name.rpartition(".")
        # Below the bare package a module that is not listed is a library module.
        if parent in ("", "orchestrator"):
            stem = name.partition("_")[0]  # cli_runs belongs to cli
            return LAYER_OF.get(stem, LIBRARY)
        name = parent
    return LAYER_OF[name]


def owned(name: str, owner: str) -> bool:
    return name == owner or name.startswith((f"{owner}.", f"{owner}_"))


def breaches(sources: Mapping[str, Source]) -> list[str]:
    """Every import that the rules forbid, as `file:line: reason`."""
    found = []
    for source in sources.values():
        for target, line in source.imports.items():
            for reason in reasons_against(source.name, target):
                found.append(f"{source.path}:{line}: {reason}")
    return found


def reasons_against(name: str, target: str) -> Iterator[str]:
    here, there = top(name), top(target)
    if here == "orchestrator" and there == "remote" and target != "remote.wire":
        yield f"{name} imports {target}: of remote only wire may be imported"
    if here != "jobs" and there == "jobs":
        yield f"{name} imports {target}: a job is data to the orchestrator"
    if here == "jobs" and there in ("orchestrator", "remote"):
        yield f"{name} imports {target}: a job must run without orch"
    if here == "remote" and there != "remote" and there not in STDLIB_3_8:
        yield f"{name} imports {target}: the host has the standard library only"
    if here == there == "orchestrator" and layer(target) > layer(name):
        yield f"{name} imports {target}: upward"
    owners = OWNERS.get(there) if here == "orchestrator" else None
    if owners and not any(owned(name, owner) for owner in owners):
        yield f"{name} imports {target}: that library belongs to {owners}"
    if there in IMPURE and any(owned(name, f"orchestrator.{pure}") for pure in PURE):
        yield f"{name} imports {target}: this module is pure"


def cycles(sources: Mapping[str, Source]) -> list[list[str]]:
    """Import cycles among the modules, each once."""
    done: set[str] = set()
    found: list[list[str]] = []

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append([*trail[trail.index(name) :], name])
            return
        if name in done:
            return
        for target in sources[name].imports:
            if target in sources and target != name:
                visit(target, [*trail, name])
        done.add(name)

    for name in sources:
        visit(name, [])
    return found


@pytest.fixture(scope="module")
def sources() -> dict[str, Source]:
    return read_sources(ROOT)


def test_no_module_imports_what_it_may_not(sources: dict[str, Source]) -> None:
    assert len(sources) > 20
    assert breaches(sources) == []


def test_every_module_that_a_rule_names_is_there(sources: dict[str, Source]) -> None:
    named = {*LAYER_OF, *(f"orchestrator.{name}" for name in PURE)}
    named |= {owner for owners in OWNERS.values() for owner in owners}
    assert sorted(named - set(sources)) == []


def test_there_are_no_import_cycles(sources: dict[str, Source]) -> None:
    assert cycles(sources) == []


def test_no_module_is_named_after_nothing(sources: dict[str, Source]) -> None:
    assert [n for n in sources if BANNED_NAMES & set(n.split("."))] == []


def test_the_host_side_is_written_in_python_3_8(sources: dict[str, Source]) -> None:
    for name, source in sources.items():
        if top(name) == "remote":
            text = source.path.read_text(encoding="utf-8")
            ast.parse(text, str(source.path), feature_version=(3, 8))


@pytest.mark.parametrize(
    ("path", "text", "word"),
    [
        ("orchestrator/domain.py", "from orchestrator import spec", "upward"),
        ("orchestrator/spec.py", "from orchestrator.usecases.submit import x", "upward"),
        ("orchestrator/usecases/ls.py", "import orchestrator.render", "upward"),
        ("orchestrator/usecases/ls.py", "def f():\n    from ..cli import main", "upward"),
        ("orchestrator/usecases/ls.py", "import sqlite3", "orchestrator.ledger"),
        ("orchestrator/transport/local.py", "import paramiko.client", "transport.ssh"),
        ("orchestrator/usecases/tail.py", "from remote import supervisor", "only wire"),
        ("orchestrator/checks/x.py", "import torch", "belongs to"),
        ("orchestrator/checks/x.py", "import subprocess", "pure"),
        ("orchestrator/checks/x.py", "import jobs.textdiff", "job is data"),
        ("remote/agent.py", "import yaml", "standard library only"),
        ("remote/agent.py", "from orchestrator import errors", "standard library only"),
        ("jobs/x.py", "import orchestrator", "without orch"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, path: str, text: str, word: str) -> None:
    good = {
        "orchestrator/spec.py": "import orchestrator.strictyaml",
        "orchestrator/strictyaml.py": "import yaml",
        "orchestrator/render.py": "from typing import TYPE_CHECKING",
        "orchestrator/cli.py": "import typer\nfrom orchestrator import render",
        "orchestrator/usecases/submit.py": "x = 1",
        "orchestrator/transport/ssh.py": f"from {LIBRARIES} import fabric\nfrom remote import wire",
        "orchestrator/transport/ssh_keys.py": f"from {LIBRARIES} import paramiko",
        "orchestrator/transport/ssh_libraries.py": "import fabric\nimport paramiko",
        "remote/wire.py": "import zlib",
        "remote/supervisor.py": "from remote import wire",
        "jobs/model.py": "import torch",
    }
    assert breaches(read_sources(write_tree(tmp_path / "good", good))) == []
    found = breaches(read_sources(write_tree(tmp_path / "bad", {**good, path: text})))
    assert len(found) == 1
    assert word in found[0]


def test_a_cycle_is_found_also_within_a_function(tmp_path: Path) -> None:
    tree = {
        "remote/a.py": "from remote import b",
        "remote/b.py": "def f():\n    import remote.c",
        "remote/c.py": "from .a import x",
    }
    found = cycles(read_sources(write_tree(tmp_path, tree)))
    assert [set(cycle) for cycle in found] == [{"remote.a", "remote.b", "remote.c"}]


def write_tree(root: Path, tree: Mapping[str, str]) -> Path:
    for path, text in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


# Told at the very end, however the program ends: it may leave by os._exit.
PROBE = """
import json, os, sys

def tell(code, leave=os._exit):
    print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr, flush=True)
    leave(0)

os._exit = tell
sys.argv = ["orch", *sys.argv[1:]]
from orchestrator.cli import main
try:
    main()
except SystemExit as end:
    tell(end.code or 0)
tell(0)
"""


def loaded_by(args: list[str], cwd: Path, home: Path) -> set[str]:
    """The modules that are loaded after `orch ARGS`, which must end well."""
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "ORCH_HOME": str(home / "state")}
    argv = [sys.executable, "-c", PROBE, *args]
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 0, done.stderr
    code, modules = json.loads(lines[-1])
    assert code == 0, done.stdout + done.stderr
    return set(modules)


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = loaded_by(["--help"], cwd=tmp_path, home=tmp_path)
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_listing_runs_loads_no_network_library(tmp_path: Path) -> None:
    (tmp_path / "orch.yaml").write_text("name: empty\n")
    loaded = loaded_by(["ls"], cwd=tmp_path, home=tmp_path)
    assert loaded.isdisjoint({"fabric", "paramiko", "torch"})


def test_a_command_is_built_alone_and_help_builds_all(tmp_path: Path) -> None:
    (tmp_path / "orch.yaml").write_text("name: empty\n")
    prefix = "orchestrator.commands."
    alone = {name for name in loaded_by(["ls"], tmp_path, tmp_path) if name.startswith(prefix)}
    every = {name for name in loaded_by(["--help"], tmp_path, tmp_path) if name.startswith(prefix)}
    assert f"{prefix}listing" in alone and f"{prefix}starting" not in alone
    assert every >= {prefix + module for module in cli.COMMANDS.values()}


def test_ssh_loads_no_mocks_and_leaves_the_real_ones_to_be_imported() -> None:
    program = """
import sys
from orchestrator.transport import ssh
assert "fabric" in sys.modules and "asyncio" not in sys.modules
assert "unittest" not in sys.modules
from unittest import mock
assert mock.MagicMock()() is not None
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
