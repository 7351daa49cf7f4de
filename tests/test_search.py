"""Search against brute force on a toy, and on real models: whatever the batch, and true to its scores."""

import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_search import (
    ALL,
    BOS,
    EOS,
    LONGEST,
    RULES,
    VOCABULARY,
    Toy,
    beamed,
    every_sentence,
    limits,
    repeats,
    ways,
)

from seq2attn.inference.beam_search import _top_continuations, beam_search
from seq2attn.inference.search import IMPOSSIBLE, Rules, greedy


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


BEAMS = [1, 2, 3, 5, 20]
LENGTHS = [("none", 1.0), ("simple", 1.0), ("simple", 0.4), ("gnmt", 0.8)]


def by_hand(toy: Toy, sentence: int, rules: Rules, longest: int, beam: int, nbest: int) -> list[Any]:
    """The n-best list of a beam search, step by step in plain Python."""

    def grown(live: list[Any]) -> list[Any]:
        return sorted(
            (
                (toy.log_probability(sentence, *tokens, token), (*tokens, token))
                for tokens in live
                for token in ([EOS] if len(tokens) == longest else range(EOS, toy.vocabulary))
            ),
            reverse=True,
        )

    def of_score(value: float, tokens: tuple[int, ...]) -> Any:
        return rules.score(value, len(tokens)), tokens[:-1]

    best = grown([()])[0]
    while best[1][-1] != EOS:
        best = grown([best[1]])[0]
    kept, live = {of_score(*best)}, [()]
    while live:
        continued = grown(live)
        kept |= {of_score(*pair) for pair in continued[:beam] if pair[1][-1] == EOS}
        kept = {*sorted(kept, reverse=True)[:nbest]}
        alive = [pair for pair in continued if pair[1][-1] != EOS][:beam]
        live = [tokens for _, tokens in alive]
        reachable = [
            rules.score(value, length)
            for value, tokens in alive
            for length in range(len(tokens) + 1, longest + 2)
        ]
        if len(kept) == nbest and max(reachable, default=-math.inf) <= min(kept)[0]:
            break
    return [tokens for _, tokens in sorted(kept, reverse=True)]


@pytest.mark.parametrize("vocabulary", [VOCABULARY, 64, 150])
@pytest.mark.parametrize(("kind", "penalty"), LENGTHS)
@pytest.mark.parametrize(("beam", "nbest"), [(1, 1), (2, 1), (3, 3), (4, 2)])
def test_a_beam_is_done_when_none_can_enter_the_nbest(vocabulary, kind, penalty, beam, nbest):
    rules = Rules(BOS, EOS, (BOS,), length_normalization=kind, length_penalty=penalty)
    for seed in range(3):
        toy = Toy(seed=seed, vocabulary=vocabulary)
        toy.logits[..., EOS] += math.log(vocabulary / VOCABULARY)  # or else none of many would end early
        (found,) = beam_search(toy.step, toy.start(1), rules, limits(LONGEST), beam, nbest=nbest)
        assert [tuple(h.tokens) for h in found] == by_hand(toy, 1, rules, LONGEST, beam, nbest)
        most = limits(*[LONGEST] * 14)
        beside = beam_search(toy.step, toy.start(2, 1, *[0] * 12), rules, most, beam, nbest=nbest)
        assert [h.tokens for h in beside[1]] == [h.tokens for h in found]


@pytest.mark.parametrize(("kind", "penalty"), LENGTHS)
def test_a_beam_is_never_below_greedy_search(kind, penalty):
    rules = Rules(BOS, EOS, (BOS,), length_normalization=kind, length_penalty=penalty)
    above: Counter[int] = Counter()
    for bonus in (-3, 0, 2):  # long, middling and short targets
        toy = Toy(sentences=60, vocabulary=9)
        toy.logits[..., EOS] += bonus
        start, most = toy.start(*range(60)), limits(*range(60))
        greedily = greedy(toy.step, start, rules, most)
        for beam in BEAMS:
            found = beam_search(toy.step, start, rules, most, beam, nbest=1)
            for (best,), one in zip(found, greedily, strict=True):
                assert best.score >= one.score - 1e-5, beam
                above[beam] += best.score > one.score + 1e-5
    assert all(above[beam] > 0 for beam in BEAMS if beam > 1)


@pytest.mark.parametrize("beam", [3, 6])
def test_a_shorter_nbest_list_begins_a_longer_one(beam):
    toy = Toy(sentences=40, vocabulary=9)
    start, most = toy.start(*range(40)), limits(*[12] * 40)
    whole = beam_search(toy.step, start, RULES, most, beam)
    rows = sum(toy.rows)
    for nbest in range(1, beam):
        toy.rows.clear()
        short = beam_search(toy.step, start, RULES, most, beam, nbest=nbest)
        assert [[h.tokens for h in hypotheses] for hypotheses in short] == [
            [h.tokens for h in hypotheses[:nbest]] for hypotheses in whole
        ]
        assert sum(toy.rows) <= rows


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
        best, origin, token = map(torch.from_numpy, _top_continuations(log_p.clone(), total, beam))
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


@ways
def test_finished_sentences_leave_the_batch(way):
    toy = Toy(sentences=7)
    found = way(toy.step, toy.start(*range(7)), RULES, limits(0, 1, 2, 3, 4, 5, 6))
    # Beside a beam of 3, greedy search's hypothesis may go on.
    widths = {3, 4} if way is beamed else {1}
    assert toy.sentences[0] == 7 and toy.sentences == sorted(toy.sentences, reverse=True)
    assert (
        len(toy.rows) <= 7 and {rows / n for rows, n in zip(toy.rows, toy.sentences, strict=True)} <= widths
    )
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
def test_a_target_of_the_largest_length_says_so(way):
    toy, most = Toy(sentences=20), [number % 5 for number in range(20)]
    found = way(toy.step, toy.start(*range(20)), RULES, limits(*most))
    truncated = [len(hypothesis.tokens) == limit for hypothesis, limit in zip(found, most, strict=True)]
    assert [hypothesis.truncated for hypothesis in found] == truncated
    assert {True, False} == set(truncated)


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


def test_renormalized_probabilities_are_those_among_the_allowed_tokens():
    toy, rules = Toy(), Rules(BOS, EOS, (BOS, 3), renormalize=True)
    (found,) = beam_search(toy.step, toy.start(2), rules, limits(LONGEST), ALL)
    for hypothesis in found:
        tokens, expected = (*hypothesis.tokens, EOS), 0.0
        for n, token in enumerate(tokens[:LONGEST]):  # at the limit, the end alone is allowed
            probabilities = toy.probabilities(2, *tokens[:n])
            expected += float((probabilities[token] / (1 - probabilities[BOS] - probabilities[3])).log())
        assert hypothesis.log_probability == pytest.approx(expected, abs=1e-4)


def test_an_estimated_end_comes_earlier_and_never_with_a_better_output():
    """Its outputs are those of Transformers: see test_marian.py."""
    earlier = 0
    for seed in range(30):
        exact, estimated = Toy(seed=seed), Toy(seed=seed)
        rules = replace(RULES, estimated_end=True)
        (best, *_), (other, *_) = (
            beam_search(toy.step, toy.start(1), rule, limits(12), 3)[0]
            for toy, rule in ((exact, RULES), (estimated, rules))
        )
        if not other.truncated:
            assert other.score <= best.score + 1e-6
        earlier += len(estimated.rows) < len(exact.rows)
        assert len(estimated.rows) <= len(exact.rows)
    assert earlier > 10
