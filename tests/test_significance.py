"""Paired tests: sacreBLEU's numbers, exact p-values of few inputs, symmetry, seeds, every metric of a corpus."""

import itertools
import random

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.significance import PairedTest

from seq2attn.metrics import METRICS, ScoringError, metrics_of, score
from seq2attn.metrics.buckets import (
    by_length,
    copied_or_not,
    frequencies,
    kinds_by_frequency,
    word_scores,
)
from seq2attn.metrics.detection import Detections, Objects
from seq2attn.metrics.significance import Resampling, compare, joint_statistic, p_value

WORDS = ["the", "a", "cat", "dog", "sat", "on", "under", "mat", "house", "red", "blue", "and", "ran"]
FEW = Resampling(samples=100, trials=100)


def texts(count: int, seed: int) -> list[str]:
    drawn = random.Random(seed)
    return [" ".join(drawn.choices(WORDS, k=drawn.randint(4, 12))) for _ in range(count)]


def changed(references: list[str], rate: float, seed: int) -> list[str]:
    drawn = random.Random(seed)
    return [
        " ".join(word if drawn.random() > rate else drawn.choice(WORDS) for word in text.split())
        for text in references
    ]


GOLD = texts(45, 1)
SYSTEMS = [changed(GOLD, rate, seed) for seed, rate in enumerate((0.3, 0.36, 0.42))]


def compared(metric: str, outputs: list, references: object, runs: list[int], how: Resampling = FEW):
    return compare(joint_statistic(metric, outputs, references), len(outputs[0]), runs, how)


@pytest.mark.parametrize("kind", ["bs", "ar"])
@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
def test_p_values_are_those_of_sacrebleu_for_the_same_seed(name: str, kind: str) -> None:
    metric = {"bleu": BLEU(), "chrf": CHRF(), "ter": TER()}[name]
    named = [(f"{number}", system) for number, system in enumerate(SYSTEMS)]
    # 333: not a multiple of the trials that are drawn together
    _, theirs = PairedTest(named, {"it": metric}, [GOLD], kind, n_samples=333)()
    (results,) = (values for key, values in theirs.items() if key != "System")
    ours = compared(name, SYSTEMS, [GOLD], [1, 1, 1], Resampling(333, 333))
    assert [value.value for value in ours.values] == pytest.approx([result.score for result in results])
    p_values = [d.p_bootstrap if kind == "bs" else d.p_randomization for d in ours.differences]
    expected = [result.p_value for result in results[1:]]
    if (name, kind) == ("ter", "ar"):  # edits are whole numbers, so that differences are equal now and then
        assert all(ours >= theirs for ours, theirs in zip(p_values, expected, strict=True))
    else:
        assert p_values == expected and len({*p_values}) == 2


def test_intervals_are_those_of_score() -> None:
    ours = compared("chrf", SYSTEMS, GOLD, [1, 1, 1], Resampling(200, 0))
    for system, value in zip(SYSTEMS, ours.values, strict=True):
        (own,) = score(system, GOLD, ["chrf"], bootstrap=200)
        assert (value.low, value.high) == pytest.approx((own.low, own.high), abs=1e-9)
    assert ours.differences[0].p_randomization is None


def test_a_system_does_not_differ_from_itself() -> None:
    (difference,) = compared("bleu", [SYSTEMS[0]] * 2, GOLD, [1, 1]).differences
    assert difference == (0, 0, 0, 1, 1)


def test_the_order_of_systems_only_changes_signs() -> None:
    (one,) = compared("bleu", SYSTEMS[:2], GOLD, [1, 1]).differences
    (other,) = compared("bleu", SYSTEMS[1::-1], GOLD, [1, 1]).differences
    # tails of intervals are counted from both ends alike
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one[3:] == other[3:]


def test_the_randomization_test_is_exact_but_for_its_trials() -> None:
    """Equal differences count, too, or three inputs of eight would be significant."""
    gold, first, second = ["x"] * 8, ["x"] * 3 + ["y"] * 5, ["y"] * 8
    signs = itertools.product([1, -1], repeat=3)
    exact = np.mean([abs(sum(sign)) >= 3 for sign in signs])
    (difference,) = compared("exact", [first, second], gold, [1, 1], Resampling(40, 4000)).differences
    assert exact == 0.25 and difference.p_randomization == pytest.approx(exact, abs=0.03)
    assert difference.value == -37.5


def test_a_p_value_counts_the_observation() -> None:
    assert p_value(np.array([0.0, 1.0, 2.0, np.nan]), 2.0) == 2 / 4
    assert p_value(np.zeros(9), 1.0) == 1 / 10


def test_with_equal_runs_the_two_level_bootstrap_is_that_of_one() -> None:
    one = compared("bleu", SYSTEMS[:2], GOLD, [1, 1])
    repeated = [SYSTEMS[0]] * 3 + [SYSTEMS[1]] * 2
    several = compared("bleu", repeated, GOLD, [3, 2])
    assert several.values[0].deviation == 0 and several.values[0].runs == (one.values[0].value,) * 3
    assert several.values[0][:3] == pytest.approx(one.values[0][:3])
    assert several.differences[0][:4] == pytest.approx(one.differences[0][:4])
    assert several.differences[0].p_randomization is None


def test_runs_that_differ_widen_the_interval() -> None:
    """Inputs alone do not show it: every input has the same difference in a run."""
    good, poor, other = ["x"] * 20, ["y"] * 20, ["x"] * 10 + ["y"] * 10
    found = compared("exact", [good, poor, good, other, other, other], ["x"] * 20, [3, 3])
    assert found.values[0].value == pytest.approx(200 / 3)
    assert found.values[0].deviation == pytest.approx(np.std([100, 0, 100], ddof=1))
    assert found.differences[0].low < -50 and found.differences[0].high > 20


def test_fewer_than_two_inputs_have_no_tests() -> None:
    (difference,) = compared("exact", [["x"], ["y"]], ["x"], [1, 1]).differences
    assert difference == (-100, None, None, None, None)


# ---- every metric ------------------------------------------------------------------------------------------


def material(measures: str) -> tuple[list[list], object]:
    """Outputs of two systems, and references, as metrics of this kind take them."""
    if measures == "texts":
        return [SYSTEMS[0][:12], SYSTEMS[2][:12]], GOLD[:12]
    if measures == "tagged words":
        gold = ["B-PER O B-LOC", "O O", "B-LOC I-LOC"] * 4
        return [gold, ["B-PER O O", "O O", "B-LOC I-LOC", *gold[3:]]], gold
    if measures == "labelled texts":
        return [["a", "b"] * 6, ["a", "a"] * 6], ["a", "b"] * 6
    if measures == "labelled images":
        return [["a\tb", "b\tc"] * 6, ["b\tc\td", "a\tb"] * 6], ["a", "b"] * 6
    if measures == "masks":
        drawn = np.random.default_rng(1)
        return [[drawn.integers(1, 9, (2, 2)) for _ in range(12)] for _ in range(2)], ["ground", "cell"]
    sides = np.array([10.0, 50.0, 120.0])
    boxes = np.stack([np.zeros(3), np.zeros(3), sides, sides], 1)
    objects = Objects(boxes, ["x"] * 3, np.zeros(3, bool), sides**2)
    hit, miss = (Detections(boxes + shift, ["x"] * 3, np.array([0.9, 0.8, 0.7])) for shift in (0, 4))
    return [[hit] * 6, [hit, miss] * 3], [objects] * 6


SETS = ("generated images",)
CORPUS = sorted(name for name in METRICS if METRICS[name].measures not in SETS)


@pytest.mark.parametrize("name", CORPUS)
def test_every_metric_of_a_corpus_compares(name: str) -> None:
    """Its statistic on the joint corpus gives the value of each run, as scored alone."""
    outputs, references = material(METRICS[name].measures)
    if name == "ar-1":
        pytest.skip("one detection an image finds the same of both")
    few = Resampling(40, 40)
    found = compared(name, outputs, references, [1, 1], few)
    for output, value in zip(outputs, found.values, strict=True):
        (alone,) = score(output, references, [name], bootstrap=40)
        assert value[:3] == pytest.approx((alone.value, alone.low, alone.high), rel=1e-6)
    (difference,) = found.differences
    assert difference.low <= difference.value <= difference.high or name.startswith(("macro", "rouge"))
    assert 0 < difference.p_bootstrap <= 1 and 0 < difference.p_randomization <= 1


def test_metrics_of_whole_sets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(metrics_of(SETS[0])) == set(METRICS) - {*CORPUS}
    of_set = METRICS["exact"].function
    monkeypatch.setitem(
        METRICS,
        "mine",
        type(METRICS["exact"])(lambda *given: type(of_set(["a"], ["a"]))("mine", 1.0, ""), "texts"),
    )
    with pytest.raises(ScoringError, match="mine has one value for a whole set"):
        joint_statistic("mine", [["a"], ["b"]], ["a"])
    with pytest.raises(ScoringError, match="as many outputs of each run, for the same inputs; got 1, 2"):
        joint_statistic("exact", [["a"], ["b", "c"]], ["a"])


# ---- parts -------------------------------------------------------------------------------------------------


def test_parts_by_length_hold_every_input_once() -> None:
    lengths = [3, 3, 3, 3, 4, 5, 5, 9, 20, 21]
    parts = by_length(lengths, 4)
    assert [part.name for part in parts] == ["3", "4", "5-9", "20-21"]
    assert sorted(row for part in parts for row in part.rows.tolist()) == list(range(10))
    assert [part.name for part in by_length([7, 7])] == ["7"]


def test_words_are_counted_by_how_frequent_they_are() -> None:
    training = frequencies(["a a a.", "b"] * 4)
    assert training == {"a": 12, ".": 4, "b": 4}
    kinds = kinds_by_frequency(training)
    assert [kind.name for kind in kinds] == ["0", "1-9", "10-99", "100-999", "1,000 or more"]
    scores = word_scores([["a a z", "b"], ["z", "z z"]], ["a z", "b z"], None, kinds)
    assert [(found.name, found.size) for found in scores] == [("0", 2), ("1-9", 1), ("10-99", 1)]
    first, second = np.arange(2), np.arange(2, 4)
    # z: matched 1, written 1, in references 2; then matched 2, written 3
    assert [found.statistic(first) for found in scores] == pytest.approx([200 / 3, 100, 200 / 3])
    assert [found.statistic(second) for found in scores] == pytest.approx([400 / 5, 0, 0])


def test_words_of_the_source_are_copied() -> None:
    scores = word_scores([["Tom is 7", "no"]], ["Tom was 7", "yes"], ["Tom ist 7", "ja"], copied_or_not())
    assert [(found.name, found.size) for found in scores] == [("in the source", 2), ("not in the source", 2)]
    assert [found.statistic(np.arange(2)) for found in scores] == [100, 0]
