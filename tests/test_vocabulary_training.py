"""Vocabularies that are trained or read from files; vocabularies of whole words."""

import re
from functools import cache

import pytest
import tiny_text
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text import GERMAN, bare, hard, some_text

import seq2attn.text.vocabulary_training
from seq2attn.errors import Seq2attnError
from seq2attn.recipe import RecipeError, read
from seq2attn.text.vocabulary import Vocabulary, VocabularyError
from seq2attn.text.vocabulary_training import train_vocabulary
from seq2attn.text.word_vocabulary import Labels, WordVocabulary, join_words


@pytest.fixture(scope="module")
def vocabularies():
    return tiny_text.vocabularies()


# ---- whole words ------------------------------------------------------------------------------------


SPOKEN = ["ʁ ɛ t ɛ", "ɔ̃ t oː", "t ʁ ɛ t ɛ I_TURN_LEFT,"]


def test_a_word_is_a_piece_as_it_stands():
    vocabulary = train_vocabulary(SPOKEN, model="word", size=100, nfkc=False)
    assert vocabulary.size == 4 + len({*" ".join(SPOKEN).split()})  # size is the most
    tokens = vocabulary.split("t oː  I_TURN_LEFT, ɔ̃")
    assert tokens.pieces == ["▁t", "▁oː", "▁I_TURN_LEFT,", "▁ɔ̃"]
    assert tokens.words == ["t", "oː", "I_TURN_LEFT,", "ɔ̃"] and tokens.word_of == [0, 1, 2, 3]
    assert [vocabulary.decode(ids) for ids in vocabulary.encode(SPOKEN)] == SPOKEN
    assert vocabulary.join(tokens.ids).words == tokens.words


def test_of_too_many_words_the_most_frequent_stay():
    vocabulary = train_vocabulary(SPOKEN, model="word", size=6)
    assert {piece for text in SPOKEN for piece in vocabulary.encode([text])[0]} == {vocabulary.unk, 4, 5}
    assert {*vocabulary.decode([4, 5]).split()} == {"ɛ", "t"}


@pytest.mark.parametrize("byte_fallback", [True, False])
def test_an_unknown_word_is_one_sign(byte_fallback):
    vocabulary = train_vocabulary(SPOKEN, model="word", size=100, byte_fallback=byte_fallback)
    tokens = vocabulary.split("t zwölf ɛ")
    assert tokens.ids == [*vocabulary.encode(["t"])[0], vocabulary.unk, *vocabulary.encode(["ɛ"])[0]]
    assert (tokens.words, tokens.word_of) == (["t", "zwölf", "ɛ"], [0, 1, 2])
    assert vocabulary.join(tokens.ids).words == ["t", "⁇", "ɛ"]


@hard
@given(text=some_text)
def test_each_unknown_word_is_by_itself(text):
    """As many ids as words, whatever stands side by side, and each word where it stands in the text."""
    vocabulary, text = _spoken(), text.replace("▁", "_")  # which is SentencePiece's own sign for a space
    tokens, expected = vocabulary.split(text), vocabulary.normalize(text).split(" ")
    assert [piece.removeprefix("▁") for piece in tokens.pieces] == (expected if expected != [""] else [])
    assert tokens.ids == vocabulary.encode([text])[0] == vocabulary.sample([text], 1, nbest=1)[0]
    assert vocabulary.surfaces(text) == vocabulary.pieces(tokens.ids, text) == tokens.pieces
    assert vocabulary.join(tokens.ids).words == [
        word if number != vocabulary.unk else "⁇" for word, number in zip(expected, tokens.ids, strict=False)
    ]
    assert bare("".join(tokens.words)) == (bare(text) if tokens.ids else "")


def test_unknown_words_side_by_side():
    vocabulary = _spoken()
    tokens = vocabulary.split("  t zwölf  elf\nɛ ½ ﬁn  ʁ ")
    t, e, r = (vocabulary.encode([letter])[0][0] for letter in "tɛʁ")
    assert tokens.ids == [t, vocabulary.unk, vocabulary.unk, e, vocabulary.unk, vocabulary.unk, r]
    assert tokens.words == ["t", "zwölf", "elf", "ɛ", "½", "ﬁn", "ʁ"] and tokens.word_of == [*range(7)]


@settings(deadline=None, max_examples=40)
@given(words=st.lists(st.sampled_from([*dict.fromkeys(" ".join(SPOKEN).split())])))
def test_known_words_come_back(words):
    vocabulary = _spoken()
    (ids,) = vocabulary.encode([" ".join(words)])
    assert len(ids) == len(words) and vocabulary.unk not in ids
    assert vocabulary.decode(ids).split(" ") == (words or [""])
    assert vocabulary.join(ids).words == vocabulary.split(" ".join(words)).words == words


@cache
def _spoken():
    return train_vocabulary(SPOKEN, model="word", size=100, nfkc=False)


# ---- training and files -----------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["unigram", "bpe"])
def test_too_large_a_size_names_the_largest(model):
    with pytest.raises(
        VocabularyError, match=r"text\.size: 90000 pieces .* largest possible size is (\d+)"
    ) as error:
        train_vocabulary(GERMAN[:50], model=model, size=90000)
    largest = int(re.search(r"size is (\d+)", str(error.value))[1])
    assert train_vocabulary(GERMAN[:50], model=model, size=largest).size == largest


def test_a_coverage_that_sentencepiece_refuses_is_refused_in_words(tmp_path):
    with pytest.raises(VocabularyError, match=r"^text\.character_coverage: expected 0\.98 to 1, got 0\.95$"):
        train_vocabulary(GERMAN, character_coverage=0.95)
    with pytest.raises(
        RecipeError, match=r"text\.character_coverage: expected .*at least 0\.98.*, got 0\.95"
    ):
        read("quickstart", ["text.character_coverage=0.95"])
    assert train_vocabulary(GERMAN, size=400, character_coverage=0.98).size == 400


def test_too_small_a_size_names_the_least():
    with pytest.raises(VocabularyError, match=r"text\.size: 270 pieces are too few: .* need (\d+)") as error:
        train_vocabulary(GERMAN, size=270)
    least = int(re.search(r"need (\d+)", str(error.value))[1])
    assert train_vocabulary(GERMAN, size=least + 1).size == least + 1
    with pytest.raises(VocabularyError, match="special pieces and bytes alone are 260"):
        train_vocabulary(GERMAN, model="char", size=260)


def test_a_vocabulary_of_characters_is_at_most_as_large(vocabularies):
    assert vocabularies["char"].size == 260 + len({*"".join(GERMAN)} - {" "}) + 1


@pytest.mark.parametrize("texts", [[], ["", "  \t"], ["\u200b"]])
def test_no_text_no_vocabulary(texts):
    with pytest.raises(VocabularyError, match=r"no text to learn|cannot learn a vocabulary"):
        train_vocabulary(texts, size=300)


def test_training_is_deterministic(monkeypatch):
    assert train_vocabulary(GERMAN, size=500).model == train_vocabulary(iter(GERMAN), size=500, seed=2).model
    monkeypatch.setattr(seq2attn.text.vocabulary_training, "MOST_SENTENCES", 300)
    drawn = [train_vocabulary(GERMAN, size=400, seed=seed).model for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_missing_or_damaged_file_is_named(tmp_path, vocabularies):
    path = tmp_path / "source.model"
    with pytest.raises(VocabularyError, match=r"source\.model: cannot be read: No such file"):
        Vocabulary.load(path)
    for damaged in (b"", b"no model", vocabularies["bpe"].model[:500]):
        path.write_bytes(damaged)
        with pytest.raises(
            VocabularyError, match=r"source\.model: not a SentencePiece model, or a damaged one"
        ):
            Vocabulary.load(path)


def test_half_a_character_is_refused(vocabularies):
    vocabulary = next(iter(vocabularies.values()))
    for encode in (vocabulary.split, lambda text: vocabulary.encode(["so", text])):
        with pytest.raises(VocabularyError, match="half a surrogate pair at character 1"):
            encode("a\ud800b")


# ---- a text in the place of a list -----------------------------------------------------------------


def test_a_text_is_no_list_of_texts():
    vocabulary = _spoken()
    words, labels = WordVocabulary.learn(["a b"]), Labels(["x", "y"])
    calls = [
        vocabulary.encode, vocabulary.decode, vocabulary.join, vocabulary.pieces, vocabulary.copies,
        lambda text: vocabulary.sample(text, 1), lambda text: vocabulary.decode([5], text),
        train_vocabulary, WordVocabulary.learn, Labels.learn, words.encode, labels.encode, join_words,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(Seq2attnError, match=r"^expected .*, got '12': put it in a list$"):
            call("12")


@pytest.mark.parametrize(("ids", "came"), [([[1, 2]], r"\[\[1, 2\]\]"), ([-1], "-1"), ([9999], "9999")])
def test_ids_that_do_not_exist_are_named(ids, came):
    vocabulary = _spoken()
    for call in (vocabulary.decode, vocabulary.join, vocabulary.pieces):
        with pytest.raises(
            VocabularyError, match=rf"^expected (the )?ids .*0 to {vocabulary.size - 1}, got {came}"
        ):
            call(ids)
