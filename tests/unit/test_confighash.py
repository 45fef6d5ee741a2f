"""The same hyper-parameters give the same hash; different ones do not."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.confighash import canonical, config_hash
from orchestrator.errors import UsageError
from orchestrator.strictyaml import load

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
KEYS = st.text("abcé.", min_size=1, max_size=4)
CONFIGS = st.dictionaries(
    KEYS,
    st.recursive(SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(KEYS, x, max_size=3)),
    max_size=4,
)


def test_hash_has_its_version_and_64_hex_digits() -> None:
    value = config_hash({"a": 1})
    assert value.startswith("c1:")
    assert len(value) == 3 + 64
    assert set(value[3:]) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{a: 1, b: 2}", "b: 2  # a comment\na: 1\n"),
        ("a: 1e-4", "a: 0.0001"),
        ("a: 1e-3", "a: 1.0e-3"),
        ("a: -0.0", "a: 0.0"),
        ("a: 'x'", "a: x"),
        ("a: \u00e9", "a: e\u0301"),
        ("\u00e9: 1", "e\u0301: 1"),
        ("a: 0x10", "a: 16"),
        ("a: ~", "a: null"),
    ],
)
def test_f70_spelling_does_not_change_the_hash(one: str, other: str) -> None:
    assert config_hash(load(one, path="")) == config_hash(load(other, path=""))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": 0}, {"a": False}),
        ({"a": 1}, {"a": "1"}),
        ({"a": None}, {"a": "null"}),
        ({"a": None}, {}),
        ({"a": []}, {"a": {}}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": {"b": 1}}, {"a.b": 1}),
        ({"a": 0.1}, {"a": 0.1 + 2**-56}),
    ],
)
def test_f70_another_value_or_type_is_another_hash(one: Any, other: Any) -> None:
    assert config_hash(one) != config_hash(other)


@given(CONFIGS, st.randoms(use_true_random=False))
def test_f70_order_of_keys_does_not_matter(config: dict[str, Any], rng: random.Random) -> None:
    names = {unicodedata.normalize("NFC", key) for key in config}
    assert len(names) == len(config)
    keys = list(config)
    rng.shuffle(keys)
    assert canonical({key: config[key] for key in keys}) == canonical(config)


@given(CONFIGS)
def test_f70_canonical_bytes_are_json_that_reads_back_as_the_same_config(
    config: dict[str, Any],
) -> None:
    again = json.loads(canonical(config))
    assert canonical(again) == canonical(config)


def test_volatile_keys_are_left_out_wherever_they_are() -> None:
    config = {"seed": 1, "train": {"steps": 5, "log_every": 10}}
    slim = {"seed": 1, "train": {"steps": 5}}
    assert config_hash(config, ["train.log_every"]) == config_hash(slim)
    assert config_hash(config, ["train"]) == config_hash({"seed": 1})
    assert config_hash(config, ["log_every"]) == config_hash(config)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"a": {"b": float("nan")}}, "`a.b` is nan"),
        ({"a": [1.0, float("inf")]}, "`a.1` is inf"),
        ({"a": {1: 2}}, "`a.1` is not a text"),
        ({"\u00e9": 1, "e\u0301": 2}, "given twice"),
        ({"a": b"x"}, "type bytes"),
        ({"a": {1, 2}}, "type set"),
        ({"a": "\ud800"}, "not valid Unicode"),
    ],
)
def test_what_has_no_canonical_form_is_refused_by_name(config: Any, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        canonical(config)
    assert told in caught.value.message


def test_endless_nesting_is_refused() -> None:
    config: dict[str, Any] = {}
    config["a"] = config
    with pytest.raises(UsageError, match="deeper"):
        canonical(config)


def test_f70_hash_does_not_depend_on_the_interpreters_hash_seed() -> None:
    code = (
        "from orchestrator.confighash import config_hash as h;"
        "print(h({k: {k: [k, 1, 2.5]} for k in {'a', 'b', 'c', 'd', 'e'}}, {'a', 'b.b'}))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2", "17")
    }
    assert len(seen) == 1
