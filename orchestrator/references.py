"""Reads the files a config is compared with: plain YAML and JSON, Hydra trees, files of a commit.

Interpolations and `defaults:` lists are resolved by Hydra and OmegaConf themselves (the extra
`orch[hydra]`), value by value: what a spec does not compare need not resolve.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator import strictjson, strictyaml
from orchestrator.checks.reference import covering, equal
from orchestrator.errors import SpecError
from orchestrator.jobspec import Reference, ReferenceFile
from orchestrator.wording import shown

GIT_DEADLINE = 60.0
_INTERPOLATED = re.compile(r"\$\{")
_DEFAULTS = re.compile(r"^defaults\s*:", re.MULTILINE)


def reference_tree(project: Path, reference: Reference | None) -> dict[str, Any]:
    """The reference files as one tree; two files that disagree on a key are a SpecError.

    Values that `only` and `ignore` leave out may be missing in it.
    """
    tree: dict[str, Any] = {}
    for file in reference.files if reference else ():
        assert reference is not None
        content = _content(project, file, _wanted(reference, file.at))
        for step in reversed(file.at.split(".") if file.at else []):
            content = {step: content}
        tree = _joined(tree, content, (), file)
    return tree


def _wanted(reference: Reference, at: str | None) -> Callable[[tuple[str, ...]], bool]:
    """Whether the value at a trail of the file is compared."""
    above = at.split(".") if at else []

    def wanted(trail: tuple[str, ...]) -> bool:
        key = ".".join([*above, *trail])
        asked = not reference.only or covering(key, reference.only)
        return bool(asked) and not covering(key, reference.ignore)

    return wanted


def _content(project: Path, file: ReferenceFile, wanted: Callable[[tuple[str, ...]], bool]) -> Any:
    suffix = PurePosixPath(file.path).suffix
    if suffix not in (".yaml", ".yml", ".json"):
        raise SpecError("a reference must be a .yaml, .yml or .json file", path=file.shown)
    with _lying_in(project, file) as path:
        raw = _read(path, file)
        resolves = bool(_INTERPOLATED.search(raw) or (_DEFAULTS.search(raw) and suffix != ".json"))
        if resolves or file.overrides:
            value: Any = _resolved(path, file, bool(_DEFAULTS.search(raw)), wanted)
        elif suffix == ".json":
            value = _json(raw, file)
        else:
            value = strictyaml.load(raw, path=file.shown)
    if not isinstance(value, dict) and not file.at:
        raise SpecError("a reference must hold a map, or be placed with `at:`", path=file.shown)
    return value


def _read(path: Path, file: ReferenceFile) -> str:
    if not path.is_file():
        raise SpecError("the reference file does not exist", path=file.shown)
    try:
        with path.open("rb") as stream:
            raw = stream.read(strictjson.MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror or error}", path=file.shown) from error
    if len(raw) > strictjson.MAX_BYTES:
        raise SpecError("the file is too large for a config", path=file.shown)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SpecError("the file is not UTF-8 text", path=file.shown) from None


def _json(raw: str, file: ReferenceFile) -> Any:
    try:
        return strictjson.loads(raw.encode("utf-8"))
    except strictjson.JsonRefused as error:
        raise SpecError(f"not usable: {error}", path=file.shown) from None


def _joined(
    tree: Mapping[str, Any], more: Any, trail: tuple[str, ...], file: ReferenceFile
) -> dict[str, Any]:
    result = dict(tree)
    for key, value in more.items():
        below = (*trail, key)
        if key not in result:
            result[key] = value
        elif isinstance(result[key], dict) and isinstance(value, dict):
            result[key] = _joined(result[key], value, below, file)
        elif not equal(result[key], value):
            raise SpecError(
                f"`{'.'.join(below)}` is {shown(value)} here and {shown(result[key])} in a "
                "reference file named before it",
                path=file.shown,
            )
    return result


# --- where a file lies ----------------------------------------------------------------------------


@contextmanager
def _lying_in(project: Path, file: ReferenceFile) -> Iterator[Path]:
    """The file's path; a commit's file is written out, with the YAML files beside and below it."""
    if file.repo is None:
        yield project / file.path
        return
    repo = project / Path(file.repo).expanduser()
    commit = _git(repo, file, "rev-parse", "--verify", "--quiet", f"{file.commit}^{{commit}}")
    sha = commit.decode("ascii", "replace").strip()
    folder = PurePosixPath(file.path).parent
    listed = _git(repo, file, "ls-tree", "-r", "-z", "--full-tree", "--name-only", sha)
    names = [name for name in listed.decode("utf-8", "replace").split("\0") if name]
    if file.path not in names:
        raise SpecError(f"{sha[:12]} has no such file", path=file.shown)
    with tempfile.TemporaryDirectory(prefix="orch-reference-") as place:
        for name in names:
            inside = PurePosixPath(name).is_relative_to(folder) or str(folder) == "."
            if name == file.path or (inside and name.endswith((".yaml", ".yml"))):
                target = Path(place) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(_git(repo, file, "cat-file", "blob", f"{sha}:{name}"))
        yield Path(place) / file.path


def _git(repo: Path, file: ReferenceFile, *args: str) -> bytes:
    argv = ["git", "-C", str(repo), *args]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=GIT_DEADLINE, check=False)
    except FileNotFoundError:
        raise SpecError("git is needed to read it, and is not installed", path=file.shown) from None
    except subprocess.TimeoutExpired:
        raise SpecError(f"git gave no answer in {GIT_DEADLINE:g} s", path=file.shown) from None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    told = said[-1] if said else f"no commit {file.commit} in {repo}"
    raise SpecError(
        told, path=file.shown, hint="clone or fetch it there; nothing is fetched by itself"
    )


# --- Hydra and OmegaConf --------------------------------------------------------------------------


def _resolved(
    path: Path,
    file: ReferenceFile,
    has_defaults: bool,
    wanted: Callable[[tuple[str, ...]], bool],
) -> Any:
    try:
        import hydra
        import omegaconf
    except ImportError:
        raise SpecError(
            "it has interpolations or a `defaults:` list, which OmegaConf and Hydra resolve",
            path=file.shown,
            hint="pip install 'orch[hydra]', or save the resolved config and name that file",
        ) from None
    try:
        if has_defaults or file.overrides:
            folder = str(path.parent.resolve())
            with hydra.initialize_config_dir(config_dir=folder, version_base=None):
                tree: Any = hydra.compose(path.stem, overrides=list(file.overrides))
        else:
            tree = omegaconf.OmegaConf.load(path)
    except Exception as error:  # whatever a config can do to its resolver
        raise SpecError(f"does not compose: {_words(error)}", path=file.shown) from None
    return _values(tree, (), file, wanted)


def _values(
    node: Any,
    trail: tuple[str, ...],
    file: ReferenceFile,
    wanted: Callable[[tuple[str, ...]], bool],
) -> Any:
    """Plain values; what is not compared and does not resolve is left out, as is a `???`."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    if isinstance(node, ListConfig):
        return [_value(node, at, (*trail, str(at)), file, wanted) for at in range(len(node))]
    if not isinstance(node, DictConfig):
        plain = node is None or isinstance(node, (bool, int, float, str))
        return node if plain else str(node)
    found = {}
    for key in node:
        below = (*trail, str(key))
        if OmegaConf.is_missing(node, key):
            continue
        value = _value(node, key, below, file, wanted)
        if value is not _LEFT_OUT:
            found[str(key)] = value
    return found


_LEFT_OUT = object()


def _value(
    node: Any,
    key: Any,
    trail: tuple[str, ...],
    file: ReferenceFile,
    wanted: Callable[[tuple[str, ...]], bool],
) -> Any:
    try:
        return _values(node[key], trail, file, wanted)
    except SpecError:
        raise
    except Exception as error:  # OmegaConf's own, and what a resolver raises
        if not wanted(trail):
            return _LEFT_OUT
        circle = isinstance(error, RecursionError) or "recursive" in str(error).lower()
        told = "its interpolations go in a circle" if circle else str(error).split("\n")[0][:300]
        raise SpecError(
            f"`{'.'.join(trail)}` does not resolve: {told}",
            path=file.shown,
            hint="leave it out (`reference: ignore:`), or save the resolved config and name that",
        ) from None


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
