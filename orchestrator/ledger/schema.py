"""The ledger's tables, as numbered migrations. Pure: text only, nothing here opens a database.

Migration n (counted from 1) takes a ledger from `user_version` n-1 to n, in one transaction. A
published migration is never edited; a change of the tables is a new one, with a golden file of the
version before it in tests/compat.
"""

from __future__ import annotations

APPLICATION_ID = 0x6F726368  # "orch": tells a ledger from any other SQLite file

# Columns that queries filter or sort by come first: SQLite reads a row from its left, and the wide
# JSON texts would otherwise be walked through to reach them.
_RUNS = """
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY NOT NULL CHECK (length(run_id) BETWEEN 1 AND 128),
  project TEXT NOT NULL,
  job TEXT NOT NULL,
  state TEXT NOT NULL
    CHECK (state IN ('intent', 'synced', 'queued', 'running', 'finished', 'unknown')),
  verdict TEXT CHECK (verdict IN
    ('succeeded', 'failed', 'killed', 'oom', 'cancelled', 'lost', 'never_started')),
  outcome TEXT CHECK (outcome IN
    ('unverified', 'ok', 'degenerate', 'below_target', 'invalid_result')),
  config_hash TEXT NOT NULL,
  host TEXT NOT NULL,
  created_at TEXT NOT NULL,
  started_at TEXT,
  ended_at TEXT,
  last_seen_at TEXT,
  exit_code INTEGER,
  signal INTEGER,
  accuracy REAL CHECK (accuracy IS NULL OR (typeof(accuracy) = 'real'
    AND accuracy BETWEEN -1.7976931348623157e308 AND 1.7976931348623157e308)),
  fetched TEXT NOT NULL CHECK (fetched IN ('none', 'partial', 'complete')),
  results_path TEXT,
  supersedes TEXT,
  profile TEXT,
  forced INTEGER NOT NULL CHECK (forced IN (0, 1)),
  snapshot TEXT,
  git_commit TEXT,
  git_dirty INTEGER CHECK (git_dirty IN (0, 1)),
  note TEXT,
  session TEXT,
  outcome_reasons TEXT NOT NULL,
  tags TEXT NOT NULL,
  labels TEXT NOT NULL,
  confusion_matrix TEXT NOT NULL,
  data TEXT NOT NULL,
  overrides TEXT NOT NULL,
  findings TEXT NOT NULL,
  metrics TEXT NOT NULL,
  config TEXT NOT NULL,
  spec TEXT NOT NULL,
  CHECK ((state = 'finished') = (verdict IS NOT NULL)),
  CHECK (supersedes IS NULL OR supersedes <> run_id)
)
"""

_EVENTS = """
CREATE TABLE events (
  run_id TEXT NOT NULL REFERENCES runs (run_id),
  seq INTEGER NOT NULL CHECK (seq >= 1),
  at TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind <> ''),
  data TEXT NOT NULL,
  PRIMARY KEY (run_id, seq)
) WITHOUT ROWID
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        _RUNS,
        _EVENTS,
        "CREATE INDEX runs_by_project ON runs (project, run_id)",
        "CREATE INDEX runs_by_job ON runs (project, job, run_id)",
        "CREATE INDEX runs_by_config ON runs (config_hash, run_id)",
        "CREATE INDEX runs_open ON runs (run_id) WHERE state <> 'finished'",
    ),
    (
        "ALTER TABLE runs ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1 CHECK (attempt >= 1)",
        "ALTER TABLE runs ADD COLUMN cause TEXT",
    ),
)
