from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.textdiff import tokenizer
from jobs.textdiff.errors import ConfigError, DataError

LINES = ["the low lower lowest tower", "A new<br />newer tower", "naïve lowness"] * 3


def test_the_vocabulary_is_the_training_words_most_frequent_first() -> None:
    words = tokenizer.words(["b b a", "A <br /> b c"], vocab_size=2, min_count=1, length=3)
    assert words.content.split("\n") == ["<unk>", "b", "a"]
    assert words.encode_all(["A b zebra b", ""]) == [[2, 0, 1], [0]]
    assert words.cut(["A b zebra b", "a b c", ""]) == 1


@pytest.mark.parametrize(
    ("length", "kept"),
    [(1, "f"), (2, "ef"), (3, "aef"), (5, "acdef"), (6, "abcdef"), (7, "abcdef")],
)
def test_a_text_too_long_keeps_its_beginning_and_more_of_its_end(length: int, kept: str) -> None:
    words = tokenizer.words(["a b c d e f"], vocab_size=9, min_count=1, length=length)
    names = words.content.split("\n")
    (ids,) = words.encode_all(["a b c d e f"])
    assert "".join(names[i] for i in ids) == kept


def test_rare_words_are_unknown_and_mask_and_start_are_no_words() -> None:
    words = tokenizer.words(["a a b"], vocab_size=10, min_count=2, length=9)
    assert words.content.split("\n") == ["<unk>", "a"]
    assert words.mask_id == words.start_id == 2
    assert words.rows(causal=False) == words.rows(causal=True) == 3
    assert max(max(ids) for ids in words.encode_all(["a b <unk> 2"])) < words.mask_id


def test_a_vocabulary_without_a_word_is_an_error() -> None:
    with pytest.raises(ConfigError, match="min_count: no word .* 9 times, the most frequent one 2"):
        tokenizer.words(["a a b"], vocab_size=10, min_count=9, length=9)
    with pytest.raises(DataError, match="no training text has a word in it"):
        tokenizer.words(["<br>", "<br />"], vocab_size=10, min_count=1, length=9)


@pytest.mark.torch
def test_a_trained_bpe_splits_every_text_into_its_pieces() -> None:
    pytest.importorskip("tokenizers")
    pieces = tokenizer.bpe(LINES, vocab_size=300, min_count=1, length=50)
    assert 256 < pieces.size <= 300
    frequent, unseen = pieces.encode_all(["lower", "zq€"])
    assert len(frequent) < 5
    assert len(unseen) == 5  # a byte each
    assert pieces.encode_all(["LOWER<br/>x"]) == pieces.encode_all(["lower x"])
    assert max(frequent + unseen) < pieces.size == pieces.mask_id
    again = tokenizer.restored(pieces.kind, pieces.content, 50)
    assert again == pieces
    assert tokenizer.bpe(LINES, vocab_size=300, min_count=1, length=50) == pieces


@pytest.mark.torch
def test_a_bpe_needs_room_for_all_bytes() -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(ConfigError, match="needs 256"):
        tokenizer.bpe(LINES, vocab_size=255, min_count=1, length=5)


@pytest.mark.torch
@pytest.mark.data
def test_gpt2s_own_vocabulary_gives_its_published_numbers() -> None:
    pytest.importorskip("tokenizers")
    folder = Path(os.environ["ORCH_DATA"]) / "gpt2-bpe"
    if not folder.is_dir():
        pytest.skip("no gpt2-bpe/ in ORCH_DATA")
    pieces = tokenizer.gpt2(folder, 20)
    assert pieces.encode_all(["hello world"]) == [[31373, 995]]
    assert (pieces.size, pieces.mask_id, pieces.start_id) == (50257, 50257, 50256)
    assert (pieces.rows(causal=False), pieces.rows(causal=True)) == (50258, 50257)


@pytest.mark.torch
def test_a_missing_vocabulary_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ORCH_DATA"):
        tokenizer.gpt2(tmp_path, 5)
    for name in ("encoder.json", "vocab.bpe"):
        (tmp_path / name).write_text("{")
    with pytest.raises(DataError, match="not GPT-2's vocabulary"):
        tokenizer.gpt2(tmp_path, 5)


def test_pieces_hold_all_of_a_text_where_encoding_cuts_it() -> None:
    words = tokenizer.words(["a b c d"] * 2, vocab_size=9, min_count=1, length=3)
    a, b, c, d = (ids for (ids,) in words.encode_all("abcd"))
    assert words.pieces(["a b c d a", "b"]) == [[a, b, c], [d, a], [b]]
    assert words.encode_all(["a b c d a"]) == [[a, d, a]]
