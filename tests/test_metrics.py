"""Our numbers, signatures and intervals are sacreBLEU's, from its library and from its command line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sacrebleu

from seq2attn.metrics import METRICS, Score, ScoringError, bleu, chrf, score, ter

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


def test_signature_and_interval_are_those_of_the_command_line(tmp_path: Path) -> None:
    expected = command_line(tmp_path, "--confidence")
    for ours in score(HYPOTHESES, REFERENCES):
        theirs = expected[ours.name]
        assert ours.signature == theirs["signature"]
        assert ours.value == pytest.approx(theirs["score"], abs=1e-6)
        assert ours.low is not None and ours.high is not None
        assert (ours.low + ours.high) / 2 == pytest.approx(theirs["confidence_mean"], abs=1e-6)
        assert (ours.high - ours.low) / 2 == pytest.approx(theirs["confidence_var"], abs=1e-6)


def test_without_bootstrap_the_signature_is_the_plain_one(tmp_path: Path) -> None:
    expected = command_line(tmp_path)
    for ours in score(HYPOTHESES, REFERENCES, bootstrap=0):
        assert (ours.signature, ours.low, ours.high) == (expected[ours.name]["signature"], None, None)


def test_the_seed_decides_the_interval_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    one, again, other = (chrf(HYPOTHESES, REFERENCES, bootstrap=50, seed=seed) for seed in (1, 1, 2))
    assert one == again and one.low != other.low
    assert "|seed:1|" in one.signature and os.environ["SACREBLEU_SEED"] == "7"
    monkeypatch.delenv("SACREBLEU_SEED")
    chrf(HYPOTHESES, REFERENCES, bootstrap=50)
    assert "SACREBLEU_SEED" not in os.environ


def test_the_interval_holds_the_score() -> None:
    for found in score(HYPOTHESES, REFERENCES, list(METRICS), bootstrap=100):
        assert found.low is not None and found.high is not None
        assert found.low < found.value < found.high


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
            "got 1 in list 2 of 2 .*several lists, each as long",
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
