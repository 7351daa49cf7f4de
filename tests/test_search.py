"""Search against brute force on a toy, and on real models: whatever the batch, and true to its scores."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any, NamedTuple

import pytest
import tiny
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seq2attn.data.sources import Source
from seq2attn.errors import Seq2attnError
from seq2attn.inference.search import (
    IMPOSSIBLE,
    Hypothesis,
    Rules,
    _top_continuations,
    beam_search,
    greedy,
    sample,
)
from seq2attn.models.seq2seq import Seq2Seq

# ---- a toy that can be searched by brute force ----------------------------------------------------------

BOS, EOS, VOCABULARY, LONGEST = 0, 1, 5, 4
ALL = 200  # more than there are hypotheses
RULES = Rules(BOS, EOS, never=(BOS,))


class ToyState(NamedTuple):
    sentence: Tensor  # (N,)
    past: Tensor  # (N,), a number that tells what has been read


class Toy:
    """Logits that depend on the sentence and on all that has been read; counts the rows of each step."""

    def __init__(self, sentences: int = 3, seed: int = 1, vocabulary: int = VOCABULARY) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.logits = 1.5 * torch.randn(sentences, 997, vocabulary, generator=generator)
        self.vocabulary = vocabulary
        self.rows: list[int] = []

    def start(self, *sentences: int) -> ToyState:
        return ToyState(torch.tensor(sentences), torch.zeros(len(sentences), dtype=torch.long))

    def step(self, token: Tensor, state: ToyState) -> tuple[Tensor, ToyState]:
        self.rows.append(len(token))
        past = (self.vocabulary * state.past + token) % 997
        return self.logits[state.sentence, past], ToyState(state.sentence, past)

    def probabilities(self, sentence: int, *tokens: int) -> Tensor:
        """Of what follows these tokens."""
        past = reduce(lambda past, token: self.vocabulary * past + token, tokens, BOS)
        return self.logits[sentence, past % 997].softmax(-1)

    def log_probability(self, sentence: int, *tokens: int) -> float:
        each = [self.probabilities(sentence, *tokens[:n])[token] for n, token in enumerate(tokens)]
        return float(torch.stack(each).log().sum())


def repeats(tokens: list[int] | tuple[int, ...], n: int) -> bool:
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) < len(grams)


def every_sentence(rules: Rules = RULES, prefix: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """All that the rules allow."""
    free = [token for token in range(VOCABULARY) if token not in (EOS, *rules.never)]
    for length in range(rules.min_length, LONGEST + 1):
        for tokens in itertools.product(free, repeat=length):
            if tokens[: len(prefix)] == prefix and not (
                rules.no_repeat_ngram and repeats(tokens, rules.no_repeat_ngram)
            ):
                yield tokens


def limits(*most: int) -> Tensor:
    return torch.tensor(most)


@pytest.mark.parametrize(
    ("changes", "prefix"),
    [
        ({"length_normalization": "none"}, ()),
        ({"length_normalization": "simple"}, ()),
        ({"length_normalization": "simple", "length_penalty": 0.4}, ()),
        ({"length_normalization": "gnmt", "length_penalty": 0.8}, ()),
        ({"min_length": 2}, ()),
        ({"no_repeat_ngram": 1}, ()),
        ({"no_repeat_ngram": 2}, ()),
        ({"no_repeat_ngram": 3}, ()),
        ({"never": (BOS, 3)}, ()),
        ({}, (4, 2)),
        ({"min_length": 3, "no_repeat_ngram": 2}, (2,)),
    ],
)
def test_a_beam_that_holds_everything_finds_everything(changes, prefix):
    toy, rules = Toy(), Rules(**{"bos": BOS, "eos": EOS, "never": (BOS,), **changes})
    forced = torch.tensor([prefix] * 2) if prefix else None
    found = beam_search(toy.step, toy.start(2, 0), rules, limits(LONGEST, LONGEST), ALL, forced)
    for sentence, hypotheses in zip((2, 0), found, strict=True):
        expected = {s: toy.log_probability(sentence, *s, EOS) for s in every_sentence(rules, prefix)}
        assert {tuple(h.tokens): h.log_probability for h in hypotheses} == pytest.approx(expected, abs=1e-4)
        scores = {tokens: rules.score(value, len(tokens) + 1) for tokens, value in expected.items()}
        best = sorted(scores, key=lambda tokens: -scores[tokens])
        assert [tuple(h.tokens) for h in hypotheses] == best
        assert [h.score for h in hypotheses] == pytest.approx([scores[tokens] for tokens in best], abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "penalty", "score"),
    [
        ("none", 1.0, -6),
        ("simple", 1.0, -6 / 7),
        ("simple", 0.5, -6 / 7**0.5),
        ("simple", 0.0, -6),
        ("gnmt", 1.0, -3),
        ("gnmt", 0.5, -6 / 2**0.5),
        ("gnmt", 0.0, -6),
    ],
)
def test_length_is_weighed_as_the_rules_say(kind, penalty, score):
    rules = Rules(BOS, EOS, length_normalization=kind, length_penalty=penalty)
    assert rules.score(-6.0, 7) == pytest.approx(score)


@pytest.mark.parametrize("vocabulary", [VOCABULARY, 64, 150])
@pytest.mark.parametrize("seed", range(5))
def test_a_beam_is_done_when_so_many_have_ended(seed, vocabulary):
    """Step by step in plain Python."""
    toy, beam = Toy(seed=seed, vocabulary=vocabulary), 3
    toy.logits[..., EOS] += math.log(vocabulary / VOCABULARY)  # or else none of many would end early
    live, ended = [()], []
    while len(ended) < beam and live:
        grown = [
            (toy.log_probability(1, *tokens, token), (*tokens, token))
            for tokens in live
            for token in ([EOS] if len(tokens) == LONGEST else range(EOS, vocabulary))
        ]
        best = sorted(grown, reverse=True)
        ended += [(value, tokens[:-1]) for value, tokens in best[:beam] if tokens[-1] == EOS]
        live = [tokens for _, tokens in best if tokens[-1] != EOS][:beam]
    expected = sorted(ended[:beam], key=lambda pair: -RULES.score(pair[0], len(pair[1]) + 1))
    (found,) = beam_search(toy.step, toy.start(1), RULES, limits(LONGEST), beam)
    assert [tuple(h.tokens) for h in found] == [tokens for _, tokens in expected]
    beside = beam_search(toy.step, toy.start(2, 1, *[0] * 12), RULES, limits(*[LONGEST] * 14), beam)
    assert [h.tokens for h in beside[1]] == [h.tokens for h in found]


@pytest.mark.parametrize("size", [2, 5, 63, 64, 65, 150, 400])
@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("kind", ["distinct", "ties", "few that may be"])
def test_the_best_of_groups_are_the_best_of_all(kind, beam, size):
    torch.manual_seed(size)
    for begun in (True, False):
        log_p, total = torch.randn(4, beam, size), torch.randn(4, beam)
        if kind == "ties":
            log_p, total = log_p.round(), total.round()
        if kind == "few that may be":
            log_p[torch.rand_like(log_p) < 0.9] = IMPOSSIBLE
        if not begun:
            total[:, 1:] = IMPOSSIBLE
        best, origin, token = _top_continuations(log_p.clone(), total)
        sums = (log_p + total[..., None]).flatten(1)
        expected = (
            F.pad(sums, (0, 2 * beam), value=IMPOSSIBLE).sort(dim=1, descending=True).values[:, : 2 * beam]
        )
        assert torch.equal(best, expected)
        place = origin * size + token
        assert place.max() < beam * size and torch.equal(
            sums.gather(1, place)[best > IMPOSSIBLE], best[best > IMPOSSIBLE]
        )
        for row, there in zip(place, best > IMPOSSIBLE, strict=True):
            assert len(row[there].unique()) == there.sum()


def greedily(step: Any, state: Any, rules: Rules, most: Tensor, **options: Any) -> list[Hypothesis]:
    return greedy(step, state, rules, most, **options)


def beamed(step: Any, state: Any, rules: Rules, most: Tensor, **options: Any) -> list[Hypothesis]:
    return [found[0] for found in beam_search(step, state, rules, most, 3, **options)]


def sampled(step: Any, state: Any, rules: Rules, most: Tensor, **options: Any) -> list[Hypothesis]:
    return sample(step, state, rules, most, range(len(most)), **options)


ways = pytest.mark.parametrize("way", [greedily, beamed, sampled])


@ways
def test_finished_sentences_leave_the_batch(way):
    toy = Toy(sentences=7)
    found = way(toy.step, toy.start(*range(7)), RULES, limits(0, 1, 2, 3, 4, 5, 6))
    each = 3 if way is beamed else 1
    assert toy.rows[0] == 7 * each and toy.rows == sorted(toy.rows, reverse=True)
    assert len(toy.rows) <= 7 and toy.rows[-1] <= each
    if way is not beamed:
        assert toy.rows == [sum(len(h.tokens) >= n for h in found) for n in range(len(toy.rows))]


@ways
@pytest.mark.parametrize("seed", range(3))
def test_lengths_are_kept(way, seed):
    toy = Toy(sentences=3, seed=seed)
    found = way(toy.step, toy.start(0, 1, 2), Rules(BOS, EOS, (BOS,), min_length=3), limits(3, 9, 2))
    assert len(found[0].tokens) == 3 <= len(found[1].tokens) <= 9
    assert len(found[2].tokens) == 2  # the limit has the last word


@ways
@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_ngram_comes_twice(way, n):
    toy = Toy(sentences=20)
    toy.logits[..., EOS] -= 3  # long sentences
    start, most = toy.start(*range(20)), limits(*[30] * 20)
    free = way(toy.step, start, RULES, most)
    found = way(toy.step, start, Rules(BOS, EOS, (BOS,), no_repeat_ngram=n), most)
    assert any(repeats(h.tokens, n) for h in free) and not any(repeats(h.tokens, n) for h in found)
    assert max(len(h.tokens) for h in found) > n


@ways
def test_where_nothing_may_follow_the_sentence_ends(way):
    """Three tokens, each once, but at least five: what is never produced is no way out."""
    toy = Toy(sentences=2)
    rules = Rules(BOS, EOS, (BOS,), min_length=5, no_repeat_ngram=1)
    for hypothesis in way(toy.step, toy.start(0, 1), rules, limits(9, 9)):
        assert sorted(hypothesis.tokens) == [2, 3, 4]


@ways
def test_what_is_never_produced_never_comes(way):
    toy = Toy(sentences=20)
    toy.logits[..., [BOS, 3]] += 9
    found = way(toy.step, toy.start(*range(20)), Rules(BOS, EOS, (BOS, 3)), limits(*[6] * 20))
    assert set(itertools.chain(*(h.tokens for h in found))) == {2, 4}


@ways
def test_a_prefix_is_forced_and_the_rest_is_free(way):
    toy, prefix = Toy(), torch.tensor([[2, 4, 4], [3, -1, -1], [-1, -1, -1]])
    found = way(toy.step, toy.start(0, 1, 2), RULES, limits(6, 6, 6), prefix=prefix)
    assert found[0].tokens[:3] == [2, 4, 4] and found[1].tokens[0] == 3
    assert found[2] == way(toy.step, toy.start(0, 1, 2), RULES, limits(6, 6, 6))[2]


# ---- sampling -------------------------------------------------------------------------------------------


def share(probabilities: Tensor, **options: float) -> Tensor:
    """The distribution that is drawn from, in plain words."""
    p = (probabilities.log() / options.get("temperature", 1.0)).softmax(-1)
    order = p.argsort(descending=True).tolist()
    kept = order[: int(options.get("top_k", 0)) or len(order)]
    p = torch.tensor([value if token in kept else 0.0 for token, value in enumerate(p.tolist())])
    p, nucleus, mass = p / p.sum(), [], 0.0
    while mass < options.get("top_p", 1.0) and len(nucleus) < len(kept):
        nucleus.append(order[len(nucleus)])
        mass += p[nucleus[-1]].item()
    p = torch.tensor([value if token in nucleus else 0.0 for token, value in enumerate(p.tolist())])
    return p / p.sum()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 2},
        {"top_p": 0.6},
        {"top_k": 3, "top_p": 0.7},
    ],
)
def test_samples_come_as_often_as_they_should(options):
    count, toy = 3000, Toy()
    bound = 4 * (0.25 / count) ** 0.5  # four standard deviations at most
    found = sample(toy.step, toy.start(*[1] * count), RULES, limits(*[2] * count), range(count), **options)
    said = Counter(tuple([*h.tokens, EOS][:2]) for h in found)

    def expected(*tokens: int) -> Tensor:
        return share(toy.probabilities(1, *tokens).index_fill(0, torch.tensor(BOS), 0), **options)

    for first, p in enumerate(expected().tolist()):
        once = sum(n for tokens, n in said.items() if tokens[0] == first)
        assert once / count == pytest.approx(p, abs=bound) and (once > 0) == (p > 0)
        if first in (BOS, EOS):
            continue
        for second, q in enumerate(expected(first).tolist()):
            assert said[first, second] / count == pytest.approx(p * q, abs=bound)
            assert q > 0 or said[first, second] == 0


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_a_sample_without_chance_is_greedy(options):
    toy = Toy(sentences=20)
    start, most = toy.start(*range(20)), limits(*[9] * 20)
    assert sampled(toy.step, start, RULES, most, **options) == greedy(toy.step, start, RULES, most)


def test_another_seed_is_another_sample():
    toy = Toy(sentences=1)
    one, other = (
        sample(toy.step, toy.start(*[0] * 20), RULES, limits(*[9] * 20), seeds)
        for seeds in (range(20), range(20, 40))
    )
    assert one != other and len({tuple(h.tokens) for h in one}) > 5


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.0}, {"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}],
)
def test_impossible_options_of_sampling_are_refused(options):
    given = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **options}
    message = ", ".join(f"{name}={value}" for name, value in given.items())
    with pytest.raises(
        Seq2attnError, match=f"needs temperature > 0, top_k >= 0 and 0 < top_p <= 1; got {message}"
    ):
        sampled(Toy().step, Toy().start(0), RULES, limits(3), **options)


def test_a_beam_holds_something():
    with pytest.raises(Seq2attnError, match="a beam holds at least one hypothesis, got beam=0"):
        beam_search(Toy().step, Toy().start(0), RULES, limits(3), 0)


# ---- real models ----------------------------------------------------------------------------------------

REAL = Rules(tiny.BOS, tiny.EOS, never=(tiny.PAD, tiny.BOS))
Way = Callable[..., list[Hypothesis]]


@pytest.fixture(params=tiny.SOME, scope="module")
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return tiny.model(tiny.SOME[request.param])


@torch.no_grad()
def search(
    model: Seq2Seq, way: Way, lengths: list[int], most: int = 6, rules: Rules = REAL, **options: Any
) -> list[Any]:
    state = model.start(Source(*tiny.sources(*lengths)))
    if rules.coverage_penalty:
        state = model.decoder.track_coverage(state)
    return way(model.step, state, rules, limits(*[most] * len(lengths)), **options)


def test_a_beam_of_one_is_greedy(model):
    lengths = [7, 3, 0, 5, 1, 2]
    (beam,) = zip(*search(model, lambda *a: beam_search(*a, 1), lengths, 9), strict=True)
    for one, other in zip(beam, search(model, greedy, lengths, 9), strict=True):
        assert one.tokens == other.tokens and one[1:] == pytest.approx(other[1:], abs=1e-4)


@ways
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


@torch.no_grad()
def forced(model: Seq2Seq, lengths: list[int], found: list[list[Hypothesis]]) -> list[list[float]]:
    """Log-probabilities of the hypotheses by teacher forcing."""
    source, mask = tiny.sources(*lengths)[:2]
    values = []
    for row, hypotheses in enumerate(found):
        values.append([])
        for hypothesis in hypotheses:
            tokens = torch.tensor([tiny.BOS, *hypothesis.tokens, tiny.EOS])
            logits = model(Source(source[row : row + 1], mask[row : row + 1]), tokens[None, :-1]).logits
            values[-1].append(logits[0].log_softmax(-1).gather(1, tokens[1:, None]).sum().item())
    return values


@ways
@pytest.mark.parametrize(
    ("changes", "prefix"),
    [({}, []), ({"min_length": 4}, []), ({"no_repeat_ngram": 2}, []), ({"min_length": 3}, [7, 5])],
)
def test_the_score_is_the_models_own(model, way, changes, prefix):
    lengths, rules = [7, 3, 5], Rules(**{**vars(REAL), **changes})
    given = {"prefix": torch.tensor([prefix] * 3)} if prefix else {}
    found = search(model, way, lengths, 6, rules, **given)
    for (tokens, value, score), (expected,) in zip(
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


# ---- the coverage penalty -------------------------------------------------------------------------------


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
    for tokens, value, score in found:
        assert value == pytest.approx(toy.log_probability(2, *tokens, EOS), abs=1e-4)  # the model's own
        assert score == pytest.approx(scores[tuple(tokens)], abs=1e-4)
    (plain,) = beam_search(toy.step, toy.start(2), RULES, limits(LONGEST), ALL)
    assert [h.tokens for h in plain] != [h.tokens for h in found]


@ways
def test_every_way_of_searching_knows_the_penalty(way):
    toy = Watched()
    for rules in (RULES, Rules(BOS, EOS, (BOS,), coverage_penalty=0.5, coverage=toy.cover)):
        for tokens, value, score in way(toy.step, toy.start(0, 1, 2), rules, limits(4, 2, 3)):
            penalty = rules.coverage_penalty * toy.penalty(*tokens)
            assert score == pytest.approx(value / (len(tokens) + 1) + penalty, abs=1e-4)


def test_the_penalty_by_hand():
    rules = Rules(BOS, EOS, coverage_penalty=0.2)
    covered = torch.tensor([[0.5, 2.0, 1.0], [0.5, 0.25, 1.0], [0.0, 1.0, 1.0]])
    by_hand = [0.2 * math.log(0.5), 0.2 * math.log(0.125), 0.2 * math.log(1e-6)]  # zeros are not -inf
    assert rules.penalty(covered).tolist() == pytest.approx(by_hand)


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
        for tokens, value, score in hypotheses:
            reads = torch.tensor([[tiny.BOS, *tokens]])
            with torch.no_grad():
                alone = Source(source[one, :length], mask[one, :length])
                state = model.decoder.track_coverage(model.start(alone))
                weights = model(alone, reads, [last]).weights[0, 0]
                for token in reads[0]:
                    _, state = model.step(token[None], state)
            covered = model.decoder.coverage(state)[0]
            if getattr(getattr(model.decoder, "readout", None), "latent", "") != "posterior":
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
