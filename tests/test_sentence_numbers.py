"""The sentence of each piece of a text: in vocabularies, truncation and batches."""

from typing import Any

import numpy as np
import pytest
import torch

from seq2attn.data.batches import BatchLoader
from seq2attn.data.sources import PairTokenizer, Source, number_sentences
from seq2attn.errors import Seq2attnError
from seq2attn.recipe import SamplingRecipe, TruncateRecipe
from seq2attn.text.sentence_splitter import numbered
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.vocabulary_training import train_vocabulary

# ---- where sentences are -----------------------------------------------------------------------------

TEXT = "Ann:  hello you\r\n\n  Bob: ﬁne … ok\nzorkzork blub\n\n Cy:　bye bye\n"
LINES = ["Ann: hello you", "Bob: fine ... ok", "zorkzork blub", "Cy: bye bye"]
FOX = "the quick brown fox jumps over lazy dogs in every sunny yard of old york town"
KINDS: dict[str, dict[str, Any]] = {
    "bpe": {"model": "bpe", "size": 330},
    "unigram": {"model": "unigram", "size": 50, "byte_fallback": False},
    "word": {"model": "word", "size": 11},
    "char": {"model": "char", "size": 300},
}


def learnt(kind: str) -> Vocabulary:
    return train_vocabulary([*LINES, FOX] * 20, **KINDS[kind])


@pytest.fixture(params=KINDS)
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    return learnt(request.param)


def said(pieces: list[str], of: list[int]) -> list[str]:
    """The pieces of each sentence, put together."""
    texts: dict[int, str] = {}
    for piece, number in zip(pieces, of, strict=True):
        texts[number] = texts.get(number, "") + piece
    return [text.replace("▁", " ").strip() for text in texts.values()]


def test_pieces_know_the_lines_that_they_stand_in(vocabulary):
    pieces = vocabulary.surfaces(TEXT)
    of = numbered(pieces, TEXT, vocabulary.normalize)
    assert of == sorted(of) and {*of} == {0, 2, 3, 5}  # blank lines have none
    assert said(pieces, of) == [vocabulary.normalize(line) for line in LINES]
    assert numbered(pieces, TEXT.replace("\n", " "), vocabulary.normalize) == [0] * len(pieces)


@pytest.mark.parametrize("seed", range(5))
def test_sampled_pieces_know_them_too(seed):
    for kind in ("bpe", "unigram"):
        one = learnt(kind)
        (drawn,) = one.sample([TEXT], seed)
        pieces = one.pieces(drawn, TEXT)
        of = numbered(pieces, TEXT, one.normalize)
        assert said(pieces, of) == [one.normalize(line) for line in LINES]


def test_a_vocabulary_that_keeps_line_feeds_is_refused():
    with pytest.raises(
        Seq2attnError, match="takes for letters: expected a vocabulary that turns them into spaces"
    ):
        numbered(["a"], "a\nb", lambda text: text)


def test_truncation_keeps_the_numbers_of_what_is_read():
    text = "a b c\nd e\nf\ng h i"
    one = train_vocabulary([text] * 20, model="word", size=30)
    (ids,) = one.encode([text])
    assert len(ids) == 9

    def of(**window: Any) -> list[int]:
        truncate = TruncateRecipe.model_validate(window)
        tokenizer = PairTokenizer(one, one, truncate, hierarchical=True)
        return tokenizer.source_ids(truncate.cut(0, ids), lambda: text).sentence_ids or []

    assert of() == [0, 0, 0, 1, 1, 2, 3, 3, 3]
    assert of(source=4) == [0, 0, 0, 1]
    assert of(source={"head": 2, "tail": 4}) == [0, 0, 2, 3, 3, 3]
    tokenizer = PairTokenizer(one, one, hierarchical=True)
    assert tokenizer.source_ids(ids[:4], lambda: text).sentence_ids == [0, 0, 0, 1]  # decoding.max_source
    assert tokenizer.source_ids([7, 8], lambda: "a b").sentence_ids == [0, 0]
    assert tokenizer.source_ids([7, 8]).sentence_ids == [0, 0]


def test_slots_have_numbers_without_gaps_and_ends_are_of_the_last_sentence():
    found = number_sentences([[0, 0, 2, 5], [], [3]])
    assert found.tolist() == [[0, 0, 1, 2, 2], [0, -1, -1, -1, -1], [0, 0, -1, -1, -1]]


class Texts:
    """A corpus of texts as they are, both sides the same; as far as they are read."""

    def __init__(self, texts: list[str], vocabulary: Vocabulary, truncate: TruncateRecipe) -> None:
        self.texts, self.ids = texts, [truncate.cut(0, ids) for ids in vocabulary.encode(texts)]
        self.source_lengths = self.target_lengths = np.array([len(ids) for ids in self.ids], dtype=np.int32)

    def source(self, number: int) -> Any:
        return np.array(self.ids[number], dtype=np.int32)

    def source_text(self, number: int) -> str:
        return self.texts[number]

    def epoch(self, epoch: int, seed: int) -> Any:
        return np.arange(len(self.texts))

    target, target_text = source, source_text


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("window", [{}, {"source": {"head": 9, "tail": 7}}])
def test_batches_know_their_sentences(sampled, window):
    one = learnt("bpe")
    truncate = TruncateRecipe.model_validate(window)
    corpus = Texts([TEXT, "hello", "", "ok\nbye"], one, truncate)
    sampling = SamplingRecipe(alpha=0.5) if sampled else None

    def source(hierarchical: bool) -> Source:
        tokenizer = PairTokenizer(one, one, truncate, hierarchical=hierarchical)
        return BatchLoader(corpus, tokenizer, 999, 1, sampling).batch(np.arange(4), 0).source

    assert source(False).sentence_ids is None
    found = source(True)
    assert found.sentence_ids is not None and found.to(torch.device("cpu")).sentence_ids is not None
    assert ((found.sentence_ids >= 0) == found.mask).all()
    for row, text in enumerate([LINES, ["hello"], [], ["ok", "bye"]]):
        length = int(found.mask[row].sum())
        pieces = one.pieces(found.tokens[row, : length - 1].tolist(), corpus.texts[row])
        of = found.sentence_ids[row, :length].tolist()
        assert of[-1] == max(of) and {*of} == {*range(max(of) + 1)}
        if not (window and row == 0):
            assert said(pieces, of[:-1]) == [one.normalize(line) for line in text]
            continue
        assert said(pieces[:9], of[:9])[0] in one.normalize(LINES[0])
        assert one.normalize(LINES[-1]).endswith(said(pieces[9:], of[9:-1])[-1])
        assert sampled or {*of} == {0, 1, 2} or {*of} == {0, 1, 2, 3}
