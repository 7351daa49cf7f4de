"""Entity scores against conlleval (its published output, and its algorithm once more) and against nervaluate."""

import json
import random

import conlleval
import numpy as np
import pytest

from seq2attn.metrics import Score, ScoringError
from seq2attn.metrics.entities import (
    Counts,
    EntityReport,
    accuracy,
    f1,
    macro_f1,
    precision,
    recall,
    report,
    tag_accuracy,
)
from seq2attn.text.tag_schemes import repair
from seq2attn.text.word_vocabulary import join_words as joined_words

GOLD = ["B-x I-x O B-y", "O O", "B-x B-x O O B-z-w I-z-w", "", "B-y I-y I-y"]
# right; spurious, as I starts one; both cut wrong, and a wrong type; nothing; the last word missed
FOUND = ["B-x I-x O B-y", "O I-x", "B-x I-x O O B-x I-x", "", "B-y I-y O"]


def corpus(seed: int, letters: str = "BI") -> tuple[list[list[str]], list[list[str]]]:
    """Gold tags that keep to bio, and guesses of any letters that are often right."""
    chance = random.Random(seed)
    tags = ["O", "O", *(f"{letter}-{kind}" for letter in letters for kind in ("x", "y", "z"))]
    golds = [chance.choices(tags, k=chance.randrange(12)) for _ in range(101)]
    guesses = [[tag if chance.random() < 0.8 else chance.choice(tags) for tag in gold] for gold in golds]
    return guesses, golds


def join_words(sentences: list[list[str]]) -> list[str]:
    return [" ".join(tags) for tags in sentences]


# ---- conlleval ---------------------------------------------------------------------------------------------


def test_the_report_is_in_the_form_of_conlleval():
    """The published output for the shared task's sample; its numbers of phrases follow from its percentages."""
    found = EntityReport(
        tokens=961,
        right=808,
        types={
            "ADJP": Counts(0, 1, 6),
            "ADVP": Counts(5, 11, 8),
            "NP": Counts(206, 317, 262),
            "PP": Counts(89, 107, 90),
            "SBAR": Counts(2, 3, 6),
            "VP": Counts(69, 100, 87),
        },
    )
    assert str(found).split("\n") == [
        "processed 961 tokens with 459 phrases; found: 539 phrases; correct: 371.",
        "accuracy:  84.08%; precision:  68.83%; recall:  80.83%; FB1:  74.35",
        "             ADJP: precision:   0.00%; recall:   0.00%; FB1:   0.00  1",
        "             ADVP: precision:  45.45%; recall:  62.50%; FB1:  52.63  11",
        "               NP: precision:  64.98%; recall:  78.63%; FB1:  71.16  317",
        "               PP: precision:  83.18%; recall:  98.89%; FB1:  90.36  107",
        "             SBAR: precision:  66.67%; recall:  33.33%; FB1:  44.44  3",
        "               VP: precision:  69.00%; recall:  79.31%; FB1:  73.80  100",
    ]


@pytest.mark.parametrize("letters", ["BI", "BIES"])
@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_conlleval_for_any_tags(seed, letters):
    guesses, golds = corpus(seed, letters)
    tokens, right, correct, guessed, gold = conlleval.evaluate(guesses, golds)
    found = report(join_words(guesses), join_words(golds))
    assert (found.tokens, found.right) == (tokens, right)
    assert found.types == {kind: Counts(correct[kind], guessed[kind], gold[kind]) for kind in "xyz"}
    assert list(found.types) == ["x", "y", "z"]
    shares = 100 * correct.total() / guessed.total(), 100 * correct.total() / gold.total()
    scores = [
        metric(join_words(guesses), join_words(golds), bootstrap=0).value for metric in (precision, recall)
    ]
    assert scores == pytest.approx(shares)
    total = f1(join_words(guesses), join_words(golds), bootstrap=0)
    assert total.value == pytest.approx(2 * shares[0] * shares[1] / sum(shares))
    assert total.value == pytest.approx(found.overall.f1)


def test_by_hand():
    found = report(FOUND, GOLD)
    assert found == EntityReport(15, 10, {"x": Counts(1, 4, 3), "y": Counts(1, 2, 2), "z-w": Counts(0, 0, 1)})
    assert found.overall == Counts(2, 6, 6) and found.accuracy == pytest.approx(100 * 10 / 15)
    assert found.types["x"].f1 == pytest.approx(200 / 7)
    scores = [metric(FOUND, GOLD, bootstrap=0).value for metric in (precision, recall, f1, tag_accuracy)]
    assert scores == pytest.approx([100 / 3, 100 / 3, 100 / 3, 200 / 3])


def test_a_type_may_have_a_space_of_its_own():
    """It is U+00A0 in data, and parts no tags; those of a file may have tabs or several spaces between."""
    gold, said = joined_words(["B-big name", "I-big name", "O"]), "B-big\u00a0name  I-big\u00a0name\tO"
    assert report([said], [gold]).types == {"big\u00a0name": Counts(1, 1, 1)}
    assert f1([said], [gold], 0).value == tag_accuracy([said], [gold], 0).value == 100


def test_as_nervaluate():
    nervaluate = pytest.importorskip("nervaluate")
    guesses, golds = ([repair(tags, "bio").tags for tags in sentences] for sentences in corpus(7))
    theirs = nervaluate.Evaluator(golds, guesses, tags=["x", "y", "z"], loader="list").evaluate()
    found = report(join_words(guesses), join_words(golds))
    for ours, strict in [
        (found.overall, theirs["overall"]["strict"]),
        *((found.types[kind], theirs["entities"][kind]["strict"]) for kind in "xyz"),
    ]:
        assert tuple(ours) == (strict.correct, strict.actual, strict.possible)
        assert (ours.precision, ours.recall, ours.f1) == pytest.approx(
            (100 * strict.precision, 100 * strict.recall, 100 * strict.f1)
        )


def test_without_any_entity_all_is_zero():
    assert report(["O O"], ["O O"]) == EntityReport(2, 2, {})
    assert str(report(["O"], ["O"])).endswith("precision:   0.00%; recall:   0.00%; FB1:   0.00")
    assert f1(["O", "O"], ["O", "O"]).value == 0 and report([""], [""]).accuracy == 0


def test_as_json():
    found = json.loads(json.dumps(report(FOUND, GOLD).to_json()))
    assert found["tokens"] == 15 and found["overall"]["correct"] == 2
    assert found["types"]["y"] == {
        "correct": 1,
        "found": 2,
        "gold": 2,
        "precision": 50,
        "recall": 50,
        "f1": 50,
    }


# ---- the interval ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [f1, precision, recall, tag_accuracy, accuracy, macro_f1])
def test_the_interval_holds_the_score_and_the_seed_decides_it(metric):
    guesses, golds = (join_words(sentences) for sentences in corpus(3))
    found, other = metric(guesses, golds, 100), metric(guesses, golds, 100, seed=1)
    assert isinstance(found, Score) and found.low is not None
    assert found.low < found.value < found.high and found == metric(guesses, golds, 100)
    assert other.value == found.value and other.low != found.low
    assert found.signature.startswith("nrefs:1|bs:100|seed:12345|ci:percentile|case:mixed|unit:")
    assert metric(guesses, golds, 0).low is None and metric(guesses[:1], golds[:1]).low is None


def test_the_interval_is_over_sentences():
    """F1 of every resampled corpus, from its own counts: not a mean of the sentences' F1."""
    guesses, golds = corpus(5)
    found = f1(join_words(guesses), join_words(golds), bootstrap=200, seed=7)
    generator, values = np.random.default_rng(7), []
    for _ in range(200):
        chosen = generator.integers(len(golds), size=len(golds))
        _, _, correct, guessed, gold = conlleval.evaluate(
            *([side[n] for n in chosen] for side in (guesses, golds))
        )
        values.append(200 * correct.total() / (guessed.total() + gold.total()))
    values.sort()
    assert (found.low, found.high) == pytest.approx((values[5], values[-6]))


# ---- labels of sentences -----------------------------------------------------------------------------------


def test_labels_of_sentences_by_hand():
    true, said = ["ham", "ham", "spam", "ham", "egg"], ["ham", "spam", "spam ", "ham", "fish"]
    assert accuracy(said, true, bootstrap=0).value == pytest.approx(60)
    expected = [2 * 2 / 5, 2 * 1 / 3, 0, 0]  # ham, spam, egg, fish
    assert macro_f1(said, true, bootstrap=0).value == pytest.approx(100 * np.mean(expected))
    assert macro_f1(true, true).value == 100


def test_names_and_signatures():
    found = {
        metric(FOUND, GOLD, 0).name: metric(FOUND, GOLD, 0).signature
        for metric in (f1, tag_accuracy, macro_f1)
    }
    assert set(found) == {"F1", "tag-accuracy", "macro-F1"}
    assert found["F1"].startswith("nrefs:1|case:mixed|unit:entity|version:seq2attn")


# ---- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: f1(["O", "O O"], ["O", "O"]),
            "a tag for each word, got 2 in hypothesis 2, 1 in its reference",
        ),
        (lambda: report(["O"], ["O O"]), "got 1 in hypothesis 1, 2 in its reference"),
        (lambda: recall(["O", "X"], ["O", "O"]), "sentence 2: tag 1 of 1 is 'X': expected one of O, B-TYPE"),
        (
            lambda: f1(["O"], [["O"], ["O"]]),
            "expected one reference of labels or tags, got 2 for hypothesis 1",
        ),
        (lambda: accuracy(["a"], ["a", "b"]), "a reference for each of 1 hypotheses, got 2"),
        (lambda: macro_f1(["a"], ["a"], bootstrap=3), "bootstrap is 0"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ScoringError, match=message):
        call()
