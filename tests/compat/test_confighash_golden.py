"""Hashes recorded by earlier versions stay as they are: ledgers hold them for ever."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator import confighash, strictyaml

GOLDEN: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "data" / "confighash_golden.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("row", GOLDEN, ids=[row["hash"][3:11] for row in GOLDEN])
def test_f70_recorded_hash_is_made_again(row: dict[str, Any]) -> None:
    config = strictyaml.load(row["yaml"], path="golden")
    assert confighash.canonical(config, row["volatile"]).decode("ascii") == row["canonical"]
    assert confighash.config_hash(config, row["volatile"]) == row["hash"]


def test_f70_recorded_hash_is_the_sha256_of_the_recorded_bytes() -> None:
    for row in GOLDEN:
        assert row["hash"] == "c1:" + hashlib.sha256(row["canonical"].encode("ascii")).hexdigest()
