"""Attention that weights sentences, too: the paper's equation, and what it learns. Its laws are in laws/."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from seq2attn.attention import Attention
from seq2attn.attention.heads import MultiHead, TalkingScorer
from seq2attn.attention.hierarchy import SentenceAttention
from seq2attn.attention.normalizers import NORMALIZERS, Softmax, Sum
from seq2attn.attention.positions import POSITIONS
from seq2attn.attention.scorers import SCORERS, Additive, Coverage, General, Linear, Location, ScaledDot
from seq2attn.errors import Seq2attnError

# ---- the equation ------------------------------------------------------------------------------------

OF = torch.tensor([[0, 0, 1, 2, 2, 2, 2], [0, 1, 1, 1, -1, -1, -1], [-1] * 7])
MASK = (OF >= 0).unsqueeze(1)


def attention(normalize: str = "softmax", hierarchical: bool = True, score: str = "additive") -> Attention:
    """For queries of 5 and states of 3."""
    torch.manual_seed(1)
    above = SentenceAttention(Additive(5, 3, size=11)) if hierarchical else None
    torch.manual_seed(2)
    return Attention(SCORERS[score](5, 3), NORMALIZERS[normalize](5), hierarchy=above).double().eval()


def asked() -> tuple[Tensor, Tensor]:
    """Queries (3, 2, 5) and states (3, 7, 3), garbage on padding."""
    torch.manual_seed(3)
    query, states = torch.randn(3, 2, 5), torch.randn(3, 7, 3)
    return query.double() * 2, states.masked_fill(OF.unsqueeze(-1) < 0, 100.0).double() * 2


def equation(one: Attention, query: Any, states: Any) -> np.ndarray:
    """P(j) = P_w(j) P_s(s(j)) / sum_k P_w(k) P_s(s(k)) (Nallapati et al. 2016, section 2.4), word by word."""

    def softmax(score: Any, q: np.ndarray, keys: list[np.ndarray]) -> np.ndarray:
        W, U, v = (part.weight.detach().numpy() for part in (score.query, score.key, score.energy))
        odds = np.exp([v[0] @ np.tanh(W @ q + U @ key) for key in keys])
        return odds / odds.sum()

    found = np.zeros((3, 2, 7))
    for b, t in np.ndindex(3, 2):
        places = [j for j in range(7) if OF[b, j] >= 0]
        if not places:
            continue
        sentences = sorted({int(OF[b, j]) for j in places})
        means = [np.mean([states[b, j] for j in places if OF[b, j] == s], 0) for s in sentences]
        words = softmax(one.score, query[b, t], [states[b, j] for j in places])
        above = softmax(one.hierarchy.score, query[b, t], means)
        both = np.array([w * above[OF[b, j]] for w, j in zip(words, places, strict=True)])
        found[b, t, places] = both / both.sum()
    return found


def test_it_is_the_papers_equation():
    one, (query, states) = attention(), asked()
    expected = equation(one, query.numpy(), states.numpy())
    found = one(query, one.remember(states, MASK, sentences=OF))
    np.testing.assert_allclose(found.weights.detach(), expected, atol=1e-12)
    np.testing.assert_allclose(found.context.detach(), expected @ states.numpy(), atol=1e-12)
    plain = attention(hierarchical=False)
    assert (found.weights - plain(query, plain.remember(states, MASK)).weights).abs().amax() > 0.05


@pytest.mark.parametrize("heads", [0, 2])
@pytest.mark.parametrize(
    "normalize",
    [name for name, part in NORMALIZERS.items() if not part.needs_positive and part.n_scores == 1],
)
def test_one_sentence_is_plain_attention_to_the_bit(normalize, heads):
    """Also where a constant would not cancel, as in sigmoid."""
    above, plain = (attention(normalize, hierarchical) for hierarchical in (True, False))
    query, states = asked()
    of = OF.clamp(max=0)
    if heads:
        torch.manual_seed(4)
        above, plain = (  # heads of 5, whose keys are of 5
            MultiHead(2, 10, 3, Attention(General(5, 5), NORMALIZERS[normalize](5, 2), hierarchy=h)).double()
            for h in (SentenceAttention(Additive(5, 5)), None)
        )
        above.load_state_dict(plain.state_dict(), strict=False)
        above.eval(), plain.eval()
        query = torch.cat([query, -query], -1)
    ours = above(query, above.remember(states, MASK, sentences=of))
    theirs = plain(query, plain.remember(states, MASK))
    assert torch.equal(ours.weights, theirs.weights) and torch.equal(ours.context, theirs.context)


def test_weights_of_sentences_can_be_had():
    one, (query, states) = attention(), asked()
    memory = one.remember(states, MASK, sentences=OF)
    shares = one.hierarchy.log_weights(query, memory.sentences).exp()
    assert shares.shape == (3, 2, 3)  # as many as the source with the most has
    assert_close(shares[:2].sum(-1), torch.ones(2, 2).double())
    assert (shares[1, :, 2] == 0).all() and shares.isfinite().all()


def test_numbers_with_gaps_and_other_names_are_the_same_sentences():
    one, (query, states) = attention(), asked()
    renamed = torch.tensor([5, 1, 3, -1])[OF]
    expected = one(query, one.remember(states, MASK, sentences=OF)).weights
    assert_close(one(query, one.remember(states, MASK, sentences=renamed)).weights, expected)


# ---- from end to end ---------------------------------------------------------------------------------


def tasks(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three turns, each with who speaks (0 to 2) and two words (3 to 8); who is asked for, and which of the
    two words; that word."""
    draw = np.random.default_rng(seed)
    who, words = (draw.permuted(np.tile(np.arange(*ids), (count, 1)), axis=1) for ids in ((0, 3), (3, 9)))
    turns = np.concatenate([who[:, :, None], words.reshape(count, 3, 2)], 2)
    chosen, place, rows = draw.integers(3, size=count), draw.integers(1, 3, size=count), np.arange(count)
    asked, answer = who[rows, chosen], turns[rows, chosen, place]
    source, *rest = map(torch.from_numpy, (turns.reshape(count, 9), asked, place, answer))
    return source, *rest


@pytest.mark.parametrize("hierarchical", [True, False])
def test_it_learns_the_word_of_the_turn_that_is_asked_for(hierarchical):
    """Nothing but the mean of a turn tells whose its words are, so that plain attention can only guess."""
    torch.manual_seed(1)
    above = SentenceAttention(Additive(32, 32)) if hierarchical else None
    looks, tokens, places, out = (
        Attention(Additive(32, 32), Softmax(), hierarchy=above),
        nn.Embedding(9, 32),
        nn.Embedding(3, 32),
        nn.Linear(32, 9),
    )
    parameters = [part for one in (looks, tokens, places, out) for part in one.parameters()]
    optimizer, mask = torch.optim.Adam(parameters, 0.02), torch.ones(1, 1, 9, dtype=torch.bool)

    def answers(source: Tensor, asked: Tensor, place: Tensor) -> Tensor:
        states = tokens(source) + places(torch.arange(9) % 3)
        memory = looks.remember(
            states, mask.expand(len(source), -1, -1), None, torch.arange(9) // 3 + 0 * source
        )
        return out(looks((tokens(asked) + places(place)).unsqueeze(1), memory).context.squeeze(1))

    for step in range(200):
        *given, word = tasks(64, step)
        optimizer.zero_grad()
        F.cross_entropy(answers(*given), word).backward()
        optimizer.step()
    *given, word = tasks(500, 10_000)
    right = float((answers(*given).argmax(-1) == word).float().mean())
    assert right > 0.9 if hierarchical else right < 0.6


def test_parts_that_make_no_sense_are_refused_in_python_too():
    above = SentenceAttention(ScaledDot(4, 4))
    with pytest.raises(Seq2attnError, match="Sum needs scores that are never negative"):
        Attention(Linear(4, 4), Sum(), hierarchy=above)
    with pytest.raises(Seq2attnError, match="no use in self-attention, set them to null"):
        Attention(ScaledDot(4, 4), Softmax(), 0.0, POSITIONS["alibi"](2, 4, False), above)
    cases = ((Coverage(4, 4), "word by word"), (Location(4, 4), "cannot score sentences"))
    for scorer, why in (*cases, (TalkingScorer(Coverage(4, 4), 2), "TalkingScorer .* word by word")):
        with pytest.raises(Seq2attnError, match=why):
            SentenceAttention(scorer)
