"""The command `score`, as a user types it."""

import json
from pathlib import Path

import pytest
from tiny_cli import MODEL, fails, pair_files, run

import seq2attn


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    return pair_files(tmp_path)


def test_score_files(pair: tuple[str, str]) -> None:
    output = run("score", "--hypotheses", pair[1], "--references", pair[1]).stdout.splitlines()
    assert [line.partition(" = ")[0] for line in output] == ["BLEU", "chrF2", "TER"]
    assert output[0].startswith("BLEU = 100.0 [")
    both = ["--references", pair[1], "--references", pair[0]]
    report = json.loads(run("score", "--hypotheses", pair[1], *both, "--format", "json").stdout)
    assert report["signature"] is None
    assert "nrefs:2" in report["scores"][0]["signature"]


def test_score_a_run_with_one_reference_twice(pair: tuple[str, str]) -> None:
    files = ["--source", pair[0], "--references", pair[1], "--references", pair[1]]
    report = json.loads(run("score", MODEL, *files, "--format", "json").stdout)
    assert "nrefs:2" in report["scores"][0]["signature"]


def test_score_a_run(pair: tuple[str, str]) -> None:
    files = ["--source", pair[0], "--references", pair[1]]
    output = run("score", MODEL, *files, "--beam", "3", "--length-penalty", "0.5").stdout.splitlines()
    assert output[0].startswith("BLEU = 100.0")
    made = f"recipe:model|checkpoint:best|beam:3|length:simple^0.5|seed:1|seq2attn:{seq2attn.__version__}"
    assert output[3] == made
    report = json.loads(run("score", MODEL, *files, "--format", "json").stdout)
    assert [score["name"] for score in report["scores"]] == ["BLEU", "chrF2", "TER"]
    assert report["signature"].startswith("recipe:model|checkpoint:best|beam:5|")
    dev, test = (run("score", MODEL, "--data", which).stdout for which in ("dev", "test"))
    assert dev != test == run("score", MODEL).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("score", "give either a RUN, or --hypotheses and --references"),
        (
            "score MODEL --hypotheses FILE --references FILE",
            "give either a RUN, or --hypotheses and --references",
        ),
        ("score --hypotheses FILE", "--references goes with --source or --hypotheses"),
        ("score MODEL --source FILE", "--references goes with --source or --hypotheses"),
        ("score MODEL --references FILE", "--references goes with --source or --hypotheses"),
        ("score MODEL --data train", "'train' is not one of 'dev', 'test'"),
        ("score --hypotheses nowhere --references FILE", "'nowhere' does not exist"),
    ],
)
def test_score_says_how_it_is_used(pair: tuple[str, str], words: str, message: str) -> None:
    status, error = fails(*words.replace("FILE", pair[0]).replace("MODEL", MODEL).split())
    assert (status, message in error) == (2, True), error


def test_metrics_are_those_of_the_task() -> None:
    status, error = fails("score", MODEL, "--metric", "chrf", "--metric", "f1")
    expected = f"seq2attn: f1 is a metric of tagged words; {MODEL} was trained for translation: use one of bleu, bleu-zh, bleu-char"
    assert (status, error[: len(expected)]) == (1, expected)
    status, error = fails("score", MODEL, "--metric", "bleau")
    assert (status, "unknown metric 'bleau' (did you mean bleu? one of bleu, " in error) == (1, True)


def test_score_files_of_unequal_length(pair: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "short").write_text("one\n")
    status, error = fails("score", "--hypotheses", pair[1], "--references", str(tmp_path / "short"))
    expected = f"seq2attn: {pair[1]} has 3 lines and {tmp_path}/short 1: line n of one belongs to line n of the other\n"
    assert (status, error) == (1, expected)
    assert fails("score", MODEL, "--source", pair[1], "--references", str(tmp_path / "short")) == (
        1,
        expected,
    )


def test_bleu_of_texts_that_are_too_short_is_explained(tmp_path: Path, pair: tuple[str, str]) -> None:
    (tmp_path / "words").write_text("one\ntwo words\n")
    words = str(tmp_path / "words")
    result = run("score", "--hypotheses", words, "--references", words)
    assert result.stdout.startswith("BLEU = 0.0 ") and "seq2attn: note: no text has 4 words" in result.stderr
    assert not run("score", "--hypotheses", words, "--references", words, "--metric", "chrf").stderr
    assert not run("score", "--hypotheses", pair[1], "--references", pair[1]).stderr
