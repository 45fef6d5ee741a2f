"""`jobs/<name>.yaml` -> JobSpec: strict, with profile and overrides applied and defaults filled.

Reads the one named file and the names in `jobs/`; nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator import names, nested, overlay, specchecks, specparts, strictyaml
from orchestrator.errors import NotFound, UsageError
from orchestrator.fields import Field
from orchestrator.jobspec import DataSource, JobSpec
from orchestrator.names import did_you_mean
from orchestrator.projectroot import JOBS_DIR, job_path
from orchestrator.strictyaml import Document

KEYS = (
    "description", "command", "stages", "config", "volatile", "reference", "rules", "resources",
    "profiles", "env", "secrets", "data", "setup", "results", "metrics", "expect", "checkpoint",
    "guards", "notify", "canary", "retry",
)  # fmt: skip


def job_names(project: Path) -> list[str]:
    """The jobs of a project, sorted; files whose name is no job name are passed over."""
    folder = project / JOBS_DIR
    if not folder.is_dir():
        return []
    found = (file.stem for file in folder.glob("*.yaml") if file.is_file())
    return sorted(stem for stem in found if _no_name(stem) is None)


def no_jobs(project: Path) -> list[tuple[str, str]]:
    """(file, why it is none) of what lies among the jobs and looks like one; not hidden files."""
    folder = project / JOBS_DIR
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found = []
    for file in files:
        if file.suffix.lower() not in (".yaml", ".yml") or file.name[0] == ".":
            continue
        why: str | None = "a job's file ends in .yaml"
        if not file.is_file():
            why = "it is no file, nor a link to one"
        elif file.suffix == ".yaml":
            why = _no_name(file.stem)
        if why is not None:
            found.append((f"{JOBS_DIR}/{file.name}", why))
    return found


def _no_name(text: str) -> str | None:
    """Why no job can be called that."""
    try:
        names.job_name(text)
    except UsageError as error:
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return None


def load_job(
    project: Path,
    name: str,
    *,
    profile: str | None = None,
    overrides: Sequence[str] | Mapping[str, str] = (),
) -> JobSpec:
    """The job as a run would execute it.

    `overrides` are `k.e.y=value` texts for config keys, the last of two for one key holds; or, as a
    map of such halves, those of an earlier run. NotFound when there is no such job; SpecError with
    file and line for a fault in the file; UsageError for a profile or an override that does not fit
    it.
    """
    path = job_path(project, name)
    if not path.is_file():
        known = job_names(project)
        instead = [(file, why) for file, why in no_jobs(project) if Path(file).stem == name]
        raise NotFound(
            f"no job `{name}` in {project / JOBS_DIR}{did_you_mean(name, known)}"
            + "".join(f"; {file} is no job: {why}" for file, why in instead),
            hint="jobs here: " + ", ".join(known) if known else "`orch init` makes an example job",
        )
    doc = strictyaml.load_file(path, shown=f"{JOBS_DIR}/{path.name}")
    pairs = _pairs(overrides)
    return _job(doc, name, path, profile, pairs, earlier=isinstance(overrides, Mapping))


def _pairs(overrides: Sequence[str] | Mapping[str, str]) -> list[tuple[str, str]]:
    if isinstance(overrides, Mapping):
        return list(overrides.items())
    return [overlay.parse_set(text) for text in overrides]


def _job(
    doc: Document,
    name: str,
    path: Path,
    profile: str | None,
    pairs: list[tuple[str, str]],
    *,
    earlier: bool,
) -> JobSpec:
    root = Field(doc.value, doc)
    if root.value is None:
        raise root.error("the file is empty; a job needs at least `command:`")
    profiles = _profiles(root.table(KEYS).get("profiles"))
    if profile is not None and profile not in profiles:
        raise UsageError(
            f"job `{name}` has no profile `{ascii(profile)[1:-1]}`"
            + did_you_mean(profile, profiles),
            hint="profiles: " + ", ".join(profiles) if profiles else "it has no profiles",
        )
    base = config = specparts.config(root.table().get("config"))
    if profile is not None:
        section = profiles[profile].table().get("config")
        config = overlay.profile_config(config, section) if section else config
        root = Field(None, overlay.with_profile(doc, profile))
        root = Field(root.doc.value, root.doc)
    typed: dict[str, Any] = {}
    for key, text in pairs:
        try:
            config, typed[key] = overlay.with_override(config, key, text, base)
        except UsageError as error:
            raise _unfit(name, key, text, error) if earlier else error from None
    return _assembled(root, name, path, config, profile, tuple(profiles), typed)


def _unfit(job: str, key: str, text: str, error: UsageError) -> UsageError:
    told = error.message.removeprefix("--set: ")
    return UsageError(
        f"the old run's override {ascii(f'{key}={text}')[1:-1]} fits the job no more: {told}",
        hint=f"`orch submit {job}` starts a run with the overrides that you name",
    )


def _profiles(field: Field | None) -> dict[str, Field]:
    profiles = field.table() if field else {}
    for entry in profiles.values():
        entry.key(names.profile_name)
        entry.table(overlay.SECTIONS)
    return profiles


def _assembled(
    root: Field,
    name: str,
    path: Path,
    config: Mapping[str, Any],
    profile: str | None,
    profiles: tuple[str, ...],
    overrides: Mapping[str, Any],
) -> JobSpec:
    top = {key: field for key, field in root.table(KEYS).items() if field.value is not None}
    env = specparts.env(top.get("env"))
    results_dir, exclude = specparts.results(top.get("results"))
    metrics_file, primary = specparts.metrics(top.get("metrics"), results_dir)
    resources = specparts.resources(top.get("resources"))
    return JobSpec(
        name=name,
        path=path,
        stages=specparts.stages(root, top),
        config=config,
        description=top["description"].text() if "description" in top else "",
        profile=profile,
        profiles=profiles,
        overrides=overrides,
        volatile=specparts.config_keys(top.get("volatile"), config),
        reference=specparts.reference(top.get("reference")),
        rules=specchecks.rules(top.get("rules"), config),
        resources=resources,
        env=env,
        secrets=specparts.secrets(top.get("secrets"), env),
        data=specparts.data(top.get("data"), config),
        requirements=specparts.requirements(top.get("setup")),
        results_dir=results_dir,
        results_exclude=exclude,
        metrics_file=metrics_file,
        metrics_primary=primary,
        metrics_declared="metrics" in top or "expect" in top,
        expect=specparts.expect(top.get("expect"), config),
        guards=specchecks.guards(top.get("guards"), resources.grace),
        notify=specchecks.notify(top.get("notify")),
        checkpoint=specchecks.checkpoint(top.get("checkpoint"), config),
        canary=specchecks.canary(top.get("canary"), config),
        retry=specparts.retry(top.get("retry")),
    )


def data_for(spec: JobSpec) -> tuple[DataSource, ...]:
    """The data this run needs: entries without `when`, and those whose `when` the config meets."""
    return tuple(
        source
        for source in spec.data
        if all(nested.lookup(spec.config, key) == value for key, value in source.when.items())
    )
