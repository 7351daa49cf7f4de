"""Taggers and classifiers: laws over all of them, and their attention against the papers' formulas.

Sizes are different primes where they may be: 5 sentences of at most 7 words, the last empty, states of 10.
"""

import itertools
from typing import Any

import numpy as np
import pytest
import tiny_words
import torch
from cases import choose, choose_names
from tiny_taggers import CLASSIFIERS, MODELS, TAGGERS, TEXT, array, mask, model_of, random, real, softmax
from tiny_words import LABELS
from torch.testing import assert_close

from seq2attn.attention.attention import Attention
from seq2attn.attention.heads import Window
from seq2attn.attention.normalizers import LocalM, Softmax
from seq2attn.attention.pooling import Pooling, penalty
from seq2attn.attention.scorers import Dot, General, Perceptron
from seq2attn.errors import Seq2attnError
from seq2attn.models.tagger_layers import AttentivePooling, LabelAttention, PlainPooling, SelfAttention


def has_spans(recipe: dict[str, Any]) -> bool:
    return recipe.get("head", {}).get("kind") == "spans"


def has_word_weights(recipe: dict[str, Any]) -> bool:
    """Whether words (or spans) have weights of words: from attention or pooling."""
    return has_spans(recipe) or "attention" in recipe or "pooling" in recipe


def has_label_attention(recipe: dict[str, Any]) -> bool:
    return "label_attention" in recipe


def is_weighted(case: tuple[str, str]) -> bool:
    """Whether words have weights of words."""
    kind, name = case
    return kind == "classifier" or (has_word_weights(TAGGERS[name]) and not has_spans(TAGGERS[name]))


def is_penalized(case: tuple[str, str]) -> bool:
    """Whether it has an attentive pooling, whose queries have a penalty."""
    kind, name = case
    pooling = CLASSIFIERS[name].get("pooling", {"kind": "attention"}) if kind == "classifier" else None
    return (pooling or TAGGERS.get(name, {}).get("pooling", {})).get("kind") == "attention"


WEIGHTED = choose(MODELS, is_weighted, at_least=13)
PENALIZED = choose(MODELS, is_penalized, at_least=5)


@pytest.fixture(params=MODELS, ids="-".join)
def model(request: pytest.FixtureRequest) -> Any:
    return model_of(*request.param)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


# ---- laws --------------------------------------------------------------------------------------------


def test_a_sentence_is_labelled_as_if_alone(model):
    whole = model(tiny_words.batch(*TEXT, garbage=True), need_weights=True)
    for row, sentence in enumerate(TEXT):
        alone = model(tiny_words.batch(sentence), need_weights=True)
        assert_close(real(whole, row), real(alone, 0))


@pytest.mark.parametrize("case", WEIGHTED, ids="-".join)
def test_weights_of_a_sentence_are_as_if_alone(case):
    model = model_of(*case)
    whole = model(tiny_words.batch(*TEXT, garbage=True), need_weights=True)
    for row, sentence in enumerate(TEXT[:4]):  # the last is empty
        alone = model(tiny_words.batch(sentence), need_weights=True)
        real_words = tuple(slice(len(sentence)) for _ in whole.weights.shape[2:])
        assert_close(whole.weights[(row, slice(None), *real_words)], alone.weights[0])


@pytest.mark.parametrize("case", PENALIZED, ids="-".join)
def test_the_penalty_of_a_sentence_is_as_if_alone(case):
    model = model_of(*case)
    whole = model(tiny_words.batch(*TEXT, garbage=True), need_weights=True)
    for row, sentence in enumerate(TEXT):
        alone = model(tiny_words.batch(sentence), need_weights=True)
        assert_close(whole.penalty[row], alone.penalty[0])


def test_padding_and_garbage_in_it_change_nothing(model):
    plain = model(tiny_words.batch(*TEXT), need_weights=True)
    padded = model(tiny_words.batch(*TEXT, garbage=True, width=11), need_weights=True)
    for row in range(len(TEXT)):
        assert_close(real(padded, row), real(plain, row))


@pytest.mark.parametrize("case", WEIGHTED, ids="-".join)
def test_weights_at_padding_are_zeros(case):
    model = model_of(*case)
    plain = model(tiny_words.batch(*TEXT), need_weights=True).weights
    padded = model(tiny_words.batch(*TEXT, garbage=True, width=11), need_weights=True).weights
    real_words = tuple(slice(7) for _ in plain.shape[2:])
    assert_close(padded[(slice(None), slice(None), *real_words)], plain)
    assert padded[..., 7:].abs().sum() == 0


@pytest.mark.parametrize("name", TAGGERS)
def test_scores_at_padding_are_zeros(name):
    output = tiny_words.tagger(**TAGGERS[name])(tiny_words.batch(*TEXT, garbage=True), need_weights=True)
    assert (output.scores[~output.mask] == 0).all()


@pytest.mark.parametrize(
    ("field", "name"),
    [
        *(("weights", name) for name in choose_names(TAGGERS, has_word_weights, at_least=10)),
        *(("label_weights", name) for name in choose_names(TAGGERS, has_label_attention, at_least=3)),
    ],
)
def test_rows_of_weights_at_padding_are_zeros(field, name):
    output = tiny_words.tagger(**TAGGERS[name])(tiny_words.batch(*TEXT, garbage=True), need_weights=True)
    assert (getattr(output, field).transpose(1, 2)[~output.mask] == 0).all()


def test_weights_change_no_scores(model):
    words = tiny_words.batch(*TEXT)
    without, output = model(words), model(words, need_weights=True)
    assert without.weights is None and without.label_weights is None and without.penalty is None
    assert_close(without.scores, output.scores)


def test_gradients_are_finite_also_of_empty_sentences(model):
    output = model(tiny_words.batch(*TEXT), need_weights=True)
    loss = output.scores.square().sum() + (0 if output.penalty is None else output.penalty.sum())
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients and all(grad.isfinite().all() for grad in gradients.values())
    missing = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None}
    assert missing <= {"crf"}


@pytest.mark.parametrize("need_weights", [False, True])
def test_under_autocast_weights_and_penalties_stay_wide(model, need_weights):
    model, words = model.float(), tiny_words.batch(*TEXT)
    plain = model(words, need_weights)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(words, need_weights)
    assert_close(output.scores.float(), plain.scores, atol=0.3, rtol=0.1)
    for wide in (output.weights, output.label_weights, output.penalty):
        assert wide is None or wide.dtype == torch.float32


@pytest.mark.parametrize("name", TAGGERS)
def test_spans_are_predicted_under_autocast(name):
    model = tiny_words.tagger(**TAGGERS[name]).float()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(tiny_words.batch(*TEXT))
    assert len(model.predicted_spans(output)) == len(TEXT)


def test_a_text_without_any_word_is_labelled(model):
    output = model(tiny_words.batch([], []), need_weights=True)
    assert output.scores.isfinite().all()


@pytest.mark.parametrize("name", TAGGERS)
def test_a_text_without_any_word_has_no_spans(name):
    model = tiny_words.tagger(**TAGGERS[name])
    assert model.predicted_spans(model(tiny_words.batch([], []))) == [[], []]


# ---- attention of words ------------------------------------------------------------------------------


def self_attention(join: str = "concat", **options: Any) -> SelfAttention:
    score = General(13, 13)
    return SelfAttention(Attention(score, Softmax()), 13, join, **options).double()


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("window", [None, Window(2), Window(2, 1)])
def test_self_attention_is_the_formula(exclude_self, window):
    part, states = self_attention(exclude_self=exclude_self, window=window), random(1, 5, 13)
    h, w = array(states[0]), array(part.attention.score.project.weight)
    scores = h @ w @ h.T
    for i, j in itertools.product(range(5), repeat=2):
        near = window is None or abs(i - j) < 2 or j < window.sinks
        if not near or (exclude_self and i == j):
            scores[i, j] = -np.inf
    joined, weights = part(states, mask(5))
    assert_close(array(weights[0, 0]), softmax(scores))
    assert_close(array(joined[0]), np.concatenate([h, softmax(scores) @ h], -1))
    assert part.size == 26


def test_gated_words_are_between_state_and_context():
    part, states = self_attention("gate"), random(1, 5, 13)
    joined, weights = part(states, mask(5))
    context = weights[:, 0] @ states
    assert part.size == 13 and joined.shape == states.shape
    assert_close(joined, part.gate(states, context))
    low, high = torch.minimum(states, context), torch.maximum(states, context)
    assert ((low <= joined) & (joined <= high)).all()


@pytest.mark.parametrize("heads", [1, 2])
def test_a_word_alone_that_may_not_attend_to_itself_has_the_context_0(heads):
    model = tiny_words.tagger(attention={"exclude_self": True, "heads": heads})
    states = random(2, 3, 10).requires_grad_()
    joined, weights = model.attention(states, mask(1, 3))
    assert (weights[0] == 0).all() and (joined[0, :, 10:] == 0).all() and (joined[1, :, 10:] != 0).any()
    assert (weights.diagonal(dim1=-2, dim2=-1) == 0).all()
    assert_close(weights[1].sum(-1), torch.ones(heads, 3, dtype=torch.float64))
    joined[0].sum().backward()
    assert (states.grad[0, 0] == 1).all() and (states.grad[1] == 0).all()


@pytest.mark.parametrize("join", ["concat", "gate"])
def test_gradients_of_attention_are_those_of_the_formula(join):
    part = SelfAttention(Attention(General(3, 3), Softmax()), 3, join, exclude_self=True).double()
    real = mask(1, 3)
    states = (random(2, 3, 3) * real.unsqueeze(-1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: part(x, real)[0] * real.unsqueeze(-1), (states,))


def test_label_attention_is_the_formula():
    """c_t = sum_k softmax_k(h_t W l_k) l_k."""
    part = LabelAttention(Attention(General(13, 3), Softmax()), 5, 3, 3).double()
    states = random(2, 7, 13)
    context, weights = part(states, mask(4, 7))
    labels, matrix = array(part.labels), array(part.attention.score.project.weight)
    for row, length in enumerate((4, 7)):
        expected = softmax(array(states[row, :length]) @ matrix @ labels.T)
        assert_close(array(weights[row, 0, :length]), expected)
        assert_close(array(context[row, :length]), expected @ labels)
    assert (context[0, 4:] == 0).all() and weights.shape == (2, 1, 7, 5)


def test_attentions_for_a_target_are_refused():
    with pytest.raises(Seq2attnError, match=r"LocalM needs a target .*; self-attention has none"):
        SelfAttention(Attention(Dot(13, 13), LocalM()), 13)
    with pytest.raises(Seq2attnError, match=r"LocalM needs a target .*; pooling has none"):
        LabelAttention(Attention(Dot(13, 13), LocalM()), 5, 13, 13)


def test_the_weights_of_a_tagger_are_those_of_all_its_attention():
    sections = {"attention": {"heads": 2}, "pooling": {"kind": "attention", "queries": 3}}
    model = tiny_words.tagger(**sections, label_attention={})
    words = tiny_words.batch(*TEXT)
    output, states = model(words, need_weights=True), model.encoder(words, words.mask).states
    assert output.weights.shape == (5, 2 + 3, 7, 7) and output.label_weights.shape == (5, 1, 7, len(LABELS))
    assert_close(output.weights[:, :2], model.attention(states, words.mask)[1])
    pooled = model.pooling(states, words.mask).weights
    assert_close(output.weights[1, 2:, 4], pooled[1])
    sums = output.weights.sum(-1)
    assert_close(sums, words.mask[:, None].expand_as(sums).double())


# ---- pooling of sentences ----------------------------------------------------------------------------


def test_the_mean_and_the_largest():
    states = random(3, 5, 7)
    real = mask(5, 2, 0)
    mean, largest = PlainPooling("mean", 7)(states, real), PlainPooling("max", 7)(states, real)
    for row, length in enumerate((5, 2)):
        assert_close(mean.vector[row], states[row, :length].mean(0))
        assert_close(mean.weights[row, 0, :length], torch.full((length,), 1 / length).double())
        assert_close(largest.vector[row], states[row, :length].amax(0))
        winners = np.bincount(array(states[row, :length]).argmax(0), minlength=5) / 7
        assert_close(array(largest.weights[row, 0]), winners)
    for pooled in (mean, largest):
        assert (pooled.vector[2] == 0).all() and (pooled.weights[2] == 0).all()


def test_vectors_of_queries_are_concatenated():
    pooling = Pooling(Attention(Perceptron(11, 7), Softmax()), 3, 11).double()
    states, real = random(2, 5, 7), mask(5, 2)
    pooled, output = AttentivePooling(pooling, 7)(states, real), pooling(states, real)
    assert_close(pooled.vector, output.context.flatten(1))
    assert_close(pooled.weights, output.weights)
    assert_close(pooled.penalty, penalty(output.weights))
