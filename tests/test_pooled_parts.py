"""Pooling of documents, sentence by sentence, and of spans."""

import pytest
import torch
import torch.nn.functional as F
from tiny_pooling import REAL, SPANS, D, Q, S, V, attention, may_pool, perceptron, random
from torch import Tensor, nn
from torch.testing import assert_close

from seq2attn.attention import Attention
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.pooling import Hierarchical, SpanPooling
from seq2attn.attention.scorers import Dot
from seq2attn.errors import Seq2attnError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


# ---- documents ---------------------------------------------------------------------------------------------

# Two documents of five sentences: an empty one between others and one at the end; and a document of nothing.
WORDS = torch.arange(S) < torch.tensor([[7, 0, 2, 1, 0], [3, 5, 0, 0, 0], [0, 0, 0, 0, 0]])[..., None]


class Mixing(nn.Module):
    """States of sentences with a bias, so that empty sentences do not stay zero."""

    def __init__(self, size: int, to: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, to)
        self.mask = torch.empty(0)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        self.mask = mask
        return torch.tanh(self.layer(states))


def hierarchical(mixing: bool = True) -> tuple[Hierarchical, Tensor]:
    encode = Mixing(2 * D, 17) if mixing else None
    words, sentences = perceptron(2), perceptron(1, 17 if mixing else 2 * D)
    return Hierarchical(words, sentences, encode).double(), random(3, 5, S, D)


@pytest.mark.parametrize("mixing", [True, False])
def test_documents_are_pooled_sentence_by_sentence(mixing):
    module, words = hierarchical(mixing)
    document = module(words, WORDS)
    assert document.words.shape == (3, 5, 2, S) and document.sentences.shape == (3, 1, 5)
    for row in (0, 1):
        real = [n for n in range(5) if WORDS[row, n].any()]
        states = []
        for n in real:
            alone = words[row, n][WORDS[row, n]][None]
            pooled = module.words(alone, torch.ones(alone.shape[:2], dtype=torch.bool))
            assert_close(document.words[row, n][:, WORDS[row, n]], pooled.weights[0])
            states.append(pooled.context.flatten())
        sentences = torch.stack(states)[None]
        sentences = module.encode(sentences, torch.ones(1, len(real))) if mixing else sentences
        pooled = module.sentences(sentences, torch.ones(1, len(real), dtype=torch.bool))
        assert_close(document.vector[row], pooled.context[0, 0])
        assert_close(document.sentences[row, 0, real], pooled.weights[0, 0])
        assert_close(document.sentences[row].sum(), torch.tensor(1.0).double())


def test_empty_sentences_and_documents_count_for_nothing():
    module, words = hierarchical()
    document = module(words.requires_grad_(), WORDS)
    assert torch.equal(module.encode.mask, WORDS.any(-1))
    assert (document.sentences.squeeze(1)[~WORDS.any(-1)] == 0).all() and (
        document.words[~WORDS.any(-1)] == 0
    ).all()
    assert (document.vector[2] == 0).all()
    document.vector.square().sum().backward()
    assert (words.grad[~WORDS] == 0).all() and words.grad.isfinite().all()
    assert (words.grad[WORDS] != 0).any(-1).all()
    assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in module.parameters())


def test_padding_of_documents_changes_nothing():
    module, words = hierarchical()
    garbage = F.pad(words.masked_fill(~WORDS[..., None], 1e3), (0, 0, 0, 2, 0, 3), value=-9.0)
    padded, plain = module(garbage, F.pad(WORDS, (0, 2, 0, 3))), module(words, WORDS)
    assert_close(padded.vector, plain.vector)
    assert_close(padded.words, F.pad(plain.words, (0, 2, 0, 0, 0, 3)))
    assert_close(padded.sentences, F.pad(plain.sentences, (0, 3)))


def test_documents_of_zero_queries_are_means_of_means():
    """The limit of HAN before training: each word counts by one over its sentence's length."""
    module = Hierarchical(perceptron(1, zeros=True), perceptron(1, zeros=True))
    words = random(3, 5, S, D)
    expected = torch.stack([words[0, n][WORDS[0, n]].mean(0) for n in (0, 2, 3)]).mean(0)
    assert_close(module(words, WORDS).vector[0], expected)


# ---- spans -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("score", "normalize"), may_pool())
def test_spans_are_a_loop_over_spans(score, normalize):
    part, size = attention(score, normalize)
    module = SpanPooling(part, Q, widths=4, width_size=3).double().eval()
    states, values = random(2, S, size), random(2, S, V)
    spans = module(states, SPANS, REAL, values)
    assert spans.weights.shape == (2, 4, 5) and spans.vector.shape == (2, 4, 2 * size + V + 3)
    for row, n in REAL.nonzero().tolist():
        first, last = SPANS[row, n].tolist()
        within = states[row : row + 1, first : last + 1]
        memory = part.remember(within, torch.ones(1, 1, last - first + 1, dtype=torch.bool))
        answer = part(module.pooling.queries[None], memory)
        weights = answer.weights[0, 0]
        looked = weights if answer.sampled is None else answer.sampled[0, 0]
        attended = looked @ values[row, first : last + 1]
        width = module.width.weight[min(last - first, 3)]
        assert_close(spans.weights[row, n], F.pad(weights, (0, 4 - last + first)))
        expected = torch.cat([states[row, first], states[row, last], attended, width])
        assert_close(spans.vector[row, n], expected)
    for part in spans:
        assert (part[~REAL] == 0).all()


def softly(states: Tensor, **options: int) -> SpanPooling:
    return SpanPooling(Attention(Dot(Q, Q), Softmax()), Q, **options).to(states.dtype)


def test_a_high_score_outside_disturbs_no_span():
    """Sums of exp over prefixes, the usual shortcut, lose all that comes after a score of +40."""
    scores = torch.tensor([0.3, 40.0, 0.1, -0.2, 0.4, 0.0, 0.2])
    values = random(1, S, V).float()
    module = SpanPooling(Attention(Dot(1, 1), Softmax()), 1)
    nn.init.ones_(module.pooling.queries)
    spans = torch.tensor([[[2, 4]]])
    pooled = module(scores[None, :, None], spans, torch.tensor([[True]]), values)
    expected = scores[2:5].softmax(-1)
    assert_close(pooled.weights[0, 0], expected)
    assert_close(pooled.attended[0, 0], expected @ values[0, 2:5])
    prefix = (scores - scores.max()).exp().cumsum(0)
    assert (prefix[4] - prefix[1]).item() == 0  # what the shortcut would divide by


@pytest.mark.parametrize("outside", [1e4, -1e4])
def test_gradients_stay_within_the_span(outside):
    states = random(1, S, Q).float()
    states[0, [0, 1, 6]] = outside
    states.requires_grad_()
    softly(states)(states, torch.tensor([[[2, 5]]]), torch.tensor([[True]])).vector.sum().backward()
    assert states.grad.isfinite().all()
    assert (states.grad[0, [0, 1, 6]] == 0).all() and (states.grad[0, 2:6] != 0).any(-1).all()


def test_gradients_of_spans_are_those_of_the_formula():
    states, values = random(2, S, Q).requires_grad_(), random(2, S, V).requires_grad_()
    module = softly(states)
    assert torch.autograd.gradcheck(
        lambda states, values: module(states, SPANS, REAL, values).vector, (states, values), fast_mode=True
    )


def test_what_is_no_span_changes_nothing():
    states = random(2, S, Q)
    module = softly(states)
    plain = module(states, SPANS, REAL)
    alone = module(states[1:], SPANS[1:, :2], REAL[1:, :2])
    assert_close(plain.vector[1:, :2], alone.vector)
    other = module(states, SPANS.masked_fill(~REAL[..., None], 10**6), REAL)
    assert all(torch.equal(one, two) for one, two in zip(plain, other, strict=True))
    assert alone.weights.shape[-1] == 4  # the widest real span, whatever is masked


def test_there_may_be_no_span_at_all():
    states = random(2, S, Q).requires_grad_()
    module = softly(states)
    spans = module(states, SPANS, torch.zeros_like(REAL))
    spans.vector.sum().backward()
    assert (spans.vector == 0).all() and (states.grad == 0).all()
    assert module(states, SPANS[:, :0], REAL[:, :0]).vector.shape == (2, 0, 3 * Q + 20)


def test_the_width_may_be_left_out():
    states = random(2, S, Q)
    spans = softly(states, width_size=0)(states, SPANS, REAL)
    assert spans.vector.shape == (2, 4, 3 * Q)
    assert_close(spans.vector, torch.cat([spans.start, spans.end, spans.attended], -1))


@pytest.mark.parametrize("wrong", [[3, 2], [-1, 2], [5, 7]])
def test_spans_lie_within_the_sentence(wrong):
    states, spans = random(2, S, Q), SPANS.clone()
    spans[1, 0] = torch.tensor(wrong)
    with pytest.raises(Seq2attnError) as error:
        softly(states)(states, spans, REAL)
    assert str(error.value) == (
        f"span 0 of sentence 1 is {wrong}: expected its first and last token, 0 <= first <= last < 7; "
        "set its mask to false if it is none"
    )
