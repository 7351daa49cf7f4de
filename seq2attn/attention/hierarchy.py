"""Hierarchical attention: which sentence of a source to look at, and which of its words.

Nallapati et al. 2016 ("Abstractive Text Summarization using Sequence-to-Sequence RNNs and Beyond", section
2.4) scale the weights of words by that of their sentence s(j):

    P(j) = P_w(j) P_s(s(j)) / sum_k P_w(k) P_s(s(k))

With P_w = softmax(e) that is softmax(e + log P_s), as the sum of exp(e) cancels: a score of its own for each
sentence, added to those of its slots. So any scorer and normalizer may stand below, and weights are weights
of slots, as ever. With one sentence, log P_s = 0, and nothing is changed.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seq2attn.attention.attention import Hierarchy, Past, Scorer, Sentences, shaped
from seq2attn.errors import Seq2attnError


class SentenceAttention(Hierarchy):
    """P_s = softmax of how the query goes with each sentence, which is the mean state of its slots.

    (The paper reads sentences with a recurrent network of their own, and tells it their positions.)
    """

    def __init__(self, score: Scorer) -> None:
        super().__init__()
        if (why := sentence_incompatibility(score)) is not None:
            raise Seq2attnError(why)
        self.score = score

    def remember(self, states: Float[Tensor, "*b S D"], of: Int[Tensor, "*c S"]) -> Sentences:
        """See the base class; heads may share the numbers."""
        count = max(1, int(of.max()) + 1)
        within: Bool[Tensor, "*c N S"] = of.unsqueeze(-2) == torch.arange(count, device=of.device)[:, None]
        sizes = within.sum(-1, keepdim=True).clamp(min=1)
        means = within.to(states.dtype) @ states / sizes.to(states.dtype)
        return Sentences(self.score.keys(means), within.any(-1), of)

    def log_weights(self, query: Float[Tensor, "*b T Q"], sentences: Sentences) -> Float[Tensor, "*b T N"]:
        """log P_s of each sentence."""
        scores = self.score(query, sentences.keys, Past(None, None, 0))
        shaped(self.score, "scores", scores, query.shape[:-1], sentences.there.shape[-1])
        never = torch.finfo(scores.dtype).min  # finite: a source may have no sentence at all
        there = sentences.there.unsqueeze(-2)
        return scores.masked_fill(~there, never).log_softmax(-1)  # type: ignore[no-any-return]

    def bias(self, query: Float[Tensor, "*b T Q"], sentences: Sentences) -> Float[Tensor, "*b T S"]:
        """log P_s(s(j)) of each slot j; of those in no sentence, what the mask hides anyway."""
        log_weights = self.log_weights(query, sentences)
        of = sentences.of.clamp(min=0).unsqueeze(-2)
        return log_weights.gather(-1, of.expand(*log_weights.shape[:-1], -1))


def sentence_incompatibility(score: Scorer | type[Scorer]) -> str | None:
    """Why a scorer cannot score sentences; None if it can."""
    name = score.__name__ if isinstance(score, type) else type(score).__name__
    if score.stateful:
        return f"{name} follows where it has looked slot by slot: it cannot score sentences"
    if score.position_dependent:
        return f"{name} knows the places of slots, and not of sentences: it cannot score these"
    return None
