"""Our numbers and signatures are sacreBLEU's, from its library and from its command line; edits are those of the
definition."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

import seq2attn
from seq2attn.metrics import (
    METRICS,
    Metric,
    Score,
    ScoringError,
    bleu,
    chrf,
    defined_scores,
    edit_distances,
    edits,
    metrics_of,
    score,
    ter,
)

HYPOTHESES = [
    "The cat sat on the mat.",
    "A dog runs fast.",
    "Hello big world!",
    "It is raining.",
    "I am here.",
] * 8
REFERENCES = [
    "The cat sat on a mat.",
    "The dog runs fast.",
    "Hello wide world!",
    "It rains.",
    "I am here.",
] * 8
TAGS = {"f1", "precision", "recall", "tag-accuracy", "accuracy", "macro-f1", "top-1", "top-5"}
BOXES = {*metrics_of("boxes")}  # see test_detection_metrics.py
MASKS = {*metrics_of("masks")}  # see test_segmentation_metrics.py
GENERATED = {*metrics_of("generated images")}  # see test_generation_metrics.py
OTHER_KINDS = TAGS | BOXES | MASKS | GENERATED
OTHERS = ["A cat sat on the mat.", "A dog is running.", "Hello, world!", "It is raining.", "Here I am."] * 8


def command_line(folder: Path, *options: str) -> dict[str, dict[str, str | float]]:
    """What the program `sacrebleu` says, by the name of the metric."""
    for name, sentences in {"hypotheses": HYPOTHESES, "references": REFERENCES}.items():
        (folder / name).write_text("\n".join(sentences) + "\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "sacrebleu",
        "references",
        "-i",
        "hypotheses",
        "-m",
        "bleu",
        "chrf",
        "ter",
    ]
    printed = subprocess.run(
        [*command, "-f", "json", "-w", "6", *options], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    return {entry["name"]: entry for entry in json.loads(printed)}


def test_scores_are_those_of_sacrebleu() -> None:
    found = {s.name: s.value for s in score(HYPOTHESES, REFERENCES, ["bleu", "chrf", "chrf++", "ter"], 0)}
    assert found == {
        "BLEU": sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score,
        "chrF2": sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score,
        "chrF2++": sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES], word_order=2).score,
        "TER": sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES]).score,
    }


def test_signature_and_width_of_the_interval_are_those_of_the_command_line(tmp_path: Path) -> None:
    expected = command_line(tmp_path, "--confidence")
    for ours in score(HYPOTHESES, REFERENCES):
        theirs = expected[ours.name]
        assert ours.signature.replace("|ci:percentile", "") == theirs["signature"] != ours.signature
        assert ours.value == pytest.approx(theirs["score"], abs=1e-6)
        assert ours.low is not None and ours.high is not None
        assert (ours.high - ours.low) / 2 == pytest.approx(theirs["confidence_var"], abs=1e-6)


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
def test_the_interval_has_the_percentiles_of_the_corpora_that_sacrebleu_draws(name: str) -> None:
    generator = np.random.default_rng(5)
    (found,) = score(HYPOTHESES, [REFERENCES, OTHERS], [name], bootstrap=80, seed=5)
    corpora = [generator.integers(40, size=40) for _ in range(80)]
    values = sorted(
        METRICS[name](
            [HYPOTHESES[n] for n in rows], [[side[n] for n in rows] for side in (REFERENCES, OTHERS)], 0
        ).value
        for rows in corpora
    )
    assert (found.low, found.high) == pytest.approx((values[2], values[-3]), abs=1e-3)  # float32


@given(
    st.sampled_from([name for name in METRICS if name not in OTHER_KINDS]),
    st.lists(st.tuples(*[st.sampled_from(["a", "b c", "a b c d e", "", "x y"])] * 2), min_size=2, max_size=9),
)
@settings(deadline=None, max_examples=60)
def test_no_interval_leaves_the_range_of_its_metric(name: str, pairs: list[tuple[str, str]]) -> None:
    (found,) = score([pair[0] for pair in pairs], [pair[1] or "a" for pair in pairs], [name], bootstrap=40)
    highest = np.inf if METRICS[name].lower_is_better else 100 + 1e-3
    assert found.low is not None and found.high is not None
    assert 0 <= found.low <= found.high <= highest


def test_a_rare_success_has_no_interval_below_zero() -> None:
    (found,) = score(["right", *["wrong"] * 499], ["right"] * 500, ["exact"])
    assert found.number == "exact = 0.2 [0.0, 0.6]"


def test_without_bootstrap_the_signature_is_the_plain_one(tmp_path: Path) -> None:
    expected = command_line(tmp_path)
    for ours in score(HYPOTHESES, REFERENCES, bootstrap=0):
        assert (ours.signature, ours.low, ours.high) == (expected[ours.name]["signature"], None, None)


def test_the_seed_decides_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "7")  # for its own command line
    one, again, other = (chrf(HYPOTHESES, REFERENCES, bootstrap=50, seed=seed) for seed in (1, 1, 2))
    assert one == again and one.low != other.low and "|seed:1|" in one.signature


def test_the_interval_holds_the_score() -> None:
    names = [name for name in METRICS if name not in OTHER_KINDS]
    for found in score(HYPOTHESES, REFERENCES, names, bootstrap=100):
        assert found.low is not None and found.high is not None
        sure = found.value == 100  # every sentence has at most two errors
        assert found.low == found.value == found.high if sure else found.low < found.value < found.high


def test_nothing_is_better_than_100() -> None:
    found = bleu(
        ["A cat sat on the mat.", "It rains on the roof."],
        ["A cat sat on the mat.", "It rains on the roof."],
        bootstrap=40,
    )
    assert (found.value, found.low, found.high) == (100.0, 100.0, 100.0)


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        (["a"], [None], "expected a reference for hypothesis 1, got None$"),
        (["a", "b"], ["a", None], "expected a reference for hypothesis 2, got None$"),
        (["a", None], ["a", "b"], r"expected hypothesis 2 as a text \(str\), got None"),
        (["a"], [["b"], [3]], r"expected the reference of hypothesis 1 as a text \(str\), got 3"),
    ],
)
def test_what_is_no_text_has_its_number(hypotheses: Any, references: Any, message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        score(hypotheses, references)


def test_several_references() -> None:
    found = bleu(HYPOTHESES, [REFERENCES, OTHERS], bootstrap=0)
    assert found.value == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES, OTHERS]).score
    assert found.signature.startswith("nrefs:2|")
    assert bleu(HYPOTHESES, [REFERENCES], bootstrap=0) == bleu(HYPOTHESES, REFERENCES, bootstrap=0)


def test_one_sentence_has_no_interval() -> None:
    found = ter(["a b c"], ["a b d"], bootstrap=100)
    assert found.value == pytest.approx(100 / 3) and found.low is None and "bs:" not in found.signature


def test_nothing_right_has_an_interval_of_zeros() -> None:
    found = bleu(["", "x y"], ["a", "b"], bootstrap=100)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_chinese_is_scored_by_characters() -> None:
    plain, split = score(["我喜欢红茶。", "你好"], ["我喜欢绿茶。", "你好"], ["bleu", "bleu-zh"], bootstrap=0)
    assert plain.value < split.value and "tok:zh" in split.signature


def test_as_text_and_as_json() -> None:
    found = Score("BLEU", 34.1234, "nrefs:1|case:mixed", 33.0, 35.21)
    assert str(found) == "BLEU = 34.1 [33.0, 35.2] |nrefs:1|case:mixed|"
    assert str(Score("TER", 50.0, "nrefs:1")) == "TER = 50.0 |nrefs:1|"
    assert Score(**json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: score(["a", "b"], ["a"]), "a reference for each of 2 hypotheses, got 1"),
        (
            lambda: score(["a", "b"], [["a", "b"], ["a"]]),
            "got 1 in list 2 of 2 .*further lists, each as long",
        ),
        (lambda: score(["a"], []), "a reference for each of 1 hypotheses, got 0"),
        (lambda: score([], []), "at least one hypothesis to score, got an empty list"),
        (lambda: score("a b", ["a b"]), r"lists of sentences, got one string; give \[sentence\]"),
        (lambda: score(["a b"], "a b"), "lists of sentences, got one string"),
        (
            lambda: score(["a"], ["a"], ["blue"]),
            r"unknown metric 'blue' \(did you mean bleu\? one of bleu, bleu-zh",
        ),
        (lambda: score(["a"], ["a"], bootstrap=10), r"bootstrap is 0 .* or at least 40 .*, got 10"),
        (lambda: score(["a"], ["a"], bootstrap=-1), r"bootstrap is 0 .*, got -1"),
        (lambda: bleu(["a"], ["a"], tokenize="14a"), "unknown tokenize '14a': sacreBLEU has none, zh, 13a"),
    ],
)
def test_errors_say_what_is_wrong(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        call()


# ---- right or wrong: exact match and edits ----------------------------------------------------------


def distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Levenshtein's definition, word for word."""
    if not first or not second:
        return len(first) + len(second)
    same = distance(first[1:], second[1:]) + (first[0] != second[0])
    return min(same, distance(first[1:], second) + 1, distance(first, second[1:]) + 1)


@pytest.mark.parametrize(
    ("first", "second", "edits"),
    [
        ("k i t t e n", "s i t t i n g", 3),
        ("s a t u r d a y", "s u n d a y", 3),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("", "", 0),
        ("a b c d", "b c d a", 2),  # out at one end, in at the other
        ("x a x b", "a b", 2),
    ],
)
def test_edits_of_the_textbooks(first: str, second: str, edits: int) -> None:
    assert edit_distances([first.split()], [second.split()]).tolist() == [edits]
    assert edit_distances([second.split()], [first.split()]).tolist() == [edits]


short = st.lists(st.sampled_from("abc"), max_size=6)


@given(st.lists(st.tuples(short, short), max_size=7))
@settings(deadline=None, max_examples=60)
def test_edits_are_those_of_the_definition_whatever_stands_beside(pairs: list[tuple[list[str], ...]]) -> None:
    found = edit_distances([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    assert found.tolist() == [distance(first, second) for first, second in pairs]


def test_edits_of_more_pairs_than_are_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Random(1)
    first, second = (
        [generator.choices("abcd", k=generator.randrange(9)) for _ in range(50)] for _ in range(2)
    )
    whole = edit_distances(first, second).tolist()
    monkeypatch.setattr("seq2attn.metrics.edits.AT_ONCE", 7)
    assert edit_distances(first, second).tolist() == whole


def test_a_large_corpus_takes_a_row_of_many_pairs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Random(1)
    first, second = ([generator.choices("abcdefgh", k=40) for _ in range(4000)] for _ in range(2))
    rows, at_once = 0, edits.AT_ONCE
    concatenate = np.concatenate

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal rows
        rows += 1
        return concatenate(*arguments, **options)

    monkeypatch.setattr(np, "concatenate", counted)
    edit_distances(first, second)
    assert 0 < rows <= 40 * -(-4000 // at_once)


def test_exact_match_and_error_rates_of_a_corpus() -> None:
    said = ["a b c", "a  b", "a x c d", "", "z z z"]
    gold = ["a b c", "a b", "a b c", "b", "z"]
    found = {
        one.name: one.value for one in score(said, gold, ["exact", "g2p-wer", "wer", "per"], bootstrap=0)
    }
    # edits 0 0 2 1 2 of 3 2 3 1 1 words: over the corpus, not the mean of sentences
    assert found == {"exact": 40.0, "g2p-WER": 60.0, "WER": 50.0, "PER": 50.0}


def test_other_spaces_than_ascii_ones_are_part_of_a_word() -> None:
    """As everywhere else."""
    exact, wer = score(["a\u00a0b c"], ["a b\tc"], ["exact", "wer"], bootstrap=0)
    assert exact.value == 0 and wer.value == pytest.approx(200 / 3)


def test_word_errors_are_case_sensitive_and_may_be_above_100() -> None:
    (found,) = score(["A b c d"], ["a"], ["wer"])
    assert found.value == 400.0
    assert found.signature == f"nrefs:1|case:mixed|unit:word|version:seq2attn {seq2attn.__version__}"


def test_references_without_a_word_count_as_one() -> None:
    assert [one.value for one in score(["a b", ""], ["", ""], ["wer", "exact"], bootstrap=0)] == [200.0, 50.0]


def test_of_several_references_the_nearest_counts() -> None:
    exact, wer = score(["a b", "c d e"], [["a x", "c"], ["a b", "c d"]], ["exact", "wer"], bootstrap=0)
    assert exact.value == 50.0 and exact.signature.startswith("nrefs:2|")
    assert wer.value == 100 * 1 / 4


def test_the_interval_of_an_error_rate_is_that_of_its_bootstrap() -> None:
    said, gold = ["a b", "a", "c d e", "x"] * 10, ["a b", "b", "c d", "x"] * 10
    (found,) = score(said, gold, ["wer"], bootstrap=200, seed=7)
    edits, words = np.array([0, 1, 1, 0] * 10), np.array([2, 1, 2, 1] * 10)
    generator = np.random.default_rng(7)
    drawn = [generator.integers(40, size=40) for _ in range(200)]
    rates = np.sort([100 * edits[some].sum() / words[some].sum() for some in drawn])
    # 5 of 200 are outside at each end
    assert found.low == pytest.approx(rates[5]) and found.high == pytest.approx(rates[-6])
    assert "|bs:200|seed:7|" in found.signature
    assert found.low < found.value < found.high


def test_every_metric_knows_what_it_measures_and_which_values_are_better() -> None:
    kinds = [
        name
        for kind in (
            "texts",
            "tagged words",
            "labelled texts",
            "labelled images",
            "boxes",
            "masks",
            "generated images",
        )
        for name in metrics_of(kind)
    ]
    assert kinds == [*METRICS]
    assert {name for name in METRICS if METRICS[name].measures != "texts"} == OTHER_KINDS
    assert [name for name, metric in METRICS.items() if metric.slow] == ["ter"]
    for name, metric in (
        (name, metric) for name, metric in METRICS.items() if name not in BOXES | MASKS | GENERATED
    ):
        gold, other = (
            ("B-PER O", "B-LOC O") if name in TAGS else ("the cat sat on the mat", "the cat sat on it")
        )
        right, wrong = (metric([said], [gold], bootstrap=0) for said in (gold, other))
        assert (right.value < wrong.value) == metric.lower_is_better


def test_the_docs_name_every_metric() -> None:
    rows = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8").splitlines()
    firsts = " ".join(row.split("|")[1] for row in rows if row.startswith("| `"))
    assert set(METRICS) <= set(re.findall(r"`([^`]+)`", firsts))


def test_metrics_that_have_no_value_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """They raise UndefinedScoreError, or their value is nan; other errors are errors."""
    monkeypatch.setitem(METRICS, "nan", Metric(lambda *_: Score("nan", float("nan"), ""), "texts"))
    scores, undefined = defined_scores(["Привет"], ["Привет"], ["chrf", "rouge-1", "nan"], bootstrap=0)
    assert [*scores] == ["chrf"] and scores["chrf"].value == 100
    assert undefined["rouge-1"].startswith("rouge counts only words of the letters a to z")
    assert undefined["nan"] == "its value is nan"
    with pytest.raises(ScoringError, match="expected a reference for each of 1 hypotheses, got 2"):
        defined_scores(["a"], ["a", "b"], ["chrf"])
