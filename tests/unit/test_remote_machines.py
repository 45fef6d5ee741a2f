"""Which machine a run was started on, where several have one home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote import attempts, files, procs, status
from remote.layout import Layout


@pytest.mark.parametrize(
    ("now", "kind", "told"),
    [
        ({"id": "a", "name": "one"}, "nfs4", None),
        ({"id": "b", "name": "two"}, "nfs4", "one"),
        ({"id": "a", "name": "two"}, "nfs4", "one"),  # a copy of the same image
        ({"id": "b", "name": "two"}, "local", None),  # a disk of its own: it was renamed
    ],
)
def test_another_machine_is_known_by_its_id_or_its_name(
    now: dict[str, str],
    kind: str,
    told: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout = Layout(str(tmp_path))
    run = layout.attempt("20261123-091929-123k3x7q", 1)
    os.makedirs(run.path)
    monkeypatch.setattr(files, "filesystem", lambda path: kind)
    monkeypatch.setattr(procs, "machine", lambda: {"id": "a", "name": "one"})
    assert attempts.mark_begun(run)
    assert status.other_machine(layout, run) is None
    monkeypatch.setattr(procs, "machine", lambda: now)
    monkeypatch.setattr(procs, "boot_id", lambda: "another")
    assert status.other_machine(layout, run) == told
