"""The coverage penalty in all ways of searching."""

import math
from functools import reduce

import pytest
import tiny
import torch
from tiny_search import (
    ALL,
    BOS,
    EOS,
    LONGEST,
    REAL,
    RULES,
    Toy,
    ToyState,
    beamed,
    every_sentence,
    limits,
    search,
    ways,
)
from torch import Tensor

from seq2attn.data.sources import Source
from seq2attn.errors import Seq2attnError
from seq2attn.inference.beam_search import beam_search
from seq2attn.inference.search import Rules
from seq2attn.models.seq2seq import Seq2Seq


@pytest.fixture(params=tiny.SOME, scope="module")
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return tiny.model(tiny.SOME[request.param])


class Watched(Toy):
    """A toy whose state counts how much each of three slots has been looked at; the third is masked."""

    def cover(self, state: ToyState) -> Tensor:
        """Hash of the past, so that hypotheses differ."""
        looked = torch.stack([(state.past % 5) / 4, (state.past % 3) / 1.5, torch.ones(len(state.past))], 1)
        return looked.double()

    def penalty(self, *tokens: int) -> float:
        past = reduce(lambda past, token: self.vocabulary * past + token, tokens, BOS) % 997
        covered = [(past % 5) / 4, (past % 3) / 1.5, 1.0]
        return sum(math.log(min(max(one, 1e-6), 1.0)) for one in covered)


@pytest.mark.parametrize("beta", [0.2, 3.0])
def test_what_was_not_looked_at_costs_a_hypothesis_its_rank(beta):
    toy = Watched()
    rules = Rules(BOS, EOS, (BOS,), coverage_penalty=beta, coverage=toy.cover)
    (found,) = beam_search(toy.step, toy.start(2), rules, limits(LONGEST), ALL)
    scores = {
        s: toy.log_probability(2, *s, EOS) / (len(s) + 1) + beta * toy.penalty(*s) for s in every_sentence()
    }
    assert [tuple(h.tokens) for h in found] == sorted(scores, key=lambda s: -scores[s])
    for tokens, value, score, _ in found:
        assert value == pytest.approx(toy.log_probability(2, *tokens, EOS), abs=1e-4)  # the model's own
        assert score == pytest.approx(scores[tuple(tokens)], abs=1e-4)
    (plain,) = beam_search(toy.step, toy.start(2), RULES, limits(LONGEST), ALL)
    assert [h.tokens for h in plain] != [h.tokens for h in found]


@ways
def test_every_way_of_searching_knows_the_penalty(way):
    toy = Watched()
    for rules in (RULES, Rules(BOS, EOS, (BOS,), coverage_penalty=0.5, coverage=toy.cover)):
        for tokens, value, score, _ in way(toy.step, toy.start(0, 1, 2), rules, limits(4, 2, 3)):
            penalty = rules.coverage_penalty * toy.penalty(*tokens)
            assert score == pytest.approx(value / (len(tokens) + 1) + penalty, abs=1e-4)


def test_the_penalty_by_hand():
    rules = Rules(BOS, EOS, coverage_penalty=0.2)
    covered = torch.tensor([[0.5, 2.0, 1.0], [0.5, 0.25, 1.0], [0.0, 1.0, 1.0]])
    by_hand = [0.2 * math.log(0.5), 0.2 * math.log(0.125), 0.2 * math.log(1e-6)]  # zeros are not -inf
    assert rules.penalty(covered).tolist() == pytest.approx(by_hand)


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_penalty_is_that_of_all_weights_of_the_hypothesis(model):
    """Of the last layer, the mean of the heads; whatever else is in the batch; padding costs nothing."""
    lengths, rules = (
        [7, 3, 5],
        Rules(**{**vars(REAL), "coverage_penalty": 0.7, "coverage": model.decoder.coverage}),
    )
    if not model.decoder.attention_layers:
        with pytest.raises(Seq2attnError, match=r"a coverage penalty needs .* a decoder with attention"):
            search(model, beamed, lengths, 6, rules)
        return
    found = search(model, lambda *a: beam_search(*a, 4), lengths, 6, rules)
    source, mask = tiny.sources(*lengths)[:2]
    last = model.decoder.attention_layers - 1
    for row, hypotheses in enumerate(found):
        one, length = slice(row, row + 1), lengths[row]
        assert [h.score for h in hypotheses] == sorted([h.score for h in hypotheses], reverse=True)
        for tokens, value, score, _ in hypotheses:
            reads = torch.tensor([[tiny.BOS, *tokens]])
            with torch.no_grad():
                alone = Source(source[one, :length], mask[one, :length])
                state = model.decoder.track_coverage(model.start(alone))
                weights = model(alone, reads, [last]).weights[0, 0]
                for token in reads[0]:
                    _, state = model.step(token[None], state)
            covered = model.decoder.coverage(state)[0]
            latent = getattr(model.decoder, "latent", None)
            if latent is None or latent.kind != "posterior":
                assert covered.tolist() == pytest.approx(weights.mean(0).sum(0).tolist(), abs=1e-5)
            penalty = 0.7 * covered.clamp(max=1).log().sum().item()
            assert score == pytest.approx(value / (len(tokens) + 1) + penalty, abs=1e-3)


def test_a_transformer_must_be_told_to_count():
    model = tiny.model(tiny.SOME["transformer-pre-rotary"])
    rules = Rules(**{**vars(REAL), "coverage_penalty": 0.7, "coverage": model.decoder.coverage})
    with pytest.raises(
        Seq2attnError, match=r"steps that track coverage: .* decoder\.track_coverage\(state\)"
    ):
        beam_search(model.step, model.start(Source(*tiny.sources(7))), rules, limits(6), 3)


@pytest.mark.parametrize("normalize", ["sparsemax", "hardmax"])
def test_slots_that_were_never_looked_at_have_a_price(normalize):
    """Where weights are sparse, zeros are common: their logarithm must not be infinite."""
    looks = {"heads": 5, "score": "dot", "normalize": normalize}
    recipe = {"encoder": tiny.transformer(), "decoder": tiny.transformer(decoder=True, cross_attention=looks)}
    model = tiny.model(recipe)
    rules = Rules(**{**vars(REAL), "coverage_penalty": 0.1, "coverage": model.decoder.coverage})
    ((first, *_),) = search(model, lambda *a: beam_search(*a, 3), [13], 2, rules)
    bare = first.log_probability / (len(first.tokens) + 1)
    assert -0.1 * 13 * math.log(1e6) <= first.score - bare < 0.1 * math.log(1e-6)
