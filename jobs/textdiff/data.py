"""Labelled texts, read and split; what was left out is counted.

Files are tab-separated, UTF-8, one header line, LF line ends, no quoting, compressed with gzip or
xz. They lie under the folder that `$ORCH_DATA` names, one folder a data set. Columns used: `label`
(0 negative, 1 positive) and `text`.

A text whose letters and digits (lower-cased) also stand in dev or test is dropped from train: SST-2
shares sentences between its splits, IMDb reviews. dev and test are left as published.
"""

from __future__ import annotations

import gzip
import lzma
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.textdiff import selfmade
from jobs.textdiff.config import Config
from jobs.textdiff.errors import DataError

LABELS = selfmade.LABELS


@dataclass(frozen=True, slots=True)
class Split:
    """Texts and their labels, equally many."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def of_class(self, label: int) -> tuple[str, ...]:
        return tuple(
            text for text, own in zip(self.texts, self.labels, strict=True) if own == label
        )

    def at(self, rows: list[int]) -> Split:
        return Split(tuple(self.texts[i] for i in rows), tuple(self.labels[i] for i in rows))


@dataclass(frozen=True, slots=True)
class Dataset:
    name: str
    train: Split
    dev: Split
    test: Split
    dropped: int  # training texts left out because dev or test has them too
    grammar: selfmade.Grammar | None = None  # known only for the self-made data

    def split(self, name: str) -> Split:
        return {"train": self.train, "dev": self.dev, "test": self.test}[name]


def load(config: Config, folder: Path | None) -> Dataset:
    """The data set that the config names, split, without leaks; `folder` is what ORCH_DATA says.

    DataError: the folder or a file is missing (with what to set), or a line is malformed.
    """
    rng = random.Random(f"{config.seed}:data")
    if config.data.name == "selfmade":
        dataset = _selfmade(config, rng)
    else:
        dataset = _sst2(config, folder) if config.data.name == "sst2" else _imdb(config, folder)
    dataset = _without_leaks(dataset)
    return replace(dataset, train=_shuffled(dataset.train, rng, config.data.max_train))


def sample(split: Split, count: int | None, seed: int) -> Split:
    """The split, or `count` of its texts drawn without replacement; the same for the same seed."""
    if count is None or count >= len(split):
        return split
    return _shuffled(split, random.Random(f"{seed}:sample"), count)


def _selfmade(config: Config, rng: random.Random) -> Dataset:
    grammar = selfmade.Grammar()
    sizes = (config.data.selfmade_train, config.data.dev_examples, config.data.selfmade_test)
    train, dev, test = (Split(*selfmade.generate(grammar, size, rng)) for size in sizes)
    return Dataset("selfmade", train, dev, test, 0, grammar)


def _sst2(config: Config, folder: Path | None) -> Dataset:
    train, dev, test = (_read(folder, f"sst2/{name}.tsv.gz") for name in ("train", "dev", "test"))
    if config.data.phrases:
        more = _read(folder, "sst2/train_phrases.tsv.gz")
        train = Split(train.texts + more.texts, train.labels + more.labels)
    return Dataset("sst2", train, dev, test, 0)


def _imdb(config: Config, folder: Path | None) -> Dataset:
    train, test = (_read(folder, f"imdb/{name}.tsv.xz") for name in ("train", "test"))
    # A fixed seed: dev must be the same texts in every run, or settings would be chosen on train.
    rows = list(range(len(train)))
    random.Random("imdb:dev").shuffle(rows)
    cut = config.data.dev_examples
    if cut >= len(rows):
        raise DataError(f"data.dev_examples {cut} leaves nothing of {len(rows)} training texts")
    return Dataset("imdb", train.at(rows[cut:]), train.at(rows[:cut]), test, 0)


def _read(folder: Path | None, name: str) -> Split:
    if folder is None:
        raise DataError(f"{name}: ORCH_DATA is not set; set it to the folder that holds {name}")
    path = folder / name
    opener = gzip.open if path.suffix == ".gz" else lzma.open
    try:
        with opener(path, "rt", encoding="utf8", newline="\n") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; set ORCH_DATA to the folder with {name}") from None
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return _parse(lines, path)


def _parse(lines: list[str], path: Path) -> Split:
    columns = lines[0].split("\t")
    if not {"label", "text"} <= set(columns):
        raise DataError(f"{path}: the first line must name the columns label and text")
    label_at, text_at = columns.index("label"), columns.index("text")
    texts, labels = [], []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if line == "" and number == len(lines):
            break
        if len(cells) != len(columns) or cells[label_at] not in ("0", "1"):
            raise DataError(f"{path}: line {number} is not {len(columns)} columns with label 0 | 1")
        texts.append(cells[text_at])
        labels.append(int(cells[label_at]))
    return Split(tuple(texts), tuple(labels))


def _without_leaks(dataset: Dataset) -> Dataset:
    held_out = {_essence(text) for text in dataset.dev.texts + dataset.test.texts}
    kept = [i for i, text in enumerate(dataset.train.texts) if _essence(text) not in held_out]
    dropped = len(dataset.train) - len(kept)
    return replace(dataset, train=dataset.train.at(kept), dropped=dropped)


def _essence(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _shuffled(split: Split, rng: random.Random, count: int | None) -> Split:
    rows = list(range(len(split)))
    rng.shuffle(rows)
    return split.at(rows[:count])
