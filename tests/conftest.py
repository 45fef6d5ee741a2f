"""Lanes, a home of their own for all tests, and the server fixtures.

A test that carries a lane's marker is skipped, with the reason, where the lane cannot run. Every
lane is named at the end of the session; where `CI` is set, a lane that was skipped fails it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.helpers.lanes import PROBES, find_python38
from tests.helpers.rows import rows_of
from tests.helpers.sshd import PrivateSshd

# Deadlines measure the machine, not the code; the seed is printed, so a failure can be repeated.
hypothesis.settings.register_profile("orch", deadline=None, print_blob=True)
hypothesis.settings.register_profile(
    "fuzz",
    hypothesis.settings.get_profile("orch"),
    max_examples=int(os.environ.get("CASES", 17_000)),
)
hypothesis.settings.load_profile("orch")


class Lanes:
    """Decides which lanes run and counts what they did."""

    def __init__(self, *, in_ci: bool) -> None:
        self.in_ci = in_ci
        self.selected: Counter[str] = Counter()
        self.ran: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}

    @property
    def skipped(self) -> list[str]:
        """Lanes with tests selected of which none ran."""
        return [lane for lane in PROBES if self.selected[lane] and not self.ran[lane]]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Tests of a lane that cannot run are marked to be skipped."""
        wanted = {lane for item in items for lane in _lanes_of(item)}
        for lane in wanted:
            if (reason := PROBES[lane]()) is not None:
                self.reasons[lane] = reason
        for item in items:
            for lane in _lanes_of(item):
                self.selected[lane] += 1
                if lane in self.reasons:
                    item.add_marker(pytest.mark.skip(reason=f"lane {lane}: {self.reasons[lane]}"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """A test whose body ran counts for its lanes, passed or not."""
        report = yield
        if report.when == "call" and not report.skipped:
            self.ran.update(_lanes_of(item))
        return report

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Of several processes each selects all tests and runs some: the counts come together."""
        told = getattr(node, "workeroutput", {}).get("lanes")
        if told:
            self.selected, self.reasons = Counter(told["selected"]), told["reasons"]
            self.ran.update(told["ran"])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Where CI is set, a skipped lane is a failure of the session."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:  # one process of several: the first one judges
            told = {"selected": self.selected, "ran": self.ran}
            output["lanes"] = {**{k: dict(v) for k, v in told.items()}, "reasons": self.reasons}
            return
        collect_only = session.config.getoption("collectonly")
        if self.in_ci and self.skipped and not collect_only and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Every lane is named with what became of it."""
        terminalreporter.section("lanes")
        for lane in PROBES:
            terminalreporter.write_line(f"{lane:9} {self._became(lane)}")
        if self.in_ci and self.skipped:
            names = ", ".join(self.skipped)
            terminalreporter.write_line(f"FAILED: CI is set and lanes were skipped: {names}")

    def _became(self, lane: str) -> str:
        selected, ran = self.selected[lane], self.ran[lane]
        if not selected:
            return "no tests selected"
        if lane in self.reasons:
            return f"skipped {selected}: {self.reasons[lane]}"
        return f"ran {ran}" + (f", skipped {selected - ran}" if ran < selected else "")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--full`: sweeps and floods in their full size. `--seed`: one history of the simulation."""
    parser.addoption("--full", action="store_true", help="sweeps and floods in full size")
    parser.addoption("--seed", type=int, help="replay this one history of the simulation")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the long form of a test was asked for."""
    return bool(request.config.getoption("full"))


def pytest_configure(config: pytest.Config) -> None:
    """The lanes take part in the session."""
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    config.pluginmanager.register(Lanes(in_ci=in_ci), "lanes")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m fault` selects the tests whose names carry a row of docs/faults.md, and tests/faults."""
    for item in items:
        if rows_of(item.name) or item.path.parent.name == "faults":
            item.add_marker("fault")


def _lanes_of(item: pytest.Item) -> set[str]:
    return {mark.name for mark in item.iter_markers()} & PROBES.keys()


@pytest.fixture(scope="session", autouse=True)
def _private_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the caller's home, user configuration or ssh agent."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("ORCH_", "XDG_")) and name != "ORCH_DATA":
                patch.delenv(name)
        for name in ("SSH_AUTH_SOCK", "TMUX", "STY", "GIT_DIR", "GIT_WORK_TREE"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))
        # Without these git looks for an identity and for settings outside the private home.
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        for who in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{who}_NAME", "test")
            patch.setenv(f"GIT_{who}_EMAIL", "test@example.invalid")
        yield


@pytest.fixture(scope="module")
def sshd() -> Iterator[PrivateSshd]:
    """One private server for the tests of a module that leave it as it is."""
    with PrivateSshd() as server:
        yield server


@pytest.fixture
def make_sshd() -> Iterator[Callable[..., PrivateSshd]]:
    """Private servers, started with the arguments of `PrivateSshd`, for one test."""
    started: list[PrivateSshd] = []

    def make(**options: object) -> PrivateSshd:
        server = PrivateSshd(**options)  # type: ignore[arg-type]
        started.append(server)
        return server.start()

    yield make
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def python38() -> Path:
    """A python3.8 interpreter; for tests of the `py38` lane."""
    found = find_python38()
    assert found is not None, "the test lacks the marker `py38`"
    return found
