"""The view of one run: the session that shows its log, opened and closed beside the job."""

from __future__ import annotations

from typing import Optional

from remote import files, session
from remote.aside import Aside
from remote.layout import RunFiles


class View:
    def __init__(self, run: RunFiles, aside: Aside) -> None:
        self._run = run
        self._aside = aside
        self._kind = "plain"
        self._opener: Optional[int] = None  # the child that opens it

    def choose(self, wanted: str) -> None:
        """The kind is settled and on record; nothing is opened."""
        self._kind = session.choose(wanted)
        record = {"kind": self._kind, "name": session.name_of(self._run.run_id)}
        files.write_json(self._run.session, record, durable=False)

    def open(self) -> None:
        """A child opens it: a slow tmux must not delay the job."""
        if self._kind != "plain":
            self._opener = self._aside.do(self._show)

    def _show(self) -> None:
        if not session.open_view(self._kind, self._run, session.plain_env()):
            name = session.name_of(self._run.run_id)
            plain = {"kind": "plain", "name": name, "failed": self._kind}
            files.write_json(self._run.session, plain, durable=False)

    def close(self) -> None:
        """A session still being opened would stand for ever: its opener, which has a deadline of
        its own, is waited for first."""
        if self._opener is not None:
            self._aside.wait_for(self._opener)
        session.close(self._run)
