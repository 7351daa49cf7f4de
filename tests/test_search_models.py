"""Search with real models: scores are the model's own, and no result depends on the batch."""

import itertools

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_search import (
    REAL,
    beamed,
    forced,
    limits,
    sampled,
    search,
    ways,
)

from seq2attn.data.sources import Source
from seq2attn.inference.beam_search import beam_search
from seq2attn.inference.search import Hypothesis, Rules, greedy, sample
from seq2attn.models.seq2seq import Seq2Seq


@pytest.fixture(params=tiny.SOME, scope="module")
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return tiny.model(tiny.SOME[request.param])


@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("most", [0, 2, 9])
def test_no_beam_scores_below_greedy_search(model, beam, most):
    lengths = [7, 3, 0, 5, 1, 2]
    found = search(model, lambda *a: beam_search(*a, beam), lengths, most)
    for (best, *_), one in zip(found, search(model, greedy, lengths, most), strict=True):
        assert best.score >= one.score - 1e-4
        if best.tokens == one.tokens:
            assert best[1:] == pytest.approx(one[1:], abs=1e-4)


@ways
@pytest.mark.usefixtures("unchecked_shapes")
@settings(max_examples=10, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(0, 8), min_size=2, max_size=4), data=st.data())
def test_a_result_does_not_depend_on_the_batch(model, way, lengths, data):
    source, mask = tiny.sources(*lengths, width=9)[:2]
    rows = data.draw(
        st.permutations(range(len(lengths))).flatmap(lambda p: st.integers(1, len(p)).map(lambda n: p[:n]))
    )

    @torch.no_grad()
    def run(rows: list[int], width: int) -> list[list[Hypothesis]]:
        most = limits(*[2 + row for row in rows])
        state = model.start(Source(source[rows, :width], mask[rows, :width]))
        if way is sampled:
            return [[h] for h in sample(model.step, state, REAL, most, [7 * row for row in rows])]
        if way is beamed:
            return beam_search(model.step, state, REAL, most, 3)
        return [[h] for h in greedy(model.step, state, REAL, most)]

    together = run(rows, 9)
    for row, found in zip(rows, together, strict=True):
        (alone,) = run([row], max(lengths[row], 1))
        assert [h.tokens for h in found] == [h.tokens for h in alone]
        for one, other in zip(found, alone, strict=True):
            assert one[1:] == pytest.approx(other[1:], abs=1e-4)


@ways
@pytest.mark.parametrize(
    ("changes", "prefix"),
    [({}, []), ({"min_length": 4}, []), ({"no_repeat_ngram": 2}, []), ({"min_length": 3}, [7, 5])],
)
def test_the_score_is_the_models_own(model, way, changes, prefix):
    lengths, rules = [7, 3, 5], Rules(**{**vars(REAL), **changes})
    given = {"prefix": torch.tensor([prefix] * 3)} if prefix else {}
    found = search(model, way, lengths, 6, rules, **given)
    for (tokens, value, score, _), (expected,) in zip(
        found, forced(model, lengths, [[h] for h in found]), strict=True
    ):
        assert value == pytest.approx(expected, abs=1e-4)
        assert score == pytest.approx(value / (len(tokens) + 1), abs=1e-4)
        assert changes.get("min_length", 0) <= len(tokens) <= 6
        assert tokens[: len(prefix)] == prefix


def test_the_n_best_are_sorted_distinct_and_true_to_their_scores(model):
    lengths = [7, 3, 0]
    found = search(model, lambda *a: beam_search(*a, 5), lengths)
    for hypotheses, values in zip(found, forced(model, lengths, found), strict=True):
        assert len(hypotheses) == len({tuple(h.tokens) for h in hypotheses}) == 5
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert [h.log_probability for h in hypotheses] == pytest.approx(values, abs=1e-4)
        assert not {tiny.PAD, tiny.BOS, tiny.EOS} & set(itertools.chain(*(h.tokens for h in hypotheses)))
