"""Words and labels by number; raw text cut into words that know where they stand."""

import itertools
import json
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seq2attn.text.word_vocabulary import (
    UNKNOWN,
    Labels,
    Word,
    WordVocabulary,
    WordVocabularyError,
    join_words,
    split_words,
    tokenize,
)

TEXTS = ["The 12 cats saw the cat", "The cats ran in 1996", "a cat"]


@given(st.text())
def test_words_stand_where_they_say(text: str) -> None:
    for words in (tokenize(text), tokenize(text, "spaces")):
        assert all(word.text == text[word.start : word.end] and word.text for word in words)
        assert all(one.end <= other.start for one, other in itertools.pairwise(words))
        left = {*range(len(text))} - {place for word in words for place in range(word.start, word.end)}
        assert all(text[place].isspace() for place in left)  # nothing is lost


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's John's, isn't it?", "It 's John 's , is n't it ?"),
        ("EU-wide talks (since 1996-08-22).", "EU-wide talks ( since 1996-08-22 ) ."),
        ("The U.S. paid $1,000.50 at 10:30...", "The U.S. paid $ 1,000.50 at 10:30 ..."),
        ("@anna see https://a.b/c?d=1 #fun anna.b@c.de", "@anna see https://a.b/c?d=1 #fun anna.b@c.de"),
        ("we’ll in the 90s, 50%", "we ’ll in the 90s , 50 %"),
        ("M. J. O'Brien's St. Paul Corp. vs. AT&T Inc.", "M. J. O'Brien 's St. Paul Corp. vs. AT&T Inc ."),
        ("S&P paid US$ 5 in U.S.-led Gaul.", "S&P paid US$ 5 in U.S.-led Gaul ."),
        ("hit .500 (+44 1) by -3, 5-4", "hit .500 ( +44 1 ) by -3 , 5-4"),
        ("1. A 12-year-old, 0.4m", "1. A 12-year-old , 0.4m"),
        ("http://x.org/a, and (www.y.com/?q=1).", "http://x.org/a , and ( www.y.com/?q=1 ) ."),
        ("Plan B. It's o'clock. I'd say 'yes'", "Plan B. It 's o'clock . I 'd say ' yes '"),
        ("Ça va, Zoë? 東京。", "Ça va , Zoë ? 東京 。"),
        (" \n", ""),
        ("cafe\u0301, e\u0301te\u0301!", "cafe\u0301 , e\u0301te\u0301 !"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902\u0964", "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902 \u0964"),
        ("\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd.", "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd ."),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 ."),
        ("ok\U0001f44d\U0001f3fd\U0001f468\u200d\U0001f469\u200d\U0001f467!", "ok \U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 !"),
        ("\u2764\ufe0f\u200d\U0001f5251\ufe0f\u20e3", "\u2764\ufe0f\u200d\U0001f525 1\ufe0f\u20e3"),
        ("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", "\U0001f1e9\U0001f1ea \U0001f1eb\U0001f1f7"),
        ("\U0001f3f4\U000e0067\U000e0062\U000e007f.", "\U0001f3f4\U000e0067\U000e0062\U000e007f ."),
    ],
)  # fmt: skip
def test_raw_text_is_cut_as_tagged_data_is(text: str, words: str) -> None:
    assert " ".join(word.text for word in tokenize(text)) == words


@given(st.text(st.sampled_from("ae1.'-n t@/:\u0301\u094d\u200d\u200c\ufe0f\U0001f3fd\U0001f44d\U0001f1e9")))
def test_no_word_begins_with_a_mark_of_the_one_before(text: str) -> None:
    for word in tokenize(text):
        alone = word.start == 0 or text[word.start - 1].isspace()
        mark = unicodedata.category(word.text[0])[0] == "M" or word.text[0] in "\u200c\u200d\U0001f3fd"
        assert alone or not mark


@given(st.text(st.sampled_from("aéñŐ1.,'-&n t@ǖ%")))
@example("1@1.é1, ñ.é@aé.é")
def test_accents_may_be_written_apart(text: str) -> None:
    apart = [word.text for word in tokenize(unicodedata.normalize("NFD", text))]
    assert apart == [unicodedata.normalize("NFD", word.text) for word in tokenize(text)]


def test_spaces_alone_cut_if_asked() -> None:
    assert tokenize("a, b.  c", "spaces") == [Word("a,", 0, 2), Word("b.", 3, 5), Word("c", 7, 8)]


@given(st.lists(st.text(min_size=1)))
def test_joined_words_come_apart_again(words: list[str]) -> None:
    assert len(split_words(join_words(words))) == len(words)
    assert join_words(split_words(join_words(words))) == join_words(words)


def test_frequent_words_have_numbers() -> None:
    word_vocabulary = WordVocabulary.learn(TEXTS, size=3)
    assert word_vocabulary.words == ["the", "cats", "cat"] and word_vocabulary.size == 5
    assert word_vocabulary.encode(["THE cat sat", ""]) == [[2, 4, UNKNOWN], []]
    assert WordVocabulary.learn(TEXTS, min_count=2, digits=False).words == ["the", "cats", "cat"]
    assert WordVocabulary.learn(TEXTS, lowercase=False).words[:3] == ["The", "cats", "cat"]


def test_digits_are_one_digit() -> None:
    word_vocabulary = WordVocabulary.learn(TEXTS)
    assert (
        word_vocabulary.encode(["12 1999"]) == word_vocabulary.encode(["34 2026"])
        and "00" in word_vocabulary.words
    )


def test_words_with_vectors_are_known_though_unseen() -> None:
    word_vocabulary = WordVocabulary.learn(TEXTS, size=1, known=["Dog", "the", "ran"])
    assert word_vocabulary.words == ["the", "dog"]  # `ran` was seen, and too rarely


def test_characters_keep_their_case() -> None:
    word_vocabulary = WordVocabulary.learn(TEXTS)
    assert word_vocabulary.spell("The") != word_vocabulary.spell("the") and word_vocabulary.spell("ü") == [
        UNKNOWN
    ]
    assert min(word_vocabulary.spell("cat")) > UNKNOWN


def test_there_must_be_words() -> None:
    with pytest.raises(WordVocabularyError, match="no words to learn from"):
        WordVocabulary.learn(["", ""])


def test_labels_are_all_that_the_scheme_has_of_the_types() -> None:
    labels = Labels.learn(["O B-PER I-PER", "O B-LOC"], "bioes")
    assert labels.names == ["O", *(f"{letter}-{type}" for type in ("LOC", "PER") for letter in "SBIE")]
    assert [labels.names[number] for number in labels.encode(["B-PER I-PER I-PER O B-LOC"])[0]] == [
        "B-PER", "I-PER", "E-PER", "O", "S-LOC",
    ]  # fmt: skip
    assert Labels.learn(["O B-PER I-PER"], "bio").names == ["O", "B-PER", "I-PER"]
    assert labels.encode(["B-WORK", ""]) == [[0], []]  # never seen in training


def test_labels_of_sentences_may_have_spaces() -> None:
    labels = Labels.learn(["very good", "bad", "bad"])
    assert labels.names == ["bad", "very good"] and labels.encode(["very good", "bad"]) == [[1], [0]]


@pytest.mark.parametrize(
    ("texts", "scheme", "message"),
    [
        (["spam", "spam"], None, "at least two labels, got spam"),
        (["O O"], "bio", "got only O"),
    ],
)
def test_there_must_be_something_to_tell_apart(texts: list[str], scheme: str, message: str) -> None:
    with pytest.raises(WordVocabularyError, match=message):
        Labels.learn(texts, scheme)  # type: ignore[arg-type]


def test_files_give_the_same_back() -> None:
    word_vocabulary, labels = WordVocabulary.learn(TEXTS), Labels.learn(["O B-PER"], "bio")
    again, other = WordVocabulary.read(word_vocabulary.content), Labels.read(labels.content)
    assert again.fingerprint == word_vocabulary.fingerprint and again.encode(TEXTS) == word_vocabulary.encode(
        TEXTS
    )
    assert again.spell("cat") == word_vocabulary.spell("cat") and other.fingerprint == labels.fingerprint
    assert other.names == labels.names and other.scheme == "bio"
    assert word_vocabulary.fingerprint != WordVocabulary.learn(TEXTS, lowercase=False).fingerprint


WORDS: dict[str, Any] = {"words": ["a"], "characters": ["a"], "lowercase": True, "digits": True}
LABELS: dict[str, Any] = {"names": ["O", "S-X"], "scheme": "bioes"}
WRONG: list[tuple[str, dict[str, Any]]] = [
    *(("words", {name: value}) for name in ("words", "characters") for value in (None, "ab", [["a"]], [5])),
    *(("words", {name: value}) for name in ("lowercase", "digits") for value in (None, 1, "true", [["a"]])),
    *(("names", {"names": value}) for value in (None, 3, [], [None], ["O", "O"], ["O", "X-X"], ["S-X", "O"])),
    *(("names", {"scheme": value}) for value in ("x", 1, ["bioes"])),
    ("words", {"zz": 1}),
    ("names", {"zz": 1}),
]


@pytest.mark.parametrize(("kind", "wrong"), WRONG, ids=str)
def test_a_file_of_wrong_types_names_the_field(kind: str, wrong: dict[str, Any]) -> None:
    read, whole = (WordVocabulary.read, WORDS) if kind == "words" else (Labels.read, LABELS)
    read(json.dumps(whole).encode())
    with pytest.raises(WordVocabularyError, match=rf"^{next(iter(wrong))}"):
        read(json.dumps({**whole, **wrong}).encode())
    with pytest.raises(WordVocabularyError, match=r"^names|^words"):  # missing
        read(b"{}")


@pytest.mark.parametrize(
    "content", [b"", b"x", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"words": ' + b"1" * 5000 + b"}"]
)
def test_a_file_that_is_no_object_is_refused(content: bytes) -> None:
    for read in (WordVocabulary.read, Labels.read):
        with pytest.raises(WordVocabularyError):
            read(content)


@given(st.text())
def test_a_word_is_looked_up_as_it_is_looked_up(word: str) -> None:
    for lowercase, digits in itertools.product((False, True), repeat=2):
        word_vocabulary = WordVocabulary([], [], lowercase, digits)
        assert word_vocabulary.key(word_vocabulary.key(word)) == word_vocabulary.key(word)


def test_words_with_accents_written_apart_are_the_same_words() -> None:
    """As macOS writes them, and hardly any file of vectors."""
    whole, apart = "Ménage Ő 1é", unicodedata.normalize("NFD", "Ménage Ő 1é")
    assert whole != apart
    word_vocabulary, other = (
        WordVocabulary.learn([whole], known=["été"]),
        WordVocabulary.learn([apart], known=["e\u0301te\u0301"]),
    )
    assert word_vocabulary.fingerprint == other.fingerprint and "été" in word_vocabulary.words
    assert word_vocabulary.encode([whole]) == word_vocabulary.encode([apart]) != [[UNKNOWN] * 3]
    for one, two in zip(split_words(whole), split_words(apart), strict=True):
        assert word_vocabulary.spell(one) == word_vocabulary.spell(
            two
        ) and UNKNOWN not in word_vocabulary.spell(two)
    assert [word.end for word in tokenize(apart)] == [7, 10, 14]  # in the text as it was given
