"""Synthetic tasks: their definition, their splits, the same pairs everywhere."""

import re
from collections import Counter

import pytest
from pydantic import ValidationError
from tiny_corpora import read, recipe

from seq2attn.data import DataError, known_alignment, prepare

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize(
    ("task", "source", "target", "order"),
    [
        ("copy", "c a b", "c a b", [0, 1, 2]),
        ("reverse", "c a b", "b a c", [2, 1, 0]),
        ("sort", "c2 a3 b1", "b c a", [2, 0, 1]),
    ],
)
def test_a_task_is_its_definition(task, source, target, order):
    assert known_alignment(task, source) == order
    assert " ".join(source.split()[place][0] for place in order) == target
    options = {"task": task, "symbols": 7, "lengths": [2, 5], "count": 300}
    found = read(options)
    assert len(found) == len({pair[0] for pair in found}) == 300
    for made, answer in found:
        words = made.split()
        assert 2 <= len(words) <= 5 and {word[0] for word in words} <= set("abcdefg")
        assert len({word[0] for word in words}) == len(words)
        if task == "sort":
            assert sorted(word[1:] for word in words) == [str(n + 1) for n in range(len(words))]
            by_key = {word[1:]: word[0] for word in words}
            assert answer.split() == [by_key[str(n + 1)] for n in range(len(words))]
        else:
            assert answer.split() == (words if task == "copy" else words[::-1])
    lengths = Counter(len(made.split()) for made, _ in found)
    assert set(lengths) == {2, 3, 4, 5} and {
        word for made, _ in found for word in made if word.isalpha()
    } == {*"abcdefg"}


def test_letters_may_come_twice():
    found = read({"task": "copy", "symbols": 2, "lengths": [6, 9], "distinct": False, "count": 200})
    assert {len(made.split()) for made, _ in found} == {6, 7, 8, 9}
    with pytest.raises(ValidationError, match="9 distinct letters of 2"):
        recipe({"task": "copy", "symbols": 2, "lengths": [6, 9]})


def test_a_task_is_the_same_everywhere_and_lies_nowhere(own_cache):
    expected = [("g f k", "k f g"), ("c k d", "d k c"), ("d h e l g b", "b g l e h d")]
    corpus = {"task": "reverse", "count": 50}
    assert read(corpus)[:3] == expected  # of every Python on every machine
    assert read(corpus | {"limit": 3}) == expected
    assert read(corpus | {"seed": 2})[:3] != expected
    assert not own_cache.exists()


def test_no_sentence_of_a_task_is_in_two_splits():
    corpus = {"task": "copy", "symbols": 5, "lengths": [3, 4], "count": 12}
    made = {
        role: {pair[0] for seed in range(20) for pair in read(corpus | {"seed": seed}, role=role)}
        for role in ("train", "dev", "test")
    }
    assert all(len(sentences) > 10 for sentences in made.values())
    assert not (made["train"] & made["dev"] or made["dev"] & made["test"] or made["train"] & made["test"])
    assert read(corpus | {"split": "dev"}) == read(corpus, role="dev")


def test_a_task_has_no_more_sentences_than_there_are():
    corpus = {"task": "copy", "symbols": 3, "lengths": [1, 3], "count": 100}
    with pytest.raises(
        DataError,
        match=r"copy: expected 100 different sentences for train, got \d+: lower count, or raise symbols or l",
    ) as error:
        read(corpus)
    assert int(re.search(r"got (\d+)", str(error.value))[1]) <= 3 + 6 + 6


def test_a_task_is_stored_by_what_it_is(vocabularies):
    def fingerprint(role="train", **options):
        corpus = {"task": "copy", "count": 20} | options
        data = recipe(corpus, dev=corpus)
        return prepare(data.train if role == "train" else [data.dev], data, vocabularies, role).fingerprint

    assert fingerprint() == fingerprint(split="train")
    variants = [fingerprint(), fingerprint("dev"), fingerprint(seed=2), fingerprint(task="reverse")]
    assert len({*variants}) == 4 and fingerprint("dev") == variants[1]
