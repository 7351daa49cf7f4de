"""IBM model 1 and the HMM: equal to a sum over all alignments, one by one; and a corpus without attention is aligned."""

import itertools
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tiny_cli import fails, run

from seq2attn.alignment.lexicon import batches
from seq2attn.alignment.statistical import (
    FARTHEST,
    P_NULL,
    UNIFORM,
    Jumps,
    StatisticalAligner,
    hmm_posteriors,
    ibm1_posteriors,
)
from seq2attn.alignment.word_alignment import AlignmentError, Link

PAIRS = [
    ("das haus", "the house"),
    ("das buch", "the book"),
    ("ein buch", "a book"),
    ("ein kleines haus", "a small house"),
    ("das", "the"),
    ("", "nothing"),
]


def slow_hmm(emissions, jumps):
    """Posteriors and expected jumps of one pair, by enumerating the alignments of all words."""
    J, width = emissions.shape
    posteriors, expected, total = np.zeros((J, width)), np.zeros_like(jumps), 0.0
    for alignment in itertools.product(range(width), repeat=J):
        probability, state, made = 1.0, 0, []  # state 0 is before the sentence
        for j, position in enumerate(alignment):  # 0 is NULL, which keeps the state
            if position == 0:
                probability *= P_NULL * emissions[j, 0]
                continue
            probability *= (1 - P_NULL) * jumps[state, position - 1] * emissions[j, position]
            made.append((state, position - 1))
            state = position
        total += probability
        for j, position in enumerate(alignment):
            posteriors[j, position] += probability
        for jump in made:
            expected[jump] += probability
    return posteriors / total, expected / total, total


def test_the_hmm_sums_over_all_alignments():
    generator = np.random.default_rng(1)
    for width, J in ((1, 1), (1, 3), (3, 2), (2, 4), (4, 3)):
        emissions, jumps = generator.random((2, J + 1, width + 1)), Jumps().matrix(width)
        mask = np.ones((2, J + 1))
        mask[0, J:] = 0  # the first of the two pairs is shorter
        posteriors, expected, log_p = hmm_posteriors(emissions, mask, jumps)
        short, long = slow_hmm(emissions[0, :J], jumps), slow_hmm(emissions[1], jumps)
        np.testing.assert_allclose(posteriors[0, :J], short[0], atol=1e-12)
        np.testing.assert_allclose(posteriors[1], long[0], atol=1e-12)
        np.testing.assert_allclose(expected, short[1] + long[1], atol=1e-12)
        assert (posteriors[0, J:] == 0).all()
        assert log_p == pytest.approx(np.log(short[2]) + np.log(long[2]))


def test_jumps_are_those_of_their_formula():
    jumps = Jumps()
    jumps.weights = np.random.default_rng(2).random(2 * FARTHEST + 1)
    c = {d: jumps.weights[d + FARTHEST] for d in range(-FARTHEST, FARTHEST + 1)}
    matrix = jumps.matrix(4)
    for state, before in enumerate(range(-1, 4)):
        total = sum(c[i - before] for i in range(4))
        expected = [UNIFORM / 4 + (1 - UNIFORM) * c[i - before] / total for i in range(4)]
        np.testing.assert_allclose(matrix[state], expected)
    counts = np.random.default_rng(3).random((5, 4))
    jumps.count(counts)
    for distance in range(-3, 5):
        cells = [counts[i - distance + 1, i] for i in range(4) if 0 <= i - distance + 1 < 5]
        assert jumps.counts[distance + FARTHEST] == pytest.approx(sum(cells))


def slow_ibm1(pairs, iterations):
    """t(target | source) by dictionaries; maximum likelihood."""
    texts = [(["NULL", *source.split()], target.split()) for source, target in pairs if source and target]
    t = {(e, f): 1.0 for source, target in texts for e in source for f in target}
    for step in range(iterations + 1):
        counts = dict.fromkeys(t, 0.0)
        for source, target in texts:
            for f in target:
                share = [
                    (P_NULL if e == "NULL" else (1 - P_NULL) / (len(source) - 1)) * t[e, f] for e in source
                ]
                for e, part in zip(source, share, strict=True):
                    counts[e, f] += part / sum(share) if step else 1 / 1e9  # first: uniform
        if not step:
            counts = dict.fromkeys(t, 1.0)
        totals: dict[str, float] = {}
        for (e, _), count in counts.items():
            totals[e] = totals.get(e, 0) + count
        t = {(e, f): count / totals[e] for (e, f), count in counts.items()}
    return t


def table(aligner):
    sources = {0: "NULL"} | {number: word for word, number in aligner.source.numbers.items()}
    targets = {number: word for word, number in aligner.target.numbers.items()}
    lexicon = aligner.lexicon
    return {
        (sources[key // lexicon.num_targets], targets[key % lexicon.num_targets]): p
        for key, p in zip(lexicon.keys.tolist(), lexicon.probabilities.tolist(), strict=True)
    }


@pytest.mark.parametrize("iterations", [1, 4])
def test_ibm1_is_that_of_a_slow_program(iterations):
    found = table(StatisticalAligner("ibm1", iterations, prior=0).train(PAIRS))
    expected = slow_ibm1(PAIRS, iterations)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=1e-12)


def test_each_iteration_makes_the_corpus_more_probable():
    """Without a prior, expectation maximization climbs (Dempster et al. 1977)."""
    likelihoods = []
    for iterations in range(1, 7):
        t = table(StatisticalAligner("ibm1", iterations, prior=0).train(PAIRS))
        total = 0.0
        for source, target in PAIRS[:-1]:
            for f in target.split():
                words = source.split()
                mean = sum(t[e, f] for e in words) / len(words)
                total += math.log(P_NULL * t["NULL", f] + (1 - P_NULL) * mean)
        likelihoods.append(total)
    assert likelihoods == sorted(likelihoods)


def test_batches_have_each_pair_once_and_are_bounded():
    generator = np.random.default_rng(4)
    sources, targets = ([np.arange(n) for n in generator.integers(0, 7, 60)] for _ in range(2))
    rows = []
    for batch in batches(sources, targets, cells=50):
        rows += batch.rows
        assert len(batch.rows) == 1 or batch.target.size * (batch.source.shape[1] + 1) <= 50
        for line, row in enumerate(batch.rows):
            assert batch.source[line].tolist() == sources[row].tolist()
            assert batch.target[line][batch.mask[line]].tolist() == targets[row].tolist()
    assert sorted(rows) == [row for row in range(60) if len(sources[row]) and len(targets[row])]


def test_a_result_does_not_depend_on_the_size_of_batches(monkeypatch):
    whole = table(StatisticalAligner("hmm", 3).train(PAIRS))
    monkeypatch.setattr("seq2attn.alignment.lexicon.batches.__defaults__", (7,))
    assert table(StatisticalAligner("hmm", 3).train(PAIRS)) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("kind", ["ibm1", "hmm"])
def test_words_find_their_translations(kind):
    aligner = StatisticalAligner(kind).train(PAIRS * 3)
    (pair, blank, new) = aligner.align_pairs(
        [("ein kleines haus", "a small house"), ("", "a"), ("das neue", "the x")]
    )
    assert pair.links() == [Link(0, 0), Link(1, 1), Link(2, 2)]
    sums = pair.alignment.weights.sum(1) + pair.alignment.end_of_sentence
    assert sums.tolist() == pytest.approx([1, 1, 1])
    assert blank.links() == [] and Link(0, 0) in new.links()


def test_ibm1_posteriors_by_hand():
    emissions = np.array([[[0.5, 0.25, 0.5]]])
    posteriors, log_p = ibm1_posteriors(emissions, np.ones((1, 1)))
    found = posteriors[0, 0]
    shares = np.array([P_NULL * 0.5, (1 - P_NULL) / 2 * 0.25, (1 - P_NULL) / 2 * 0.5])
    np.testing.assert_allclose(found, shares / shares.sum())
    assert log_p == pytest.approx(np.log(shares.sum()))


@pytest.mark.parametrize("kind", ["ibm1", "hmm"])
def test_each_iteration_says_how_likely_the_corpus_is(kind):
    said = []
    StatisticalAligner(kind, 3, prior=0.0).train(PAIRS * 3, said.append)
    assert [line.split(":")[0] for line in said[-3:]] == [f"{kind}, iteration {n} of 3" for n in (1, 2, 3)]
    numbers = [float(line.split(": perplexity ")[1].split()[0]) for line in said]
    rising = [now > before for before, now in pairwise(numbers[:3])]  # expectation maximization never does
    assert not any(rising) and numbers[0] > numbers[-1] >= 1


def test_the_command_learns_from_the_files_themselves(tmp_path: Path) -> None:
    files = [tmp_path / "in.de", tmp_path / "out.en"]
    for file, texts in zip(files, zip(*PAIRS, strict=True), strict=True):
        file.write_text("".join(f"{text}\n" for text in texts))
    gold = tmp_path / "gold"
    gold.write_text("0-0 1-1\n0-0 1-1\n0-0 1-1\n0-0 1-1 2-2\n0-0\n\n")
    words = ["align", "--with", "hmm", *map(str, files)]
    assert run(*words).stdout == gold.read_text()
    assert "AER = 0.0 " in run(*words, "--gold", str(gold)).stdout
    more = run(
        "align",
        "--with",
        "ibm1",
        *map(str, files),
        "--learn",
        *map(str, files),
        "--format",
        "json",
        "--symmetrize",
        "forward",
    )
    rows = [json.loads(line) for line in more.stdout.splitlines()]
    assert [row["source"] for row in rows] == [source for source, _ in PAIRS]
    assert rows[3]["links"] == [[0, 0], [1, 1], [2, 2]] and "log_probability" not in rows[3]
    for wrong, message in (
        ([*words[:3], str(files[0])], "got 1 arguments"),
        ([*words, "--head", "1"], "leave out --head"),
        ([*words[:4], str(tmp_path / "none")], "there is no file"),
    ):
        assert message in fails(*wrong)[1]


def test_what_cannot_be_learnt_is_said():
    with pytest.raises(AlignmentError, match="none with words on both sides"):
        StatisticalAligner().train([("", "a")])
    with pytest.raises(AlignmentError, match="call train first"):
        list(StatisticalAligner().align_pairs([("a", "b")]))
    with pytest.raises(AlignmentError, match="ibm1 or hmm, got 'ibm4'"):
        StatisticalAligner("ibm4")  # type: ignore[arg-type]
    with pytest.raises(AlignmentError, match="at least 1 iteration"):
        StatisticalAligner(iterations=0)
