"""What a submit needs of this machine: files of the project, data, variables of this shell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator import strictyaml
from orchestrator.domain import Finding, Severity
from orchestrator.gitlisting import GitListing, GitState
from orchestrator.jobspec import JobSpec
from orchestrator.manifest import Scan, any_travels, scan_project
from orchestrator.requirements import closure
from orchestrator.usecases import datasets
from orchestrator.usecases.context import Context, webhook_variable

RULE = "shell"


@dataclass(frozen=True, slots=True)
class Content:
    """What a run gets, as it was when it was read: later edits do not reach it."""

    code: Scan
    data: Mapping[str, Scan]
    sent: bool = False  # the host has it, whatever is still here


def folders(ctx: Context, spec: JobSpec) -> datasets.Folders:
    """Where the job's data lies here; raises when a file or folder that its spec names is not."""
    requirements(ctx, spec)
    return datasets.folders(ctx, spec)


def requirements(ctx: Context, spec: JobSpec) -> dict[str, str]:
    """Path -> text of the job's requirements file and of those that it includes."""
    if not spec.requirements:
        return {}
    if not (ctx.project() / spec.requirements).is_file():
        doc = strictyaml.load_file(spec.path, shown=f"jobs/{spec.path.name}")
        raise doc.error(
            ("setup", "requirements"),
            f"setup.requirements: no file {spec.requirements}",
            hint="name one of the project, by its path from the folder with orch.yaml",
        )
    return closure(ctx.project(), spec.requirements)


def code(ctx: Context, project: Path, spec: JobSpec, listing: GitListing, max_file: int) -> Scan:
    """The project's files as they would be sent; UsageError names one that is too large."""
    return scan_project(
        project,
        listing,
        ctx.layout.hash_cache(project),
        results_dirs=("results", spec.results_dir),
        max_file=max_file,
    )


def tell_left_out(ctx: Context, found: Iterable[tuple[str, str]]) -> None:
    for path, why in found:
        ctx.say(f"left out: {path} ({why})")


def git_state(project: Path, spec: JobSpec, listing: GitListing) -> GitState:
    """The project's commit, and whether what is sent is other than it."""
    folders = ("results", spec.results_dir)
    return listing.state(lambda changed: any_travels(project, changed, folders))


def unset(ctx: Context, spec: JobSpec) -> list[Finding]:
    """A finding for each variable that `Context.secret` would refuse a submit for."""
    wanted = [(name, "secrets") for name in spec.secrets]
    hook = webhook_variable(spec.notify)
    if hook is not None:
        wanted.append((hook, "notify.webhook"))
    return [
        Finding(Severity.ERROR, RULE, f"{name} is not set in this shell", key=key)
        for name, key in wanted
        if ctx.env.get(name) is None
    ]
