from __future__ import annotations

import gzip
import json
import lzma
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.textdiff import config, data, sources
from jobs.textdiff.errors import DataError

SST2 = {
    "train": ["0\ta dull plot .", "1\ta warm film !", "1\tgood", "1\tlovely", "0\tbad"],
    "dev": ["0\tA dull plot", "1\tnot there"],
    "test": ["1\tfine\x85work", "1\tGOOD."],
}


def write(path: Path, columns: str, rows: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    opener = gzip.open if path.suffix == ".gz" else lzma.open
    with opener(path, "wt", encoding="utf8", newline="\n") as file:
        file.write("\n".join([columns, *rows]) + "\n")


@pytest.fixture
def sst2(tmp_path: Path) -> Path:
    for name, rows in SST2.items():
        write(tmp_path / "sst2" / f"{name}.tsv.gz", "label\ttext", rows)
    return tmp_path


def load(tree: dict[str, Any], folder: Path | None, **values: object) -> data.Dataset:
    own = {"phrases": False} if values.get("name") == "sst2" else {}
    tree["data"] = {**tree["data"], **own, **values}
    built = config.from_tree(tree)
    return data.load(built.data, built.seed, folder)


def test_texts_that_dev_or_test_has_are_dropped_from_train_and_counted(
    tree: dict[str, Any], sst2: Path
) -> None:
    loaded = load(tree, sst2, name="sst2")
    assert loaded.dropped == 2
    assert sorted(loaded.train.texts) == ["a warm film !", "bad", "lovely"]
    assert (len(loaded.dev), len(loaded.test)) == (2, 2)


def test_lines_end_at_line_feeds_only(tree: dict[str, Any], sst2: Path) -> None:
    assert load(tree, sst2, name="sst2").test.texts[0] == "fine\x85work"


def test_labels_stay_with_their_texts_through_the_shuffle(tree: dict[str, Any], sst2: Path) -> None:
    train = load(tree, sst2, name="sst2").train
    pairs = dict(zip(train.texts, train.labels, strict=True))
    assert pairs == {"a warm film !": 1, "lovely": 1, "bad": 0}
    assert train.of_class(0) == ("bad",)


def test_imdb_gets_a_dev_split_of_its_own(tree: dict[str, Any], tmp_path: Path) -> None:
    rows = [f"{i % 2}\t9\t{i}\ttext number {i}" for i in range(50)]
    write(tmp_path / "imdb" / "train.tsv.xz", "label\trating\tid\ttext", rows)
    write(tmp_path / "imdb" / "test.tsv.xz", "label\trating\tid\ttext", ["1\t9\t1\tother"])
    loaded = load(tree, tmp_path, name="imdb", dev_examples=10)
    assert (len(loaded.train), len(loaded.dev)) == (40, 10)
    assert not set(loaded.train.texts) & set(loaded.dev.texts)


@pytest.mark.parametrize("name", ["sst2", "imdb"])
@pytest.mark.parametrize("folder", [None, "absent"])
def test_missing_data_is_one_line_that_says_what_to_set(
    tree: dict[str, Any], tmp_path: Path, name: str, folder: str | None
) -> None:
    place = None if folder is None else tmp_path / folder
    with pytest.raises(DataError, match="ORCH_DATA") as caught:
        load(tree, place, name=name)
    assert "\n" not in str(caught.value)
    assert f"{name}/train.tsv" in str(caught.value)


@pytest.mark.parametrize("row", ["2\tx", "0", "0\tx\ty", "\tx", "0\t", "1\t  "])
def test_a_malformed_line_is_named(tree: dict[str, Any], sst2: Path, row: str) -> None:
    write(sst2 / "sst2" / "dev.tsv.gz", "label\ttext", ["0\tfine", row])
    with pytest.raises(DataError, match="line 3"):
        load(tree, sst2, name="sst2")


def test_a_torn_file_is_an_error_not_a_short_data_set(tree: dict[str, Any], sst2: Path) -> None:
    path = sst2 / "sst2" / "train.tsv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        load(tree, sst2, name="sst2")


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    split = data.Split(tuple(map(str, range(100))), tuple(i % 2 for i in range(100)))
    assert data.sample(split, 10, 1) == data.sample(split, 10, 1)
    assert data.sample(split, 10, 1) != data.sample(split, 10, 2)
    assert data.sample(split, None, 1) == split


def test_selfmade_data_needs_no_folder_and_knows_its_grammar(tree: dict[str, Any]) -> None:
    loaded = load(tree, None)
    assert loaded.grammar is not None
    assert len(loaded.test) == 60
    tree["seed"] += 1
    assert load(tree, None).test != loaded.test


@pytest.mark.data
def test_real_sst2_has_its_published_counts_and_shares_sentences_between_splits(
    tree: dict[str, Any],
) -> None:
    loaded = load(tree, Path(os.environ["ORCH_DATA"]), name="sst2")
    assert len(loaded.dev) + loaded.dropped_dev == 872
    assert len(loaded.test) == 1821
    assert loaded.dropped > 0
    assert len(loaded.train) + loaded.dropped == 6920


ROWS = [("a fine day", "good"), ("a sad day", "bad"), ("so, so", "even"), ("what joy", "good")]
OTHER = [("joyless, all of it", "bad"), ("it is what it is", "even")]


def table(path: Path, rows: list[tuple[str, str]]) -> str:
    """A file of any of the kinds, by its name; the columns are called body and stars."""
    kind = next(suffix for suffix in path.suffixes if suffix in sources.KINDS)
    if kind == ".jsonl":
        lines = [json.dumps({"stars": label, "body": text}) for text, label in rows]
    elif kind == ".csv":
        lines = ["id,body,stars", *(f'1,"{text}",{label}' for text, label in rows)]
    else:
        lines = ["id\tbody\tstars", *(f"1\t{text}\t{label}" for text, label in rows)]
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "wt", encoding="utf8", newline="\n") as file:
        file.write("\n".join(lines) + "\n")
    return path.name


def of_files(tree: dict[str, Any], folder: Path, **values: object) -> data.Dataset:
    names = {"name": "files", "text": "body", "label": "stars", "dev_examples": 1}
    return load(tree, folder, **{**names, **values})


@pytest.mark.parametrize("packed", ["", ".gz", ".xz"])
@pytest.mark.parametrize("kind", [".tsv", ".csv", ".jsonl"])
def test_any_table_with_any_number_of_classes_is_read_by_its_path(
    tree: dict[str, Any], tmp_path: Path, kind: str, packed: str
) -> None:
    train = table(tmp_path / f"train{kind}{packed}", ROWS)
    test = table(tmp_path / f"test{kind}{packed}", OTHER)
    dev = table(tmp_path / f"dev{kind}{packed}", [("joy", "good")])
    loaded = of_files(tree, tmp_path, train=train, dev=dev, test=str(tmp_path / test))
    assert loaded.labels == ("bad", "even", "good")
    assert sorted(loaded.train.texts) == sorted(text for text, _ in ROWS)
    assert loaded.train.of_class(2) in [("a fine day", "what joy"), ("what joy", "a fine day")]
    assert loaded.test == data.Split(("joyless, all of it", "it is what it is"), (0, 1))
    assert len(loaded.dev) == 1


def test_without_a_dev_file_dev_is_cut_off_train(tree: dict[str, Any], tmp_path: Path) -> None:
    many = [(f"{text} {i}", label) for i in range(5) for text, label in ROWS]
    train, test = table(tmp_path / "train.csv", many), table(tmp_path / "test.csv", OTHER)
    loaded = of_files(tree, tmp_path, train=train, test=test, dev_examples=4)
    assert (len(loaded.train), len(loaded.dev)) == (16, 4)
    assert not set(loaded.train.texts) & set(loaded.dev.texts)


@pytest.mark.parametrize(
    ("rows", "values", "message"),
    [
        (ROWS, {"label": "grade"}, "no column grade"),
        (ROWS, {"train": "absent.tsv"}, "set ORCH_DATA to the folder with"),
        (ROWS, {"train": "train.txt"}, "not a .tsv, .csv, .jsonl file"),
        ([(c, "good") for c in "abcd"], {"test": "train.jsonl"}, "test lies inside train"),
        ([("a", "good"), ("b", "good"), ("c", "good")], {}, "unknown label 'bad'; known: good"),
        ([("", "good"), *ROWS], {}, "line 1: the text is empty"),
        ([("a", ""), *ROWS], {}, "line 1: the label is empty"),
        (ROWS[:1], {"dev_examples": 1}, "leaves nothing of 1"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(
    tree: dict[str, Any],
    tmp_path: Path,
    rows: list[tuple[str, str]],
    values: dict[str, object],
    message: str,
) -> None:
    table(tmp_path / "train.jsonl", rows)
    table(tmp_path / "test.jsonl", OTHER if "good" in str(rows) else rows)
    files = {"train": "train.jsonl", "test": "test.jsonl"}
    if len(rows) == 1:
        table(tmp_path / "test.jsonl", [("z", "good")])
    with pytest.raises(DataError) as caught:
        of_files(tree, tmp_path, **{**files, **values})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_classes_than_a_matrix_can_hold_are_an_error(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    most = data.MOST_CLASSES
    train = table(tmp_path / "train.csv", [(f"text {i}", f"id-{i}") for i in range(most + 1)])
    test = table(tmp_path / "test.csv", [("other", "id-1")])
    dev = table(tmp_path / "dev.csv", [("new", "id-1")])
    with pytest.raises(
        DataError, match=rf"{most + 1} classes \(id-0, .*\), at most {most} .* data.label"
    ):
        of_files(tree, tmp_path, train=train, test=test, dev=dev)
    unknown = table(tmp_path / "unknown.csv", [("other", "odd")])
    with pytest.raises(
        DataError, match=rf"label 'odd'; known: id-0, .* \({most + 1} in all\)"
    ) as caught:
        of_files(tree, tmp_path, train=train, test=unknown, dev=dev)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b" * 201], r"the label b{40}\.\.\. has 201 characters, at most 200 .* data.label"),
        (["a", "\u200b" * 34], "has 204 characters"),  # as it is written, in escapes
        (["a" * 200, *(chr(0x4E00 + i) * 140 for i in range(60))], "61 classes are .* bytes in a"),
        (["a\u200b", "a\\u200b"], r"two labels are both written as a\\u200b: rename one"),
    ],
)
def test_labels_that_no_result_can_hold_or_tell_apart_are_an_error(
    tree: dict[str, Any], tmp_path: Path, labels: list[str], message: str
) -> None:
    train = table(tmp_path / "train.jsonl", [(f"text {i}", name) for i, name in enumerate(labels)])
    test = table(tmp_path / "test.jsonl", [("other", labels[0])])
    with pytest.raises(DataError, match=message) as caught:
        of_files(tree, tmp_path, train=train, test=test)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_column_that_stands_twice_is_an_error(
    tree: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    name = f"train.{kind}"
    rows = ["body,stars,stars", "a,good,bad", "b,bad,good"]
    (tmp_path / name).write_text("\n".join(rows).replace(",", "," if kind == "csv" else "\t"))
    test = table(tmp_path / "test.csv", OTHER)
    with pytest.raises(DataError, match="names two columns stars"):
        of_files(tree, tmp_path, train=name, test=test)


def test_a_class_s_name_can_be_printed_on_one_line(tree: dict[str, Any], tmp_path: Path) -> None:
    odd = "a\nb\x1b[31m"
    rows = [(f"{text} {i}", odd if label == "good" else label) for i in range(9)
            for text, label in ROWS]  # fmt: skip
    train = table(tmp_path / "train.jsonl", rows)
    test = table(tmp_path / "test.jsonl", [("z", odd)])
    loaded = of_files(tree, tmp_path, train=train, test=test, dev_examples=4)
    assert "a\\nb\\x1b[31m" in loaded.labels
    assert all(label.isprintable() for label in loaded.labels)


@pytest.mark.parametrize("absent", ["nowhere", "nowhere.tsv"])
def test_texts_without_labels_that_are_not_there_are_said_to_be_missing(
    absent: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="nowhere.*: no such file or folder"):
        sources.unlabelled(tmp_path / absent, "text")


def test_one_class_alone_is_an_error(tree: dict[str, Any], tmp_path: Path) -> None:
    train = table(tmp_path / "train.csv", [("a", "good"), ("b", "good"), ("c", "good")])
    test = table(tmp_path / "test.csv", [("d", "good")])
    with pytest.raises(DataError, match="two classes or more, has good"):
        of_files(tree, tmp_path, train=train, test=test)


def test_a_class_without_a_training_text_is_named(tree: dict[str, Any], tmp_path: Path) -> None:
    rows = [*ROWS, ("rare", "odd")]
    train, test = table(tmp_path / "train.csv", rows), table(tmp_path / "test.csv", OTHER)
    dev = table(tmp_path / "dev.csv", [("rare", "odd"), ("new", "good")])
    with pytest.raises(DataError, match="no training text of class odd is left"):
        of_files(tree, tmp_path, train=train, dev=dev, test=test)


def test_a_dev_split_inside_test_is_an_error(tree: dict[str, Any], tmp_path: Path) -> None:
    train, test = table(tmp_path / "train.csv", ROWS), table(tmp_path / "test.csv", OTHER)
    with pytest.raises(DataError, match=f"dev lies inside test: each of its {len(OTHER)} texts"):
        of_files(tree, tmp_path, train=train, dev=test, test=test)


def dev_of(folder: Path) -> str:
    return table(folder / "dev.csv", [("new", "good")])


def test_spaces_around_a_label_are_not_part_of_it(tree: dict[str, Any], tmp_path: Path) -> None:
    rows = [(text, f" {label} ") for text, label in ROWS]
    train, test = table(tmp_path / "train.csv", rows), table(tmp_path / "test.csv", OTHER)
    loaded = of_files(tree, tmp_path, train=train, dev=dev_of(tmp_path), test=test)
    assert sorted(loaded.labels) == sorted({label for _, label in ROWS})


def test_a_cell_of_a_megabyte_is_a_text_like_others(tree: dict[str, Any], tmp_path: Path) -> None:
    rows = [*ROWS, ("long " * 200_000, "good")]
    train, test = table(tmp_path / "train.csv", rows), table(tmp_path / "test.csv", OTHER)
    loaded = of_files(tree, tmp_path, train=train, dev=dev_of(tmp_path), test=test)
    assert max(map(len, loaded.train.texts + loaded.dev.texts)) >= 10**6 - 1


def test_a_packed_file_with_a_damaged_middle_is_one_line(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    many = [(f"{os.urandom(20).hex()} {i}", label) for i in range(50) for _, label in ROWS]
    train, test = table(tmp_path / "train.csv.gz", many), table(tmp_path / "test.csv", OTHER)
    content = bytearray((tmp_path / train).read_bytes())
    content[len(content) // 2 :] = bytes(255 - byte for byte in content[len(content) // 2 :])
    (tmp_path / train).write_bytes(content)
    with pytest.raises(DataError, match="train.csv.gz: cannot be read"):
        of_files(tree, tmp_path, train=train, dev=dev_of(tmp_path), test=test)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("It's  fine !", "it's fine !\u00a0", True),
        ("It's fine !", "it's fine .", False),
        ("good :)", "good :(", False),
        ("7 + 2", "7 - 2", False),
        ("C++ is good", "C is good", False),
        ("caf\u00e9", "cafe\u0301", True),
        ("\u0915\u093f", "\u0915\u0940", False),  # ki and kii: they differ in a vowel sign
        ("so so \U0001f600", "so so \U0001f622", False),
    ],
)
def test_when_two_texts_are_the_same(
    tree: dict[str, Any], tmp_path: Path, one: str, other: str, same: bool
) -> None:
    train = table(tmp_path / "train.csv", [*ROWS, (one, "good")])
    test = table(tmp_path / "test.csv", [*OTHER, (other, "good")])
    loaded = of_files(tree, tmp_path, train=train, dev=dev_of(tmp_path), test=test)
    assert loaded.dropped == int(same)


@pytest.mark.parametrize("line", ['{"body": "x"', "[1]", '{"body": 1.5, "stars": "good"}', "{}",
                                  '{"body": "\\ud83d", "stars": "good"}',
                                  '{"body": ' + "[" * 100_000])  # fmt: skip
def test_a_line_that_is_no_row_of_json_is_named(
    tree: dict[str, Any], tmp_path: Path, line: str
) -> None:
    train, test = table(tmp_path / "train.jsonl", ROWS), table(tmp_path / "test.jsonl", OTHER)
    with (tmp_path / train).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match="line 5"):
        of_files(tree, tmp_path, train=train, test=test)


def test_a_dev_split_inside_train_is_an_error(tree: dict[str, Any], tmp_path: Path) -> None:
    train, test = table(tmp_path / "train.tsv", ROWS), table(tmp_path / "test.tsv", OTHER)
    dev = table(tmp_path / "dev.tsv", [("A  fine day", "good"), ("new", "bad"), ROWS[1]])
    with pytest.raises(DataError, match="dev lies inside train: 2 of its 3 texts"):
        of_files(tree, tmp_path, train=train, dev=dev, test=test)


def test_texts_that_signs_alone_tell_apart_are_no_leak(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    sums = [(f"{a} {sign} {b}", sign) for a in range(9) for b in range(9) for sign in "+-*/"]
    names = ("train.tsv", "dev.tsv", "test.tsv")
    train, dev, test = (table(tmp_path / n, sums[at::3]) for at, n in enumerate(names))
    loaded = of_files(tree, tmp_path, train=train, dev=dev, test=test)
    assert (len(loaded.train), len(loaded.dev), loaded.dropped) == (108, 108, 0)


def test_a_dev_split_that_is_cut_off_a_train_full_of_copies_has_no_text_of_it(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    rows = [(f"{text} {i}", label) for i in range(10) for text, label in ROWS] * 5
    train, test = table(tmp_path / "train.csv", rows), table(tmp_path / "test.csv", OTHER)
    loaded = of_files(tree, tmp_path, train=train, test=test, dev_examples=20)
    assert len(set(loaded.dev.texts)) == len(loaded.dev) == 20
    assert (len(loaded.train), loaded.dropped) == (100, 80)
    assert not set(loaded.train.texts) & set(loaded.dev.texts)
    with pytest.raises(DataError, match="data.dev_examples 40 leaves nothing of 40 training texts"):
        of_files(tree, tmp_path, train=train, test=test, dev_examples=40)


def test_dev_texts_that_test_has_are_dropped_and_counted(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    train, test = table(tmp_path / "train.tsv", ROWS), table(tmp_path / "test.tsv", OTHER)
    dev = table(tmp_path / "dev.tsv", [OTHER[0], ("new", "bad")])
    loaded = of_files(tree, tmp_path, train=train, dev=dev, test=test)
    assert (loaded.dropped_dev, loaded.dev.texts) == (1, ("new",))


def test_unlabelled_texts_leave_out_what_dev_and_test_have(
    tree: dict[str, Any], sst2: Path
) -> None:
    loaded = load(tree, sst2, name="sst2")
    (sst2 / "more").mkdir()
    write(sst2 / "more" / "b.tsv.xz", "id\ttext", ["1\tGood", "2\tquite new"])
    write(sst2 / "more" / "a.tsv.gz", "id\ttext", ["1\tfirst"])
    settings = config.from_tree(tree).data
    assert data.more_texts(settings, "more", sst2, loaded) == ("first", "quite new")


class Part:
    """One split, with what of `datasets`' own interface is used here."""

    def __init__(self, rows: Sequence[tuple[object, object]], names: list[str] | None) -> None:
        self.rows, self.column_names = rows, ["text", "label"]
        self.features = {"label": SimpleNamespace(names=names), "text": None}

    def __getitem__(self, column: str) -> list[object]:
        return [row[self.column_names.index(column)] for row in self.rows]


MOODS = ["sad", "glad", "calm"]
TRAIN = [(f"text {i}", i % 3) for i in range(9)]


def of_hub(tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch, parts: object) -> data.Dataset:
    def load_dataset(name: str) -> object:
        if isinstance(parts, Exception):
            raise parts
        return parts

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return load(tree, None, name="hub", hub="someone/feelings", dev_examples=2)


def test_a_data_set_of_the_hub_brings_its_own_names_of_classes(
    tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"train": Part(TRAIN, MOODS), "test": Part([("other", 2)], MOODS)}
    loaded = of_hub(tree, monkeypatch, parts)
    assert (loaded.name, loaded.labels) == ("someone/feelings", ("sad", "glad", "calm"))
    assert (len(loaded.train), len(loaded.dev), loaded.test.labels) == (7, 2, (2,))


def test_classes_of_the_hub_go_by_their_names_where_a_split_has_another_order(
    tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    test = Part([("one", 0), ("other", 2)], MOODS[::-1])
    loaded = of_hub(tree, monkeypatch, {"train": Part(TRAIN, MOODS), "test": test})
    assert [loaded.labels[label] for label in loaded.test.labels] == ["calm", "sad"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": Part([("a", 0), (None, 1)], MOODS)}, "feelings, train: row 1: text and label"),
        ({"test": Part([("a", None)], MOODS)}, "feelings, test: row 0: text and label must be"),
        ({"test": Part([("\ud83d", 0)], MOODS)}, "row 0: half a character"),
        ({"test": Part([(" ", 0)], MOODS)}, "row 0: the text is empty"),
        ({"test": Part([], MOODS)}, "someone/feelings, test: no rows"),
        ({"validation": Part([], MOODS)}, "someone/feelings, validation: no rows"),
        ({"test": Part([("a", -1)], MOODS)}, "test: row 0: unknown label '-1'; known: sad, glad"),
        (
            {name: Part(TRAIN[:6], ["sad", "glad", "sad"]) for name in ("train", "test")},
            "two labels are both written as sad",
        ),
    ],
)
def test_what_is_wrong_with_a_data_set_of_the_hub_is_one_line(
    tree: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Part],
    message: str,
) -> None:
    parts = {"train": Part(TRAIN, MOODS), "test": Part([("other", 2)], MOODS)}
    with pytest.raises(DataError) as caught:
        of_hub(tree, monkeypatch, parts | changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"), [(ValueError(), "ValueError"), (OSError("\n no\x1b net\nmore"), "no")]
)
def test_what_the_package_says_of_a_data_set_is_one_line(
    tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    with pytest.raises(DataError, match=f"cannot be loaded: {message}") as caught:
        of_hub(tree, monkeypatch, error)
    assert str(caught.value).isprintable()


def test_the_hub_without_its_package_says_what_to_install(
    tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'orch\[hub\]'"):
        load(tree, None, name="hub", hub="someone/feelings")
