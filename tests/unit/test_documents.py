"""The documents name what there is: keys, variables, commands, files of a run. Read, not run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from orchestrator import cli, manifest, overlay, projectfile, spec, specparts, units
from orchestrator.domain import Host
from orchestrator.runjson import FIELDS
from remote.layout import RunFiles

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
READ = re.compile(r"env(?:iron)?(?:\.get\(|\[)\"([A-Za-z_]+)\"")


def rows(document: str, title: str) -> dict[str, list[str]]:
    """First cell -> the other cells, of the first table below a title. `` `a`, `b` `` is two."""
    text = (DOCS / document).read_text(encoding="utf-8")
    section = re.split(rf"^#+ {re.escape(title)}\n", text, flags=re.MULTILINE)[1]
    table = section[section.index("|---") :].partition("\n\n")[0].splitlines()[1:]
    lines = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in table]
    return {key: line[1:] for line in lines for key in re.findall(r"`([^`]+)`", line[0])}


def sources() -> Iterator[str]:
    for path in (ROOT / "orchestrator").rglob("*.py"):
        if "template" not in path.parts:
            yield path.read_text(encoding="utf-8")


def test_every_key_of_both_files_and_of_a_host_is_told_with_its_default() -> None:
    keys = rows("configuration.md", "Keys of both files")
    assert set(keys) == set(projectfile._KEYS)
    assert units.size(keys["max_file_size"][-1].strip(" `")) == manifest.MAX_FILE
    hosts = rows("configuration.md", "Keys of a host")
    assert set(hosts) == set(projectfile._HOST_KEYS)
    for key, choices in projectfile._CHOICES.items():
        assert {f"`{each}`" for each in choices} <= set(re.findall(r"`[^`]+`", hosts[key][0]))
    for key in set(hosts) - {"ssh"}:
        assert hosts[key][-1].strip(" `") == getattr(Host("name"), key)


def test_every_variable_that_is_read_is_told_and_no_other() -> None:
    told = set(rows("configuration.md", "Environment"))
    text = "\n".join(sources())
    assert set(READ.findall(text)) <= told
    assert all(f'"{name}"' in text for name in told)


def test_the_list_of_a_runs_files_is_whole() -> None:
    text = (DOCS / "how-it-works.md").read_text(encoding="utf-8")
    block = text.partition("\n~/.orch/runs/<run_id>/\n")[2].partition("```")[0]
    listed = set(re.findall(r"[a-z]+(?:\.jsonl?)?(?=[ /:])", block))
    files = {Path(path).name for path in vars(RunFiles("/r", "id")).values() if "/" in str(path)}
    assert files - {"r"} <= listed


def test_the_spec_of_a_job_is_told_key_by_key() -> None:
    text = (DOCS / "job-spec.md").read_text(encoding="utf-8")
    table = text[text.index("|---") :].partition("\n\n")[0]
    told = {key for line in table.splitlines()[1:] for key in re.findall(r"`(\w+)`", line[:24])}
    assert set(spec.KEYS) - {"stages"} <= told
    profiles = text.partition("\n## Profiles\n")[2].partition("\n## ")[0]
    may, _, may_not = profiles.rpartition("```")[2].rpartition("do. ")
    assert set(overlay.SECTIONS) <= set(re.findall(r"`(\w+)`", may))
    kept = set(spec.KEYS) - set(overlay.SECTIONS) - {"profiles"}
    assert set(re.findall(r"`(\w+)`", may_not)) == kept
    (env,) = (line for line in table.splitlines() if line.startswith("| `env`"))
    for name in specparts.RESERVED_ENV.pattern.replace(".*", "*").split("|"):
        assert f"`{name}`" in env


def commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """(`ledger verify`, the command): those of a group and of the groups in it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{above}{name} ")
        else:
            yield above + name, command


def test_every_command_that_prints_json_has_its_document_told() -> None:
    told = rows("json.md", "The documents of `--json`")
    named = {key.removeprefix("orch ").removesuffix(" --dry-run") for key in told}
    assert named == {
        name
        for name, command in commands(typer.main.get_command(cli.built()))
        if any("--json" in parameter.opts for parameter in command.params)
    }


def test_every_field_of_a_run_is_told() -> None:
    text = (DOCS / "json.md").read_text(encoding="utf-8").partition("\nA run: ")[2]
    about = text.partition("\n\n")[0]
    assert [each for each in FIELDS if not re.search(rf"\b{each}\b", about)] == []


def test_the_readmes_figures_of_the_incident_are_the_results() -> None:
    runs = json.loads((DOCS / "results" / "runs.json").read_text(encoding="utf-8"))["runs"]
    (run,) = (r for r in runs if (r["job"], r["tag"]) == ("mdlm-pretrained", "sst2/cpu"))
    found = {(r["weights"], r["estimator"], r["draws"]): r for r in run["metrics"]["table"]}
    was, could = found["raw", "independent", 1], found["ema", "shared", 32]
    text = re.sub(r"\s+", " ", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert f"right on {100 * was['accuracy']:.1f} % of the 1 821 test sentences" in text
    assert f"averaged weights, was right on {100 * could['accuracy']:.1f} %" in text
