"""Sentences to pieces and back, and the exact map from pieces to words."""

import copy
import io
import lzma
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

import seq2attn.text.vocabulary_training
from seq2attn.text.vocabulary import Tokens, Vocabulary, VocabularyError
from seq2attn.text.vocabulary_training import train_vocabulary

SAMPLE = Path(seq2attn.__file__).parent / "samples" / "tatoeba_de_en" / "dev.tsv.xz"
with lzma.open(SAMPLE, "rt", encoding="utf-8") as lines:
    GERMAN = [line.split("\t")[0] for line in lines]
OPTIONS = {
    "unigram": {},
    "bpe": {"model": "bpe"},
    "char": {"model": "char"},
    "lowercase": {"lowercase": True},
    "as it is": {"nfkc": False, "words": "spaces"},
    "as it is, lowercase": {"nfkc": False, "lowercase": True},
}
BREAKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029"
HARD = [
    "Ich  habe Hunger😀 日本語 \u200b xÄ\x00y a\nb ﬁ é",
    "GPT日3本語です, กินข้าวแล้ว",
    "e\u0301 A\u0308\u0323 \u0301",
    "\u200b",
    " \u200bfoo\u200b bar \u200b ",
    "a\u3000b\u2028c\x85d\vf",
    "👩‍👩‍👧 ﷺ ½ ´",
    "▁a▁ b▁",
]
some_text = st.text(max_size=30) | st.text("aÄß 日ーのกิ\u0301\u200b ﬁ\n▁😀", max_size=20)


def hard(test):
    for text in HARD:
        test = example(text=text)(test)
    return test


@pytest.fixture(scope="module")
def vocabularies():
    return {name: train_vocabulary(GERMAN, size=600, **options) for name, options in OPTIONS.items()}


def sentencepiece_model(**options):
    """A model that another tool trained."""
    model = io.BytesIO()
    given = {"vocab_size": 200, "hard_vocab_limit": False, "minloglevel": 2} | options
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(GERMAN), model_writer=model, **given)
    return model.getvalue()


def bare(text):
    return "".join(text.split())


# ---- ids --------------------------------------------------------------------------------------------


def test_a_trained_vocabulary_has_its_specials_first(vocabularies):
    vocabulary = vocabularies["unigram"]
    assert (vocabulary.pad, vocabulary.unk, vocabulary.bos, vocabulary.eos, vocabulary.size) == (
        0,
        1,
        2,
        3,
        600,
    )
    assert vocabulary.encode([]) == [] and vocabulary.encode(["", "  "]) == [[], []]


@pytest.mark.parametrize(
    ("specials", "appended"),
    [
        ({"pad_id": -1, "bos_id": 1, "eos_id": 2, "unk_id": 0}, ["pad"]),  # SentencePiece's own default
        ({"pad_id": -1, "bos_id": -1, "eos_id": -1, "unk_id": 0}, ["pad", "bos", "eos"]),
        ({"pad_id": 2, "bos_id": -1, "eos_id": 1, "unk_id": 3}, ["bos"]),
        ({"pad_id": 0, "bos_id": -1, "eos_id": -1, "unk_id": 1}, ["bos", "eos"]),
    ],
)
def test_a_given_model_gets_the_specials_that_it_lacks(specials, appended):
    model = sentencepiece_model(**specials)
    own = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocabulary = Vocabulary(model)
    assert [getattr(vocabulary, name) for name in appended] == list(
        range(own.get_piece_size(), own.get_piece_size() + len(appended))
    )
    assert vocabulary.size == own.get_piece_size() + len(appended)
    assert vocabulary.unk == specials["unk_id"]
    ids = vocabulary.encode([GERMAN[0]])[0]
    assert ids == own.encode(GERMAN[0])
    framed = [vocabulary.bos, *ids, vocabulary.eos, vocabulary.pad]
    assert vocabulary.decode(framed) == GERMAN[0]
    assert vocabulary.join(framed).ids == ids


@pytest.mark.parametrize("name", OPTIONS)
@hard
@settings(deadline=None, max_examples=40)
@given(text=some_text)
def test_decoding_gives_the_normalised_text_back(vocabularies, name, text):
    vocabulary = vocabularies[name]
    ids = vocabulary.encode([text])[0]
    assert vocabulary.decode(ids) == vocabulary.normalize(text)
    assert all(3 < i < vocabulary.size for i in ids)


@hard
@settings(deadline=None, max_examples=60)
@given(text=some_text)
def test_without_nfkc_only_spaces_change(vocabularies, text):
    text = text.replace("▁", "_")  # it stands for a space, but not for a run of them
    spaced = re.sub(f"[ {BREAKS}]+", " ", text).strip(" ")
    assert vocabularies["as it is"].normalize(text) == spaced
    assert vocabularies["as it is, lowercase"].normalize(text) == "".join(letter.lower() for letter in spaced)


def test_lowercase_keeps_sharp_s_and_is_in_the_file(vocabularies, tmp_path):
    for name, ligature in (("lowercase", "fi"), ("as it is, lowercase", "ﬁ")):
        vocabularies[name].save(tmp_path / "x.model")
        loaded = Vocabulary.load(tmp_path / "x.model")
        assert loaded.normalize("STRAẞE Straße Äpfel ﬁ") == f"straße straße äpfel {ligature}"
        assert loaded.fingerprint == vocabularies[name].fingerprint
        assert loaded.encode(GERMAN) == vocabularies[name].encode([text.lower() for text in GERMAN])
    assert vocabularies["lowercase"].normalize("A\u0308 Ａ ℌ") == "ä a h"
    assert vocabularies["unigram"].normalize("Straße ﬁ") == "Straße fi"


def test_without_byte_fallback_unknown_characters_are_shown():
    vocabulary = train_vocabulary(GERMAN, size=300, byte_fallback=False)
    tokens = vocabulary.split("Tom 日本 isst")
    assert vocabulary.unk in tokens.ids
    assert tokens.words == ["Tom", "日本", "isst"]
    assert vocabulary.decode(tokens.ids).split() == vocabulary.join(tokens.ids).words == ["Tom", "⁇", "isst"]


def test_a_vocabulary_can_be_sent_to_another_process(vocabularies):
    sent = copy.deepcopy(vocabularies["bpe"])  # as pickle does
    assert sent.encode(GERMAN[:9]) == vocabularies["bpe"].encode(GERMAN[:9])
    assert (sent.pad, sent.size, sent.words) == (0, 600, "auto")


# ---- words ------------------------------------------------------------------------------------------


def check(tokens):
    assert len(tokens.ids) == len(tokens.pieces) == len(tokens.word_of)
    assert list(dict.fromkeys(tokens.word_of)) == list(range(len(tokens.words)))  # all, in order
    assert tokens.word_of == sorted(tokens.word_of)


@pytest.mark.parametrize("words", ["auto", "spaces", "pieces"])
@pytest.mark.parametrize("name", ["unigram", "bpe", "as it is"])
@hard
@settings(deadline=None, max_examples=40)
@given(text=some_text)
@example(text="\xa0")
def test_words_are_the_text(vocabularies, name, words, text):
    vocabulary = Vocabulary(vocabularies[name].model, words)
    tokens = vocabulary.split(text)
    check(tokens)
    assert tokens.ids == vocabulary.encode([text])[0]
    assert bare("".join(tokens.words)) == (bare(text) if tokens.ids else "")
    if name == "as it is" and "▁" not in text:  # which stands for a space
        chunks = text.split() or [""] * bool(
            tokens.ids
        )  # pieces of white space alone are of a word without text
        assert tokens.words == chunks if words == "spaces" else len(tokens.words) >= len(chunks)


@pytest.mark.parametrize("words", ["auto", "spaces", "pieces"])
@settings(deadline=None, max_examples=60)
@given(ids=st.lists(st.integers(0, 599), max_size=20))
@example(ids=[0, 1, 2, 3])
@example(ids=[4 + 0xE6, 4 + 0x97, 20, 4 + 0xF0])  # bytes that are no character
def test_words_of_produced_ids_are_those_of_the_decoded_text(vocabularies, words, ids):
    vocabulary = Vocabulary(vocabularies["unigram"].model, words)
    tokens = vocabulary.join(ids)
    check(tokens)
    assert tokens.ids == [i for i in ids if i not in (0, 2, 3)]
    if words == "spaces":
        assert tokens.words == (vocabulary.decode(ids).split() or [""] * bool(tokens.ids))
    else:
        assert bare("".join(tokens.words)) == bare(vocabulary.decode(ids))


def test_each_piece_is_in_its_word(vocabularies):
    tokens = vocabularies["char"].split("Ich  esse Brot.")
    assert "".join(tokens.pieces) == "▁Ich▁esse▁Brot."
    assert tokens.word_of == [0] * 4 + [1] * 5 + [2] * 6
    assert tokens == vocabularies["char"].join(tokens.ids)
    spaced = vocabularies["as it is"].split("g\u3000g")  # a wide space, as its three bytes
    assert spaced.pieces == ["▁", "g", "<0xE3>", "<0x80>", "<0x80>", "g"]
    assert spaced.word_of == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Tom isst 寿司。", ["Tom", "isst", "寿", "司", "。"]),
        ("GPT日3本abc def", ["GPT", "日", "3", "本", "abc", "def"]),
        ("กินข้าว", ["กิ", "น", "ข้", "า", "ว"]),  # a mark is with its letter
        ("ລາວ ខ្មែរ", ["ລ", "າ", "ວ", "ខ្", "មែ", "រ"]),
        ("한국어 кот", ["한국어", "кот"]),  # written with spaces
    ],
)
def test_in_scripts_without_spaces_a_piece_is_a_word(vocabularies, text, words):
    vocabulary = Vocabulary(vocabularies["as it is"].model)  # every such character is its bytes
    assert vocabulary.split(text).words == words
    assert vocabulary.join(vocabulary.encode([text])[0]).words == words
    assert Vocabulary(vocabulary.model, "spaces").split(text).words == text.split()


def test_pieces_as_words(vocabularies):
    tokens = Vocabulary(vocabularies["char"].model, "pieces").split("Es ﬁel 日")
    assert tokens.words == ["E", "s", "ﬁ", "e", "l", "日"]  # a space, a ligature, a character's bytes: one


def test_what_normalisation_deletes_stays_with_the_word_before(vocabularies):
    vocabulary = vocabularies["unigram"]
    assert vocabulary.split("Tom \u200b isst").words == ["Tom \u200b", "isst"]
    assert vocabulary.split("Tom \u200bisst").words == ["Tom", "\u200bisst"]
    assert vocabulary.split("\u200b Tom").words == ["\u200b Tom"]
    assert vocabulary.split("\u200b") == vocabulary.split(" ") == Tokens([], [], [], [])


def test_a_piece_of_several_words_makes_them_one():
    model = sentencepiece_model(split_by_whitespace=False, user_defined_symbols=["guten▁Tag"])
    tokens = Vocabulary(model).split("Hallo, guten Tag Tom")
    assert tokens.words == ["Hallo,", "guten Tag", "Tom"]


def test_words_must_be_known(vocabularies):
    with pytest.raises(VocabularyError, match="unknown words 'space': expected auto, spaces or pieces"):
        Vocabulary(vocabularies["bpe"].model, "space")


# ---- sampling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unigram", "bpe"])
def test_samples_are_a_function_of_texts_and_seed(vocabularies, name):
    vocabulary, texts = vocabularies[name], GERMAN[:40]
    first = vocabulary.sample(texts, 7)
    assert vocabulary.sample(texts, 7) == first
    assert vocabulary.sample(texts, 8) != first != vocabulary.encode(texts)
    assert [vocabulary.decode(ids) for ids in first] == [vocabulary.normalize(text) for text in texts]


def test_threads_may_sample_at_once(vocabularies):
    vocabulary, texts = vocabularies["unigram"], GERMAN[:200]
    alone = [vocabulary.sample(texts, seed) for seed in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda seed: vocabulary.sample(texts, seed), range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert together == alone


def test_sampling_follows_nbest_and_alpha(vocabularies):
    unigram, bpe, text = vocabularies["unigram"], vocabularies["bpe"], GERMAN[0]
    assert unigram.sample([text], 1, nbest=1) == unigram.encode([text])
    counts = Counter(map(tuple, unigram.sample([text] * 400, 1, nbest=2, alpha=0.0)))
    assert len(counts) == 2 and min(counts.values()) > 150  # p^0: both alike
    sharp = Counter(map(tuple, unigram.sample([text] * 400, 1, nbest=2, alpha=50.0)))
    assert sharp[tuple(unigram.encode([text])[0])] > 390
    assert bpe.sample([text], 1, alpha=0.0) == bpe.encode([text])
    assert len(bpe.sample([text], 1, alpha=1.0)[0]) == len(text) + 1  # no merge at all, and a space


@pytest.mark.parametrize("model", ["char", "word"])
def test_a_vocabulary_of_characters_or_words_cannot_be_sampled(model):
    with pytest.raises(VocabularyError, match=r"text\.sampling: .* expected a unigram or bpe model"):
        train_vocabulary(GERMAN, model=model, size=600).sample(GERMAN[:2], 1)


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
    for read in (vocabulary.split, lambda text: vocabulary.encode(["so", text])):
        with pytest.raises(VocabularyError, match="half a surrogate pair at character 1"):
            read("a\ud800b")
