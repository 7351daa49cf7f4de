"""Taggers: predicted labels and spans against enumeration, their losses, and learning by heart."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import tiny_words
import torch
import torch.nn.functional as F
from tiny_taggers import (
    CLASSIFIERS,
    TAGGERS,
    TEXT,
    array,
    labelled,
    mask,
    random,
    scored,
    softmax,
)
from tiny_words import LABELS, sentences
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seq2attn.attention.pooling import penalty
from seq2attn.errors import Seq2attnError
from seq2attn.layers.token_loss import CrossEntropy
from seq2attn.models.taggers import LabelScores, Tagger
from seq2attn.text import tag_schemes as tags
from seq2attn.text.tag_schemes import Span
from seq2attn.training.label_objectives import LabelObjective


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


# ---- decoding ----------------------------------------------------------------------------------------


def paths(length: int) -> list[tuple[int, ...]]:
    return list(itertools.product(range(len(LABELS)), repeat=length))


@pytest.mark.parametrize("kind", ["linear", "crf"])
def test_the_labels_are_the_most_probable_of_all(kind):
    model, length = tiny_words.tagger(head={"kind": kind}), 3
    output = scored(random(1, length, len(LABELS)), length)
    if kind == "crf":
        log_p = [log_probability(model, output, path) for path in paths(length)]
    else:
        table = output.scores[0].log_softmax(-1)
        log_p = [sum(table[t, k].item() for t, k in enumerate(path)) for path in paths(length)]
    assert math.isclose(np.logaddexp.reduce(log_p), 0, abs_tol=1e-9)
    best = model.decode(output)
    assert tuple(best.labels[0].tolist()) == paths(length)[int(np.argmax(log_p))]
    assert_close(best.log_probability[0].item(), max(log_p))


def log_probability(model: Tagger, output: LabelScores, path: tuple[int, ...]) -> float:
    """Of labels under the CRF; -inf if the scheme forbids them."""
    if tags.repair([LABELS[k] for k in path], "bio").repairs:
        return -math.inf
    return -model.crf(output.scores, torch.tensor([path]), output.mask).item()


@pytest.mark.parametrize("kind", ["linear", "crf"])
def test_predicted_spans_have_the_probability_of_all_labels_that_mean_them(kind):
    model, length = tiny_words.tagger(head={"kind": kind}), 3
    output = scored(2 * random(5, length, len(LABELS)), 3, 3, 2, 3, 0)
    spans = model.predicted_spans(output)
    assert sum(map(len, spans)) >= 4 and spans[4] == []
    for row, (predictions, n) in enumerate(zip(spans, (3, 3, 2, 3, 0), strict=True)):
        alone = LabelScores(output.scores[row : row + 1, :n], None, output.mask[row : row + 1, :n])
        decoded = tuple(model.decode(alone).labels[0].tolist()) if n else ()
        assert [prediction.span for prediction in predictions] == tags.read(
            [LABELS[k] for k in decoded], "bio"
        )
        for span, probability in predictions:
            within = [path for path in paths(n) if means(path, span, decoded)]
            if kind == "crf":
                expected = sum(math.exp(log_probability(model, alone, path)) for path in within)
            else:
                p = alone.scores[0].softmax(-1)
                expected = sum(math.prod(p[t, k].item() for t, k in enumerate(path)) for path in within)
            assert math.isclose(probability, expected, rel_tol=1e-9)


def test_one_pass_gives_all_probabilities_that_a_pass_for_each_gives():
    """Of sentences too long to enumerate: what all labels mean that are allowed, one entity after the other."""
    model, lengths = tiny_words.tagger(scheme="bio", head={"kind": "crf"}), (29, 17, 0, 1, 23)
    output = scored(3 * random(5, 29, len(LABELS)), *lengths)
    spans = model.predicted_spans(output)
    assert sum(map(len, spans)) > 20
    for row, (predictions, length) in enumerate(zip(spans, lengths, strict=True)):
        for span, probability in predictions:
            allowed = torch.ones(1, 29, len(LABELS), dtype=torch.bool)
            allowed[0, :length] = torch.tensor(tags.allowed(span, length, LABELS, "bio"))
            expected = model.crf.probability(output.scores[row, None], output.mask[row, None], allowed)
            assert math.isclose(probability, expected.item(), rel_tol=1e-9)


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
        (spans,) = model.predicted_spans(scored(scores, length))
    assert len(spans) > 900 and length <= max(sizes) <= length * len(LABELS) ** 2


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
    output = model(words, need_weights=True)
    vectors = model.encoder.embedding(words)
    states = model.encoder.encode(vectors, words.mask).states
    expected = [[i, j] for i in range(7) for j in range(i, min(7, i + 3))]
    assert output.spans.tolist() == expected and output.scores.shape == (5, len(expected), 3)
    pooling = model.pooling.pooling
    for row, sentence in enumerate(TEXT):
        keys = pooling.attention.remember(states[row : row + 1], words.mask[row, None, None]).keys
        logits = array(keys[0] @ pooling.queries[0])
        for n, (i, j) in enumerate(expected):
            assert output.mask[row, n] == (j < len(sentence))
            if j >= len(sentence):
                continue
            weights = softmax(logits[i : j + 1])
            assert_close(array(output.weights[row, 0, n]), np.pad(weights, (i, 6 - j)))
            head = weights @ array(vectors[row, i : j + 1])
            width = array(model.pooling.width.weight[j - i])
            features = np.concatenate([array(states[row, i]), array(states[row, j]), head, width])
            hidden = np.maximum(features @ array(model.hidden.weight).T + array(model.hidden.bias), 0)
            assert_close(
                array(output.scores[row, n]), hidden @ array(model.output.weight).T + array(model.output.bias)
            )


def test_target_spans_are_those_of_the_tags():
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
    targets = model.targets(labels, mask(5, 5, 2, 4))
    spans = model.spans(5, torch.device("cpu")).tolist()
    typed = [
        {tuple(spans[n]): model.types[k - 1] for n, k in enumerate(row.tolist()) if k} for row in targets
    ]
    assert typed == [{(0, 1): "LOC", (3, 3): "PER", (4, 4): "PER"}, {}, {(1, 1): "LOC"}, {(1, 3): "PER"}]


@pytest.mark.parametrize("seed", range(5))
def test_predicted_spans_do_not_overlap_and_are_the_best_of_all(seed):
    torch.manual_seed(seed)
    model = tiny_words.tagger(**TAGGERS["spans"])
    spans = model.spans(5, torch.device("cpu"))
    scores, real = 3 * random(2, len(spans), 3), spans[:, 1] < torch.tensor([[5], [3]])
    predicted = model.predicted_spans(LabelScores(scores, None, real, spans))
    log_p = scores.log_softmax(-1)
    for row in range(2):
        candidates = [n for n in range(len(spans)) if real[row, n] and log_p[row, n].argmax() > 0]
        best: tuple[float, set[Any]] = (0.0, set())
        for count in range(len(candidates) + 1):
            for chosen in itertools.combinations(candidates, count):
                words = [t for n in chosen for t in range(spans[n, 0], spans[n, 1] + 1)]
                if len(words) == len(set(words)):
                    gain = sum((log_p[row, n].max() - log_p[row, n, 0]).item() for n in chosen)
                    best = max(best, (gain, set(chosen)), key=lambda pair: pair[0])
        kinds = {n: model.types[log_p[row, n].argmax() - 1] for n in best[1]}
        expected = {Span(kinds[n], int(spans[n, 0]), int(spans[n, 1]) + 1) for n in best[1]}
        assert {span for span, _ in predicted[row]} == expected
        assert [span.start for span, _ in predicted[row]] == sorted(span.start for span in expected)
        for span, probability in predicted[row]:
            n = spans.tolist().index([span.start, span.end - 1])
            assert_close(probability, log_p[row, n].max().exp().item())


def test_only_scores_of_spans_give_spans():
    model = tiny_words.tagger(**TAGGERS["spans"])
    with pytest.raises(Seq2attnError, match="these scores have no spans"):
        model.predicted_spans(scored(random(1, 3, 3), 3))


# ---- losses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_words_cost_their_cross_entropy(smoothing):
    model, words = tiny_words.tagger(head={"kind": "linear"}), tiny_words.batch(*TEXT)
    target = torch.randint(0, 5, words.ids.shape).masked_fill(~words.mask, -100)
    objective = LabelObjective(model, CrossEntropy(smoothing))
    batch = labelled(words, target.masked_fill(~words.mask, 99))  # arbitrary at padding
    losses = objective.loss(objective.forward(model, batch), batch)
    scores = model(words).scores.flatten(0, 1)
    options = {"ignore_index": -100, "reduction": "sum"}
    assert_close(losses.loss, F.cross_entropy(scores, target.flatten(), label_smoothing=smoothing, **options))
    assert_close(losses.nll, F.cross_entropy(scores, target.flatten(), **options))
    assert losses.whole is losses.loss and not losses.parts
    assert objective.state() is None


def test_a_crf_costs_what_the_labels_of_whole_sentences_do():
    model, words = tiny_words.tagger(), tiny_words.batch(*TEXT)
    batch = labelled(words, torch.zeros_like(words.ids).masked_fill(~words.mask, -100))
    objective = LabelObjective(model)
    losses = objective.loss(objective.forward(model, batch), batch)
    expected = model.crf(model(words).scores, batch.labels, words.mask).sum()
    assert_close(losses.whole, expected)
    assert_close(losses.nll, expected.detach()) and not losses.nll.requires_grad
    losses.whole.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_spans_cost_their_cross_entropy(smoothing):
    model, words = tiny_words.tagger(**TAGGERS["spans"]), tiny_words.batch([5, 6, 7])
    batch = labelled(words, torch.tensor([[1, 2, 3]]))
    objective = LabelObjective(model, CrossEntropy(smoothing))
    losses = objective.loss(objective.forward(model, batch), batch)
    target = torch.tensor([0, 1, 0, 0, 0, 2])  # (0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)
    scores = model(words).scores[0]
    assert_close(losses.whole, F.cross_entropy(scores, target, reduction="sum", label_smoothing=smoothing))
    assert_close(losses.nll, F.cross_entropy(scores, target, reduction="sum").detach())


def test_sentences_cost_their_cross_entropy_and_the_penalty_of_queries():
    model, words = tiny_words.classifier(**CLASSIFIERS["hops"]), tiny_words.batch(*TEXT)
    batch = labelled(words, torch.tensor([0, 2, 1, 1, 0]))
    objective = LabelObjective(model, penalty=0.7)
    losses = objective.loss(objective.forward(model, batch), batch)
    output = model(words, need_weights=True)
    cost, nll = penalty(output.weights).sum(), F.cross_entropy(output.scores, batch.labels, reduction="sum")
    assert_close(losses.whole, nll + 0.7 * cost)
    assert_close(losses.loss, nll)
    assert_close(losses.parts, {"penalty": cost})


def test_what_cannot_be_learnt_is_refused():
    with pytest.raises(Seq2attnError, match="a CRF predicts all labels together and has its own loss"):
        LabelObjective(tiny_words.tagger(), CrossEntropy(0.1))
    model, words = tiny_words.tagger(head={"kind": "linear"}), tiny_words.batch(*TEXT)
    objective, batch = LabelObjective(model, penalty=0.1), labelled(words, words.ids * 0)
    with pytest.raises(Seq2attnError, match="the penalty makes the weights of a pooling's queries differ"):
        objective.loss(objective.forward(model, batch), batch)


# ---- learning ----------------------------------------------------------------------------------------


def corpus() -> list[tuple[list[int], list[str]]]:
    """20 sentences: words 2 to 5 are places, 6 to 9 persons; adjacent words of one kind are one entity."""
    examples = []
    for sentence in sentences(*(3 + n % 5 for n in range(20)), seed=3):
        kinds = [("LOC" if word < 6 else "PER") if word < 10 else "" for word in sentence]
        before = ["", *kinds]
        examples.append(
            (
                sentence,
                [f"{'I' if k == b else 'B'}-{k}" if k else "O" for k, b in zip(kinds, before, strict=False)],
            )
        )
    return examples


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
    objective, batch = LabelObjective(model), labelled(words, labels)
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(60):
        optimizer.zero_grad()
        losses = objective.loss(objective.forward(model, batch), batch)
        (losses.whole / batch.num_targets).backward()
        optimizer.step()
    predicted = model.eval().predicted_spans(model(words))
    assert [[span for span, _ in row] for row in predicted] == [tags.read(names, "bio") for _, names in data]
    assert min(probability for row in predicted for _, probability in row) > 0.5
