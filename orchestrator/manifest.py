"""The project's tree as a manifest: which files travel, and their hashes.

What travels: what git tracks plus what is untracked and not ignored, the same in repositories
inside (submodules, clones); without git, everything. Then `.orchignore` (gitignore syntax) on top.
Never: `results/`, caches, version-control folders, special files, links that leave the tree, and
files that look like secrets.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import SourceChanged, UsageError
from orchestrator.gitlisting import GitListing, paths_of
from orchestrator.wording import counted, size
from remote import wire

MAX_FILE = 100 * 1024 * 1024  # bytes; larger ones are data, not code
NEVER_DIRS = frozenset(
    (
        b".git .hg .svn __pycache__ .venv venv node_modules .mypy_cache .ruff_cache "
        b".pytest_cache .hypothesis .ipynb_checkpoints .tox .nox"
    ).split()
)
SECRETS = (
    ".env", ".env.*", "*.pem", "*.key", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519",
    "*.p12", "*.pfx", ".netrc", ".pypirc", ".npmrc", "*.kdbx", "credentials.json",
)  # fmt: skip
SECRET_EXAMPLES = (".env.example", ".env.sample", ".env.template")
_SECRET = re.compile("|".join(fnmatch.translate(pattern) for pattern in SECRETS))
_CACHED = re.compile(rb"(\d+ ){5}\d{3} [fl] \d+ [0-9a-f]{64} ")

# Of a file that was there a moment ago: it is gone, or a link now, or no link any more.
CHANGED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)

# A path in the tree; what stat says of it; where its bytes lie: under the root, or anywhere.
Found = tuple[bytes, os.stat_result, bytes]


@dataclass(frozen=True, slots=True)
class Scan:
    """A tree, frozen in words: manifest bytes, its hash, where each object's bytes lie."""

    root: Path
    manifest: bytes
    tree: str
    sources: Mapping[str, bytes]  # kind + sha256 -> where its bytes lie, under root or anywhere
    size: int  # bytes, all files
    skipped: tuple[tuple[str, str], ...] = ()  # (path, why)

    @property
    def count(self) -> int:
        return self.manifest.count(b"\0")


def scan_project(
    root: Path,
    listing: GitListing,
    cache: Path,
    *,
    results_dirs: Iterable[str] = ("results",),
    max_file: int = MAX_FILE,
) -> Scan:
    """The project's code. UsageError names a file over `max_file` bytes."""
    paths = listing.paths()
    folders = list(dict.fromkeys(name.strip("/") for name in results_dirs))
    never = tuple(name.encode() + b"/" for name in folders)
    found = _walk(root) if paths is None else _expand(root, paths)
    chosen = _orchignore(root, (item for item in found if not item[0].startswith(never)))
    code = scan(root, chosen, cache, max_file=max_file, secrets=True)
    if not any(path.startswith(never) for path in paths or ()):
        return code
    kept = [(name, len(listing.tracked(name))) for name in folders]
    told = [
        (f"{name}/", f"results are not sent; git tracks {counted(count, 'file')} there")
        for name, count in kept
        if count
    ]
    return replace(code, skipped=(*code.skipped, *told))


def _walk(root: Path, below: bytes = b"") -> Iterator[Found]:
    """What lies under `root`, links not followed."""
    stack = [below]
    base = os.fsencode(root)
    while stack:
        folder = stack.pop()
        items = _listed(base, folder)
        if items is None:
            yield folder + b"/", os.lstat(os.path.join(base, folder)), folder
            continue
        for item in items:
            path = folder + b"/" + item.name if folder else item.name
            if item.is_dir(follow_symlinks=False):
                if item.name not in NEVER_DIRS:
                    stack.append(path)
            elif (info := _stat(item.path)) is not None:
                yield path, info, path


def _listed(base: bytes, folder: bytes) -> list[os.DirEntry[bytes]] | None:
    """What is in the folder, by name; None where that cannot be read."""
    try:
        with os.scandir(os.path.join(base, folder)) as found:
            return sorted(found, key=lambda item: item.name)
    except (FileNotFoundError, NotADirectoryError):  # it went away meanwhile
        return []
    except OSError:
        return None


def _expand(root: Path, paths: list[bytes]) -> Iterator[Found]:
    """The files git lists; a submodule or nested repository, to it one folder, lists its own."""
    base = os.fsencode(root) + b"/"
    above, never, seen = None, False, set()
    for path in paths:
        folder = path.rpartition(b"/")[0]
        if folder != above:
            above, never = folder, not NEVER_DIRS.isdisjoint(folder.split(b"/"))
            if not never and folder not in seen and not path.endswith(b"/"):
                seen.add(folder)
                yield from _special(base, folder)
        info = None if never else _stat(base + path)
        if info is None:
            continue
        if stat.S_ISDIR(info.st_mode):
            yield from _nested(root, path.rstrip(b"/"))
        else:
            yield path, info, path


def _special(base: bytes, folder: bytes) -> Iterator[Found]:
    """What is no file, link or folder there: git lists none of it."""
    for item in _listed(base, folder) or ():
        if not (item.is_file() or item.is_symlink() or item.is_dir(follow_symlinks=False)):
            path = folder + b"/" + item.name if folder else item.name
            info = _stat(item.path)
            if info is not None:
                yield path, info, path


def _nested(root: Path, folder: bytes) -> Iterator[Found]:
    place = root / os.fsdecode(folder)
    paths = paths_of(place) if os.path.lexists(place / ".git") else None
    if paths is None:
        yield from _walk(root, folder)
    else:
        yield from _expand(root, [folder + b"/" + path for path in paths])


def _stat(path: bytes) -> os.stat_result | None:
    """None: it is not there (any more), as what git tracks and somebody deleted."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise unreadable(path, exc.strerror) from None


def unreadable(path: bytes, why: str | None) -> UsageError:
    return UsageError(
        f"{os.fsdecode(path)} cannot be read here ({why}), so it cannot be sent",
        hint="make it readable, or leave it out: .orchignore names what of the code is not sent",
    )


def any_travels(root: Path, paths: Iterable[bytes], results_dirs: Iterable[str]) -> bool:
    """Whether one of the paths, if it is there, is of the code that is sent."""
    never = tuple(name.strip("/").encode() + b"/" for name in results_dirs)
    named = (path for path in paths if not path.startswith(never))
    named = (path for path in named if NEVER_DIRS.isdisjoint(path.split(b"/")))
    named = (path for path in named if not _looks_secret(os.fsdecode(path.rpartition(b"/")[2])))
    ignored = _orchignored(root)
    return any(ignored is None or not ignored(path) for path in named)


def _orchignore(root: Path, found: Iterable[Found]) -> Iterable[Found]:
    ignored = _orchignored(root)
    return found if ignored is None else (item for item in found if not ignored(item[0]))


def _orchignored(root: Path) -> Callable[[bytes], bool] | None:
    file = root / ".orchignore"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{file}: cannot be read: {exc}") from None
    if not any(line.strip() and not line.lstrip().startswith("#") for line in lines):
        return None
    import pathspec

    try:
        spec = pathspec.GitIgnoreSpec.from_lines(lines)
    except ValueError as exc:
        raise UsageError(f"{file}: {exc}") from None
    return lambda path: spec.match_file(os.fsdecode(path))


def scan(
    root: Path, found: Iterable[Found], cache: Path, *, max_file: int | None, secrets: bool
) -> Scan:
    """Hash what changed since the cache was written; everything else cost one stat."""
    known = _read_cache(cache)
    fresh: dict[bytes, bytes] = {}
    lines: list[tuple[bytes, bytes]] = []
    sources: dict[str, bytes] = {}
    skipped: list[tuple[str, str]] = []
    size = 0
    base = os.fsencode(root) + b"/"
    # A file touched within the clock's grain of this scan may change again unseen: not cached.
    settled = time.time_ns() - 2_000_000_000
    for path, info, place in found:
        if stat.S_ISDIR(info.st_mode):
            raise unreadable(os.path.join(base, place) + b"/", "Permission denied")
        why = _refusal(path, info, max_file, secrets)
        if why is not None:
            skipped.append((os.fsdecode(path), why))
            continue
        stamp = b"%d %d %d %d %d " % (
            info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, info.st_mode
        )  # fmt: skip
        entry = known.get(path, b"")
        if entry.startswith(stamp):
            head = entry[len(stamp) :]
        else:
            try:
                made = _entry(os.path.join(base, place), path, info)
            except OSError as exc:
                if exc.errno in CHANGED:
                    raise _changed(path) from None
                raise unreadable(os.path.join(base, place), exc.strerror) from None
            if made is None:
                skipped.append((os.fsdecode(path), "a link that leaves the tree"))
                continue
            head = made.line()[: -len(path)]
        if info.st_mtime_ns < settled and info.st_ctime_ns < settled:
            fresh[path] = stamp + head
        sources[(head[4:5] + head[-65:-1]).decode("ascii")] = place  # "644 f 12 hash "
        size += info.st_size
        lines.append((path, head))
    lines.sort()
    manifest = b"".join([part for path, head in lines for part in (head, path, b"\0")])
    if fresh != known:
        _write_cache(cache, fresh)
    return Scan(root, manifest, wire.tree_hash(manifest), sources, size, tuple(skipped))


def _refusal(path: bytes, info: os.stat_result, max_file: int | None, secrets: bool) -> str | None:
    kind = stat.S_IFMT(info.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFLNK):
        return "not a regular file"
    if secrets and _looks_secret(os.fsdecode(path.rpartition(b"/")[2])):
        return "looks like a secret"
    if max_file is not None and info.st_size > max_file:
        name = os.fsdecode(path)
        raise UsageError(
            f"{name}: {size(info.st_size)} is too large for code (limit {size(max_file)})",
            hint="name it in .orchignore, declare it under `data:` in the job, "
            "or raise `max_file_size` in orch.yaml",
        )
    return None


def _looks_secret(name: str) -> bool:
    return _SECRET.match(name) is not None and name not in SECRET_EXAMPLES


def leaves_tree(path: bytes, target: bytes) -> bool:
    """Whether a link at `path` in a tree leads out of it, by its words."""
    inside = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return target.startswith(b"/") or inside.split(b"/")[0] == b".."


def _entry(place: bytes, path: bytes, info: os.stat_result) -> wire.Entry | None:
    if stat.S_ISLNK(info.st_mode):
        target = os.readlink(place)
        if leaves_tree(path, target):
            return None
        digest = hashlib.sha256(target).hexdigest()
        return wire.Entry(0o777, "l", len(target), digest, path)
    mode = 0o755 if info.st_mode & 0o100 else 0o644
    digest, size = _hash(place)
    if size != info.st_size:
        raise _changed(path)
    return wire.Entry(mode, "f", size, digest, path)


def _changed(path: bytes) -> SourceChanged:
    return SourceChanged(
        f"{os.fsdecode(path)} changed while it was read; nothing was sent",
        hint="run the command again when nothing writes there",
    )


def _hash(path: bytes) -> tuple[str, int]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        first = os.read(fd, 1 << 20)
        digest = hashlib.sha256(first)
        size = len(first)
        while first and (chunk := os.read(fd, 1 << 20)):
            digest.update(chunk)
            size += len(chunk)
    finally:
        os.close(fd)
    return digest.hexdigest(), size


def read_object(scan: Scan, entry: wire.Entry, offset: int = 0) -> Iterator[bytes]:
    """The bytes of one object from `offset` on; SourceChanged if they are not what was scanned."""
    path = os.path.join(os.fsencode(scan.root), scan.sources[entry.kind + entry.sha256])
    changed = SourceChanged(
        f"{os.fsdecode(entry.path)} changed while it was sent; nothing was started",
        hint="run the command again when nothing writes there",
    )
    digest = hashlib.sha256()
    try:
        if entry.kind == "l":
            content = os.readlink(path)
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise changed
            yield content
            return
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise changed from None
    left = entry.size
    at = 0
    try:
        while left:
            chunk = os.read(fd, min(left, wire.DATA_MAX))
            if not chunk:
                raise changed
            digest.update(chunk)
            left -= len(chunk)
            if left == 0 and digest.hexdigest() != entry.sha256:
                raise changed
            start = max(0, offset - at)
            at += len(chunk)
            if start < len(chunk):
                yield chunk[start:] if start else chunk
    finally:
        os.close(fd)


def _read_cache(path: Path) -> dict[bytes, bytes]:
    """By path: the numbers of a stat, and the head of its manifest line; damage is as if absent."""
    try:
        items = path.read_bytes().split(b"\0")
    except OSError:
        return {}
    known = dict(zip(items[::2], items[1::2], strict=False))
    return known if items[-1] == b"" and all(map(_CACHED.fullmatch, known.values())) else {}


def _write_cache(path: Path, entries: Mapping[bytes, bytes]) -> None:
    """Best effort: a cache that cannot be written only costs time."""
    tmp = path.with_suffix(f".tmp{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        tmp.write_bytes(b"".join([b"%b\0%b\0" % item for item in entries.items()]))
        os.replace(tmp, path)
    except OSError:
        tmp.unlink(missing_ok=True)
