"""Text to numbers. Three kinds of vocabulary, each written down whole so that a checkpoint has it.

words   lower-case English words of the training texts (any letter beyond a-z is one of its own);
        what is rare is <unk>
bpe     byte-level BPE trained on the training texts, lower-cased
gpt2    GPT-2's own byte-level BPE, from its two published files
Both BPEs are the package `tokenizers`.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.textdiff import sources
from jobs.textdiff.config import Data
from jobs.textdiff.errors import ConfigError, DataError

_WORD = re.compile(r"[a-z0-9']+|[^\sa-z0-9']")
_LINE_BREAK = re.compile(r"<br\s*/?>")
UNKNOWN = "<unk>"


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Ids 0 to size - 1 are tokens; `encode_all` never gives the ids of mask and start.

    The mask is the last row of a masked model's embedding, as in the published checkpoints (index
    50257 over GPT-2's vocabulary). The start of a causal model is GPT-2's end-of-text there, and
    one row more than the tokens elsewhere.
    """

    kind: str  # words | bpe | gpt2
    content: str  # all of the vocabulary: one word a line, or the package's JSON
    size: int
    length: int  # tokens a text is cut to

    @property
    def mask_id(self) -> int:
        return self.size

    @property
    def start_id(self) -> int:
        return self.size - 1 if self.kind == "gpt2" else self.size

    def rows(self, *, causal: bool) -> int:
        """Rows of the embedding."""
        return max(self.start_id if causal else self.mask_id, self.size - 1) + 1

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content.encode()).hexdigest()

    def encode_all(self, texts: Iterable[str]) -> list[list[int]]:
        """One id list a text, at least one and at most `length` ids long."""
        return [self.fitted(ids) for ids in self._encoder()(texts)]

    def fitted(self, ids: list[int]) -> list[int]:
        """At most `length` of the ids: a longer text loses its middle, since a review's verdict
        often stands at its end ("head+tail" in Sun et al. 2019, arXiv 1905.05583). Of `length` a
        third comes from the text's beginning.
        """
        if len(ids) <= self.length:
            return ids
        first = self.length // 3
        return ids[:first] + ids[len(ids) - (self.length - first) :]

    def pieces(self, texts: Iterable[str]) -> list[list[int]]:
        """All of every text, a longer one in pieces of `length` ids and what is left."""
        return [
            ids[at : at + self.length]
            for ids in self._encoder()(texts)
            for at in range(0, len(ids), self.length)
        ]

    def cut(self, texts: Iterable[str]) -> int:
        """How many of the texts are longer than `length`."""
        return sum(len(ids) > self.length for ids in self._encoder()(texts))

    def _encoder(self) -> Callable[[Iterable[str]], list[list[int]]]:
        if self.kind == "words":
            ids = {word: i for i, word in enumerate(self.content.split("\n"))}
            return lambda texts: [[ids.get(w, 0) for w in split(text)] or [0] for text in texts]
        encoder = _package().Tokenizer.from_str(self.content)
        return lambda texts: [found.ids or [0] for found in encoder.encode_batch(list(texts))]


def make(data: Data, texts: Sequence[str], length: int, folder: Path | None) -> Tokenizer:
    """The tokenizer that the config names; built on `texts` unless it is GPT-2's."""
    if data.tokenizer == "gpt2":
        return gpt2(sources.locate("gpt2-bpe", folder), length)
    build = words if data.tokenizer == "words" else bpe
    return build(texts, vocab_size=data.vocab_size, min_count=data.min_count, length=length)


def restored(kind: str, content: str, length: int) -> Tokenizer:
    """A tokenizer from what a checkpoint keeps of it."""
    if kind == "words":
        size = len(content.split("\n"))
    else:
        try:
            size = _package().Tokenizer.from_str(content).get_vocab_size()
        except Exception as error:  # the package raises plain Exception
            raise DataError(f"tokenizer of a checkpoint: {error}") from None
    return Tokenizer(kind, content, size, length)


def words(texts: Iterable[str], *, vocab_size: int, min_count: int, length: int) -> Tokenizer:
    """<unk>, then at most `vocab_size` words seen `min_count` times in `texts`, frequent first."""
    counts = Counter(word for text in texts for word in split(text))
    frequent = sorted(
        (word for word, count in counts.items() if count >= min_count),
        key=lambda word: (-counts[word], word),
    )
    if not counts:
        raise DataError("no training text has a word in it")
    if not frequent:
        raise ConfigError(
            f"config data.min_count: no word is in the training texts {min_count} times, the most "
            f"frequent one {max(counts.values())}"
        )
    kept = [UNKNOWN, *frequent[:vocab_size]]
    return Tokenizer("words", "\n".join(kept), len(kept), length)


def bpe(texts: Iterable[str], *, vocab_size: int, min_count: int, length: int) -> Tokenizer:
    """All 256 bytes, then merges seen `min_count` times, up to `vocab_size` tokens."""
    package = _package()
    alphabet = package.pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(alphabet):
        raise ConfigError(f"config data.vocab_size: bpe needs {len(alphabet)} for the bytes alone")
    model = _byte_level(package.models.BPE())
    model.normalizer = package.normalizers.Sequence(
        [
            package.normalizers.Lowercase(),
            package.normalizers.Replace(package.Regex(_LINE_BREAK.pattern), " "),
        ]
    )
    trainer = package.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_count,
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    return Tokenizer("bpe", model.to_str(), model.get_vocab_size(), length)


def gpt2(folder: Path, length: int) -> Tokenizer:
    """GPT-2's 50,257 tokens, from `encoder.json` and `vocab.bpe` in `folder`."""
    paths = [folder / name for name in ("encoder.json", "vocab.bpe")]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: no such file; set ORCH_DATA to the folder with gpt2-bpe/")
    try:
        model = _byte_level(_package().models.BPE.from_file(*map(str, paths)))
    except Exception as error:  # the package raises plain Exception
        raise DataError(f"{folder}: not GPT-2's vocabulary: {error}") from None
    return Tokenizer("gpt2", model.to_str(), model.get_vocab_size(), length)


def split(text: str) -> list[str]:
    """Lower-case words and single punctuation marks, in order; HTML line breaks are spaces."""
    return _WORD.findall(_LINE_BREAK.sub(" ", text.lower()))


def _byte_level(model: Any) -> Any:
    package = _package()
    made = package.Tokenizer(model)
    made.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made


def _package() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError:
        raise DataError(
            "data.tokenizer bpe and gpt2 need the package `tokenizers`: pip install 'orch[jobs]'"
        ) from None
