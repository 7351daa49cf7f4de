"""Pooling: attention over a sequence -> one vector, or several.

Letters: B batch, S tokens, D width of their states, V width of the values (D unless said otherwise), Q width
of a query, r queries ("hops"), N sentences of a document or spans of a sentence, W tokens of the widest.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seq2attn.attention.attention import Attended, Attention, Memory, incompatibilities
from seq2attn.attention.heads import MultiHead
from seq2attn.errors import Seq2attnError


class Pooling(nn.Module):
    """r learned queries look at a sequence: A = normalize(score(Q, K)), M = A V.

    With the scorer `perceptron`, one query is the attention of HAN (Yang et al. 2016, eq. 5-7), and r
    without bias are the self-attentive embedding (Lin et al. 2017, eq. 6-7).
    zeros: start with queries of zeros, that is, with the mean of the values where scores are products with
    the query (dot, scaled_dot, general, perceptron). Hops that start alike differ only as far as what reads
    them does, and a penalty alone never parts them: use it with one query.
    """

    def __init__(
        self, attention: Attention | MultiHead, queries: int, query_size: int, *, zeros: bool = False
    ) -> None:
        super().__init__()
        inner = attention.attention if isinstance(attention, MultiHead) else attention
        for _, why in incompatibilities(inner.score, inner.normalize, "pooling"):
            raise Seq2attnError(why)
        if inner.relative is not None:
            raise Seq2attnError("relative positions make no sense in pooling: its queries stand nowhere")
        if queries < 1:
            raise Seq2attnError(f"pooling needs at least one query, got queries={queries}")
        self.attention = attention
        start = torch.zeros(queries, query_size)
        self.queries = nn.Parameter(start if zeros else start.normal_(std=query_size**-0.5))

    def forward(
        self, states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"], need_weights: bool = True
    ) -> Attended:
        """Context (B, r, V) and weights (B, r, S) of states; True in the mask = a token.

        With MultiHead the weights are (B, H, r, S). An empty sentence has weights 0 and context 0.
        """
        return self.look(self.attention.remember(states, mask.unsqueeze(1)), need_weights)

    def look(self, memory: Memory, need_weights: bool = True) -> Attended:
        """The same of a memory that is already made."""
        queries = self.queries.expand(len(memory.values), -1, -1)
        attended: Attended = self.attention(queries, memory, need_weights=need_weights)
        return attended


def penalty(weights: Float[Tensor, "*b r S"]) -> Float[Tensor, "*b"]:
    """|A A' - I|^2, the squared Frobenius norm, per sentence (Lin et al. 2017, eq. 8): hops should differ.

    0 where every hop has one token of its own, r (r - 1) where all have the same one; with more hops than
    tokens it cannot be 0. A hop that saw nothing owes nothing: an empty sentence has penalty and gradient 0.
    """
    with torch.autocast(weights.device.type, enabled=False):
        own = torch.diag_embed((weights != 0).any(-1).to(weights.dtype))
        return (weights @ weights.mT - own).square().sum((-2, -1))


class Document(NamedTuple):
    """A document in one vector, and where it was looked at."""

    vector: Tensor  # (B, r V), the hops of the sentence pooling side by side
    words: Tensor  # (B, N, r, S), weights of the words in their sentence
    sentences: Tensor  # (B, r, N), weights of the sentences in their document


class Hierarchical(nn.Module):
    """Words are pooled to sentences, sentences to the document (HAN; Yang et al. 2016, eq. 5-10).

    words, sentences: the two poolings, each with parameters of its own; r hops of words make a sentence
    state of r V. encode: states (B, N, r V) and mask (B, N) of sentences -> states (B, N, D) in context, such
    as the paper's GRU; None: each sentence stands for itself.
    """

    def __init__(
        self, words: Pooling, sentences: Pooling, encode: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.words, self.sentences, self.encode = words, sentences, encode

    def forward(self, words: Float[Tensor, "B N S D"], mask: Bool[Tensor, "B N S"]) -> Document:
        """States of words; True in the mask = a word. Sentences without words are not there, wherever they
        stand, and a document without any is zeros.
        """
        context, of_words, *_ = self.words(words.flatten(0, 1), mask.flatten(0, 1))
        sentences, real = context.flatten(1).unflatten(0, mask.shape[:2]), mask.any(-1)
        if self.encode is not None:
            sentences = self.encode(sentences, real)
        context, of_sentences, *_ = self.sentences(sentences, real)
        return Document(context.flatten(1), of_words.unflatten(0, mask.shape[:2]), of_sentences)


class Spans(NamedTuple):
    """Spans of tokens, each in one vector by its parts; all zeros where the mask says that there is none."""

    start: Tensor  # (B, N, D), the state of the first token
    end: Tensor  # (B, N, D), the state of the last
    attended: Tensor  # (B, N, V), what the attention found within: the head
    width: Tensor  # (B, N, E), a learned vector of how many tokens there are
    weights: Tensor  # (B, N, W), of the tokens start, start + 1, ...

    @property
    def vector(self) -> Tensor:
        """[start; end; attended; width] (B, N, 2 D + V + E)."""
        return torch.cat(self[:4], -1)


class SpanPooling(nn.Module):
    """[x_start; x_end; sum over the span of a_t v_t; phi(width)] (Lee et al. 2017, section 4).

    Scores come from the states in context, `normalize` runs within each span, and what is summed may be
    other vectors, in the paper the word embeddings. The tokens of each span are gathered (B, N, W): sums over
    prefixes would be cheaper, but a high score anywhere outside drowns all that is within.
    widths: how many widths have a vector of their own, wider spans share the last; width_size: E, 0 for none.
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
        """Spans are the places of their first and last tokens, both within; True in the mask = a span.

        What stands in masked spans does not matter. An error if another does not lie within the S slots.
        """
        _check(spans, mask, states.shape[1])
        start, end = (spans * mask.unsqueeze(-1)).unbind(-1)
        width = (end - start + 1) * mask
        steps = torch.arange(int(torch.cat([width.flatten(), width.new_ones(1)]).amax()), device=width.device)
        within = steps < width.unsqueeze(-1)
        places = (start.unsqueeze(-1) + steps).clamp(max=states.shape[1] - 1)
        row = torch.arange(len(states), device=width.device).unsqueeze(-1)
        attention = cast(Attention, self.pooling.attention)
        whole = attention.remember(states, mask, values)  # keys are made once for all spans
        keys, values = (part[row.unsqueeze(-1), places].flatten(0, 1) for part in (whole.keys, whole.values))
        found = self.pooling.look(Memory(keys, values, within.flatten(0, 1).unsqueeze(1)))
        parts = (
            states[row, start],
            states[row, end],
            found.context.unflatten(0, mask.shape).squeeze(-2),
            self.width((width - 1).clamp(0, self.width.num_embeddings - 1)),
            found.weights.unflatten(0, mask.shape).squeeze(-2),  # type: ignore[union-attr]  # they are asked for
        )
        return Spans(*(part * mask.unsqueeze(-1) for part in parts))


def _check(spans: Tensor, mask: Tensor, slots: int) -> None:
    start, end = spans.unbind(-1)
    wrong = mask & ((start < 0) | (end < start) | (end >= slots))
    if wrong.any():
        row, n = wrong.nonzero()[0].tolist()
        raise Seq2attnError(
            f"span {n} of sentence {row} is {spans[row, n].tolist()}: expected its first and last token, "
            f"0 <= first <= last < {slots}; set its mask to false if it is none"
        )
