"""The command `compare`: files and runs, parts, seeds, formats, and what is refused."""

import json
import re
from pathlib import Path

import pytest
import torch
from tiny_cli import MODEL as OLDER
from tiny_cli import fails, run
from tiny_runs import MODEL

from seq2attn.alignment.word_alignment import WordAlignment, entropies
from seq2attn.cli.compare import PARTS
from seq2attn.inference.generator import Generator
from seq2attn.metrics import score
from seq2attn.metrics.ngrams import differing_ngrams, matched_ngrams
from seq2attn.runs import system_comparison
from seq2attn.views.comparison_page import COLORS

SOURCES = ["Wo ist Tom?", "Tom ist nicht hier.", "Ich habe keine Zeit.", "Wo ist das Buch von Tom?"] * 3
GOLD = ["Where is Tom?", "Tom isn't here.", "I have no time.", "Where is Tom's book?"] * 3
GOOD = ["Where is Tom?", "Tom is not here.", "I have no time.", "Where is the book?"] * 3
POOR = ["Where is he?", "Tom is here.", "No time.", "Where is the <book>?"] * 3
QUICK = ["--samples", "40", "--trials", "40"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    for name, texts in {"in.de": SOURCES, "gold.en": GOLD, "good.en": GOOD, "poor.en": POOR}.items():
        (tmp_path / name).write_text("\n".join(texts) + "\n", encoding="utf-8")
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def test_files_as_json(files: dict[str, str]) -> None:
    references = ["--source", files["in"], "--references", files["gold"], "--training", files["gold"]]
    words = ["compare", files["good"], files["poor"], *references, *QUICK, "--metric", "chrf", "--format"]
    report = json.loads(run(*words, "json").stdout)
    assert [system["name"] for system in report["systems"]] == ["good.en", "poor.en"]
    (chrf,) = report["metrics"]
    expected = [score(texts, GOLD, ["chrf"], 0)[0].value for texts in (GOOD, POOR)]
    assert [value["value"] for value in chrf["values"]] == pytest.approx(expected)
    (difference,) = chrf["differences"]
    assert difference["value"] == pytest.approx(expected[1] - expected[0])
    assert difference["high"] < 0 and difference["p_bootstrap"] < 0.05 > difference["p_randomization"]
    assert chrf["signature"].startswith("nrefs:1|case:mixed")
    assert sum(part["count"] for part in report["by_length"]) == 12
    assert [part["name"] for part in report["by_length"]] == ["3", "4", "6"]
    assert {part["name"] for part in report["words_by_frequency"]} == {"1-9"}
    assert [part["name"] for part in report["copied_words"]] == ["in the source", "not in the source"]
    first = report["differing"][0]
    assert first["scores"][0] > first["scores"][1] and first["outputs"] == [
        GOOD[first["row"]],
        POOR[first["row"]],
    ]
    assert len(report["differing"]) == 10 and sorted(PARTS) == sorted(system_comparison.PARTS)
    (ngrams,) = report[
        "ngrams"
    ]  # good.en has "Where is Tom?" in the place of "Where is he?", poor.en adds words
    assert ngrams["systems"] == ["good.en", "poor.en"] and "attention" not in report
    assert {"text": "Where is Tom ?", "reference": 3, "matched": [3, 0]} in ngrams["first"]


def test_text_page_and_figure(files: dict[str, str], tmp_path: Path) -> None:
    figure, page = tmp_path / "length.svg", tmp_path / "all.html"
    words = ["compare", f"A={files['good']}", f"B={files['poor']}", "--references", files["gold"], *QUICK]
    output = run(*words, "--source", files["in"], "--plot", str(figure)).stdout
    assert "\n\nn-grams that A has right more often: matches of A and of B\n  3 and 0 of 3  " in output
    assert "\n  3 and 0 of 3  Where is Tom ?\n" in output
    assert re.search(r"^BLEU \|nrefs:1\|", output, re.MULTILINE)
    assert re.search(r"^  B +\d+\.\d \[.*\]  -\d+\.\d \[.*\], p 0\.\d{4} bootstrap, ", output, re.MULTILINE)
    assert "BLEU by the length of the source in words\n3 (3 inputs)" in output
    assert "paired bootstrap (40 samples), randomization (40 trials), seed 12345" in output
    drawn = figure.read_text()
    assert "words of the source" in drawn and all(color in drawn for color in COLORS[:2])
    run(*words, "--source", files["in"], "--format", "html", "-o", str(page))
    html = page.read_text(encoding="utf-8")
    assert "<td dir='auto'>Where is Tom ?</td><td class='number'>3</td><td class='number'>0</td>" in html
    assert "&lt;<mark>book" not in html and "&lt;book&gt;" in html and "<mark>he</mark>" in html
    assert "default-src 'none'" in html and "<script" not in html and not re.search(r"(src|href)=.http", html)


def test_runs_and_files_and_seeds(files: dict[str, str]) -> None:
    """A run reads the sources, and several of one system have a mean and a standard deviation."""
    systems = [f"same={MODEL},{MODEL}", OLDER, f"file={files['good']}"]
    given = ["--source", files["in"], "--references", files["gold"], "--parts", "length", "--most", "0"]
    words = ["compare", *systems, *given, *QUICK, "--metric", "bleu", "--beam", "1", "--format", "json"]
    report = json.loads(run(*words).stdout)
    assert [len(system["runs"]) for system in report["systems"]] == [2, 1, 1]
    assert report["systems"][1]["name"] == "run"
    values = report["metrics"][0]["values"]
    assert values[0]["deviation"] == 0 and values[1]["deviation"] is None
    assert report["differing"] == [] and "copied_words" not in report
    differences = report["metrics"][0]["differences"]
    assert [difference["p_randomization"] for difference in differences] == [None, None]
    assert differences[1]["p_bootstrap"] > 0


def test_names_are_found_for_patterns(files: dict[str, str], tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / f"mine-seed{seed}").write_text("\n".join(GOOD) + "\n")
    words = ["compare", files["good"], str(tmp_path / "mine-seed*"), "--references", files["gold"]]
    report = json.loads(run(*words, "--metric", "exact", "--samples", "0", "--format", "json").stdout)
    assert [system["name"] for system in report["systems"]] == ["good.en", "mine"]
    assert report["metrics"][0]["differences"][0] == {
        "value": 0,
        "low": None,
        "high": None,
        "p_bootstrap": None,
        "p_randomization": None,
    }


def test_what_cannot_be_compared(files: dict[str, str], tmp_path: Path) -> None:
    gold = ["--references", files["gold"]]
    (tmp_path / "short").write_text("Where is Tom?\n")
    for words, message in (
        ([files["good"]], "at least two systems"),
        ([files["good"], files["poor"]], "files need references"),
        ([files["good"], str(tmp_path / "none"), *gold], "there is none"),
        ([files["good"], str(tmp_path / "short"), *gold], "12 outputs and"),
        ([files["good"], files["poor"], "--source", files["in"]], "--source needs --references"),
        ([files["good"], files["poor"], *gold, "--parts", "size"], "expected some of length, frequency"),
        ([files["good"], files["poor"], *gold, "--plot", "a.svg", *QUICK], "these inputs have no lengths"),
        ([files["good"], files["poor"], *gold, "--samples", "20"], "at least 40"),
    ):
        code, error = fails("compare", *words)
        assert code and message in error, error


def test_n_grams_that_one_of_two_has_right() -> None:
    references = ["a b c d", "a b"]
    outputs = [["a b c x", "a"], ["a b c x", "x x"], ["c d", "a b b"]]
    first, other = (
        [matched_ngrams(texts, references) for texts in of_system] for of_system in (outputs[:2], outputs[2:])
    )
    assert first[0]["a", "b"] == 1 and other[0]["b",] == 1  # as often as the reference at most
    found = differing_ngrams((first, other), references, 10)
    assert [str(one) for one in found.first] == ["1 and 0 of 1  a b c", "1.5 and 1 of 2  a"]
    assert [str(one) for one in found.other] == ["0 and 1 of 1  c d"]  # and so d, which says the same
    turned = differing_ngrams((other, first), references, 1)
    assert [one.text for one in turned.other] == ["a b c"] and turned.first[0].matched == (1, 0)


def test_the_entropy_of_weights_is_in_bits() -> None:
    weights = torch.tensor([[0.25, 0.25, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.3, 0.3, 0.3]])
    found = entropies(WordAlignment(weights, torch.tensor([0.5, 0.0, 0.0, 0.3])))
    assert found.tolist() == pytest.approx([1.5, 0, 0, 2])


def test_where_runs_look(files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run twice looks alike; the error rate of links is that of the command align."""
    (tmp_path / "links").write_text("0-0 1-1 2?2\n" * 12)
    other = Path(OLDER).parent / "transformer" / "run"
    texts = ["--source", files["in"], "--references", files["gold"]]
    options = ["--parts", "attention", "--most", "0", *QUICK, "--beam", "1", "--metric", "exact"]
    words = ["compare", f"A={MODEL}", f"B={MODEL}", f"C={other}", *texts, *options]
    words += ["--gold", str(tmp_path / "links")]
    entropy, shared, errors = json.loads(run(*words, "--format", "json").stdout)["attention"]
    values = [[value["value"] for value in part["values"]] for part in (entropy, shared, errors)]
    assert values[0][0] == values[0][1] > 0 and values[1][:2] == [100, 100] and values[2][0] == values[2][1]
    assert values[0][2] != values[0][0] and 0 <= values[1][2] < 100 and entropy["count"] == 42
    assert [part["differences"][0]["p_bootstrap"] for part in (entropy, shared, errors)] == [1, 1, 1]
    for value, path in ((values[2][0], MODEL), (values[2][2], other)):
        given = ["align", str(path), files["in"], files["gold"], "--gold", str(tmp_path / "links")]
        aligned = json.loads(run(*given, "--format", "json").stdout)["scores"][0]
        assert value == pytest.approx(aligned["value"], abs=1e-3)
    assert re.search(r"in bits \(42 words\)\n  A +\d\.\d\d \[", run(*words).stdout)
    for gold, message in (
        ("0-0\n", "for each of the 12 pairs, got 1"),
        ("0:0\n", "expected links such as"),
        ("0-0\n" * 11 + "0-9\n", "links:12: the link 0-9 leads beyond the sentence"),
    ):
        (tmp_path / "links").write_text(gold)
        with monkeypatch.context() as patch:  # nothing is computed
            patch.setattr(Generator, "decode", None)
            assert message in fails(*words)[1]
    (tmp_path / "links").write_text("0-0\n" * 12)
    assert "gold links measure attention" in fails(*words, files["good"])[1]
