"""Copying as text: ids of pieces that the vocabulary lacks, and batches with them."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_copying import words
from tiny_training import Rows
from torch.testing import assert_close

from seq2attn.data.batches import BatchLoader
from seq2attn.data.sources import PairTokenizer
from seq2attn.recipe import SamplingRecipe, TruncateRecipe
from seq2attn.text.vocabulary import Vocabulary


def test_a_piece_copies_the_piece_of_its_name():
    source, target = words(), words("one two", size=99)
    pieces = source.split("the zork sees who zork two two").pieces
    the, sees, who, two = (target.encode([word])[0][0] for word in ("the", "sees", "who", "two"))
    again = target.size + 1
    assert target.copies(pieces) == [the, again, sees, who, again, two, two, target.eos]
    assert target.copies(["▁zork", "▁the", "▁zork", "▁two"])[:-1] == [target.size, the, target.size, two]
    assert target.copies([]) == [target.eos]
    assert target.copies(["<unk>", "▁the"]) == [target.unk, the, target.eos]


def test_an_unknown_target_word_has_the_id_of_its_source():
    vocabulary = words()
    pieces = vocabulary.split("the zork sees blub").pieces
    target = vocabulary.split("blub sees gnu the zork")
    ids = vocabulary.copied(target.ids, target.pieces, pieces)
    size, sees, the = vocabulary.size, target.ids[1], target.ids[3]
    assert ids == [size + 3, sees, vocabulary.unk, the, size + 1]
    joined = vocabulary.join(ids, pieces)
    assert joined.words == ["blub", "sees", "⁇", "the", "zork"] and joined.ids == ids
    assert vocabulary.decode(ids, pieces).split() == joined.words
    assert joined.pieces == ["▁blub", "▁sees", "<unk>", "▁the", "▁zork"]


@pytest.mark.parametrize("model", ["word", "char", "bpe"])
@pytest.mark.parametrize(
    "text", ["the zork sees a ﬁg", "zork", "dog 漢字 sees 漢", "", "漢 the", "who's Ａ?"]
)
def test_a_text_that_is_copied_whole_is_the_text(model, text):
    vocabulary = words(model=model, size=30 if model == "bpe" else 99, byte_fallback=False)
    tokens = vocabulary.split(text)
    assert vocabulary.pieces(tokens.ids, text) == tokens.pieces
    ids = vocabulary.copied(tokens.ids, tokens.pieces, tokens.pieces)
    assert [*ids, vocabulary.eos] == vocabulary.copies(tokens.pieces)
    assert vocabulary.unk not in ids
    assert vocabulary.decode(ids, tokens.pieces).strip() == vocabulary.normalize(text)
    assert " ".join(vocabulary.join(ids, tokens.pieces).words) == vocabulary.normalize(text)


class Pairs(Rows):
    """A corpus of sentences."""

    def __init__(self, vocabulary: Vocabulary, *pairs: tuple[str, str], cut: Any = None) -> None:
        self.pairs, self.read = pairs, list[int]()  # the texts that were read
        sides = [vocabulary.encode([pair[side] for pair in pairs]) for side in (0, 1)]
        self.ends = [cut is None or cut.ends(row) for row in sides[1]]
        if cut is not None:
            sides = [[list(cut.cut(side, row)) for row in rows] for side, rows in enumerate(sides)]
        super().__init__([[np.array(row, dtype=np.int32) for row in rows] for rows in sides])

    def source_text(self, number: int) -> str:
        self.read.append(number)
        return self.pairs[number][0]

    def target_text(self, number: int) -> str:
        self.read.append(number)
        return self.pairs[number][1]

    def ended(self, number: int) -> bool:
        return self.ends[number]


def batches(corpus: Pairs, vocabulary: Vocabulary, truncate: Any = None, **options: Any) -> BatchLoader:
    """Batches with copy ids."""
    tokenizer = PairTokenizer(vocabulary, vocabulary, truncate, copying=True)
    return BatchLoader(corpus, tokenizer, 100, **options)


def test_a_batch_has_the_ids_that_are_copied():
    vocabulary = words()
    corpus = Pairs(vocabulary, ("the zork sees blub", "blub sees gnu"), ("a cat runs", "the cat"))
    indices = np.array([0, 1])
    plain = BatchLoader(corpus, PairTokenizer(vocabulary, vocabulary), 100).batch(indices)
    assert plain.source.copy_ids is None and corpus.read == []
    made = batches(corpus, vocabulary).batch(indices)
    assert corpus.read == [0, 0]  # only those with unknown words are tokenized again
    size, unk, eos, pad = vocabulary.size, vocabulary.unk, vocabulary.eos, vocabulary.pad
    the, sees = (vocabulary.encode([word])[0][0] for word in ("the", "sees"))
    copied = made.source.copy_ids.tolist()
    assert copied == [[the, size + 1, sees, size + 3, eos], [*plain.source.tokens[1].tolist()]]
    assert made.target[0].tolist() == [size + 3, sees, unk, eos]
    without = made.source._replace(copy_ids=None)
    assert_close(made._replace(source=without, target=plain.target), plain)  # the input stays <unk>
    assert made.to(torch.device("cpu")).source.copy_ids is not None and pad == 0


def test_truncated_pieces_are_not_copied():
    """Unknown words of head and tail keep their names."""
    vocabulary = words()
    truncate = TruncateRecipe.model_validate(
        {"source": {"head": 2, "tail": 2}, "target": {"head": 3, "tail": 3}}
    )
    text = "the eins cat zwei runs drei dog"
    corpus = Pairs(vocabulary, (text, "drei a zwei the eins a drei"), cut=truncate)
    made = batches(corpus, vocabulary, truncate).batch(np.array([0]))
    size, unk, eos = vocabulary.size, vocabulary.unk, vocabulary.eos
    the, dog, a = vocabulary.encode(["the dog a"])[0]
    assert made.source.copy_ids.tolist() == [[the, size + 1, size + 2, dog, eos]]
    assert made.target.tolist() == [[size + 2, a, unk, size + 1, a, size + 2, eos]]
    headed = TruncateRecipe.model_validate({"target": 3})
    corpus = Pairs(vocabulary, *corpus.pairs, cut=headed)
    made = batches(corpus, vocabulary, headed).batch(np.array([0]))
    assert made.target.tolist() == [[size + 5, a, size + 3]]  # and a truncated target has no end
    assert made.target_input.tolist() == [[vocabulary.bos, unk, a]]


def test_sampled_pieces_copy_those_of_the_text():
    vocabulary = words(model="bpe", size=30, byte_fallback=False)
    corpus = Pairs(vocabulary, ("the 漢 sees 字字 a dog", "字字 the cat 漢"))
    loader, lengths = batches(corpus, vocabulary, sampling=SamplingRecipe(alpha=0.5)), set()
    for epoch in range(9):
        made = loader.batch(np.array([0]), epoch)
        tokens = made.source.tokens[0]
        lengths.add(len(tokens))
        names = [vocabulary.decode([i], ["漢", "字字"]) for i in tokens.tolist()]
        copied = [i for i in made.source.copy_ids[0].tolist() if i >= vocabulary.size]
        unknown = (tokens == vocabulary.unk).nonzero().squeeze(1) + vocabulary.size
        assert copied == unknown.tolist() and len(names) == len(tokens)
        assert [i for i in made.target[0].tolist() if i >= vocabulary.size] == copied[::-1]
    assert len(lengths) > 1
