"""Vectors that others have learnt, from their files."""

import re
from pathlib import Path

import pytest
import torch

from seq2attn.data.pretrained_vectors import coverage, known_words, word_vectors
from seq2attn.errors import Seq2attnError
from seq2attn.text.word_vocabulary import WordVocabulary

LEXICON = WordVocabulary(["paris", "the"], [])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.txt"
    path.write_text("3 2\nParis 1 2\nparis 3 4\nelse 5 6\n", encoding="utf-8")
    return path


def test_a_words_own_spelling_comes_first(file: Path) -> None:
    table = word_vectors(file, LEXICON, 2)
    assert [*known_words(file)] == ["Paris", "paris", "else"]
    assert table.shape == (4, 2) and table[2].equal(torch.tensor([3.0, 4.0])) and table[3].isnan().all()


@pytest.mark.parametrize(
    ("words", "place"),
    [("rome Rome ROME", 0), ("Rome rome ROME", 1), ("ROME Rome", 0), ("Rome ROME rome rome", 2)],
)
def test_own_spelling_wins_wherever_it_stands_and_else_the_first(
    tmp_path: Path, words: str, place: int
) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("".join(f"{word} {n} 7\n" for n, word in enumerate(words.split())), encoding="utf-8")
    table = word_vectors(file, WordVocabulary(["the", "rome"], []))
    assert table[3].tolist() == [place, 7] and table[:3].isnan().all()


def test_how_many_words_have_one_is_said(file: Path) -> None:
    assert coverage(file, LEXICON, ["The PARIS", "paris of of"]) == "1 of 3 words (33.3 %)"
    assert coverage(file, LEXICON, []) == "0 of 0 words (0.0 %)"


def test_a_width_that_is_not_the_models_is_said_with_the_file(file: Path) -> None:
    message = f"{file}: its vectors have 2 values, and word embeddings 7: set model.embedding.size to 2, or name a file"
    with pytest.raises(Seq2attnError, match=re.escape(message)):
        word_vectors(file, LEXICON, 7)


@pytest.mark.parametrize("header", ["", "4 2\n"])
def test_words_may_have_spaces(tmp_path: Path, header: str) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text(
        f"{header}new york 1 2\nR$ 0,00 3 4\nparis 5 6\n. . . 7 8\nthe 9 10\nroute 66 1 2\nx 0 0\ny 0 0\n",
        "utf-8",
    )
    words = ["new\u00a0york", "R$\u00a00,00", "paris", ".\u00a0.\u00a0.", "the", "route\u00a066", "x", "y"]
    assert [*known_words(file)] == words
    table = word_vectors(file, WordVocabulary(["paris", "new\u00a0york"], []), 2)
    assert table[2:].tolist() == [[5, 6], [1, 2]]


@pytest.mark.parametrize(("line", "came"), [("b 1.5 2.5 3.5", 3), ("b 1", 1)])
def test_another_number_of_values_is_an_error(tmp_path: Path, line: str, came: int) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text(f"a 1 2\nc 3 4\n{line}\n", "utf-8")
    with pytest.raises(Seq2attnError, match=rf":3: expected 2 numbers after the word, as before, got {came}"):
        word_vectors(file, WordVocabulary(["a", "b", "c"], []))
