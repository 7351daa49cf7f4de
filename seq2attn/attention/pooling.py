"""Pooling: attention that turns a sequence into a vector, or into one vector per query.

Letters: B batch, S tokens, D width of their states, V width of the values (D by default), Q width of a query,
r queries ("hops"), N sentences of a document or spans of a sentence, W tokens of the widest.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seq2attn.attention.attention import Attention
from seq2attn.attention.compatibility import incompatibilities
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.masks import check_mask
from seq2attn.attention.memory import Attended, Memory
from seq2attn.attention.precision import full_precision
from seq2attn.attention.renamed import warn_renamed
from seq2attn.errors import Seq2attnError, require_type


class Pooling(nn.Module):
    """r learned queries attend to a sequence: A = normalize(score(Q, K)), M = A V.

    With the scorer `perceptron`, one query is the attention of HAN (Yang et al. 2016, eq. 5-7), and r
    without bias are the self-attentive embedding (Lin et al. 2017, eq. 6-7).
    zeros: initialise the queries to zero. Where scores are products with the query (dot, scaled_dot, general,
    perceptron), training then starts from the mean of the values. Use it with one query only: hops that start
    equal become different only through the layers that read them; a penalty alone never separates them.
    """

    def __init__(
        self, attention: Attention | MultiHead, queries: int, query_size: int, *, zeros: bool = False
    ) -> None:
        super().__init__()
        require_type(attention, (Attention, MultiHead), "an Attention or a MultiHead")
        inner = attention.attention
        for _, why in incompatibilities(inner.score, inner.normalize, "pooling"):
            raise Seq2attnError(why)
        if inner.relative is not None:
            raise Seq2attnError("pooling cannot use relative positions: its queries have no position")
        if queries < 1:
            raise Seq2attnError(f"pooling needs at least one query, got queries={queries}")
        self.attention = attention
        start = torch.zeros(queries, query_size)
        self.queries = nn.Parameter(start if zeros else start.normal_(std=query_size**-0.5))

    def forward(
        self, states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"], need_weights: bool = True
    ) -> Attended:
        """Pool states: context (B, r, V) and weights (B, r, S); True in the mask = a token.

        With MultiHead the weights are (B, H, r, S). An empty sentence has weights 0 and context 0.
        """
        mask = check_mask(mask, states.shape[:2], "(B, S), True = a token")
        return self.pool(self.attention.remember(states, mask), need_weights)

    def pool(self, memory: Memory, need_weights: bool = True) -> Attended:
        """Pool a memory that is already made."""
        queries = self.queries.expand(len(memory.values), -1, -1)
        attended: Attended = self.attention(queries, memory, need_weights=need_weights)
        return attended

    def look(self, memory: Memory, need_weights: bool = True) -> Attended:
        """The deprecated name of `pool`."""
        warn_renamed("Pooling", "look", "pool")
        return self.pool(memory, need_weights)


def penalty(weights: Float[Tensor, "*b r S"]) -> Float[Tensor, "*b"]:
    """Return |A A' - I|^2 per sentence, the squared Frobenius norm (Lin et al. 2017, eq. 8), which is small
    if hops differ.

    0 where every hop attends to a token of its own, r (r - 1) where all attend to the same token; with more
    hops than tokens it cannot be 0. A hop with no weight at all adds nothing: the penalty and gradient of an
    empty sentence are 0.
    """
    with full_precision(weights.device):
        identity = torch.diag_embed((weights != 0).any(-1).to(weights.dtype))  # (..., r, r)
        return (weights @ weights.mT - identity).square().sum((-2, -1))


class Document(NamedTuple):
    """A document as a vector, and the weights of its words and sentences."""

    vector: Tensor  # (B, r V), the hops of the sentence pooling side by side
    words: Tensor  # (B, N, r, S), weights of the words in their sentence
    sentences: Tensor  # (B, r, N), weights of the sentences in their document


class Hierarchical(nn.Module):
    """Pools words to sentences, and sentences to the document (HAN; Yang et al. 2016, eq. 5-10).

    words, sentences: the two poolings, with parameters of their own; r hops of words make a sentence
    state of r V. encode: states (B, N, r V) and mask (B, N) of sentences -> contextual states (B, N, D), such
    as the paper's GRU; None: sentences are pooled as they are.
    """

    def __init__(
        self, words: Pooling, sentences: Pooling, encode: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.words, self.sentences, self.encode = words, sentences, encode

    def forward(self, words: Float[Tensor, "B N S D"], mask: Bool[Tensor, "B N S"]) -> Document:
        """Pool the states of words; True in the mask = a word. A sentence without words is masked, at
        any position, and the vector of a document without words is zero.
        """
        mask = check_mask(mask, words.shape[:3], "(B, N, S), True = a word")
        pooled: Attended = self.words(words.flatten(0, 1), mask.flatten(0, 1))
        sentences = pooled.context.flatten(1).unflatten(0, mask.shape[:2])  # (B, N, r V)
        exists = mask.any(-1)  # (B, N)
        if self.encode is not None:
            sentences = self.encode(sentences, exists)
        document: Attended = self.sentences(sentences, exists)
        return Document(
            document.context.flatten(1),
            _needed(pooled.weights).unflatten(0, mask.shape[:2]),
            _needed(document.weights),
        )


class Spans(NamedTuple):
    """Spans of tokens, each as the parts of its vector; zero for masked spans."""

    start: Tensor  # (B, N, D), the state of the first token
    end: Tensor  # (B, N, D), the state of the last token
    attended: Tensor  # (B, N, V), the context of the attention within the span: the head
    width: Tensor  # (B, N, E), a learned vector for the number of tokens
    weights: Tensor  # (B, N, W), of the tokens start, start + 1, ...

    @property
    def vector(self) -> Tensor:
        """[start; end; attended; width] (B, N, 2 D + V + E)."""
        return torch.cat([self.start, self.end, self.attended, self.width], -1)


class SpanPooling(nn.Module):
    """[x_start; x_end; sum over the span of a_t v_t; phi(width)] (Lee et al. 2017, section 4).

    Scores are computed from contextual states and normalized within each span. The vectors that are summed
    may be others: in the paper, the word embeddings. The tokens of each span are gathered (B, N, W): sums
    over prefixes would be cheaper, but lose the scores within a span if there is a much higher one outside.
    widths: the number of widths with a vector of their own; wider spans share the last. width_size: E, 0 for
    no vector.
    """

    def __init__(
        self, attention: Attention, query_size: int, *, widths: int = 30, width_size: int = 20
    ) -> None:
        super().__init__()
        self.pooling = Pooling(attention, 1, query_size)
        self.width = nn.Embedding(widths, width_size)

    def forward(
        self,
        states: Float[Tensor, "B S D"],
        spans: Int[Tensor, "B N 2"],
        mask: Bool[Tensor, "B N"],
        values: Float[Tensor, "B S V"] | None = None,
    ) -> Spans:
        """Pool spans, given as the positions of their first and last tokens; True in the mask = a span.

        Masked spans may have any positions. Seq2attnError if another span does not lie within the S tokens.
        """
        check_mask(mask, spans.shape[:2], "(B, N), True = a span")
        _check_spans(spans, mask, states.shape[1])
        start, end = (spans * mask.unsqueeze(-1)).unbind(-1)  # (B, N)
        width = (end - start + 1) * mask  # (B, N), in tokens
        widest = int(torch.cat([width.flatten(), width.new_ones(1)]).amax())
        offsets = torch.arange(widest, device=width.device)  # (W,)
        within = offsets < width.unsqueeze(-1)  # (B, N, W)
        positions = (start.unsqueeze(-1) + offsets).clamp(max=states.shape[1] - 1)  # (B, N, W)
        row = torch.arange(len(states), device=width.device).unsqueeze(-1)  # (B, 1)
        attention = cast(Attention, self.pooling.attention)
        tokens = mask.new_ones(states.shape[:2])  # spans say where each may attend
        source = attention.remember(states, tokens, values)  # keys are made once for all spans
        keys, values = (
            part[row.unsqueeze(-1), positions].flatten(0, 1) for part in (source.keys, source.values)
        )
        pooled = self.pooling.pool(Memory(keys, values, within.flatten(0, 1).unsqueeze(1)))
        exists = mask.unsqueeze(-1)
        known_width = (width - 1).clamp(0, self.width.num_embeddings - 1)
        return Spans(
            start=states[row, start] * exists,
            end=states[row, end] * exists,
            attended=pooled.context.unflatten(0, mask.shape).squeeze(-2) * exists,
            width=self.width(known_width) * exists,
            weights=_needed(pooled.weights).unflatten(0, mask.shape).squeeze(-2) * exists,
        )


def _needed(weights: Tensor | None) -> Tensor:
    """Return weights that are there because need_weights was True."""
    return cast(Tensor, weights)


def _check_spans(spans: Tensor, mask: Tensor, length: int) -> None:
    start, end = spans.unbind(-1)
    outside = mask & ((start < 0) | (end < start) | (end >= length))
    if outside.any():
        row, n = outside.nonzero()[0].tolist()
        raise Seq2attnError(
            f"span {n} of sentence {row} is {spans[row, n].tolist()}: expected its first and last token, "
            f"0 <= first <= last < {length}; set its mask to false if it is none"
        )
