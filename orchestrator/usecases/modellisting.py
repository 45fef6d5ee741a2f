"""The tensors of the model that a job would build: from a file, or printed by a command.

The command runs on this machine, or on the host with the job's code and in the job's environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.checks.checkpoint import NoTensors, TensorInfo, tensors_of
from orchestrator.domain import Host
from orchestrator.errors import UsageError
from orchestrator.gitlisting import GitListing
from orchestrator.jobspec import Checkpoint, JobSpec
from orchestrator.manifest import MAX_FILE, Scan, scan_project
from orchestrator.transport.base import Agent
from orchestrator.usecases import ready, sync
from orchestrator.usecases.context import Context

MODEL_DEADLINE = 300.0


def model(
    ctx: Context,
    spec: JobSpec,
    wanted: Checkpoint,
    host: Host | None,
    tensors: Callable[[Agent, str, str | None], dict[str, TensorInfo] | str],
) -> dict[str, TensorInfo] | str:
    """name -> shape and dtype; or why it cannot be told yet, in words. UsageError for a listing
    that fails. `tensors` reads those of another checkpoint."""
    project = ctx.project()
    where = wanted.model_file or " ".join(wanted.model_command)
    if wanted.model_on_host:
        if host is None:
            return f"`{where}` lists the model on the host: name one with --host"
        said = _listed_there(ctx, spec, wanted, host)
        if said is None:
            return (
                f"`{where}` cannot list the model yet: the job's environment is still to be made "
                f"on {host.name}"
            )
        raw: str | bytes = said
    elif wanted.model_file is None:
        raw = _listed_here(project, spec, wanted.model_command, ctx.env)
    elif not wanted.model_file.endswith(".json"):
        with ctx.connect(ctx.host("local")) as local:
            found = tensors(local, str(project / wanted.model_file), None)
        if isinstance(found, str):
            raise _no_model(where, found)
        return found
    else:
        try:
            raw = (project / wanted.model_file).read_bytes()
        except OSError as error:
            raise _no_model(where, str(error.strerror)) from None
    try:
        return tensors_of(json.loads(raw))
    except (ValueError, RecursionError) as error:
        told = str(error) if isinstance(error, NoTensors) else "what it says is no JSON"
        raise _no_model(where, told) from None


def _listed_there(ctx: Context, spec: JobSpec, wanted: Checkpoint, host: Host) -> str | None:
    """What the command prints on the host; None while the environment is not there."""
    scan = _code(ctx, spec)
    body = {
        "tree": scan.tree,
        "argv": list(wanted.model_command),
        "env": dict(spec.env),
        "config": json.dumps(spec.config),
        "requirements": list(ready.requirements(ctx, spec).items()),
        "seconds": MODEL_DEADLINE,
    }
    with ctx.connect(host) as agent:
        reply = agent.call("listing", body, deadline=MODEL_DEADLINE + 60)
        if reply.get("need") == "tree":
            sync.push(agent, scan, dataset=False, progress=lambda _sent, _total: None)
            reply = agent.call("listing", body, deadline=MODEL_DEADLINE + 60)
    if reply.get("unmade"):
        return None
    if not isinstance(reply.get("said"), str):
        raise _no_model(f"{' '.join(wanted.model_command)} on {host.name}", str(reply.get("error")))
    return str(reply["said"])


def _code(ctx: Context, spec: JobSpec) -> Scan:
    project = ctx.project()
    return scan_project(
        project,
        GitListing(project),
        ctx.layout.hash_cache(project),
        results_dirs=("results", spec.results_dir),
        max_file=ctx.config().max_file_size or MAX_FILE,
    )


def _listed_here(
    project: Path, spec: JobSpec, argv: tuple[str, ...], env: Mapping[str, str]
) -> bytes:
    """What the spec's command prints on this machine, with the resolved config at $ORCH_CONFIG."""
    where = " ".join(argv)
    with tempfile.TemporaryDirectory(prefix="orch-model-") as place:
        config = Path(place) / "config.json"
        config.write_text(json.dumps(spec.config), encoding="utf-8")
        try:
            done = subprocess.run(
                argv, cwd=project, env={**env, **spec.env, "ORCH_CONFIG": str(config)},
                stdin=subprocess.DEVNULL, capture_output=True, timeout=MODEL_DEADLINE, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise _no_model(where, f"it did not end within {MODEL_DEADLINE:g} s") from None
        except OSError as error:
            raise _no_model(where, os.strerror(error.errno or 0)) from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _no_model(where, f"exit code {done.returncode}: {said[-1] if said else ''}")
    return done.stdout


def _no_model(where: str, why: str) -> UsageError:
    return UsageError(
        f"checkpoint.model: {where}: {why}",
        hint='it must give {"name": {"shape": [..], "dtype": ".."}, ...} as JSON',
    )
