"""ROUGE is that of Lin's paper, computed here once more from its equations, and of its examples."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from random import Random

import numpy as np
import pytest
import sacrebleu

from seq2attn.metrics import METRICS, Score, ScoringError, bleu, rouge, score, transposed
from seq2attn.metrics.rouge import Variant

ROUGES = ["rouge-1", "rouge-2", "rouge-l", "rouge-lsum"]
Words = tuple[str, ...]


def f1(hits: int, said: int, wanted: int) -> float:
    return 200 * hits / (said + wanted) if hits else 0.0


def by_ngrams(said: Words, wanted: Words, n: int) -> float:
    """Section 2: n-grams in common, each as often as in both."""
    counts = [Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in (said, wanted)]
    return f1((counts[0] & counts[1]).total(), counts[0].total(), counts[1].total())


@cache
def common(said: Words, wanted: Words) -> int:
    """The length of the longest common subsequence, by its recursion."""
    if not said or not wanted:
        return 0
    if said[-1] == wanted[-1]:
        return common(said[:-1], wanted[:-1]) + 1
    return max(common(said[:-1], wanted), common(said, wanted[:-1]))


def of(said: Sequence[str], gold: Sequence[str], variant: Variant, stem: bool = False) -> float:
    return rouge(said, gold, bootstrap=0, variant=variant, stem=stem).value


@pytest.mark.parametrize("vocabulary", [["the", "cats", "running", "x"], [f"w{i}" for i in range(29)]])
def test_rouge_is_that_of_the_definition(vocabulary: list[str]) -> None:
    draw = Random(3)
    texts = [tuple(draw.choices(vocabulary, k=draw.randrange(1, 12))) for _ in range(74)]
    said, gold = texts[:37], texts[37:]
    pairs = list(zip(said, gold, strict=True))
    plain = [" ".join(words) for words in said], [" ".join(words) for words in gold]
    assert of(*plain, "1") == pytest.approx(np.mean([by_ngrams(*pair, 1) for pair in pairs]))
    assert of(*plain, "2") == pytest.approx(np.mean([by_ngrams(*pair, 2) for pair in pairs]))
    subsequences = [f1(common(*pair), *map(len, pair)) for pair in pairs]
    assert of(*plain, "L") == pytest.approx(np.mean(subsequences))
    assert of(*plain, "Lsum") == pytest.approx(np.mean(subsequences))  # of one sentence each
    assert of(*plain, "1") != of(*plain, "2") != of(*plain, "L")


def test_the_examples_of_the_paper() -> None:
    gold = ["police killed the gunman"]
    kill, killed_by = ["police kill the gunman"], ["the gunman kill police"]
    assert of(kill, gold, "2") == of(killed_by, gold, "2") == pytest.approx(100 / 3)
    assert of(kill, gold, "L") == 75.0 and of(killed_by, gold, "L") == 50.0
    assert of(["the gunman police killed"], gold, "L") == of(killed_by, gold, "L")  # one of two subsequences
    assert of(kill, gold, "L", stem=True) == 100.0
    wanted, said = ["w1 w2 w3 w4 w5"], ["w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5"]
    assert of(said, wanted, "Lsum") == pytest.approx(f1(4, 10, 5))  # w1 w2 w3 w5; section 3.2


def test_sentences_are_lines_or_end_at_stops() -> None:
    gold = ["aa bb cc dd"]
    for said, hits in (
        ("cc dd\naa bb", 4),
        ("Cc dd. Aa bb.", 4),
        ("cc dd aa bb", 2),
        ("cc dd. aa bb\n.", 4 - 2),  # what has lines is not cut at stops
    ):
        assert of([said], gold, "Lsum") == pytest.approx(f1(hits, 4, 4))
        assert of([said], gold, "L") == pytest.approx(f1(2, 4, 4))
    for wanted in ("aa bb\ncc dd", "Aa bb. Cc dd."):  # those of the reference, too
        assert of(["cc dd aa bb"], [wanted], "Lsum") == 100.0


def test_each_word_counts_once() -> None:
    """The original counts no word more often than it stands in both, against the text of the paper."""
    assert of(["a b\na b"], ["a b\na b\na b"], "Lsum") == pytest.approx(f1(4, 4, 6))


def test_of_several_references_the_best_counts_for_each_variant() -> None:
    said, first, second = ["a b c d"], ["d c b a"], ["a b x y"]
    assert of(said, first, "1") == 100.0 and of(said, second, "1") == 50.0
    assert of(said, first, "2") == 0.0 and of(said, second, "2") == pytest.approx(100 / 3)
    found = {one.name: one.value for one in score(said, [first, second], ROUGES, bootstrap=0)}
    assert found == pytest.approx({"ROUGE-1": 100.0, "ROUGE-2": 100 / 3, "ROUGE-L": 50.0, "ROUGE-Lsum": 50.0})


def test_documents_with_different_numbers_of_references() -> None:
    golds = [["a b c"], ["x y", "z a"], ["k", "a b", "l m"]]
    lists = transposed(golds)
    assert lists == [["a b c", "x y", "k"], [None, "z a", "a b"], [None, None, "l m"]]
    said = ["a b c", "z a", "l m"]
    for found in score(said, lists, [*ROUGES, "chrf", "ter", "exact", "wer"], bootstrap=50):
        assert found.value == pytest.approx(0.0 if found.name in ("TER", "WER") else 100.0)
        assert found.signature.startswith("nrefs:var|bs:50|seed:12345|")
    by_hand = np.mean(
        [max(of([one], [gold], "1") for gold in some) for one, some in zip(said, golds, strict=True)]
    )
    assert rouge(said, lists, 0, variant="1").value == by_hand
    worse = score(["a c", "z b", "m"], lists, ["wer", "exact"], bootstrap=0)
    assert [one.value for one in worse] == [100 * 3 / 6, 0.0]  # the nearest: a b c, z a, k
    assert bleu(said, lists, 0).value == sacrebleu.corpus_bleu(said, lists).score
    assert bleu(said, transposed([["a"], ["b"], ["c"]]), 0) == bleu(said, ["a", "b", "c"], 0)


def test_signature_and_interval() -> None:
    draw = Random(5)
    said, gold = ([" ".join(draw.choices("abcd", k=6)) for _ in range(41)] for _ in range(2))
    found = rouge(said, gold, bootstrap=200, seed=7, variant="Lsum")
    assert found.name == "ROUGE-Lsum" and found.signature.startswith(
        "nrefs:1|bs:200|seed:7|ci:percentile|measure:f1|refs:best|stem:porter|split:line feeds, else stops|"
    )
    each = np.array([of([one], [wanted], "Lsum") for one, wanted in zip(said, gold, strict=True)])
    generator = np.random.default_rng(7)
    means = np.sort([each[generator.integers(41, size=41)].mean() for _ in range(200)])
    assert (found.low, found.high) == pytest.approx((means[5], means[-6]))
    plain = rouge(said, gold, bootstrap=0, variant="2", stem=False)
    assert "|measure:f1|refs:best|stem:no|version:" in plain.signature and plain.low is None
    assert rouge(["a"], ["a"]).low is None


def test_a_golden_pair() -> None:
    said = ["Amanda has baked some cookies. She is bringing them to Jerry tomorrow."]
    gold = ["Amanda baked cookies and will bring Jerry some tomorrow."]
    # stemmed: 12 and 9 words, 7 in common; 'amanda bake cooki bring jerri tomorrow' in order
    expected = [f1(7, 12, 9), f1(0, 11, 8), f1(6, 12, 9), f1(6, 12, 9)]
    found: list[Score] = score(said, gold, ROUGES, bootstrap=0)
    assert [one.value for one in found] == pytest.approx(expected)


def test_empty_summaries_score_nothing() -> None:
    for name in ROUGES:
        assert METRICS[name](["", "a"], ["a", ""], bootstrap=0).value == 0.0


@pytest.mark.parametrize(
    "texts",
    [
        ["今日"],
        ["Привет как дела 2020", "Это хорошая погода"],
        ["Как скачать PDF за 5 минут", "42"],
        ["2020年に東京でIOCの総会が開かれた", "ok"],
        ["?!", "..."],
    ],
)
def test_other_scripts_are_refused(texts: list[str]) -> None:
    with pytest.raises(
        ScoringError, match=r"only words of the letters a to z, and \d+ of the \d+ .*: use chrf"
    ):
        rouge(texts, texts)


@pytest.mark.parametrize(
    "texts", [["1 2", "3 4"], ["été à Paris", "42"], ["the word привет", "is hello"], [" "]]
)
def test_texts_of_mostly_latin_letters_are_scored(texts: list[str]) -> None:
    assert rouge(texts, texts, bootstrap=0).value >= 0


def test_faults_of_references() -> None:
    with pytest.raises(ScoringError, match="expected a reference for hypothesis 2, got None in all lists"):
        rouge(["a", "b"], [["a", None], ["a", None]])
    with pytest.raises(ScoringError, match="at least 40"):
        rouge(["a", "b"], ["a", "b"], bootstrap=7)


def test_subsequences_are_enumerated_right() -> None:
    """The oracle above, against all subsequences."""
    draw = Random(1)
    for _ in range(20):
        one, other = (tuple(draw.choices("abc", k=draw.randrange(6))) for _ in range(2))
        every = [
            {part for n in range(len(words) + 1) for part in combinations(words, n)} for words in (one, other)
        ]
        assert common(one, other) == max(map(len, every[0] & every[1]))
