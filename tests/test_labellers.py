"""Labellers against the papers' formulas written out, and laws over every attention that they take.

Sizes are different primes where they may be: 5 sentences of at most 7 words, the last empty, states of 10.
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import tiny_words
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from tiny_words import LABELS, sentences
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seq2attn.attention import Attention, incompatibilities
from seq2attn.attention.heads import Window
from seq2attn.attention.normalizers import NORMALIZERS, LocalM, Softmax
from seq2attn.attention.pooling import Pooling, penalty
from seq2attn.attention.scorers import SCORERS, Dot, General, Perceptron
from seq2attn.errors import Seq2attnError
from seq2attn.layers.word_embedding import LabelledBatch, Words
from seq2attn.models.tagger_factory import build_tagger
from seq2attn.models.taggers import (
    AttentivePooling,
    LabelAttention,
    Labelled,
    PlainPooling,
    SelfAttention,
    Tagger,
)
from seq2attn.recipe import ClassifierRecipe, TaggerRecipe
from seq2attn.text import tag_schemes as tags
from seq2attn.text.tag_schemes import Span
from seq2attn.training.label_objectives import CRFObjective, LabelObjective, SpanObjective, label_objective

TEXT = sentences(5, 7, 1, 3, 0)
TAGGERS: dict[str, dict[str, Any]] = {
    "linear": {"head": {"kind": "linear"}},
    "crf": {},
    "cnn": {"embedding": {"size": 7, "characters": {"kind": "cnn", "size": 7}, "join": "gate"}},
    "transformer": {"encoder": tiny_words.TRANSFORMER},
    "rotary": {"encoder": {**tiny_words.TRANSFORMER, "size": 12, "positions": "rotary"}},
    "attention": {"attention": {"score": "additive"}},
    "gate": {"attention": {"score": "general", "join": "gate", "exclude_self": True}},
    "heads": {"attention": {"heads": 5, "window": 2, "sinks": 1, "exclude_self": True}},
    "local": {"attention": {"normalize": {"name": "local_p", "reach": 2}, "score": "dot"}},
    "labels": {"label_attention": {"size": 3, "score": "additive"}},
    "label-heads": {"label_attention": {"size": 3, "heads": 2}},
    "pooling": {"pooling": {"kind": "attention", "queries": 3, "penalty": 0.5}},
    "pooling-heads": {"pooling": {"kind": "attention", "queries": 3, "score": "dot", "heads": 2, "size": 6}},
    "mean": {"pooling": {"kind": "mean"}},
    "all": {
        "attention": {"normalize": "sparsemax"},
        "label_attention": {"heads": 2},
        "pooling": {"kind": "max"},
        "encoder": {"kind": "recurrent", "size": 5, "cell": "gru", "layers": 2, "dropout": 0.0},
    },
    "spans": {"head": {"kind": "spans", "width": 3, "hidden": 11, "width_size": 2}},
    "spans-additive": {"head": {"kind": "spans", "width": 11, "attention": {"score": "additive"}}},
}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "attention": {},
    "hops": {"pooling": {"kind": "attention", "queries": 3, "size": 7, "penalty": 1.0}},
    "heads": {"pooling": {"kind": "attention", "score": "scaled_dot", "heads": 5, "queries": 2}},
    "mean": {"pooling": {"kind": "mean"}},
    "max": {"pooling": {"kind": "max"}, "encoder": tiny_words.TRANSFORMER},
}
MODELS = [("tagger", name) for name in TAGGERS] + [("classifier", name) for name in CLASSIFIERS]


def model_of(kind: str, name: str) -> Any:
    return (
        tiny_words.tagger(**TAGGERS[name]) if kind == "tagger" else tiny_words.classifier(**CLASSIFIERS[name])
    )


@pytest.fixture(params=MODELS, ids="-".join)
def model(request: pytest.FixtureRequest) -> Any:
    return model_of(*request.param)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def array(x: Tensor) -> np.ndarray:
    return x.detach().numpy()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def real(answer: Labelled, row: int) -> Tensor:
    """The scores of a sentence, or of what there is to label in it."""
    return answer.scores[row][answer.mask[row]]


# ---- laws --------------------------------------------------------------------------------------------


def test_a_sentence_is_labelled_as_if_alone(model):
    whole = model(tiny_words.batch(*TEXT, garbage=True), look=True)
    for row, sentence in enumerate(TEXT):
        alone = model(tiny_words.batch(sentence), look=True)
        assert_close(real(whole, row), real(alone, 0))
        if whole.penalty is not None:
            assert_close(whole.penalty[row], alone.penalty[0])
        if whole.weights is not None and whole.spans is None and sentence:
            cut = tuple(slice(len(sentence)) for _ in whole.weights.shape[2:])
            assert_close(whole.weights[(row, slice(None), *cut)], alone.weights[0])


def test_padding_and_what_stands_there_change_nothing(model):
    plain = model(tiny_words.batch(*TEXT), look=True)
    padded = model(tiny_words.batch(*TEXT, garbage=True, width=11), look=True)
    for row in range(len(TEXT)):
        assert_close(real(padded, row), real(plain, row))
    if plain.weights is not None and plain.spans is None:
        assert_close(
            padded.weights[..., :7, :7] if plain.weights.ndim == 4 else padded.weights[..., :7], plain.weights
        )
        assert padded.weights[..., 7:].abs().sum() == 0


def test_padding_has_zeros(model):
    answer = model(tiny_words.batch(*TEXT, garbage=True), look=True)
    if answer.scores.ndim == 3:
        assert (answer.scores[~answer.mask] == 0).all()
        for weights in (answer.weights, answer.of_labels):
            if weights is not None:
                assert (weights.transpose(1, 2)[~answer.mask] == 0).all()


def test_looking_changes_nothing(model):
    words = tiny_words.batch(*TEXT)
    unseen, seen = model(words), model(words, look=True)
    assert unseen.weights is None and unseen.of_labels is None and unseen.penalty is None
    assert_close(unseen.scores, seen.scores)


def test_gradients_are_finite_also_of_empty_sentences(model):
    answer = model(tiny_words.batch(*TEXT), look=True)
    loss = answer.scores.square().sum() + (0 if answer.penalty is None else answer.penalty.sum())
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found and all(grad.isfinite().all() for grad in found.values())
    missing = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None}
    assert missing <= {"crf"}


@pytest.mark.parametrize("look", [False, True])
def test_under_autocast_weights_and_penalties_stay_wide(model, look):
    model, words = model.float(), tiny_words.batch(*TEXT)
    plain = model(words, look)
    with torch.autocast("cpu", torch.bfloat16):
        answer = model(words, look)
    assert_close(answer.scores.float(), plain.scores, atol=0.3, rtol=0.1)
    for wide in (answer.weights, answer.of_labels, answer.penalty):
        assert wide is None or wide.dtype == torch.float32
    if hasattr(model, "find"):
        assert len(model.find(answer)) == len(TEXT)


def test_a_text_without_any_word_is_labelled(model):
    answer = model(tiny_words.batch([], []), look=True)
    assert answer.scores.isfinite().all()
    if hasattr(model, "find"):
        assert model.find(answer) == [[], []]


# ---- attention of words ------------------------------------------------------------------------------


def mask(*lengths: int) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def attends(join: str = "concat", **options: Any) -> SelfAttention:
    score = General(13, 13)
    return SelfAttention(Attention(score, Softmax()), 13, join, **options).double()


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("window", [None, Window(2), Window(2, 1)])
def test_words_are_told_what_the_formula_says(exclude_self, window):
    part, states = attends(exclude_self=exclude_self, window=window), random(1, 5, 13)
    h, w = array(states[0]), array(part.attention.score.project.weight)
    scores = h @ w @ h.T
    for i, j in itertools.product(range(5), repeat=2):
        near = window is None or abs(i - j) < 2 or j < window.sinks
        if not near or (exclude_self and i == j):
            scores[i, j] = -np.inf
    told, weights = part(states, mask(5))
    assert_close(array(weights[0, 0]), softmax(scores))
    assert_close(array(told[0]), np.concatenate([h, softmax(scores) @ h], -1))
    assert part.size == 26


def test_gated_words_are_between_state_and_context():
    part, states = attends("gate"), random(1, 5, 13)
    told, weights = part(states, mask(5))
    context = weights[:, 0] @ states
    assert part.size == 13 and told.shape == states.shape
    assert_close(told, part.gate(states, context))
    low, high = torch.minimum(states, context), torch.maximum(states, context)
    assert ((low <= told) & (told <= high)).all()


@pytest.mark.parametrize("heads", [1, 2])
def test_a_word_that_is_alone_and_may_not_see_itself_finds_nothing(heads):
    model = tiny_words.tagger(attention={"exclude_self": True, "heads": heads})
    states = random(2, 3, 10).requires_grad_()
    told, weights = model.attention(states, mask(1, 3))
    assert (weights[0] == 0).all() and (told[0, :, 10:] == 0).all() and (told[1, :, 10:] != 0).any()
    assert (weights.diagonal(dim1=-2, dim2=-1) == 0).all()
    assert_close(weights[1].sum(-1), torch.ones(heads, 3, dtype=torch.float64))
    told[0].sum().backward()
    assert (states.grad[0, 0] == 1).all() and (states.grad[1] == 0).all()


@pytest.mark.parametrize("join", ["concat", "gate"])
def test_gradients_of_attention_are_those_of_the_formula(join):
    part = SelfAttention(Attention(General(3, 3), Softmax()), 3, join, exclude_self=True).double()
    real = mask(1, 3)
    states = (random(2, 3, 3) * real.unsqueeze(-1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: part(x, real)[0] * real.unsqueeze(-1), (states,))


def test_labels_are_looked_at_by_the_formula():
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


def test_attentions_that_go_along_a_source_are_refused():
    with pytest.raises(Seq2attnError, match=r"LocalM needs a target .*; self-attention has none"):
        SelfAttention(Attention(Dot(13, 13), LocalM()), 13)
    with pytest.raises(Seq2attnError, match=r"LocalM needs a target .*; pooling has none"):
        LabelAttention(Attention(Dot(13, 13), LocalM()), 5, 13, 13)


def test_the_weights_of_a_tagger_are_those_of_all_its_attention():
    sections = {"attention": {"heads": 2}, "pooling": {"kind": "attention", "queries": 3}}
    model = tiny_words.tagger(**sections, label_attention={})
    words = tiny_words.batch(*TEXT)
    answer, states = model(words, look=True), model.encoder(words, words.mask).states
    assert answer.weights.shape == (5, 2 + 3, 7, 7) and answer.of_labels.shape == (5, 1, 7, len(LABELS))
    assert_close(answer.weights[:, :2], model.attention(states, words.mask)[1])
    pooled = model.pooling(states, words.mask).weights
    assert_close(answer.weights[1, 2:, 4], pooled[1])
    sums = answer.weights.sum(-1)
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


def test_several_queries_stand_side_by_side():
    pooling = Pooling(Attention(Perceptron(11, 7), Softmax()), 3, 11).double()
    states, real = random(2, 5, 7), mask(5, 2)
    pooled, answer = AttentivePooling(pooling, 7)(states, real), pooling(states, real)
    assert_close(pooled.vector, answer.context.flatten(1))
    assert_close(pooled.weights, answer.weights)
    assert_close(pooled.penalty, penalty(answer.weights))


# ---- decoding ----------------------------------------------------------------------------------------


def scored(scores: Tensor, *lengths: int) -> Labelled:
    return Labelled(scores, None, mask(*lengths))


def paths(length: int) -> list[tuple[int, ...]]:
    return list(itertools.product(range(len(LABELS)), repeat=length))


@pytest.mark.parametrize("kind", ["linear", "crf"])
def test_the_labels_are_the_most_probable_of_all(kind):
    model, length = tiny_words.tagger(head={"kind": kind}), 3
    answer = scored(random(1, length, len(LABELS)), length)
    if kind == "crf":
        log_p = [log_probability(model, answer, path) for path in paths(length)]
    else:
        table = answer.scores[0].log_softmax(-1)
        log_p = [sum(table[t, k].item() for t, k in enumerate(path)) for path in paths(length)]
    assert math.isclose(np.logaddexp.reduce(log_p), 0, abs_tol=1e-9)
    best = model.decode(answer)
    assert tuple(best.labels[0].tolist()) == paths(length)[int(np.argmax(log_p))]
    assert_close(best.log_probability[0].item(), max(log_p))


def log_probability(model: Tagger, answer: Labelled, path: tuple[int, ...]) -> float:
    """Of labels under the CRF; -inf if the scheme forbids them."""
    if tags.repair([LABELS[k] for k in path], "bio").repairs:
        return -math.inf
    return -model.crf(answer.scores, torch.tensor([path]), answer.mask).item()


@pytest.mark.parametrize("kind", ["linear", "crf"])
def test_found_spans_have_the_probability_of_all_labels_that_mean_them(kind):
    model, length = tiny_words.tagger(head={"kind": kind}), 3
    answer = scored(2 * random(5, length, len(LABELS)), 3, 3, 2, 3, 0)
    spans = model.find(answer)
    assert sum(map(len, spans)) >= 4 and spans[4] == []
    for row, (found, n) in enumerate(zip(spans, (3, 3, 2, 3, 0), strict=True)):
        one = Labelled(answer.scores[row : row + 1, :n], None, answer.mask[row : row + 1, :n])
        decoded = tuple(model.decode(one).labels[0].tolist()) if n else ()
        assert [each.span for each in found] == tags.read([LABELS[k] for k in decoded], "bio")
        for span, probability in found:
            within = [path for path in paths(n) if means(path, span, decoded)]
            if kind == "crf":
                expected = sum(math.exp(log_probability(model, one, path)) for path in within)
            else:
                p = one.scores[0].softmax(-1)
                expected = sum(math.prod(p[t, k].item() for t, k in enumerate(path)) for path in within)
            assert math.isclose(probability, expected, rel_tol=1e-9)


def test_one_pass_gives_all_probabilities_that_a_pass_for_each_gives():
    """Of sentences too long to enumerate: what all labels mean that are allowed, one entity after the other."""
    model, lengths = tiny_words.tagger(scheme="bio", head={"kind": "crf"}), (29, 17, 0, 1, 23)
    answer = scored(3 * random(5, 29, len(LABELS)), *lengths)
    found = model.find(answer)
    assert sum(map(len, found)) > 20
    for row, (some, length) in enumerate(zip(found, lengths, strict=True)):
        for span, probability in some:
            allowed = torch.ones(1, 29, len(LABELS), dtype=torch.bool)
            allowed[0, :length] = torch.tensor(tags.allowed(span, length, LABELS, "bio"))
            one = model.crf.probability(answer.scores[row, None], answer.mask[row, None], allowed)
            assert math.isclose(probability, one.item(), rel_tol=1e-9)


@pytest.mark.parametrize("kind", ["linear", "crf"])
def test_many_entities_cost_no_more_memory_than_words(kind):
    """A copy of all scores for each entity would be the number of words squared."""
    model, length = tiny_words.tagger(head={"kind": kind}), 1009
    scores = random(1, length, len(LABELS))
    scores[..., LABELS.index("B-PER")] += 9
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, run, types, args=(), kwargs=None):
            made = run(*args, **(kwargs or {}))
            sizes.extend(each.numel() for each in tree_leaves(made) if isinstance(each, Tensor))
            return made

    with Sizes():
        (found,) = model.find(scored(scores, length))
    assert len(found) > 900 and length <= max(sizes) <= length * len(LABELS) ** 2


def means(path: tuple[int, ...], span: Span, decoded: tuple[int, ...]) -> bool:
    """Whether labels mean the span: its tags within it, or those decoded, and no continuation."""
    names = [LABELS[k] for k in path]
    for t in range(span.start, span.end):
        if names[t] not in (f"{'B' if t == span.start else 'I'}-{span.type}", LABELS[decoded[t]]):
            return False
    return span.end == len(path) or names[span.end] != f"I-{span.type}"


# ---- spans -------------------------------------------------------------------------------------------


def test_all_spans_are_scored_from_their_ends_their_head_and_their_width():
    model = tiny_words.tagger(**TAGGERS["spans"])
    words = tiny_words.batch(*TEXT, garbage=True)
    answer = model(words, look=True)
    vectors = model.encoder.embedding(words)
    states = model.encoder.read(vectors, words.mask).states
    expected = [[i, j] for i in range(7) for j in range(i, min(7, i + 3))]
    assert answer.spans.tolist() == expected and answer.scores.shape == (5, len(expected), 3)
    energies = model.pooling.pooling
    for row, sentence in enumerate(TEXT):
        keys = energies.attention.remember(states[row : row + 1], words.mask[row, None, None]).keys
        logits = array(keys[0] @ energies.queries[0])
        for n, (i, j) in enumerate(expected):
            assert answer.mask[row, n] == (j < len(sentence))
            if j >= len(sentence):
                continue
            weights = softmax(logits[i : j + 1])
            assert_close(array(answer.weights[row, 0, n]), np.pad(weights, (i, 6 - j)))
            head = weights @ array(vectors[row, i : j + 1])
            width = array(model.pooling.width.weight[j - i])
            features = np.concatenate([array(states[row, i]), array(states[row, j]), head, width])
            hidden = np.maximum(features @ array(model.hidden.weight).T + array(model.hidden.bias), 0)
            assert_close(
                array(answer.scores[row, n]), hidden @ array(model.output.weight).T + array(model.output.bias)
            )


def test_gold_spans_are_those_of_the_tags():
    model = tiny_words.tagger(**TAGGERS["spans"])
    rows = [
        ["B-LOC", "I-LOC", "O", "B-PER", "B-PER"],
        ["B-PER", "I-PER", "I-PER", "I-PER", "O"],
        ["O", "B-LOC"],
        ["O", "B-PER", "I-PER", "I-PER"],
    ]
    labels = torch.full((4, 5), 4)
    for row, names in enumerate(rows):
        labels[row, : len(names)] = torch.tensor([LABELS.index(name) for name in names])
    gold = model.gold(labels, mask(5, 5, 2, 4))
    spans = model.spans(5, torch.device("cpu")).tolist()
    found = [{tuple(spans[n]): model.types[k - 1] for n, k in enumerate(row.tolist()) if k} for row in gold]
    assert found == [{(0, 1): "LOC", (3, 3): "PER", (4, 4): "PER"}, {}, {(1, 1): "LOC"}, {(1, 3): "PER"}]


@pytest.mark.parametrize("seed", range(5))
def test_found_spans_do_not_overlap_and_are_the_best_of_all(seed):
    torch.manual_seed(seed)
    model = tiny_words.tagger(**TAGGERS["spans"])
    spans = model.spans(5, torch.device("cpu"))
    scores, real = 3 * random(2, len(spans), 3), spans[:, 1] < torch.tensor([[5], [3]])
    found = model.find(Labelled(scores, None, real, spans))
    log_p = scores.log_softmax(-1)
    for row in range(2):
        some = [n for n in range(len(spans)) if real[row, n] and log_p[row, n].argmax() > 0]
        best: tuple[float, set[Any]] = (0.0, set())
        for count in range(len(some) + 1):
            for chosen in itertools.combinations(some, count):
                places = [t for n in chosen for t in range(spans[n, 0], spans[n, 1] + 1)]
                if len(places) == len(set(places)):
                    gain = sum((log_p[row, n].max() - log_p[row, n, 0]).item() for n in chosen)
                    best = max(best, (gain, set(chosen)), key=lambda one: one[0])
        kinds = {n: model.types[log_p[row, n].argmax() - 1] for n in best[1]}
        expected = {Span(kinds[n], int(spans[n, 0]), int(spans[n, 1]) + 1) for n in best[1]}
        assert {span for span, _ in found[row]} == expected
        assert [span.start for span, _ in found[row]] == sorted(span.start for span in expected)
        for span, probability in found[row]:
            n = spans.tolist().index([span.start, span.end - 1])
            assert_close(probability, log_p[row, n].max().exp().item())


def test_only_answers_with_spans_have_spans():
    model = tiny_words.tagger(**TAGGERS["spans"])
    with pytest.raises(Seq2attnError, match="this answer has no spans"):
        model.find(scored(random(1, 3, 3), 3))


# ---- losses ------------------------------------------------------------------------------------------


def labelled(words: Words, labels: Tensor) -> LabelledBatch:
    return LabelledBatch(words, labels, int(words.mask.sum()), "")


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_words_cost_their_cross_entropy(smoothing):
    model, words = tiny_words.tagger(head={"kind": "linear"}), tiny_words.batch(*TEXT)
    gold = torch.randint(0, 5, words.ids.shape).masked_fill(~words.mask, -100)
    objective = label_objective(model, smoothing)
    batch = labelled(words, gold.masked_fill(~words.mask, 99))  # whatever stands on padding
    losses = objective.loss(objective.forward(model, batch), batch)
    scores = model(words).scores.flatten(0, 1)
    options = {"ignore_index": -100, "reduction": "sum"}
    assert_close(losses.loss, F.cross_entropy(scores, gold.flatten(), label_smoothing=smoothing, **options))
    assert_close(losses.nll, F.cross_entropy(scores, gold.flatten(), **options))
    assert losses.whole is losses.loss and not losses.parts
    assert type(objective) is LabelObjective and objective.state() is None


def test_a_crf_costs_what_the_labels_of_whole_sentences_do():
    model, words = tiny_words.tagger(), tiny_words.batch(*TEXT)
    batch = labelled(words, torch.zeros_like(words.ids).masked_fill(~words.mask, -100))
    objective = label_objective(model)
    losses = objective.loss(objective.forward(model, batch), batch)
    expected = model.crf(model(words).scores, batch.labels, words.mask).sum()
    assert isinstance(objective, CRFObjective)
    assert_close(losses.whole, expected)
    assert_close(losses.nll, expected.detach()) and not losses.nll.requires_grad
    losses.whole.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_spans_cost_their_cross_entropy(smoothing):
    model, words = tiny_words.tagger(**TAGGERS["spans"]), tiny_words.batch([5, 6, 7])
    batch = labelled(words, torch.tensor([[1, 2, 3]]))
    objective = label_objective(model, smoothing)
    losses = objective.loss(objective.forward(model, batch), batch)
    gold = torch.tensor([0, 1, 0, 0, 0, 2])  # (0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)
    assert isinstance(objective, SpanObjective)
    scores = model(words).scores[0]
    assert_close(losses.whole, F.cross_entropy(scores, gold, reduction="sum", label_smoothing=smoothing))
    assert_close(losses.nll, F.cross_entropy(scores, gold, reduction="sum").detach())


def test_sentences_cost_their_cross_entropy_and_the_likeness_of_queries():
    model, words = tiny_words.classifier(**CLASSIFIERS["hops"]), tiny_words.batch(*TEXT)
    batch = labelled(words, torch.tensor([0, 2, 1, 1, 0]))
    objective = label_objective(model, penalty=0.7)
    losses = objective.loss(objective.forward(model, batch), batch)
    answer = model(words, look=True)
    alike, nll = penalty(answer.weights).sum(), F.cross_entropy(answer.scores, batch.labels, reduction="sum")
    assert_close(losses.whole, nll + 0.7 * alike)
    assert_close(losses.loss, nll)
    assert_close(losses.parts, {"penalty": alike})


def test_what_cannot_be_learnt_is_refused():
    with pytest.raises(Seq2attnError, match="a CRF predicts all labels together, and none can be smoothed"):
        label_objective(tiny_words.tagger(), smoothing=0.1)
    model, words = tiny_words.tagger(head={"kind": "linear"}), tiny_words.batch(*TEXT)
    objective, batch = label_objective(model, penalty=0.1), labelled(words, words.ids * 0)
    with pytest.raises(Seq2attnError, match="a penalty is on how far a pooling's queries look alike"):
        objective.loss(objective.forward(model, batch), batch)


# ---- recipes -----------------------------------------------------------------------------------------


def faults(recipe: type, **sections: Any) -> list[str]:
    with pytest.raises(ValidationError) as error:
        recipe.model_validate(sections)
    return [f"{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.value.errors()]


def test_the_defaults_are_a_bilstm_crf_with_characters():
    with torch.device("meta"):
        model = build_tagger(TaggerRecipe(), 101, 31, LABELS, "bio")
    assert isinstance(model, Tagger) and model.crf is not None and model.attention is None
    encoder = model.encoder
    assert (encoder.size, encoder.embedding.size, encoder.embedding.character_encoder.size) == (400, 150, 50)
    assert (encoder.dropout.rate, encoder.embedding.dropout.rate) == (0.5, 0.5)


def test_the_recipe_reaches_the_network():
    looks = {"window": 2, "sinks": 1, "exclude_self": True, "join": "gate", "dropout": 0.1}
    words = {"size": 7, "frozen": True, "word_dropout": 0.2, "dropout": 0.3, "variational": True}
    model = tiny_words.tagger(
        attention=looks,
        embedding={**words, "characters": {"kind": "cnn", "window": 4, "dropout": 0.4}},
        encoder={**tiny_words.TRANSFORMER, "positions": {"name": "learned", "length": 11}},
        head={"kind": "linear"},
    )
    part, attends = model.encoder.embedding, model.attention
    assert (attends.window, attends.exclude_self, attends.gate is None) == (Window(2, 1), True, False)
    assert attends.attention.dropout == 0.1 and model.crf is None
    assert (part.word_dropout, part.dropout.rate, part.dropout.variational) == (0.2, 0.3, True)
    assert (part.character_encoder.convolution.kernel_size, part.character_encoder.dropout.rate) == (
        (4,),
        0.4,
    )
    assert part.positions.table.num_embeddings == 11 and not part.table.weight.requires_grad
    biases = [p for name, p in model.encoder.named_parameters() if name.endswith("outer.bias")]
    assert len(biases) == 2 and all((bias == 0).all() for bias in biases)  # as Transformers begin


def test_given_vectors_reach_the_table():
    vectors = torch.randn(tiny_words.WORDS, 7)
    recipe = TaggerRecipe.model_validate(tiny_words.TINY)
    model = build_tagger(recipe, tiny_words.WORDS, tiny_words.CHARACTERS, LABELS, "bio", vectors)
    assert torch.equal(model.encoder.embedding.table.weight, vectors)


PAIRS = list(itertools.product(SCORERS, NORMALIZERS))


def fit(role: str) -> list[tuple[str, str]]:
    return [(s, n) for s, n in PAIRS if not list(incompatibilities(SCORERS[s], NORMALIZERS[n], role))]


@pytest.mark.parametrize(("score", "normalize"), fit("self-attention"), ids="-".join)
@pytest.mark.parametrize("heads", [1, 2])
def test_words_may_attend_by_every_part_that_the_recipe_takes(score, normalize, heads):
    section = {"score": score, "normalize": normalize, "heads": heads}
    model = tiny_words.tagger(attention=section, label_attention=section)
    answer = model(tiny_words.batch(*TEXT), look=True)
    assert answer.scores.isfinite().all() and answer.weights.shape == (5, heads, 7, 7)
    answer.scores.sum().backward()


@pytest.mark.parametrize(("score", "normalize"), fit("pooling"), ids="-".join)
def test_sentences_and_spans_may_be_pooled_by_every_part_that_the_recipe_takes(score, normalize):
    section = {"score": score, "normalize": normalize}
    classifier = tiny_words.classifier(pooling={"kind": "attention", "queries": 3, **section})
    answer = classifier(tiny_words.batch(*TEXT), look=True)
    assert answer.scores.isfinite().all() and answer.weights.shape == (5, 3, 7)
    spans = tiny_words.tagger(head={"kind": "spans", "attention": section})
    assert spans(tiny_words.batch(*TEXT)).scores.isfinite().all()


def test_the_recipe_refuses_what_the_networks_refuse():
    assert len(fit("self-attention")) < len(PAIRS)
    for score, normalize in set(PAIRS) - set(fit("self-attention")):
        found = faults(TaggerRecipe, attention={"score": score, "normalize": normalize})
        assert any(line.startswith(("attention.score: ", "attention.normalize: ")) for line in found)


@pytest.mark.parametrize(
    ("recipe", "sections", "fault"),
    [
        (TaggerRecipe, {"attention": {"heads": 3}}, "attention.heads: 3 heads do not divide the size 400"),
        (
            TaggerRecipe,
            {"attention": {"query_key_norm": True}},
            "attention.query_key_norm: a single head has no projections to normalize: set heads, or use cosine",
        ),
        (
            TaggerRecipe,
            {"label_attention": {"score": "dot", "size": 3}},
            "label_attention.score: Dot needs queries and keys of one size, got 400 and 3; ",
        ),
        (
            TaggerRecipe,
            {"label_attention": {"window": 3}},
            "label_attention.window: only self-attention can have a window",
        ),
        (
            TaggerRecipe,
            {"head": {"kind": "spans"}, "attention": {}},
            "attention: is for labels of words, and the head spans has its own attention: set head.attention",
        ),
        (
            TaggerRecipe,
            {"head": {"kind": "spans", "attention": {"heads": 2}}},
            "head.attention.heads: attention over a span has a single head: set heads to 1",
        ),
        (
            TaggerRecipe,
            {"embedding": {"join": "gate", "characters": None}},
            "embedding.join: a gate mixes words and characters: set characters, or use concat",
        ),
        (
            TaggerRecipe,
            {"encoder": {"kind": "transformer", "word_dropout": 0.1}},
            "encoder.word_dropout: belongs to the embedding here: set model.embedding.word_dropout",
        ),
        (
            TaggerRecipe,
            {"head": {"kind": "crv"}},
            "head.kind: unknown 'crv' (did you mean crf? one of linear, crf, spans)",
        ),
        (
            ClassifierRecipe,
            {"pooling": {"kind": "attention", "penalty": 0.1}},
            "pooling.penalty: compares queries, and there is only one: set queries, or penalty to 0",
        ),
        (ClassifierRecipe, {"pooling": {"kind": "mean", "queries": 2}}, "pooling.queries: unknown key"),
    ],
)
def test_what_does_not_go_together_is_said(recipe, sections, fault):
    assert [line for line in faults(recipe, **sections) if line.startswith(fault)]


def test_tags_need_a_scheme():
    with pytest.raises(
        Seq2attnError, match="words are labelled with tags of a scheme: expected its name, got"
    ):
        build_tagger(TaggerRecipe(), 11, 7, LABELS, None)


# ---- learning ----------------------------------------------------------------------------------------


def corpus() -> list[tuple[list[int], list[str]]]:
    """20 sentences: words 2 to 5 are places, 6 to 9 persons, and what follows one of them belongs to it if it
    is of its kind."""
    made = []
    for sentence in sentences(*(3 + n % 5 for n in range(20)), seed=3):
        kinds = [("LOC" if word < 6 else "PER") if word < 10 else "" for word in sentence]
        before = ["", *kinds]
        made.append(
            (
                sentence,
                [f"{'I' if k == b else 'B'}-{k}" if k else "O" for k, b in zip(kinds, before, strict=False)],
            )
        )
    return made


@pytest.mark.parametrize(
    ("head", "attention"),
    [("linear", False), ("linear", True), ("crf", False), ("crf", True), ("spans", False)],
)
def test_a_tiny_tagger_learns_its_sentences_by_heart(head, attention):
    sections: dict[str, Any] = {"head": {"kind": head}}
    if attention:
        sections |= {"attention": {"exclude_self": True, "join": "gate"}, "pooling": {"kind": "attention"}}
    data = corpus()
    words = tiny_words.batch(*(sentence for sentence, _ in data))
    labels = torch.zeros_like(words.ids)
    for row, (sentence, names) in enumerate(data):
        labels[row, : len(sentence)] = torch.tensor([LABELS.index(name) for name in names])
    model = tiny_words.tagger(**sections).float().train()
    objective, batch = label_objective(model), labelled(words, labels)
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(60):
        optimizer.zero_grad()
        losses = objective.loss(objective.forward(model, batch), batch)
        (losses.whole / batch.units).backward()
        optimizer.step()
    found = model.eval().find(model(words))
    assert [[span for span, _ in row] for row in found] == [tags.read(names, "bio") for _, names in data]
    assert min(probability for row in found for _, probability in row) > 0.5
