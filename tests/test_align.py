"""The command `align` and what is behind it: links of a parallel corpus, and the choice of a head."""

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from tiny_cli import fails, run
from torch.testing import assert_close

from seq2attn import load
from seq2attn.alignment.symmetrize import SYMMETRIZATIONS, reversed_links, symmetrized
from seq2attn.alignment.word_alignment import Gold, Link, error_rate, parse_pharaoh
from seq2attn.cli import align as command
from seq2attn.inference.generator import AlignmentHead
from seq2attn.runs.alignment_choice import candidates, choose_by_agreement, choose_by_gold
from seq2attn.runs.corpus_alignment import AGREEMENT

SOURCES = ["Tom ist nicht hier.", "", "Wo ist Tom?", "Wir haben Zeit.", "Ja."]
TARGETS = ["Tom isn't here.", "Nothing.", "Where is  Tom?", "We have time.", ""]
PAIRS = list(zip(SOURCES, TARGETS, strict=True))


@pytest.fixture(scope="module")
def runs() -> dict[str, Path]:
    """Runs that are there already: nothing is trained."""
    folder = Path(__file__).parent
    return {"lstm": folder / "model_0.3" / "run", "transformer": folder / "model_0.2" / "transformer" / "run"}


@pytest.fixture(scope="module")
def translators(runs: dict[str, Path]) -> dict[str, Any]:
    return {kind: load(folder, device="cpu") for kind, folder in runs.items()}


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    for name, texts in (("in.de", SOURCES), ("out.en", TARGETS)):
        (tmp_path / name).write_text("".join(f"{text}\n" for text in texts))
    return str(tmp_path / "in.de"), str(tmp_path / "out.en")


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_a_corpus_is_aligned_as_its_pairs_are(kind: str, translators) -> None:
    model = translators[kind]
    for chunk in (1, 2, 100):
        found = list(model.align_pairs(PAIRS, chunk=chunk))
        assert [(pair.source, pair.target) for pair in found] == PAIRS
        for pair in found:
            if not pair.source or not pair.target:
                assert not pair.links()
                continue
            alone = model.align(pair.source, pair.target)
            assert_close(pair.alignment.weights, alone.alignment, rtol=1e-4, atol=1e-5)
            assert pair.links() == alone.links()
            assert pair.log_probability == pytest.approx(alone.log_probability, abs=1e-4)


def test_words_are_those_of_the_text_whatever_the_vocabulary_makes_of_them(translators) -> None:
    """U+200B has no piece, and each Chinese letter is a word of the vocabulary, but not of the file."""
    pair = next(translators["transformer"].align_pairs([("Wo \u200b ist Tom?", "在哪里 Tom?")]))
    assert pair.alignment.weights.shape == (2, 4)
    assert {link.target for link in pair.links()} <= {0, 1}


def test_heads_of_one_pass_are_those_of_a_pass_each(translators) -> None:
    model = translators["transformer"]
    heads = candidates(model.model.decoder)
    assert len(heads) == 2 * 3 * 2 * 2  # 2 layers; 2 heads and their mean; 2 shifts; 2 methods
    together = next(model.align_pairs(PAIRS[:1], heads))
    for head, alignment in zip(heads, (together.alignment, *together.others), strict=True):
        alone = model.with_alignment(*head).align(*PAIRS[0])
        assert_close(alignment.weights, alone.alignment)
        assert ("norms" in alone.attention) == (head.method == "norms")
    assert len({str(alignment.weights) for alignment in together.others}) == len(heads) - 1


def test_the_command_writes_pharaoh_and_json(
    files: tuple[str, str], runs, tmp_path: Path, translators
) -> None:
    folder, expected = (
        str(runs["transformer"]),
        [pair.links() for pair in translators["transformer"].align_pairs(PAIRS)],
    )
    printed = run("align", folder, *files).stdout.splitlines()
    assert [parse_pharaoh(line) for line in printed] == expected
    out = tmp_path / "links"
    assert run("align", folder, *files, "-o", str(out), "--format", "json").stdout == ""
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [[Link(*link) for link in row["links"]] for row in rows] == expected
    assert [row["source"] for row in rows] == SOURCES and rows[1]["number"] == 2
    all_words = run("align", folder, *files, "--threshold", "0").stdout.splitlines()[0]
    assert len(all_words.split()) == 4 * 3
    other = run("align", folder, *files, "--layer", "-1", "--head", "1", "--shift", "1", "--method", "norms")
    model = translators["transformer"].with_alignment(-1, 1, 1, "norms")
    assert other.stdout.splitlines()[0] == model.align(*PAIRS[0]).pharaoh()


def test_both_directions_are_symmetrized(files: tuple[str, str], runs, translators) -> None:
    a, b = translators["transformer"], translators["lstm"]
    words = ["align", str(runs["transformer"]), *files, "--reverse", str(runs["lstm"])]
    turned = list(b.align_pairs([(target, source) for source, target in PAIRS]))
    for method in ("grow-diag", "union"):
        expected = [
            symmetrized(pair.links(), reversed_links(opposite.links()), method)
            for pair, opposite in zip(a.align_pairs(PAIRS), turned, strict=True)
        ]
        chosen = [] if method == "grow-diag" else ["--symmetrize", method]
        found = run(*words, *chosen).stdout.splitlines()
        assert [parse_pharaoh(line) for line in found] == expected


def test_two_directions_agree_on_links_by_their_weights(files: tuple[str, str], runs, translators) -> None:
    a, b = translators["transformer"], translators["lstm"]
    words = ["align", str(runs["transformer"]), *files, "--reverse", str(runs["lstm"])]
    for threshold in (0.02, 0.25):
        expected = []
        for pair, opposite in zip(
            a.align_pairs(PAIRS), b.align_pairs([(y, x) for x, y in PAIRS]), strict=True
        ):
            there, back = pair.alignment.weights.tolist(), opposite.alignment.weights.tolist()
            cells = [Link(i, j) for j, row in enumerate(there) for i, weight in enumerate(row)
                     if (weight * back[i][j]) ** 0.5 > threshold]  # fmt: skip
            expected.append(sorted(cells))
        chosen = [] if threshold == 0.25 else ["--threshold", str(threshold)]
        found = run(*words, "--symmetrize", "agreement", *chosen).stdout.splitlines()
        assert [parse_pharaoh(line) for line in found] == expected
    assert any(expected)


def test_gold_gives_the_error_rate(files: tuple[str, str], runs, tmp_path: Path) -> None:
    gold = tmp_path / "gold"
    gold.write_text(run("align", str(runs["lstm"]), *files).stdout)
    printed = run("align", str(runs["lstm"]), *files, "--gold", str(gold)).stdout
    assert printed.splitlines()[:3] == [
        "AER = 0.0 [0.0, 0.0]",
        "precision = 100.0 [100.0, 100.0]",
        "recall = 100.0 [100.0, 100.0]",
    ]
    both = run("align", str(runs["lstm"]), *files, "--gold", str(gold), "-o", "-", "--format", "json").stdout
    assert '"name": "AER"' in both and '"number": 5' in both


def test_the_choice_is_found_by_all_that_align(files: tuple[str, str], runs, tmp_path: Path) -> None:
    folder = str(shutil.copytree(runs["transformer"], tmp_path / "run"))
    best = AlignmentHead(1, 1, 1, "attention")
    gold = tmp_path / "gold"
    model = load(folder, device="cpu")
    links = [pair.links(0.2) for pair in model.align_pairs(PAIRS, [best])]
    gold.write_text("".join(" ".join(map(str, row)) + "\n" for row in links))
    words = ["align", folder, *files, "--threshold", "0.2"]
    printed = run(*words, "--choose", str(gold)).stdout.splitlines()
    assert printed[0] == "layer  head  attention 0  attention 1  norms 0  norms 1"
    assert len(printed) == 1 + 6 + 2
    assert "layer 1, head 1, shift 1, attention: AER = 0.0 on the 3 odd lines" in printed[-2]
    model = load(folder, device="cpu")
    assert model.alignment == best
    assert run(*words).stdout == gold.read_text()
    content = json.loads((Path(folder) / "version.json").read_text())["alignment"]
    assert (content["layer"], content["measure"], content["pairs"], len(content["gold"])) == (1, "aer", 3, 64)
    assert model.translate(SOURCES[0]).attention.startswith("layer 1 (0 to 1), head 1")


def test_the_half_that_chooses_does_not_report(translators) -> None:
    """Gold links of the even lines change only the report."""
    model, best = translators["transformer"], AlignmentHead(0, 1, 0, "attention")
    links = [frozenset(pair.links()) for pair in model.align_pairs(PAIRS, [best])]
    wrong = [row if number % 2 == 0 else frozenset({Link(9, 9)}) for number, row in enumerate(links)]
    choices = [choose_by_gold(model, PAIRS, [Gold(row, row) for row in rows]) for rows in (links, wrong)]
    assert choices[0].scores == choices[1].scores and choices[0].best == choices[1].best
    assert choices[0].scores[best] == 0 and choices[1].report.value == 100
    expected = error_rate(links[::2], [Gold(row, row) for row in links[::2]])
    assert choices[0].scores[best] == expected


def test_agreement_needs_no_gold(files: tuple[str, str], translators, runs, tmp_path: Path) -> None:
    a, b = translators["transformer"], translators["lstm"]
    forward, backward = choose_by_agreement(a, b, PAIRS)
    odd = PAIRS[::2]

    def agreement(first: AlignmentHead, second: AlignmentHead) -> float:
        ahead = [set(pair.links()) for pair in a.align_pairs(odd, [first])]
        turned = b.align_pairs([(target, source) for source, target in odd], [second])
        back = [set(reversed_links(pair.links())) for pair in turned]
        rows = list(zip(ahead, back, strict=True))
        return 100 * sum(len(x & y) for x, y in rows) / max(1, sum(len(x | y) for x, y in rows))

    pairs = {(x, y): agreement(x, y) for x in list(forward.scores)[::5] for y in backward.scores}
    assert forward.scores[forward.best] == pytest.approx(agreement(forward.best, backward.best))
    assert forward.scores[forward.best] >= max(pairs.values()) - 1e-9
    for head in list(forward.scores)[::5]:
        assert forward.scores[head] == pytest.approx(max(pairs[head, other] for other in backward.scores))
    folders = [str(shutil.copytree(runs[kind], tmp_path / kind)) for kind in ("transformer", "lstm")]
    run("align", folders[0], *files, "--reverse", folders[1], "--choose", "agreement")
    assert load(folders[0], device="cpu").alignment == forward.best
    assert load(folders[1], device="cpu").alignment == backward.best


def test_the_listed_symmetrizations_are_all() -> None:
    assert list(command.SYMMETRIZATIONS) == [*SYMMETRIZATIONS, AGREEMENT, "forward"]


def test_what_cannot_be_aligned_is_said(files: tuple[str, str], runs, tmp_path: Path) -> None:
    folder, short = str(runs["lstm"]), tmp_path / "short"
    short.write_text("Ja.\n")
    for words, message in (
        ([folder, files[0], str(short)], "the target has only 1 lines"),
        ([folder, *files, "--choose", "agreement"], "give --reverse, too"),
        ([folder, *files, "--choose", "nothing"], "no such file: nothing"),
        ([folder, *files, "--layer", "7"], "1 attention layer, number 0; got layer 7"),
        ([folder, *files, "--gold", str(short)], "got 'Ja.'"),
    ):
        assert message in fails("align", *words)[1]


@pytest.mark.parametrize("option", ["--gold", "--choose"])
def test_gold_links_beyond_the_words_are_refused_before_anything_is_written(
    files: tuple[str, str], runs, tmp_path: Path, option: str
) -> None:
    folder, gold = str(shutil.copytree(runs["lstm"], tmp_path / "run")), tmp_path / "gold"
    before = (tmp_path / "run" / "version.json").read_bytes()
    for last, fault in ((" 0?9", "the link 0-9 leads beyond"), (" 4-0", "the link 4-0 leads beyond")):
        gold.write_text(f"0-0 3-2{last}\n" + 4 * "\n")
        error = fails("align", folder, *files, option, str(gold), "--checkpoint", "none")[1]
        assert f"{gold}:1: {fault}" in error and "the source has 4 and the target 3" in error
    gold.write_text("0-0\n")
    assert "each of the 5 pairs, got 1 lines" in fails("align", folder, *files, option, str(gold))[1]
    assert (tmp_path / "run" / "version.json").read_bytes() == before


def test_texts_and_gold_links_may_be_pipes(files: tuple[str, str], runs, tmp_path: Path) -> None:
    gold = tmp_path / "gold"
    gold.write_text("0-0\n\n0-0\n0-0\n\n")
    words = ["align", str(runs["lstm"]), *files, "--gold", str(gold)]
    expected = run(*words).stdout
    for place, path in ((2, files[0]), (5, gold)):
        content, pipe = Path(path).read_bytes(), tmp_path / f"pipe{place}"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=[content], daemon=True)
        writer.start()
        assert run(*words[:place], str(pipe), *words[place + 1 :]).stdout == expected
        writer.join()


def test_pairs_that_are_too_long_have_no_links(translators) -> None:
    model = translators["lstm"].configured({"max_length": 12})
    assert not model.model.decoder.max_length  # it has no positions: nothing else limits it
    short, long = ("Tom ist hier.", "Tom"), ("Tom", "Tom is not here, " * 9)
    with pytest.warns(UserWarning, match=r"line 2 and 1 others have no links: .* and 12 in the target"):
        first, *others = model.align_pairs([short, long, ("Tom ist hier. " * 999, "Tom")])
    assert first.log_probability is not None and first.links()
    assert [other.log_probability for other in others] == [None, None]
