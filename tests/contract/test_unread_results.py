"""Results that the host cannot read: each is named, the run is fetched in part, and it is no 0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.domain import Fetched, Run
from orchestrator.errors import ManifestMismatch
from orchestrator.ledger.store import Ledger
from orchestrator.usecases import fetch
from orchestrator.usecases.context import Context
from remote import wire
from tests.contract import liar
from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import assert_clear
from tests.contract.liar import RUN_ID, end, exit_with, verbs
from tests.helpers.sshd import PrivateSshd

GOOD = '{"accuracy": 0.9}'


@pytest.mark.ssh
@pytest.mark.parametrize("locked", ["preds", "results", "p.bin"])
def test_results_that_cannot_be_read_are_named_and_the_fetch_is_in_part(
    locked: str, new_desk: MakeDesk, sshd: PrivateSshd
) -> None:
    place = "$ORCH_RUN_DIR/results" if locked == "results" else f"$ORCH_RUN_DIR/results/{locked}"
    make = (
        f"mkdir results/preds; echo p > results/preds/p.txt; echo b > results/p.bin; echo '{GOOD}'"
    )
    make += f" > results/metrics.json; ln -s p.bin results/link; chmod 000 {place}"
    desk = new_desk({"lock": {"command": make}}, host=box(sshd), ssh_config=sshd.client_config)
    run_id = desk.submit("lock")
    desk.orch("wait", code=None)
    name = "." if locked == "results" else locked
    done = desk.orch("fetch-results", code=10)
    folder = sshd.root_dir / "runs" / run_id / "results"
    assert_clear(done, run_id, f"  {name} (Permission denied)\n", "box:", str(folder), "chmod")
    assert desk.show()["fetched"] == "partial"
    checks = json.loads(desk.orch("ledger", "verify", "--json").stdout)["checks"]
    (result,) = [check for check in checks if check["check"] == "results"]
    assert (result["level"], "in part" in result["text"]) == ("ok", True)
    locked_there = folder if locked == "results" else folder / locked
    locked_there.chmod(0o755)
    desk.orch("fetch-results")
    assert desk.show()["fetched"] == "complete"
    here = desk.results("lock", run_id)
    assert {str(p.relative_to(here)) for p in here.rglob("[!.]*") if p.is_file()} == {
        "preds/p.txt", "p.bin", "metrics.json",
    }  # fmt: skip


def test_results_that_are_a_link_to_another_disk_are_fetched(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    make = f"rm -rf results; mkdir {scratch}; ln -s {scratch} results; echo m > results/model.pt; "
    metrics = {"file": "results/metrics.json"}
    spec = {"command": f"{make} echo '{GOOD}' > results/metrics.json", "metrics": metrics}
    desk = new_desk({"moved": {**spec, "expect": {"accuracy": {"min": 0.8}}}})
    run_id = desk.submit("moved")
    desk.orch("wait")
    desk.orch("fetch-results")
    here = desk.results("moved", run_id)
    assert (desk.show()["outcome"], desk.show()["accuracy"]) == ("ok", 0.9)
    assert (here / "model.pt").read_text() == "m\n"


def test_names_that_cannot_be_fetched_are_named_and_the_rest_comes(new_desk: MakeDesk) -> None:
    deep = "/".join(["d"] * (wire.FOLDERS_MAX + 1))
    make = f"mkdir -p results/{deep}; echo x > results/{deep}/x; "
    keep = f"echo x > results/{wire.JOURNAL}; echo '{GOOD}' > results/metrics.json"
    desk = new_desk({"copies": {"command": make + keep}, "copied": {"command": keep}})
    for job, code in (("copies", 10), ("copied", 0)):
        run_id = desk.submit(job)
        desk.orch("wait")
        done = desk.orch("fetch-results", code=code)
        if code:
            assert_clear(done, run_id, f"{deep}/x (more than {wire.FOLDERS_MAX} folders deep)")
        else:
            assert f"left on the host: {wire.JOURNAL}" in done.stdout + done.stderr
        assert desk.show()["fetched"] == ("partial" if code else "complete")
        assert (desk.results(job, run_id) / "metrics.json").read_text() == GOOD + "\n"


LEFT = [["link", "a symbolic link"], ["p", "Permission denied"]]


@pytest.mark.parametrize(
    ("item", "unread"),
    [
        ({"left": LEFT, "unread": True}, LEFT),
        ({"left": LEFT}, []),  # from an agent that does not tell them apart
        ({"left": LEFT, "unread": "odd"}, []),
        ({"left": [[f"p{at}\n", "x\x1b"] for at in range(3000)], "unread": True}, None),
    ],
    ids=["unread", "older agent", "odd", "many and hostile"],
)
def test_what_a_host_says_of_files_it_leaves_is_understood(
    item: dict[str, object],
    unread: list[list[str]] | None,
    ctx: Context,
    ledger: Ledger,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status = end({"ok": True}, (wire.ITEM, exit_with()))
    done = {**exit_with(), "ok": True, "folder": ["odd"]}
    liar.lie(monkeypatch, verbs(status=status, results=end(done, (wire.ITEM, item))))
    if unread == []:
        known, report = fetch.fetch(ctx, ledger, run, lambda _report: None)
        assert (known.fetched, report.left) == (Fetched.COMPLETE, [tuple(row) for row in LEFT])
        return
    with pytest.raises(ManifestMismatch) as caught:
        fetch.fetch(ctx, ledger, run, lambda _report: None)
    assert ledger.get(RUN_ID).fetched is Fetched.PARTIAL
    lines = caught.value.message.splitlines()
    assert len(lines) == 2 + (fetch.LEFT_MAX if unread is None else len(unread))
    assert caught.value.hint is not None and RUN_ID in caught.value.hint
    assert Path(ctx.cwd / "results" / "train" / RUN_ID).is_dir()
