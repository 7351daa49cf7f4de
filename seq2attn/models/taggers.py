"""Networks that label the words, spans or sentences of a text.

Letters: B batch, S words, D width of their states, H heads, K labels (or types of spans, with none), N spans.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from seq2attn.attention.pooling import SpanPooling
from seq2attn.errors import Seq2attnError
from seq2attn.layers.crf import CRF, Best, Windows
from seq2attn.layers.word_embedding import Words
from seq2attn.models.encoders import Encoder
from seq2attn.models.tagger_layers import (
    AttentivePooling,
    LabelAttention,
    PlainPooling,
    SelfAttention,
    wide,
)
from seq2attn.text import tag_schemes as tags
from seq2attn.text.tag_schemes import OUTSIDE, Scheme, Span


class LabelScores(NamedTuple):
    """The output of a tagger or classifier for a batch."""

    scores: Tensor  # (B, S, K) of words, (B, N, K) of spans, (B, K) of sentences
    weights: Tensor | None  # (B, H, S, S) at words, (B, H, N, S) at spans, (B, H, S); None if not needed
    mask: Tensor  # (B, S), (B, N) or (B,), bool, True = a word, span or sentence to label
    spans: Tensor | None = None  # (N, 2), first and last word of each candidate span
    penalty: Tensor | None = None  # (B,), see attention.pooling.penalty; None if weights are not needed
    label_weights: Tensor | None = None  # (B, H, S, K), of label attention; None if not needed


class SpanPrediction(NamedTuple):
    """A predicted span."""

    span: Span
    probability: float  # that exactly these words are a span of this type


class Tagger(nn.Module):
    """Predicts a label for each word of a sentence.

    labels: their names, which are tags of the scheme. crf: predict all labels together, and only sequences
    that the scheme allows; else predict each label independently. The input of the output layer is the word's
    state, or the result of `attention`, concatenated with the context of `label_attention` and the `pooling`
    of the sentence.
    """

    def __init__(
        self,
        encoder: Encoder,
        labels: Sequence[str],
        scheme: Scheme,
        crf: bool = True,
        attention: SelfAttention | None = None,
        label_attention: LabelAttention | None = None,
        pooling: AttentivePooling | PlainPooling | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.labels, self.scheme = encoder, list(labels), scheme
        self.attention, self.label_attention, self.pooling = attention, label_attention, pooling
        size = encoder.size if attention is None else attention.size
        size += sum(part.size for part in (label_attention, pooling) if part is not None)
        self.output = nn.Linear(size, len(labels))
        self.crf = CRF(len(labels), *tags.constraints(labels, scheme)) if crf else None

    def forward(self, words: Words, need_weights: bool = False) -> LabelScores:
        """Return the scores of labels (a CRF's emissions), zero at padding.

        need_weights: also return the weights (B, H, S, S) of all words for each word: those of the heads of
        `attention`, then those of the queries of `pooling`.
        """
        states, mask = self.encoder(words, words.mask).states, words.mask  # (B, S, D), (B, S)
        vectors, weights = [states], list[Tensor]()
        word_weights = label_weights = penalty = None
        if self.attention is not None:
            vectors[0], word_weights = self.attention(states, mask, need_weights)
            if word_weights is not None:
                weights.append(word_weights)
        if self.label_attention is not None:
            context, label_weights = self.label_attention(states, mask, need_weights)
            vectors.append(context)
        if self.pooling is not None:
            pooled = self.pooling(states, mask, need_weights)
            vectors.append(pooled.vector.unsqueeze(1) * mask.unsqueeze(-1))  # (B, S, P)
            if pooled.weights is not None:  # the same for all words of the sentence
                weights.append(pooled.weights.unsqueeze(2) * mask[:, None, :, None])
            penalty = pooled.penalty
        scores = self.output(torch.cat(vectors, -1)) * mask.unsqueeze(-1)  # (B, S, K)
        all_weights = torch.cat(weights, 1) if weights else None  # (B, H, S, S)
        return LabelScores(scores, all_weights, mask, penalty=penalty, label_weights=label_weights)

    def targets(self, labels: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Int[Tensor, "B S"]:
        """Return the labels of what is scored: those of the words."""
        return labels

    @torch.no_grad()
    def decode(self, output: LabelScores) -> Best:
        """Return the most probable labels: as a sequence with a CRF, else independently."""
        if self.crf is not None:
            best: Best = self.crf.decode(output.scores, output.mask)
            return best
        log_p, labels = _log_p(output.scores).max(-1)  # (B, S) each
        return Best(labels * output.mask, (log_p * output.mask).sum(-1))

    @torch.no_grad()
    def predicted_spans(self, output: LabelScores) -> list[list[SpanPrediction]]:
        """Return the spans of each sentence's most probable labels."""
        labels, lengths = self.decode(output).labels.tolist(), output.mask.sum(1).tolist()
        names = [[self.labels[label] for label in row[:n]] for row, n in zip(labels, lengths, strict=True)]
        spans = [tags.read(row, self.scheme) for row in names]
        probabilities = iter(self._probabilities(output, self._windows(spans, labels, lengths)))
        return [[SpanPrediction(span, next(probabilities)) for span in row] for row in spans]

    def _windows(self, spans: list[list[Span]], labels: list[list[int]], lengths: list[int]) -> Windows:
        """Return, for each span, the labels of its words that make up this span. The predicted labels are
        among them even where the scheme does not allow them."""
        windows, allowed = [], []
        for row, sentence_spans in enumerate(spans):
            for span in sentence_spans:
                window = tags.window(span, lengths[row], self.labels, self.scheme)
                for position in range(span.start, span.end):
                    window[position - span.start][labels[row][position]] = True
                windows.append((row, span.start, len(window)))
                allowed.append(torch.tensor(window, device="cpu"))
        rows, starts, sizes = torch.tensor(windows, dtype=torch.long, device="cpu").reshape(-1, 3).T
        padded = (
            pad_sequence(allowed, batch_first=True)
            if allowed
            else torch.ones(0, 1, len(self.labels), device="cpu")
        )
        return Windows(rows, starts, sizes, padded.bool())

    def _probabilities(self, output: LabelScores, windows: Windows) -> list[float]:
        """Return the probability of each of N windows, of at most W words."""
        if not len(windows.rows):
            return []
        windows = windows.to(output.scores.device)
        if self.crf is not None:
            probabilities: list[float] = self.crf.within(output.scores, output.mask, windows).tolist()
            return probabilities
        offsets = torch.arange(windows.allowed.shape[1], device=windows.rows.device)  # (W,)
        inside = offsets < windows.sizes.unsqueeze(-1)  # (N, W)
        positions = (windows.starts.unsqueeze(-1) + offsets) * inside  # (N, W)
        p = _log_p(output.scores).exp()[windows.rows.unsqueeze(-1), positions]  # (N, W, K)
        free = ~inside | windows.allowed.all(-1)  # (N, W), any label is allowed
        return p.mul(windows.allowed).sum(-1).masked_fill(free, 1).prod(-1).tolist()


class SpanTagger(nn.Module):
    """Predicts a type, or none, for each span of up to `width` words, from the states at its ends, its width,
    and the embeddings of its words weighted by attention (Lee et al. 2017). Predicted spans do not overlap.

    labels: names of the tags, which encode the target spans. hidden: width of the hidden layer. `types` are
    the types of the tags; type k has the scores [..., k + 1], and none has [..., 0].
    """

    crf = None

    def __init__(
        self,
        encoder: Encoder,
        labels: Sequence[str],
        scheme: Scheme,
        pooling: SpanPooling,
        width: int,
        hidden: int = 150,
    ) -> None:
        super().__init__()
        self.encoder, self.labels, self.scheme = encoder, list(labels), scheme
        self.pooling, self.width = pooling, width
        self.types = sorted({label.partition("-")[2] for label in labels if label != OUTSIDE})
        size = 2 * encoder.size + encoder.embedding.size + pooling.width.embedding_dim
        self.hidden, self.output = nn.Linear(size, hidden), nn.Linear(hidden, 1 + len(self.types))

    def forward(self, words: Words, need_weights: bool = False) -> LabelScores:
        """Return the scores of the spans' types, zero where the sentence has no such span.

        need_weights: return the weights (B, 1, N, S) of the words within each span.
        """
        vectors = self.encoder.embedding(words)  # (B, S, E)
        states = self.encoder.encode(vectors, words.mask).states  # (B, S, D)
        length = words.mask.shape[1]
        spans = self.spans(length, words.mask.device)  # (N, 2)
        mask = spans[:, 1] < words.mask.sum(1, keepdim=True)  # (B, N)
        pooled = self.pooling(states, spans.expand(len(states), -1, -1), mask, vectors)
        scores = self.output(self.hidden(pooled.vector).relu()) * mask.unsqueeze(-1)  # (B, N, K)
        weights = None
        if need_weights:
            offsets = torch.arange(pooled.weights.shape[-1], device=spans.device)  # (W,)
            positions = (spans[:, :1] + offsets).expand_as(pooled.weights)  # (B, N, W)
            weights = pooled.weights.new_zeros(*mask.shape, length + self.width)
            weights = weights.scatter(-1, positions, pooled.weights)[..., :length].unsqueeze(1)
        return LabelScores(scores, weights, mask, spans)

    def spans(self, length: int, device: torch.device) -> Int[Tensor, "N 2"]:
        """Return the first and last word of all spans of up to `width` words, sorted."""
        starts = torch.arange(length, device=device).unsqueeze(1).expand(-1, self.width)  # (S, width)
        ends = starts + torch.arange(self.width, device=device)  # (S, width)
        spans = torch.stack([starts, ends], -1).flatten(0, 1)
        return spans[spans[:, 1] < length]

    def targets(self, labels: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Int[Tensor, "B N"]:
        """Return the type of each candidate span according to the tags, 0 for none. Wider spans have no
        target."""
        spans = self.spans(labels.shape[1], torch.device("cpu"))
        indices = {(first, last): index for index, (first, last) in enumerate(spans.tolist())}
        targets = torch.zeros(len(labels), len(spans), dtype=torch.long, device="cpu")
        for row, (ids, length) in enumerate(zip(labels.tolist(), mask.sum(1).tolist(), strict=True)):
            for kind, start, end in tags.read([self.labels[label] for label in ids[:length]], self.scheme):
                if end - start <= self.width:
                    targets[row, indices[start, end - 1]] = 1 + self.types.index(kind)
        return targets.to(labels.device)

    @torch.no_grad()
    def predicted_spans(self, output: LabelScores) -> list[list[SpanPrediction]]:
        """Return the most probable set of non-overlapping spans of each sentence: the one with the largest
        sum of log p(type) - log p(none), by dynamic programming."""
        if output.spans is None:
            raise Seq2attnError("these scores have no spans: they are not the output of a SpanTagger")
        log_p = _log_p(output.scores)  # (B, N, K)
        best, types = log_p[..., 1:].max(-1)  # (B, N) each
        gains = (best - log_p[..., 0]).masked_fill(~output.mask, -1)  # (B, N)
        candidates, type_ids, probabilities = output.spans.tolist(), types.tolist(), best.exp().tolist()
        predictions = []
        for row, row_gains in enumerate(gains.tolist()):
            chosen = _best_disjoint(candidates, row_gains)
            spans = [
                Span(self.types[type_ids[row][n]], candidates[n][0], candidates[n][1] + 1) for n in chosen
            ]
            predictions.append(
                [SpanPrediction(span, probabilities[row][n]) for span, n in zip(spans, chosen, strict=True)]
            )
        return predictions


def _best_disjoint(spans: list[list[int]], gains: list[float]) -> list[int]:
    """Return the indices of the spans that do not overlap and have the largest sum of gains."""
    ending: dict[int, list[int]] = {}  # by the word after the span
    for index, gain in enumerate(gains):
        if gain > 0:
            ending.setdefault(spans[index][1] + 1, []).append(index)
    best: list[tuple[float, list[int]]] = [(0.0, [])]  # best[n]: sum and spans among the first n words
    for end in range(1, max(ending, default=0) + 1):
        candidates = [best[-1]]
        for index in ending.get(end, []):
            total, chosen = best[spans[index][0]]
            candidates.append((total + gains[index], [*chosen, index]))
        best.append(max(candidates, key=lambda candidate: candidate[0]))
    return best[-1][1]


class Classifier(nn.Module):
    """Predicts a label for each sentence, from one vector that is pooled from its words."""

    crf = None

    def __init__(
        self, encoder: Encoder, labels: Sequence[str], pooling: AttentivePooling | PlainPooling
    ) -> None:
        super().__init__()
        self.encoder, self.labels, self.pooling = encoder, list(labels), pooling
        self.output = nn.Linear(pooling.size, len(labels))

    def forward(self, words: Words, need_weights: bool = False) -> LabelScores:
        """Return the scores of labels.

        need_weights: return the weights (B, H, S) of the words, for each query and head.
        """
        pooled = self.pooling(self.encoder(words, words.mask).states, words.mask, need_weights)
        mask = words.mask.new_ones(len(words.mask))
        return LabelScores(self.output(pooled.vector), pooled.weights, mask, penalty=pooled.penalty)

    def targets(self, labels: Int[Tensor, " B"], mask: Bool[Tensor, "B S"]) -> Int[Tensor, " B"]:
        """Return the labels of what is scored: those of the sentences."""
        return labels


def _log_p(scores: Tensor) -> Tensor:
    return wide(scores).log_softmax(-1)
