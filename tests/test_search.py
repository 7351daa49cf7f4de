"""Search against brute force on a toy, and on real models: whatever the batch, and true to its scores."""

import itertools
import math

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

from seq2attn.inference.search import (
    IMPOSSIBLE,
    Rules,
    _top_continuations,
    beam_search,
)


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
