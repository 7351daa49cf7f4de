"""Networks that label the words, spans and sentences of a text, with attention where it may help.

Letters: B batch, S words, D width of their states, H heads, K labels (or types of spans, with none), N spans.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from seq2attn.attention import Attention, incompatibilities
from seq2attn.attention.heads import MultiHead, Window
from seq2attn.attention.pooling import Pooling, SpanPooling, penalty
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Gate
from seq2attn.layers.crf import CRF, Best, Windows
from seq2attn.layers.word_embedding import Words
from seq2attn.models.encoders import Encoder
from seq2attn.text import tag_schemes as tags
from seq2attn.text.tag_schemes import OUTSIDE, Scheme, Span


class Labelled(NamedTuple):
    """What a labeller says of a batch."""

    scores: Tensor  # (B, S, K) of words, (B, N, K) of spans, (B, K) of sentences
    weights: Tensor | None  # (B, H, S, S) at words, (B, H, N, S), (B, H, S); None when nobody looked
    mask: Tensor  # (B, S), (B, N) or (B,), bool, True = something to label
    spans: Tensor | None = None  # (N, 2), first and last word, of spans
    penalty: Tensor | None = None  # (B,), how far pooling's queries look alike, when somebody looked
    of_labels: Tensor | None = None  # (B, H, S, K), weights of labels at words, where these are looked at


class Found(NamedTuple):
    """A span that was found."""

    span: Span
    probability: float  # that exactly these words are a span of this type


# ---- what words and sentences are told by attention ------------------------------------------------------


class SelfAttention(nn.Module):
    """Each word's state h and what it finds in its sentence, c: [h; c], or z * h + (1 - z) * c (`Gate`).

    attention: queries, keys and contexts are as wide as states, `width`. exclude_self: a word does not look
    at itself. window: nor further than this. A word that can see nothing has the context 0.
    `size` is the width of the result.
    """

    def __init__(
        self,
        attention: Attention | MultiHead,
        width: int,
        join: Literal["concat", "gate"] = "concat",
        *,
        exclude_self: bool = False,
        window: Window | None = None,
    ) -> None:
        super().__init__()
        _fits(attention, "self-attention")
        self.attention, self.exclude_self, self.window = attention, exclude_self, window
        self.gate = Gate(width) if join == "gate" else None
        self.size = width if join == "gate" else 2 * width

    def forward(
        self, states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"], look: bool = True
    ) -> tuple[Float[Tensor, "B S E"], Float[Tensor, "B H S S"] | None]:
        """The words as told, and their weights if somebody looks; both zero on padding."""
        seen, real = mask.unsqueeze(1), mask.unsqueeze(-1)
        if self.window is not None:
            seen = seen & self.window.mask(mask.shape[1], mask.device)
        if self.exclude_self:
            seen = seen & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        answer = self.attention(states, self.attention.remember(states, seen), need_weights=look)
        context = answer.context * (real & seen.any(-1, keepdim=True))
        told = torch.cat([states, context], -1) if self.gate is None else self.gate(states, context)
        return told, _by_head(answer.weights) * real.unsqueeze(1) if look else None


class LabelAttention(nn.Module):
    """What each word finds when it looks at learned vectors of the labels (Cui & Zhang 2019, one layer).

    attention: queries are states, keys and values the `labels` vectors of `width`. `size` is the width of
    what is found, that of a query with several heads.
    """

    def __init__(self, attention: Attention | MultiHead, labels: int, width: int, size: int) -> None:
        super().__init__()
        _fits(attention, "pooling")
        self.attention, self.size = attention, size
        self.labels = nn.Parameter(torch.randn(labels, width) * width**-0.5)

    def forward(
        self, states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"], look: bool = True
    ) -> tuple[Float[Tensor, "B S E"], Float[Tensor, "B H S K"] | None]:
        """Contexts, and weights of the labels if somebody looks; both zero on padding."""
        labels, real = self.labels.expand(len(states), -1, -1), mask.unsqueeze(-1)
        memory = self.attention.remember(labels, mask.new_ones(len(mask), 1, labels.shape[1]))
        answer = self.attention(states, memory, need_weights=look)
        return answer.context * real, _by_head(answer.weights) * real.unsqueeze(1) if look else None


class Pooled(NamedTuple):
    """A sentence in one vector."""

    vector: Tensor  # (B, P)
    weights: Tensor | None  # (B, H, S), of each query and head
    penalty: Tensor | None = None  # (B,)


class AttentivePooling(nn.Module):
    """What learned queries find, side by side; `size` is the width of all. See `Pooling`."""

    def __init__(self, pooling: Pooling, width: int) -> None:
        super().__init__()
        self.pooling, self.size = pooling, width * len(pooling.queries)

    def forward(self, states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"], look: bool = True) -> Pooled:
        """Weights, and the penalty, if somebody looks."""
        answer = self.pooling(states, mask, look)
        if not look:
            return Pooled(answer.context.flatten(1), None)
        weights = _by_head(answer.weights)  # (B, H, r, S)
        return Pooled(answer.context.flatten(1), weights.flatten(1, 2), penalty(weights).sum(1))


class PlainPooling(nn.Module):
    """The mean or the largest of each value; weights are the shares that each word has in it."""

    def __init__(self, kind: Literal["mean", "max"], width: int) -> None:
        super().__init__()
        self.kind, self.size = kind, width

    def forward(self, states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"], look: bool = True) -> Pooled:
        """An empty sentence is zeros."""
        real, states = mask.unsqueeze(-1), _wide(states)
        if self.kind == "mean":
            shares = (real / real.sum(1, keepdim=True).clamp(min=1)).to(states.dtype).expand_as(states)
            vector = (states * shares).sum(1)
        else:
            vector, place = states.masked_fill(~real, float("-inf")).max(1)
            vector = vector.masked_fill(~mask.any(1, keepdim=True), 0)
            shares = torch.zeros_like(states).scatter(1, place.unsqueeze(1), 1.0) * real
        return Pooled(vector, shares.detach().mean(-1).unsqueeze(1) if look else None)


# ---- labellers -------------------------------------------------------------------------------------------


class Tagger(nn.Module):
    """A label for each of a sentence's words.

    labels: their names, tags of the scheme. crf: they are chosen together, as the scheme allows; else each by
    itself. Words are told what `attention` finds, and next to that what `label_attention` and the `pooling`
    of their sentence do.
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

    def forward(self, words: Words, look: bool = False) -> Labelled:
        """Scores of labels, zero on padding (a CRF's emissions). With `look` the weights (B, H, S, S) of the
        words that a word's label comes from: heads of attention, then the pooling's queries."""
        states, mask = self.encoder(words, words.mask).states, words.mask
        told, weights, of_labels, alike = [states], [], None, None
        if self.attention is not None:
            told[0], found = self.attention(states, mask, look)
            weights.append(found)
        if self.label_attention is not None:
            found, of_labels = self.label_attention(states, mask, look)
            told.append(found)
        if self.pooling is not None:
            pooled = self.pooling(states, mask, look)
            told.append(pooled.vector.unsqueeze(1) * mask.unsqueeze(-1))
            if pooled.weights is not None:  # all words of the sentence are told the same
                weights.append(pooled.weights.unsqueeze(2) * mask[:, None, :, None])
            alike = pooled.penalty
        scores = self.output(torch.cat(told, -1)) * mask.unsqueeze(-1)
        looked = torch.cat(weights, 1) if look and weights else None
        return Labelled(scores, looked, mask, penalty=alike, of_labels=of_labels)

    @torch.no_grad()
    def decode(self, answer: Labelled) -> Best:
        """The most probable labels, together (CRF) or each by itself."""
        if self.crf is not None:
            best: Best = self.crf.decode(answer.scores, answer.mask)
            return best
        log_p, labels = _log_p(answer.scores).max(-1)
        return Best(labels * answer.mask, (log_p * answer.mask).sum(-1))

    @torch.no_grad()
    def find(self, answer: Labelled) -> list[list[Found]]:
        """The spans that the most probable labels mean, of each sentence."""
        labels, lengths = self.decode(answer).labels.tolist(), answer.mask.sum(1).tolist()
        names = [[self.labels[label] for label in row[:n]] for row, n in zip(labels, lengths, strict=True)]
        spans = [tags.read(row, self.scheme) for row in names]
        probabilities = iter(self._probability(answer, self._windows(spans, labels, lengths)))
        return [[Found(span, next(probabilities)) for span in found] for found in spans]

    def _windows(self, spans: list[list[Span]], labels: list[list[int]], lengths: list[int]) -> Windows:
        """The labels with which spans are some; where they are tagged against the scheme, also these."""
        places, allowed = [], []
        for row, found in enumerate(spans):
            for span in found:
                seen = tags.window(span, lengths[row], self.labels, self.scheme)
                for place in range(span.start, span.end):
                    seen[place - span.start][labels[row][place]] = True
                places.append((row, span.start, len(seen)))
                allowed.append(torch.tensor(seen))
        rows, starts, sizes = torch.tensor(places, dtype=torch.long).reshape(-1, 3).T
        padded = pad_sequence(allowed, batch_first=True) if allowed else torch.ones(0, 1, len(self.labels))
        return Windows(rows, starts, sizes, padded.bool())

    def _probability(self, answer: Labelled, windows: Windows) -> list[float]:
        if not len(windows.rows):
            return []
        rows, starts, sizes, allowed = (part.to(answer.scores.device) for part in windows)
        if self.crf is not None:
            windows = Windows(rows, starts, sizes, allowed)
            found: list[float] = self.crf.within(answer.scores, answer.mask, windows).tolist()
            return found
        places = torch.arange(allowed.shape[1], device=rows.device)
        inside = places < sizes.unsqueeze(-1)
        p = _log_p(answer.scores).exp()[rows.unsqueeze(-1), (starts.unsqueeze(-1) + places) * inside]
        free = ~inside | allowed.all(-1)
        return p.mul(allowed).sum(-1).masked_fill(free, 1).prod(-1).tolist()


class SpanTagger(nn.Module):
    """A type, or none, for each span of up to `width` words, from its ends, its width, and the embeddings of
    its words as attention weighs them (Lee et al. 2017). Spans that are found do not overlap.

    labels: names of the tags of the scheme, in which gold spans come. hidden: width of the layer between.
    `types` are those of the tags; type k has the scores [..., k + 1], and none has [..., 0].
    """

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

    def forward(self, words: Words, look: bool = False) -> Labelled:
        """Scores of the spans' types, zero where there is no span. With `look` the weights (B, 1, N, S) of
        the words within each."""
        vectors = self.encoder.embedding(words)
        states = self.encoder.read(vectors, words.mask).states
        spans = self.spans(words.mask.shape[1], words.mask.device)
        mask = spans[:, 1] < words.mask.sum(1, keepdim=True)
        found = self.pooling(states, spans.expand(len(states), -1, -1), mask, vectors)
        scores = self.output(self.hidden(found.vector).relu()) * mask.unsqueeze(-1)
        weights = None
        if look:
            slots, within = words.mask.shape[1], torch.arange(found.weights.shape[-1], device=spans.device)
            places = (spans[:, :1] + within).expand_as(found.weights)
            weights = found.weights.new_zeros(*mask.shape, slots + self.width)
            weights = weights.scatter(-1, places, found.weights)[..., :slots].unsqueeze(1)
        return Labelled(scores, weights, mask, spans)

    def spans(self, slots: int, device: torch.device) -> Int[Tensor, "N 2"]:
        """All spans of up to `width` of so many words: first and last word, by the first."""
        starts = torch.arange(slots, device=device).unsqueeze(1).expand(-1, self.width)
        ends = starts + torch.arange(self.width, device=device)
        spans = torch.stack([starts, ends], -1).flatten(0, 1)
        return spans[spans[:, 1] < slots]

    def gold(self, labels: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Int[Tensor, "B N"]:
        """Of each span the type that tags mean, 0 for none. Spans that are too wide are not among them."""
        spans = self.spans(labels.shape[1], torch.device("cpu"))
        numbers = {(first, last): number for number, (first, last) in enumerate(spans.tolist())}
        gold = torch.zeros(len(labels), len(spans), dtype=torch.long)
        for row, (ids, length) in enumerate(zip(labels.tolist(), mask.sum(1).tolist(), strict=True)):
            for kind, start, end in tags.read([self.labels[label] for label in ids[:length]], self.scheme):
                if end - start <= self.width:
                    gold[row, numbers[start, end - 1]] = 1 + self.types.index(kind)
        return gold.to(labels.device)

    @torch.no_grad()
    def find(self, answer: Labelled) -> list[list[Found]]:
        """Of each sentence the spans that do not overlap and are, together, the most probable: those with the
        largest sum of log p(type) - log p(none), by dynamic programming."""
        if answer.spans is None:
            raise Seq2attnError("this answer has no spans: it is not one of a SpanTagger")
        log_p = _log_p(answer.scores)
        best, kinds = log_p[..., 1:].max(-1)
        gains = (best - log_p[..., 0]).masked_fill(~answer.mask, -1)
        sentences = zip(gains.tolist(), best.exp().tolist(), kinds.tolist(), strict=True)
        return [self._best(answer.spans.tolist(), *sentence) for sentence in sentences]

    def _best(
        self, spans: list[list[int]], gains: list[float], probabilities: list[float], kinds: list[int]
    ) -> list[Found]:
        ending: dict[int, list[int]] = {}
        for number, gain in enumerate(gains):
            if gain > 0:
                ending.setdefault(spans[number][1] + 1, []).append(number)
        best: list[tuple[float, list[int]]] = [(0.0, [])]  # of the words up to each
        for end in range(1, max(ending, default=0) + 1):
            ways = [
                (before + gains[number], [*chosen, number])
                for number in ending.get(end, [])
                for before, chosen in [best[spans[number][0]]]
            ]
            best.append(max([best[-1], *ways], key=lambda way: way[0]))
        return [
            Found(Span(self.types[kinds[n]], spans[n][0], spans[n][1] + 1), probabilities[n])
            for n in best[-1][1]
        ]


class Classifier(nn.Module):
    """A label for each sentence, from its words in one vector."""

    def __init__(
        self, encoder: Encoder, labels: Sequence[str], pooling: AttentivePooling | PlainPooling
    ) -> None:
        super().__init__()
        self.encoder, self.labels, self.pooling = encoder, list(labels), pooling
        self.output = nn.Linear(pooling.size, len(labels))

    def forward(self, words: Words, look: bool = False) -> Labelled:
        """Scores of labels. With `look` the weights (B, H, S) of the words, for each query and head."""
        pooled = self.pooling(self.encoder(words, words.mask).states, words.mask, look)
        everything = words.mask.new_ones(len(words.mask))
        return Labelled(self.output(pooled.vector), pooled.weights, everything, penalty=pooled.penalty)


def _fits(attention: Attention | MultiHead, role: str) -> None:
    inner = attention.attention if isinstance(attention, MultiHead) else attention
    for _, why in incompatibilities(inner.score, inner.normalize, role):
        raise Seq2attnError(why)


def _by_head(weights: Tensor | None) -> Tensor:
    """(B, H, T, S), also of one head."""
    if weights is None:
        raise Seq2attnError(
            "an attention gave no weights although it was asked for them: mend its normalizer"
        )
    return weights if weights.ndim == 4 else weights.unsqueeze(1)


def _log_p(scores: Tensor) -> Tensor:
    return _wide(scores).log_softmax(-1)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
