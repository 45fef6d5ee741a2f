"""Words to numbers: a vocabulary built on the training texts and nothing else."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_WORD = re.compile(r"[a-z0-9']+|[^\sa-z0-9']")
_LINE_BREAK = re.compile(r"<br\s*/?>")
UNKNOWN = "<unk>"


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Ids: 0 is <unk>, then the words, most frequent first; the mask is the last id of the model.

    The mask is no word: `encode` never gives it.
    """

    words: tuple[str, ...]  # <unk> at 0
    length: int  # tokens a text is cut to

    @property
    def mask_id(self) -> int:
        return len(self.words)

    @property
    def model_size(self) -> int:
        """Rows of the embedding: every word and the mask."""
        return len(self.words) + 1

    @property
    def sha256(self) -> str:
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()

    def encode_all(self, texts: Iterable[str]) -> list[list[int]]:
        """One id list a text, at least one and at most `length` ids long."""
        ids = {word: i for i, word in enumerate(self.words)}
        return [[ids.get(word, 0) for word in split(text)[: self.length]] or [0] for text in texts]


def build(texts: Iterable[str], *, vocab_size: int, min_count: int, length: int) -> Tokenizer:
    """A tokenizer of at most `vocab_size` words seen at least `min_count` times in `texts`."""
    counts = Counter(word for text in texts for word in split(text))
    frequent = sorted(
        (word for word, count in counts.items() if count >= min_count),
        key=lambda word: (-counts[word], word),
    )
    return Tokenizer((UNKNOWN, *frequent[:vocab_size]), length)


def split(text: str) -> list[str]:
    """Lower-case words and single punctuation marks, in order; HTML line breaks are spaces."""
    return _WORD.findall(_LINE_BREAK.sub(" ", text.lower()))
