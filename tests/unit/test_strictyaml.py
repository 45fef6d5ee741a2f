"""YAML means what it looks like, or is refused at its line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import strictyaml
from orchestrator.errors import SpecError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("3e4", 30000.0),
        ("1.0e-3", 0.001),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("0", 0),
        ("-12", -12),
        ("+7", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("24h", "24h"),
        ("0-1", "0-1"),
        ("16GiB", "16GiB"),
        ("nano", "nano"),
        ("a:b", "a:b"),
        ("'no'", "no"),
        ('"010"', "010"),
        ("'2026-01-01'", "2026-01-01"),
        ('".nan"', ".nan"),
        ("|\n  text\n", "text\n"),
    ],
)
def test_f69_scalar_follows_the_core_schema(text: str, value: Any) -> None:
    loaded = strictyaml.load(f"k: {text}", path="j.yaml")["k"]
    assert loaded == value
    assert type(loaded) is type(value)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("yes", "write true, or quote it"),
        ("No", "write false, or quote it"),
        ("on", "write true"),
        ("y", "write true, or quote it"),
        ("N", "write false, or quote it"),
        ("OFF", "write false"),
        ("010", "write 10, or quote it"),
        ("-007", "write -7"),
        ("00.5", "write 0.5"),
        ("1:30", 'quote it: "1:30"'),
        ("190:20:30.5", "quote it"),
        ("2026-11-23", 'quote it: "2026-11-23"'),
        ("2026-11-23 10:00:00", "quote it"),
        (".nan", "quote it"),
        ("-.inf", "quote it"),
        ("NaN", "quote it"),
        ("Infinity", "quote it"),
        ("1_000", "without `_`"),
        ("0b101", "in decimal"),
        ("1e999", "too large"),
        ("9" * 5000, "64 bits"),
        (str(2**63), "64 bits"),
    ],
)
def test_f69_surprising_scalar_is_refused_at_its_place_with_its_fix(text: str, fix: str) -> None:
    with pytest.raises(SpecError) as caught:
        strictyaml.load(f"a: 1\nk: {text}\n", path="jobs/j.yaml")
    assert fix in caught.value.message
    assert caught.value.message.startswith("jobs/j.yaml:2:4: ")
    assert (caught.value.line, caught.value.column) == (2, 4)
    assert len(caught.value.message) < 300
    with pytest.raises(SpecError, match="quote it|64 bits|too large"):
        strictyaml.scalar(text)


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "given twice (first in line 1)"),
        ("a: {b: 1, b: 1}", 1, "given twice"),
        ("é: 1\ne\u0301: 2", 2, "given twice"),
        ("a: &x 1", 1, "anchor"),
        ("a: [1]\nb: *x", 2, "alias"),
        ("a: !!str 1", 1, "tag"),
        ("a: !!python/object/apply:os.system [ls]", 1, "tag"),
        ("a: !x {b: 1}", 1, "tag"),
        ("a:\n  <<: {b: 1}", 2, "merge key"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("%YAML 1.1\n---\na: 1", 1, "directives"),
        ("1: a", 1, 'quote it: "1"'),
        ("true: a", 1, "not a text"),
        ("off: a", 1, "quote it"),
        ("? [a]\n: b", 1, "a key must be a text"),
        ("*x : b", 1, "a key must be a text"),
        ("a: [1, 2\n", 2, "not valid YAML"),
        ("a: 'b", 1, "not valid YAML"),
        ("a: b: c", 1, "not valid YAML"),
        ("a:\n\t- b", 2, "not valid YAML"),
        ("a: " + "[" * 32 + "]" * 32, 1, "deeper than 32"),
        ("a:\n" + "- 1\n" * 10_001, 9999, "more than 10000 nodes"),
    ],
)
def test_f68_forbidden_construct_names_its_line(text: str, line: int, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        strictyaml.load(text, path="j.yaml")
    assert told in caught.value.message
    assert caught.value.line == line or (told == "not valid YAML" and caught.value.line is not None)


@pytest.mark.parametrize("text", ["\x00", "a: \x07", "a: \ud800", "#" * (1 << 20) + "#"])
def test_text_that_is_no_yaml_stream_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        strictyaml.load(text, path="j.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "{a: " * 20_000,
        "- " * 20_000,
        "? " * 20_000,
        "a: " * 20_000,
        "!!" * 20_000,
        "[" + "1," * 400_000 + "]",
        "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\n",
        "a: " + "9" * 1_000_000,
        "a: '" + "''" * 500_000 + "'",
    ],
)
def test_f68_hostile_text_ends_soon(text: str) -> None:
    started = time.process_time()
    try:
        strictyaml.load(text, path="j.yaml")
    except SpecError as error:
        assert len(error.message) < 400
    assert time.process_time() - started < 1.0


@given(st.text(alphabet="ab01:-[]{}&*!|>'\"%#,?\n\t .~<é", max_size=40))
@settings(max_examples=300, deadline=None)
def test_f68_any_text_loads_or_is_a_spec_error(text: str) -> None:
    try:
        strictyaml.load(text, path="j.yaml")
    except SpecError as error:
        assert error.path == "j.yaml"


@given(st.text(max_size=20))
@settings(max_examples=200, deadline=None)
def test_any_set_value_is_a_value_or_a_spec_error(text: str) -> None:
    try:
        value = strictyaml.scalar(text)
    except SpecError:
        return
    assert value is None or isinstance(value, (str, int, float, bool, list, dict))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_printed_float_is_read_back_as_that_number(number: float) -> None:
    assert strictyaml.load(f"k: {number!r}", path="j")["k"] == number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        (" 3 ", 3),
        ("[1, 2e0]", [1, 2.0]),
        ("{a: 1, b: [x]}", {"a": 1, "b": ["x"]}),
        ("'yes'", "yes"),
        ('"a\\nb"', "a\nb"),
        ("-", "-"),
        ("a # b: c, d", "a # b: c, d"),
        ("$(rm -rf ~)", "$(rm -rf ~)"),
    ],
)
def test_set_value_is_plain_quoted_or_flow(text: str, value: Any) -> None:
    assert strictyaml.scalar(text) == value


@pytest.mark.parametrize("text", ["", "  ", "!!python/name:os", "&a 1", "*a", "[1", "'a", "| x"])
def test_set_value_that_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        strictyaml.scalar(text)


def test_places_are_known_for_keys_and_items() -> None:
    doc = strictyaml.load_document("a:\n  - x\n  - {b: 1}\n", path="j.yaml")
    assert doc.marks[("a", 1, "b")] == (3, 6)
    assert doc.error(("a", 1, "gone"), "bad").line == 3


def test_file_must_be_utf8_and_short_and_readable(tmp_path: Path) -> None:
    file = tmp_path / "j.yaml"
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(SpecError, match="j:2: the file is not UTF-8"):
        strictyaml.load_file(file, shown="j")
    file.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(SpecError, match="larger than"):
        strictyaml.load_file(file, shown="j")
    with pytest.raises(SpecError, match="cannot be read"):
        strictyaml.load_file(tmp_path / "none.yaml", shown="j")
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert strictyaml.load_file(file, shown="j").value == {"a": 1}


def test_importing_the_spec_reader_does_not_import_yaml() -> None:
    code = "import sys, orchestrator.spec, orchestrator.projectfile; print('yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_pure_python_parser_gives_the_same_values_and_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import yaml

    text = "a: 1e-4\nb: [x, 'no', {c: ~}]\nd: |\n  text\n"
    fast = strictyaml.load_document(text, path="j")
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    slow = strictyaml.load_document(text, path="j")
    assert (fast.value, fast.marks) == (slow.value, slow.marks)
    with pytest.raises(SpecError, match="deeper"):
        strictyaml.load("[" * 20_000, path="j")
