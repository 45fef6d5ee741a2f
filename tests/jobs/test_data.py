from __future__ import annotations

import gzip
import lzma
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.textdiff import config, data, tokenizer
from jobs.textdiff.errors import DataError

SST2 = {
    "train": ["0\ta dull plot .", "1\ta warm film !", "1\tgood", "1\tlovely", "0\tbad"],
    "dev": ["0\tA dull plot"],
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


def configured(tree: dict[str, Any], **values: object) -> config.Config:
    tree["data"] = {**tree["data"], "phrases": False, **values}
    return config.from_tree(tree)


def test_texts_that_dev_or_test_has_are_dropped_from_train_and_counted(
    tree: dict[str, Any], sst2: Path
) -> None:
    loaded = data.load(configured(tree, name="sst2"), sst2)
    assert loaded.dropped == 2
    assert sorted(loaded.train.texts) == ["a warm film !", "bad", "lovely"]
    assert (len(loaded.dev), len(loaded.test)) == (1, 2)


def test_lines_end_at_line_feeds_only(tree: dict[str, Any], sst2: Path) -> None:
    assert data.load(configured(tree, name="sst2"), sst2).test.texts[0] == "fine\x85work"


def test_labels_stay_with_their_texts_through_the_shuffle(tree: dict[str, Any], sst2: Path) -> None:
    train = data.load(configured(tree, name="sst2"), sst2).train
    pairs = dict(zip(train.texts, train.labels, strict=True))
    assert pairs == {"a warm film !": 1, "lovely": 1, "bad": 0}
    assert train.of_class(0) == ("bad",)


def test_imdb_gets_a_dev_split_of_its_own(tree: dict[str, Any], tmp_path: Path) -> None:
    rows = [f"{i % 2}\t9\t{i}\ttext number {i}" for i in range(50)]
    write(tmp_path / "imdb" / "train.tsv.xz", "label\trating\tid\ttext", rows)
    write(tmp_path / "imdb" / "test.tsv.xz", "label\trating\tid\ttext", ["1\t9\t1\tother"])
    loaded = data.load(configured(tree, name="imdb", dev_examples=10), tmp_path)
    assert (len(loaded.train), len(loaded.dev)) == (40, 10)
    assert not set(loaded.train.texts) & set(loaded.dev.texts)


@pytest.mark.parametrize("name", ["sst2", "imdb"])
@pytest.mark.parametrize("folder", [None, "absent"])
def test_missing_data_is_one_line_that_says_what_to_set(
    tree: dict[str, Any], tmp_path: Path, name: str, folder: str | None
) -> None:
    place = None if folder is None else tmp_path / folder
    with pytest.raises(DataError, match="ORCH_DATA") as caught:
        data.load(configured(tree, name=name), place)
    assert "\n" not in str(caught.value)
    assert f"{name}/train.tsv" in str(caught.value)


@pytest.mark.parametrize("row", ["2\tx", "0", "0\tx\ty", "\tx"])
def test_a_malformed_line_is_named(tree: dict[str, Any], sst2: Path, row: str) -> None:
    write(sst2 / "sst2" / "dev.tsv.gz", "label\ttext", ["0\tfine", row])
    with pytest.raises(DataError, match="line 3"):
        data.load(configured(tree, name="sst2"), sst2)


def test_a_torn_file_is_an_error_not_a_short_data_set(tree: dict[str, Any], sst2: Path) -> None:
    path = sst2 / "sst2" / "train.tsv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        data.load(configured(tree, name="sst2"), sst2)


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    split = data.Split(tuple(map(str, range(100))), tuple(i % 2 for i in range(100)))
    assert data.sample(split, 10, 1) == data.sample(split, 10, 1)
    assert data.sample(split, 10, 1) != data.sample(split, 10, 2)
    assert data.sample(split, None, 1) == split


def test_selfmade_data_needs_no_folder_and_knows_its_grammar(tree: dict[str, Any]) -> None:
    built = config.from_tree(tree)
    loaded = data.load(built, None)
    assert loaded.grammar is not None
    assert len(loaded.test) == 60
    other = data.load(replace(built, seed=built.seed + 1), None)
    assert other.test != loaded.test


@pytest.mark.data
def test_real_sst2_has_its_published_counts_and_shares_sentences_between_splits(
    tree: dict[str, Any],
) -> None:
    loaded = data.load(configured(tree, name="sst2"), Path(os.environ["ORCH_DATA"]))
    assert (len(loaded.dev), len(loaded.test)) == (872, 1821)
    assert loaded.dropped > 0
    assert len(loaded.train) + loaded.dropped == 6920


def test_the_vocabulary_is_the_training_words_most_frequent_first() -> None:
    words = tokenizer.build(["b b a", "A <br /> b c"], vocab_size=2, min_count=1, length=3)
    assert words.words == ("<unk>", "b", "a")
    assert words.encode_all(["A b zebra b", ""]) == [[2, 1, 0], [0]]


def test_rare_words_are_unknown_and_the_mask_is_no_word() -> None:
    words = tokenizer.build(["a a b"], vocab_size=10, min_count=2, length=9)
    assert words.words == ("<unk>", "a")
    assert words.mask_id == 2
    assert words.model_size == 3
    assert max(max(ids) for ids in words.encode_all(["a b <unk> 2"])) < words.mask_id
