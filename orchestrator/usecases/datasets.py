"""The data a job asks for: where it lies here, and its content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.datatree import list_data, scan_data
from orchestrator.errors import NotFound, UsageError
from orchestrator.jobspec import DataSource, JobSpec
from orchestrator.manifest import Scan
from orchestrator.spec import data_for
from orchestrator.usecases.context import Context

Folders = tuple[tuple[DataSource, Path | None], ...]  # with the local folder of what is sent


def folders(ctx: Context, spec: JobSpec) -> Folders:
    """The sources this config needs; NotFound for one that should lie here and does not."""
    return tuple((source, _folder(ctx, source)) for source in data_for(spec))


def scans(ctx: Context, found: Sequence[tuple[DataSource, Path | None]]) -> dict[str, Scan]:
    """name -> the files of what is sent, with their hashes."""
    return {
        source.name: scan_data(folder, ctx.layout.hash_cache(folder))
        for source, folder in found
        if folder is not None
    }


def left_out(found: Folders) -> tuple[tuple[str, str], ...]:
    """(which file, why) of what will not be sent; NotFound for data of which nothing would be."""
    every: list[tuple[str, str]] = []
    for source, folder in found:
        if folder is None:
            continue
        listing = list_data(folder)
        if not listing.found:
            raise NotFound(
                f"data `{source.name}`: {folder} holds no file that can be sent"
                + "".join(f"\n  left out: {path} ({why})" for path, why in listing.left_out[:5]),
                hint="put the data there, or name its folder under `data:` in the job's file",
            )
        every += [(f"data {source.name}: {path}", why) for path, why in listing.left_out]
    return tuple(every)


def hashes(ctx: Context, spec: JobSpec) -> dict[str, str]:
    """name -> content hash of what would be sent."""
    return {name: scan.tree for name, scan in scans(ctx, folders(ctx, spec)).items()}


def _folder(ctx: Context, source: DataSource) -> Path | None:
    """Where data to be sent lies, its variables expanded; None for data that is on the host."""
    if source.source is None:
        return None
    text = source.source
    for name in ("ORCH_DATA", "HOME"):
        if f"${name}" in text or f"${{{name}}}" in text:
            value = ctx.env.get(name)
            if not value:
                raise UsageError(
                    f"data `{source.name}` lies at {text}, and {name} is not set",
                    hint=f"set {name} to the folder that holds it",
                )
            text = text.replace(f"${{{name}}}", value).replace(f"${name}", value)
    # What a variable says is meant from where the command is called, as everywhere.
    base = ctx.cwd if source.source.startswith("$") else ctx.project()
    path = base / Path(text).expanduser()
    if not path.exists():
        raise NotFound(
            f"data `{source.name}`: {path} does not exist",
            hint="set ORCH_DATA to the folder that holds the datasets"
            if "ORCH_DATA" in source.source
            else None,
        )
    return path
