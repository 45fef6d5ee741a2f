"""Labelled texts, read and split; what was left out is counted.

A text that also stands in dev or test is dropped from train, one of dev that stands in test from
dev: SST-2 shares sentences between its splits, IMDb reviews. test is left as published. A dev or
test split most of which lies in train is an error: the files are not what their names say.

When two texts are one: in data of the user's own (files, hub) when all that differs is case, how
much space there is, or how Unicode spells a letter; signs count, since they may be all that tells
two classes apart, as in "good :)" or "7 + 2". In the data that is known here signs and spaces do
not count, only letters and their marks, digits and emoji: SST-2's phrases and sentences are
tokenised differently.
"""

from __future__ import annotations

import importlib
import json
import random
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.textdiff import selfmade, sources
from jobs.textdiff.config import Data
from jobs.textdiff.errors import DataError

_MARKS = bytes(code for code in range(128) if not chr(code).isalnum())
# So that a result fits into the 4 MiB that orch reads of a metrics.json: it has up to four rows,
# each with a confusion matrix and every label some times.
MOST_CLASSES = 400
LONGEST_LABEL = 200  # characters
LONGEST_LABELS = 50_000  # bytes, all of them as JSON writes them
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
    cut: bool = False  # dev was taken out of train here, it is no split of the data's own
    grammar: selfmade.Grammar | None = None  # known only for the self-made data

    def split(self, name: str) -> Split:
        return {"train": self.train, "dev": self.dev, "test": self.test}[name]


def load(data: Data, seed: int, folder: Path | None) -> Dataset:
    """The data set that the config names, split, without leaks; `folder` is what ORCH_DATA says.

    DataError: the folder or a file is missing (with what to set), a line is malformed, a label is
    unknown, too long or looks like another, only one class is there or too many are, or dev or test
    lies inside train.
    """
    rng = random.Random(f"{seed}:data")
    read: dict[str, Callable[[], Dataset]] = {
        "selfmade": lambda: _selfmade(data, rng),
        "sst2": lambda: _sst2(data, folder),
        "imdb": lambda: _imdb(data, folder),
        "files": lambda: _files(data, folder),
        "hub": lambda: _hub(data),
    }
    dataset = read[data.name]()
    dataset = replace(dataset, labels=_checked(dataset.name, dataset.labels))
    dataset = _without_leaks(dataset, _known_by(data.name))
    train = _shuffled(dataset.train, rng, data.max_train)
    present = set(train.labels)
    if len(dataset.labels) < 2 or not present:
        names = ", ".join(dataset.labels[label] for label in sorted(present)) or "no class"
        raise DataError(f"{dataset.name}: training needs texts of two classes or more, has {names}")
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
    known_by = _known_by(data.name)
    held_out = {known_by(text) for text in dataset.dev.texts + dataset.test.texts}
    return tuple(text for text in texts if known_by(text) not in held_out)


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
    train, dev = _cut(train, data.dev_examples, "imdb", range(len(train)))
    return Dataset("imdb", tuple(SENTIMENT.values()), train, dev, test, cut=True)


def _files(data: Data, folder: Path | None) -> Dataset:
    def table(name: str) -> Table:
        return _table(sources.locate(name, folder), data.text, data.label)

    assert data.train is not None and data.test is not None  # the config was checked
    train, test = table(data.train), table(data.test)
    dev = None if data.dev is None else table(data.dev)
    labels = sorted({label for _, _, label in train.rows})
    return _own("files", labels, train, dev, test, data.dev_examples)


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
        words = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise DataError(f"hub {data.hub}: cannot be loaded: {sources.printable(words)}") from None
    absent = [name for name in ("train", "test") if name not in loaded]
    if absent:
        raise DataError(f"hub {data.hub}: no split {absent[0]}; it has {', '.join(loaded)}")
    train, test = (_of_hub(data, loaded[name], name) for name in ("train", "test"))
    dev = _of_hub(data, loaded["validation"], "validation") if "validation" in loaded else None
    labels = _classes(loaded["train"], data.label) or sorted({label for _, _, label in train.rows})
    return _own(str(data.hub), labels, train, dev, test, data.dev_examples)


def _of_hub(data: Data, part: Any, split: str) -> Table:
    """A split, its labels by their names: another split may count the classes in another order."""
    for column in (data.text, data.label):
        if column not in part.column_names:
            raise DataError(f"hub {data.hub}: no column {column} in {split}")
    name, classes = f"hub {data.hub}, {split}", _classes(part, data.label)
    table = Table(name, [], "row")
    for number, (text, label) in enumerate(zip(part[data.text], part[data.label], strict=True)):
        if classes and type(label) is int and 0 <= label < len(classes):
            label = classes[label]
        place = f"{name}: row {number}"
        table.rows.append((number, *sources.pair(place, *sources.as_text(place, (text, label)))))
    return _filled(table)


def _classes(part: Any, column: str) -> list[str]:
    """The names that a split of the hub has for its classes, if any."""
    return [name.strip() for name in getattr(part.features[column], "names", None) or ()]


def _own(
    name: str, labels: Sequence[str], train: Table, dev: Table | None, test: Table, cut: int
) -> Dataset:
    """Data of the user's own; without a dev split `cut` different texts of train are one."""
    split, judged = _labelled(train, labels), _labelled(test, labels)
    if dev is not None:
        return Dataset(name, tuple(labels), split, _labelled(dev, labels), judged)
    first: dict[str, int] = {}
    for row, text in enumerate(split.texts):
        first.setdefault(_as_written(text), row)
    split, taken = _cut(split, cut, name, list(first.values()))
    return Dataset(name, tuple(labels), split, taken, judged, cut=True)


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    rows: list[tuple[int, str, str]]  # its number, text, label
    unit: str = "line"


def _table(path: Path, text: str = "text", label: str = "label") -> Table:
    return _filled(Table(str(path), list(sources.labelled(path, text, label))))


def _filled(table: Table) -> Table:
    if not table.rows:
        raise DataError(f"{table.name}: no rows")
    return table


def _labelled(table: Table, known: Iterable[str]) -> Split:
    places = {label: place for place, label in enumerate(known)}
    for number, _, label in table.rows:
        if label not in places:
            raise DataError(
                f"{table.name}: {table.unit} {number}: unknown label {label[:80]!r}; "
                f"known: {sources.some(list(known))}"
            )
    return Split(
        tuple(text for _, text, _ in table.rows), tuple(places[label] for _, _, label in table.rows)
    )


def _checked(name: str, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels as they are written; they are few, short and different, or it is an error here,
    not when a result is written that nobody can read."""
    shown = tuple(map(sources.printable, labels))
    hint = "does data.label name the right column?"
    longest = max(shown, key=len)
    if len(longest) > LONGEST_LABEL:
        raise DataError(
            f"{name}: the label {longest[:40]}... has {len(longest):,} characters, at most "
            f"{LONGEST_LABEL} can be written: {hint}"
        )
    if len(shown) > MOST_CLASSES:
        raise DataError(
            f"{name}: {len(shown)} classes ({sources.some(shown)}), at most {MOST_CLASSES} can be "
            f"told apart: {hint}"
        )
    size = sum(len(json.dumps(label)) for label in shown)
    if size > LONGEST_LABELS:
        raise DataError(
            f"{name}: the labels of {len(shown)} classes are {size:,} bytes in a result, at most "
            f"{LONGEST_LABELS:,} can be written: give them shorter names"
        )
    alike = [label for label in shown if shown.count(label) > 1]
    if alike:
        raise DataError(f"{name}: two labels are both written as {alike[0]}: rename one of them")
    return shown


def _cut(train: Split, count: int, name: str, rows: Iterable[int]) -> tuple[Split, Split]:
    """train without `count` of its `rows`, and these; the same in every run, whatever its seed."""
    drawn = list(rows)
    random.Random(f"{name}:dev").shuffle(drawn)
    if count >= len(drawn):
        raise DataError(f"data.dev_examples {count} leaves nothing of {len(drawn)} training texts")
    others = sorted(set(range(len(train))).difference(drawn))
    return train.at(drawn[count:] + others), train.at(drawn[:count])


def _without_leaks(dataset: Dataset, known_by: Callable[[str], str]) -> Dataset:
    splits = (dataset.train, dataset.dev, dataset.test)
    train, dev, test = ([known_by(text) for text in split.texts] for split in splits)
    seen, tested, held_out = set(train), set(test), {*dev, *test}
    for name, split in (("dev", dev), ("test", test)):
        inside = sum(essence in seen for essence in split)
        drawn = dataset.grammar is not None or (name == "dev" and dataset.cut)
        if inside > len(split) / 2 and not drawn:
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


def _known_by(name: str) -> Callable[[str], str]:
    """What two texts of a data set have in common when they are one."""
    return _as_written if name in ("files", "hub") else _as_spoken


def _as_written(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text.lower()).split())


def _as_spoken(text: str) -> str:
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
