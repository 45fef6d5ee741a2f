"""The command line as its own help tells it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from orchestrator import cli


@pytest.mark.parametrize("group", [[], *([name] for name in cli.GROUPS)], ids=str)
def test_help_has_a_whole_sentence_for_every_command_at_80_columns(group: list[str]) -> None:
    told = CliRunner().invoke(cli.built(), [*group, "--help"], terminal_width=80).stdout
    listed = told.partition("Commands:\n")[2].splitlines()
    names = cli.GROUPS[group[0]][1] if group else {**cli.COMMANDS, **cli.GROUPS}
    assert [line.split()[0] for line in listed] == list(names)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)
