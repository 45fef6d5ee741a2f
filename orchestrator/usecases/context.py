"""What every command needs: where it was called, with which environment, and how it tells."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.clock import Clock, iso
from orchestrator.domain import Host, Run
from orchestrator.errors import NotFound, PreflightRefused, UsageError
from orchestrator.ledger.select import open_instead, resolve
from orchestrator.ledger.store import Ledger
from orchestrator.paths import PROJECT_FILE, LocalLayout
from orchestrator.projectroot import nearest_project
from orchestrator.recorded import hearsay_of

if TYPE_CHECKING:
    from orchestrator.projectfile import ProjectConfig
    from orchestrator.transport.base import Agent


@dataclass(frozen=True, slots=True)
class Context:
    env: Mapping[str, str]
    cwd: Path
    clock: Clock
    say: Callable[[str], None]  # prose, for stderr
    root: Path | None = None  # the project that is meant, wherever it was called; None: look for it

    @property
    def layout(self) -> LocalLayout:
        return LocalLayout.from_environment(self.env)

    def now(self) -> str:
        return iso(self.clock.now())

    def project(self) -> Path:
        """The project called from; UsageError outside of one."""
        from orchestrator.projectfile import find_project

        return self.root or find_project(self.cwd, self.env)

    def within(self, project: Path) -> Context:
        """The same, as if called in that project; relative paths are still those of `cwd`."""
        return replace(self, root=project)

    def project_or_none(self) -> Path | None:
        """Like `project`, for commands that also make sense outside of one.

        UsageError when ORCH_PROJECT names a folder that is none.
        """
        if self.root or self.env.get("ORCH_PROJECT"):
            return self.project()
        return nearest_project(self.cwd.resolve())

    def config(self) -> ProjectConfig:
        from orchestrator.projectfile import load_project

        return load_project(self.project(), self.env)

    def host(self, name: str | None) -> Host:
        """The host that is meant, in a project or outside of one."""
        from orchestrator.projectfile import load_project, resolve_host

        return resolve_host(name, load_project(self.project_or_none(), self.env), self.env)

    def named_host(self, name: str) -> Host:
        """`host`, of a name that somebody just gave: NotFound when nobody has ever heard of it."""
        from orchestrator.transport.connect import check_name

        host = self.host(name)
        check_name(host, self.env)
        return host

    def host_of(self, run: Run) -> Host:
        """The host a run is on; NotFound when nobody here has heard of it any more."""
        from orchestrator.transport.connect import check_name

        host = self.described_host_of(run)
        try:
            check_name(host, self.env)
        except NotFound as exc:
            raise NotFound(
                f"{run.run_id}: {exc.message}",
                hint=f"describe {run.host} again in {run.project}/orch.yaml or in the ssh config",
            ) from None
        return host

    def described_host_of(self, run: Run) -> Host:
        """The same, whether or not anybody has heard of it: by what its project says of it today,
        unless the run was found on a host that this project does not name."""
        found = hearsay_of(run.spec)
        if found is not None and found.host is not None:
            return found.host
        return self.host_in(run.project, run.host)

    def knows_project_of(self, run: Run) -> bool:
        """Whether somebody here has named the run's project: it is that of the runs submitted from
        here, or the one called from. A host's word for it is none."""
        found = hearsay_of(run.spec)
        return found is None or not found.foreign or str(self.project_or_none()) == run.project

    def folder_of(self, run: Run) -> Path:
        """The project of the run, to read and write in; UsageError where only a host names it."""
        if not self.knows_project_of(run):
            raise UsageError(
                f"{run.run_id} was found on {run.host}, and only that host says that its project "
                f"is {run.project}; nothing there was touched",
                hint=f"if it is, repeat the command there: cd {run.project}",
            )
        return Path(run.project)

    def host_in(self, project: str, name: str) -> Host:
        """The host that a project means by the name."""
        from orchestrator.projectfile import load_project, resolve_host

        there = (Path(project) / PROJECT_FILE).is_file()
        config = load_project(Path(project) if there else None, self.env)
        return resolve_host(name, config, self.env)

    def connect(self, host: Host) -> Agent:
        from orchestrator.transport.connect import connect

        return connect(host, self.env)

    def ledger(self, *, readonly: bool = False) -> Ledger:
        return Ledger.open(self.layout.ledger, readonly=readonly)

    def ledger_or_copy(self) -> Ledger:
        """The ledger; of one that may not be written a copy, for commands that are of use without
        it: what they learn is then told and not kept."""
        path = self.layout.ledger
        if path.is_file() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            self.say(f"the ledger {path} may not be written; what is learnt now is not kept in it")
            return Ledger.copy_of(path)
        return self.ledger()

    def run(self, ledger: Ledger, selector: str | None, *, to_change: bool = False) -> Run:
        """The run that is meant; `to_change`: one of another project only by its whole id."""
        project = self.project_or_none()
        return resolve(ledger, selector, str(project) if project else None, to_change=to_change)

    def live_run(self, ledger: Ledger, selector: str | None, *, to_change: bool = False) -> Run:
        """`run`, for what is done with one that goes on: a refused submit hides none that does."""
        run = self.run(ledger, selector, to_change=to_change)
        project = self.project_or_none()
        meant = open_instead(ledger, selector, str(project) if project else None, run)
        if meant is None:
            return run
        self.say(f"{run.run_id} never started; {meant.run_id} is meant, which is open")
        return meant

    def secret(self, name: str) -> str:
        value = self.env.get(name)
        if value is None:
            raise PreflightRefused(
                f"the job needs the secret {name}, which is not set",
                hint=f"export {name} in this shell; its value goes to the job only",
            )
        return value

    def webhook(self, notify: Mapping[str, Any] | None) -> str | None:
        """The address `notify` names, its `$VARIABLE` taken from this shell."""
        name = webhook_variable(notify)
        address: str | None = (notify or {}).get("webhook")
        return address if name is None else self.secret(name)


def webhook_variable(notify: Mapping[str, Any] | None) -> str | None:
    """The variable that holds the address; None where the spec has the address itself, or none."""
    address = str((notify or {}).get("webhook") or "")
    return address.strip("${}") if address.startswith("$") else None
