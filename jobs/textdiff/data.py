"""Labelled texts, read and split; what was left out is counted.

A text is known by its letters and their marks, digits and emoji, lower-cased. One that also stands
in dev or test is dropped from train, one of dev that stands in test from dev: SST-2 shares
sentences between its splits, IMDb reviews. test is left as published. A dev or test split most of
which lies in train is an error: the files are not what their names say.
"""

from __future__ import annotations

import importlib
import random
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.textdiff import selfmade, sources
from jobs.textdiff.config import Data
from jobs.textdiff.errors import DataError

_MARKS = bytes(code for code in range(128) if not chr(code).isalnum())
MOST_CLASSES = 1000  # of so many a confusion matrix still fits into the 4 MiB of a metrics.json
SENTIMENT = {"0": "negative", "1": "positive"}  # how sst2 and imdb write them


@dataclass(frozen=True, slots=True)
class Split:
    """Texts and their labels, equally many."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def of_class(self, label: int) -> tuple[str, ...]:
        pairs = zip(self.texts, self.labels, strict=True)
        return tuple(text for text, own in pairs if own == label)

    def at(self, rows: Sequence[int]) -> Split:
        return Split(tuple(self.texts[i] for i in rows), tuple(self.labels[i] for i in rows))


@dataclass(frozen=True, slots=True)
class Dataset:
    name: str
    labels: tuple[str, ...]  # names of the classes; a split's labels are places in here
    train: Split
    dev: Split
    test: Split
    dropped: int = 0  # training texts left out because dev or test has them too
    dropped_dev: int = 0  # dev texts left out because test has them too
    grammar: selfmade.Grammar | None = None  # known only for the self-made data

    def split(self, name: str) -> Split:
        return {"train": self.train, "dev": self.dev, "test": self.test}[name]


def load(data: Data, seed: int, folder: Path | None) -> Dataset:
    """The data set that the config names, split, without leaks; `folder` is what ORCH_DATA says.

    DataError: the folder or a file is missing (with what to set), a line is malformed, a label is
    unknown, only one class is there, or dev or test lies inside train.
    """
    rng = random.Random(f"{seed}:data")
    read: dict[str, Callable[[], Dataset]] = {
        "selfmade": lambda: _selfmade(data, rng),
        "sst2": lambda: _sst2(data, folder),
        "imdb": lambda: _imdb(data, folder),
        "files": lambda: _files(data, folder),
        "hub": lambda: _hub(data),
    }
    dataset = _without_leaks(read[data.name]())
    dataset = replace(dataset, labels=tuple(map(sources.printable, dataset.labels)))
    train = _shuffled(dataset.train, rng, data.max_train)
    present = set(train.labels)
    if len(dataset.labels) < 2 or not present:
        names = ", ".join(dataset.labels[label] for label in sorted(present)) or "no class"
        raise DataError(f"{dataset.name}: training needs texts of two classes or more, has {names}")
    if len(dataset.labels) > MOST_CLASSES:
        raise DataError(
            f"{dataset.name}: {len(dataset.labels)} classes ({sources.some(dataset.labels)}), at "
            f"most {MOST_CLASSES} can be told apart: does data.label name the right column?"
        )
    lacking = [name for place, name in enumerate(dataset.labels) if place not in present]
    if lacking:
        raise DataError(
            f"{dataset.name}: no training text of class {sources.some(lacking)} is left beside "
            "dev, test and data.max_train"
        )
    return replace(dataset, train=train)


def more_texts(data: Data, name: str, folder: Path | None, dataset: Dataset) -> tuple[str, ...]:
    """Unlabelled texts from the file or folder `name`, without those that dev or test has."""
    texts = sources.unlabelled(sources.locate(name, folder), data.text)
    held_out = {_essence(text) for text in dataset.dev.texts + dataset.test.texts}
    return tuple(text for text in texts if _essence(text) not in held_out)


def sample(split: Split, count: int | None, seed: int) -> Split:
    """The split, or `count` of its texts drawn without replacement; the same for the same seed."""
    if count is None or count >= len(split):
        return split
    return _shuffled(split, random.Random(f"{seed}:sample"), count)


def _selfmade(data: Data, rng: random.Random) -> Dataset:
    grammar = selfmade.Grammar()
    sizes = (data.selfmade_train, data.dev_examples, data.selfmade_test)
    train, dev, test = (Split(*selfmade.generate(grammar, size, rng)) for size in sizes)
    return Dataset("selfmade", selfmade.LABELS, train, dev, test, grammar=grammar)


def _sst2(data: Data, folder: Path | None) -> Dataset:
    names = ["train", "dev", "test", *(["train_phrases"] if data.phrases else [])]
    tables = [_table(sources.locate(f"sst2/{name}.tsv.gz", folder)) for name in names]
    train, dev, test, *more = (_labelled(table, SENTIMENT) for table in tables)
    for phrases in more:
        train = Split(train.texts + phrases.texts, train.labels + phrases.labels)
    return Dataset("sst2", tuple(SENTIMENT.values()), train, dev, test)


def _imdb(data: Data, folder: Path | None) -> Dataset:
    paths = [sources.locate(f"imdb/{name}.tsv.xz", folder) for name in ("train", "test")]
    train, test = (_labelled(_table(path), SENTIMENT) for path in paths)
    train, dev = _cut(train, data.dev_examples, "imdb")
    return Dataset("imdb", tuple(SENTIMENT.values()), train, dev, test)


def _files(data: Data, folder: Path | None) -> Dataset:
    def table(name: str) -> Table:
        return _table(sources.locate(name, folder), data.text, data.label)

    assert data.train is not None and data.test is not None  # the config was checked
    train = table(data.train)
    labels = tuple(sorted({label for _, _, label in train.rows}))
    known = {label: label for label in labels}
    split, test = _labelled(train, known), _labelled(table(data.test), known)
    if data.dev is None:
        split, dev = _cut(split, data.dev_examples, "files")
    else:
        dev = _labelled(table(data.dev), known)
    return Dataset("files", labels, split, dev, test)


def _hub(data: Data) -> Dataset:
    """A data set by its name, through the package `datasets`; splits train, validation, test."""
    try:
        package = importlib.import_module("datasets")
    except ImportError:
        raise DataError(
            "data.name hub needs the package `datasets`: pip install 'orch[hub]'"
        ) from None
    try:
        loaded: Any = package.load_dataset(data.hub)
    except Exception as error:  # the package raises its own kinds, and those of the network
        raise DataError(f"hub {data.hub}: cannot be loaded: {str(error).splitlines()[0]}") from None
    absent = [name for name in ("train", "test") if name not in loaded]
    if absent:
        raise DataError(f"hub {data.hub}: no split {absent[0]}; it has {', '.join(loaded)}")
    feature = loaded["train"].features[data.label] if data.label in _columns(loaded) else None
    names = tuple(getattr(feature, "names", None) or ())

    def table(name: str) -> Table:
        part = loaded[name]
        for column in (data.text, data.label):
            if column not in part.column_names:
                raise DataError(f"hub {data.hub}: no column {column} in {name}")
        pairs = zip(part[data.text], part[data.label], strict=True)
        return Table(
            f"{data.hub}/{name}", [(i, text, str(label)) for i, (text, label) in enumerate(pairs)]
        )

    train = table("train")
    keys = [str(i) for i in range(len(names))] or sorted({label for _, _, label in train.rows})
    known = dict(zip(keys, names or keys, strict=True))
    split, test = _labelled(train, known), _labelled(table("test"), known)
    if "validation" in loaded:
        dev = _labelled(table("validation"), known)
    else:
        split, dev = _cut(split, data.dev_examples, str(data.hub))
    return Dataset(str(data.hub), tuple(known.values()), split, dev, test)


def _columns(loaded: Any) -> Sequence[str]:
    return list(loaded["train"].column_names)


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    rows: list[tuple[int, str, str]]  # line, text, label


def _table(path: Path, text: str = "text", label: str = "label") -> Table:
    table = Table(str(path), list(sources.labelled(path, text, label)))
    if not table.rows:
        raise DataError(f"{path}: no rows")
    return table


def _labelled(table: Table, known: dict[str, str]) -> Split:
    places = {label: place for place, label in enumerate(known)}
    for number, _, label in table.rows:
        if label not in places:
            raise DataError(
                f"{table.name}: line {number}: unknown label {label[:80]!r}; "
                f"known: {sources.some(list(known))}"
            )
    return Split(
        tuple(text for _, text, _ in table.rows), tuple(places[label] for _, _, label in table.rows)
    )


def _cut(train: Split, count: int, name: str) -> tuple[Split, Split]:
    """train without `count` texts, and these; the same texts in every run, whatever its seed."""
    rows = list(range(len(train)))
    random.Random(f"{name}:dev").shuffle(rows)
    if count >= len(rows):
        raise DataError(f"data.dev_examples {count} leaves nothing of {len(rows)} training texts")
    return train.at(rows[count:]), train.at(rows[:count])


def _without_leaks(dataset: Dataset) -> Dataset:
    splits = (dataset.train, dataset.dev, dataset.test)
    train, dev, test = ([_essence(text) for text in split.texts] for split in splits)
    seen, tested, held_out = set(train), set(test), {*dev, *test}
    for name, split in (("dev", dev), ("test", test)):
        inside = sum(essence in seen for essence in split)
        if dataset.grammar is None and inside > len(split) / 2:
            raise DataError(
                f"{dataset.name}: {name} lies inside train: {inside} of its {len(split)} texts"
            )
    kept = [i for i, essence in enumerate(train) if essence not in held_out]
    kept_dev = [i for i, essence in enumerate(dev) if essence not in tested]
    if not kept_dev:
        raise DataError(f"{dataset.name}: dev lies inside test: each of its {len(dev)} texts")
    return replace(
        dataset,
        train=dataset.train.at(kept),
        dev=dataset.dev.at(kept_dev),
        dropped=len(dataset.train) - len(kept),
        dropped_dev=len(dataset.dev) - len(kept_dev),
    )


def _essence(text: str) -> str:
    lower = text.lower()
    if lower.isascii():  # most texts, and five times faster
        return lower.encode().translate(None, _MARKS).decode() or text
    return "".join(filter(_tells, unicodedata.normalize("NFC", lower))) or text


def _tells(sign: str) -> bool:
    """By Unicode's category: letter, mark, number or (as emoji are) other symbol."""
    kind = unicodedata.category(sign)
    return kind[0] in "LMN" or kind == "So"


def _shuffled(split: Split, rng: random.Random, count: int | None) -> Split:
    rows = list(range(len(split)))
    rng.shuffle(rows)
    return split.at(rows[:count])
