"""Guards on real runs: the supervisor acts alone, the ledger learns of it, a notifier may break."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, of_run, supervisor_of, until
from tests.unit.test_remote_tensors import ENTRY, safetensors

# Trains until it is told to leave; then it writes a checkpoint. `bad` is what the loss becomes.
TRAIN = """
import json, os, signal, sys, time
def leave(*_):
    open("results/checkpoint", "w").write("step")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
bad, stubborn = sys.argv[1], len(sys.argv) > 2
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open("results/metrics.jsonl", "w") as file:
    for step in range(5):
        loss = "2.0" if step < 3 else bad
        file.write('{"step": %d, "loss": %s}\\n' % (step, loss))
        file.flush()
print("waiting", flush=True)
while True:
    time.sleep(0.05)
"""


def guard_events(shown: dict[str, Any], kind: str = "guard") -> list[dict[str, Any]]:
    return [event["data"] for event in shown["events"] if event["kind"] == kind]


def job(bad: str, *guards: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"command": f"exec python3 train.py {bad}", "guards": list(guards), **more}


def test_a_guard_stops_a_run_with_its_checkpoint_and_nobody_is_connected(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"nan": job("NaN", {"metric": "loss", "rule": "finite"})},
                    files={"train.py": TRAIN})  # fmt: skip
    run_id = desk.submit("nan")
    folder = desk.home / ".orch" / "runs" / run_id
    until((folder / "exit.json").exists, 60)
    assert (folder / "results" / "checkpoint").read_text() == "step"
    assert of_run(run_id) == []
    desk.orch("wait", code=1)
    shown = desk.show()
    assert shown["verdict"] == "killed"
    (event,) = guard_events(shown)
    assert event["message"] == "loss is nan at step 3"
    assert (event["action"], event["acted"]) == ("stop", True)
    assert event["evidence"] == {"step": 3, "value": "nan"}
    assert "a guard ended it (stop): loss is nan at step 3" in shown["outcome_reasons"]
    assert "guard         stop: loss is nan at step 3" in desk.orch("show").stdout
    assert "[orch] guard (stop): loss is nan at step 3" in desk.orch("tail", code=1).stdout


WILD = r"""
import json, time
with open("results/metrics.jsonl", "w") as file:
    for step in range(12):
        file.write('{"step": %d, "loss": %s}\n' % (step, 3.0 - step / 10 if step % 4 else "NaN"))
    matrix = [[600, 0], [400, 0]]
    labels = ["half \ud800 a pair", "b \udfff"]
    file.write(json.dumps({"step": 20, "confusion_matrix": matrix, "labels": labels}) + "\n")
    file.write('{"step": 21, "loss": 1e999}\n')
time.sleep(3)
told = '{"accuracy": NaN, "far": [Infinity, 1e999], "long": %s, "half": "\\ud800"}'
with open("results/metrics.json", "w") as file:
    file.write(told % ("9" * 5000))
"""


def test_a_run_stays_within_reach_whatever_numbers_and_texts_it_writes(new_desk: MakeDesk) -> None:
    stalled = {"metric": "loss", "no_improvement": 3}
    wild = {
        "command": "python3 wild.py",
        "guards": [stalled, {"predictions": "not-degenerate"}, {"metric": "loss", "max": 2.95}],
    }
    desk = new_desk({"wild": wild}, files={"wild.py": WILD})
    run_id = desk.submit("wild")
    until(lambda: len(guard_events(desk.show())) >= 3, 60)
    desk.orch("tail", "-f", run_id, code=7)
    desk.orch("wait", run_id, code=7)
    desk.orch("fetch-results", run_id, code=7)
    desk.orch("reconcile", "--host", "box", "--import")
    shown = desk.show()
    assert (shown["verdict"], shown["outcome"]) == ("succeeded", "invalid_result")
    told = sorted(event["message"] for event in guard_events(shown))
    assert len(told) == 3, told
    assert told[0].startswith("class `b \udfff` is never predicted"), told
    assert told[1] == "loss has not improved for 10 steps: best 1.9 at step 11"
    assert told[2].startswith("loss is nan at step 0"), told


def test_kill_gives_no_grace_and_warn_lets_the_run_go_on(new_desk: MakeDesk) -> None:
    stubborn = job("NaN stubborn", {"metric": "loss", "rule": "finite", "action": "kill"})
    warned = job("9.5", {"metric": "loss", "max": 9})
    desk = new_desk({"kill": stubborn, "warn": warned}, files={"train.py": TRAIN})
    desk.orch("submit", "kill", "-f", code=1)
    assert desk.show()["verdict"] == "killed"
    run_id = desk.submit("warn")
    (event,) = until(lambda: guard_events(desk.show()), 60)
    assert (event["action"], event["acted"]) == ("warn", False)
    assert of_run(run_id)
    desk.orch("show")
    assert len(guard_events(desk.show())) == 1  # asked again, told once
    desk.orch("cancel", run_id)
    assert desk.show()["verdict"] == "cancelled"


def test_a_stopped_run_can_go_on_and_is_not_stopped_for_what_it_wrote_before(
    new_desk: MakeDesk,
) -> None:
    twice = (
        'echo "{\\"step\\": 1, \\"loss\\": NaN}" >> results/metrics.jsonl; sleep 300',
        'echo "{\\"step\\": 2, \\"loss\\": 1.0}" >> results/metrics.jsonl; sleep 3',
    )
    command = f"if test $ORCH_ATTEMPT = 1; then {twice[0]}; else {twice[1]}; fi"
    desk = new_desk({"twice": {"command": command,
                               "guards": [{"metric": "loss", "rule": "finite"}]}})  # fmt: skip
    run_id = desk.submit("twice")
    desk.orch("wait", code=1)
    desk.orch("resume", run_id, "-f")
    shown = desk.show()
    assert (shown["verdict"], len(guard_events(shown))) == ("succeeded", 1)


def test_what_a_job_wrote_just_before_its_end_is_looked_at_too(new_desk: MakeDesk) -> None:
    quick = 'echo \'{"step": 1, "loss": NaN}\' > results/metrics.jsonl'
    desk = new_desk({"quick": {**job(""), "command": quick,
                               "guards": [{"metric": "loss", "rule": "finite"}]}})  # fmt: skip
    desk.orch("submit", "quick", "-f")
    shown = desk.show()
    (event,) = guard_events(shown)
    assert (shown["verdict"], event["acted"]) == ("succeeded", False)
    assert event["message"] == "loss is nan at step 1"


def test_a_silent_job_is_stopped_and_a_talking_one_is_not(new_desk: MakeDesk) -> None:
    idle = {"log": "idle", "after": "3s", "action": "stop", "grace": "5s"}
    talk = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $i; sleep 0.5; done"
    desk = new_desk({"mute": {"command": "echo a; sleep 300", "guards": [idle]},
                     "talk": {"command": talk, "guards": [{**idle, "after": "5s"}]}})  # fmt: skip
    desk.orch("submit", "mute", "-f", code=1)
    assert "no output for" in desk.show()["outcome_reasons"][0]
    desk.orch("submit", "talk", "-f")
    assert guard_events(desk.show()) == []


def test_guards_cost_an_idle_supervisor_next_to_nothing(new_desk: MakeDesk) -> None:
    guards = [{"metric": "loss", "rule": "finite"}, {"log": "idle", "after": "30m"},
              {"metric": "loss", "no_improvement": "1h"}, {"disk": "low", "free": "1MiB"},
              {"predictions": "not-degenerate"}]  # fmt: skip
    desk = new_desk({"idle": {"command": "sleep 300", "guards": guards}})
    run_id = desk.submit("idle")
    pid = supervisor_of(desk.home / ".orch" / "runs" / run_id)
    before = cpu_ticks(pid)
    threading.Event().wait(10)
    assert cpu_ticks(pid) - before <= 3  # of 1 000
    assert memory(pid) <= 15 << 20
    desk.orch("cancel", run_id)


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def memory(pid: int) -> int:
    """Bytes that are this process's share: what a fork has in common with others counts once."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))


# --- notifications --------------------------------------------------------------------------------


@contextmanager
def webhook(code: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """An address that takes posts; what it was sent."""
    sent: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append((self.headers["Content-Type"], body.decode()))
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/secret", sent
    finally:
        server.shutdown()
        server.server_close()


def no_proxy(desk: Desk) -> None:
    desk.env |= {"no_proxy": "127.0.0.1"}


def test_the_host_tells_a_webhook_and_a_command_of_guards_and_of_the_end(
    new_desk: MakeDesk,
) -> None:
    notify = {"webhook": "$HOOK", "command": "cat >> results/told; echo >> results/told"}
    spec = job("NaN", {"metric": "loss", "rule": "finite"}, notify=notify)
    desk = new_desk({"nan": spec}, files={"train.py": TRAIN})
    no_proxy(desk)
    with webhook() as (url, sent):
        desk.env["HOOK"] = url
        run_id = desk.submit("nan")
        desk.orch("wait", code=1)
        until(lambda: len(sent) == 2)
    told = [json.loads(body) for _, body in sent]
    assert {item["event"] for item in told} == {"guard", "end"}
    assert all(item["run_id"] == run_id and "loss is nan" in item["text"] for item in told)
    file = desk.home / ".orch" / "runs" / run_id / "results" / "told"
    until(lambda: len(file.read_text().splitlines()) == 2)
    for path in (desk.home / ".orch").rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert b"/secret" not in path.read_bytes(), path
    assert b"/secret" not in (desk.home / "state" / "orch" / "ledger.db").read_bytes()


def test_a_resumed_run_tells_the_webhook_that_the_resuming_shell_names(
    new_desk: MakeDesk,
) -> None:
    spec = {"command": "exit 3", "notify": {"webhook": "$HOOK", "events": ["end"]}}
    desk = new_desk({"fails": spec})
    no_proxy(desk)
    with webhook() as (url, sent):
        desk.orch("submit", "fails", "-f", code=1, HOOK=url)
        until(lambda: len(sent) == 1)
        run_id = desk.show()["run_id"]
        assert "HOOK" in desk.orch("resume", run_id, code=5).stderr
        assert desk.show(run_id)["attempt"] == 1
        desk.orch("resume", run_id, "-f", code=1, HOOK=url + "/2")
        until(lambda: len(sent) == 2)
    assert json.loads(sent[1][1])["run_id"] == run_id
    for path in (desk.home / ".orch" / "runs").rglob("*.json"):
        assert "/secret" not in path.read_text(), path


def test_the_controller_tells_where_the_host_reaches_nobody(new_desk: MakeDesk) -> None:
    with webhook() as (url, sent):
        notify = {"webhook": "$HOOK", "command": "cat > told; exit 3", "by": "controller"}
        desk = new_desk({"ends": {"command": "exit 4", "notify": notify}})
        no_proxy(desk)
        desk.env["HOOK"] = url
        run_id = desk.submit("ends")
        done = desk.orch("wait", code=1)
        assert "the notify command failed: exit code 3" in done.stderr
        desk.orch("wait", code=1)  # told once
    ((_, body),) = sent
    assert json.loads(body)["text"].startswith(f"ends ({run_id}): failed: exit code 4")
    assert json.loads((desk.project / "told").read_text())["run_id"] == run_id
    assert b"/secret" not in (desk.home / "state" / "orch" / "ledger.db").read_bytes()
    del desk.env["HOOK"]
    assert "HOOK" in desk.orch("submit", "ends", code=5).stderr


def test_of_two_terminals_that_see_the_end_one_tells_it(new_desk: MakeDesk) -> None:
    tells = "echo once >> told; until test -e told.enough; do sleep 0.05; done"
    desk = new_desk({"ends": {"command": "true", "notify": {"command": tells, "by": "controller"}}})
    desk.submit("ends")
    first = desk.start("wait")
    until((desk.project / "told").exists)
    desk.orch("wait")
    (desk.project / "told.enough").touch()
    first.communicate(timeout=20)
    desk.orch("wait")
    assert (desk.project / "told").read_text() == "once\n"


def test_the_controller_tells_also_where_it_can_write_nothing_down(new_desk: MakeDesk) -> None:
    notify = {"command": "echo once >> told", "by": "controller"}
    desk = new_desk({"ends": {"command": "true", "notify": notify}})
    desk.submit("ends")
    marks = desk.home / "state" / "orch" / "inflight"
    until(lambda: not marks.is_dir() or not any(marks.iterdir()))
    shutil.rmtree(marks, ignore_errors=True)
    marks.write_text("no folder")  # as good as a full disk
    desk.orch("wait")
    assert (desk.project / "told").read_text() == "once\n"


def test_the_controller_tells_from_where_its_own_host_is_said_to_lie(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    spec = {
        "command": "true",
        "notify": {"command": "cat > told", "by": "controller"},
        "checkpoint": {"file": "m.safetensors", "model": "m.safetensors"},
    }
    desk = new_desk({"ends": spec})
    safetensors(desk.project / "m.safetensors", {"w": ENTRY}, 12)
    here = {"transport": "local", "session": "plain", "root": str(tmp_path / "elsewhere")}
    hosts = {"box": here, "local": here}
    (desk.project / "orch.yaml").write_text(json.dumps({"hosts": hosts, "default_host": "box"}))
    desk.orch("check", "ends")
    run_id = desk.submit("ends")
    desk.orch("wait")
    assert json.loads((desk.project / "told").read_text())["run_id"] == run_id
    assert not (desk.home / ".orch").exists()


def test_ntfy_gets_plain_text(new_desk: MakeDesk) -> None:
    with webhook() as (url, sent):
        notify = {"webhook": url, "format": "ntfy", "events": ["end"]}
        desk = new_desk({"ends": {"command": "true", "notify": notify}})
        no_proxy(desk)
        run_id = desk.submit("ends")
        desk.orch("wait")
        until(lambda: sent)
    assert sent == [("text/plain; charset=utf-8", f"ends ({run_id}): succeeded")]


@pytest.mark.parametrize("kind", ["refused", "error", "no command", "failing command"])
def test_a_broken_notifier_changes_nothing_but_a_line_in_the_timeline(
    kind: str, new_desk: MakeDesk
) -> None:
    with webhook(404) as (url, _):
        notify = {
            "refused": {"webhook": "http://127.0.0.1:1/"},
            "error": {"webhook": url},
            "no command": {"command": ["/no/such/program"]},
            "failing command": {"command": "exit 3"},
        }[kind]
        desk = new_desk({"ends": {"command": "echo '{}' > results/metrics.json", "notify": notify}})
        no_proxy(desk)
        run_id = desk.submit("ends")
        desk.orch("wait")
        assert desk.show()["verdict"] == "succeeded"
        place = desk.home / ".orch" / "runs" / run_id
        path = place / "events.jsonl"
        until(lambda: path.exists() and path.read_text().endswith("\n"), 60)
    assert (place / "exit.json").stat().st_mtime_ns < path.stat().st_mtime_ns
    assert json.loads(path.read_text().splitlines()[0])["kind"] == "notify"
    assert os.path.basename(url) not in path.read_text()
