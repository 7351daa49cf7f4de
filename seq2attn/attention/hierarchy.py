"""Hierarchical attention: weights the sentences of a source, and the words within them.

Nallapati et al. 2016 ("Abstractive Text Summarization using Sequence-to-Sequence RNNs and Beyond", section
2.4) scale the weight of each word j by that of its sentence s(j):

    P(j) = P_w(j) P_s(s(j)) / sum_k P_w(k) P_s(s(k))

With P_w = softmax(e) that is softmax(e + log P_s), as the sum of exp(e) cancels: log P_s is a score for each
sentence, added to the scores of its positions. So any scorer and normalizer may score the words, and weights
are weights of source positions as in other attentions. With one sentence log P_s = 0, and nothing changes.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seq2attn.attention.interfaces import Hierarchy, Scorer, check_shape
from seq2attn.attention.memory import Past, Sentences
from seq2attn.errors import Seq2attnError


class SentenceAttention(Hierarchy):
    """P_s = softmax of the scores of query and sentence, whose key is made of its mean state.

    (The paper encodes sentences with a second recurrent network, and gives it their positions.)
    """

    def __init__(self, score: Scorer) -> None:
        super().__init__()
        if (why := sentence_incompatibility(score)) is not None:
            raise Seq2attnError(why)
        self.score = score

    def remember(self, states: Float[Tensor, "*b S D"], sentence_ids: Int[Tensor, "*c S"]) -> Sentences:
        """See the base class; all heads may share the ids."""
        count = max(1, int(sentence_ids.max()) + 1)
        numbers = torch.arange(count, device=sentence_ids.device)[:, None]
        members: Bool[Tensor, "*c N S"] = sentence_ids.unsqueeze(-2) == numbers
        sizes = members.sum(-1, keepdim=True).clamp(min=1)
        means = members.to(states.dtype) @ states / sizes.to(states.dtype)  # (..., N, D)
        return Sentences(self.score.keys(means), members.any(-1), sentence_ids)

    def log_weights(self, query: Float[Tensor, "*b T Q"], sentences: Sentences) -> Float[Tensor, "*b T N"]:
        """Return log P_s of each sentence."""
        scores = self.score(query, sentences.keys, Past(None, None, 0))
        check_shape(self.score, "scores", scores, query.shape[:-1], sentences.mask.shape[-1])
        lowest = torch.finfo(scores.dtype).min  # finite: a source may have no sentence at all
        return scores.masked_fill(~sentences.mask.unsqueeze(-2), lowest).log_softmax(-1)  # type: ignore[no-any-return]

    def bias(self, query: Float[Tensor, "*b T Q"], sentences: Sentences) -> Float[Tensor, "*b T S"]:
        """Return log P_s(s(j)) of each source position j; any number where j is masked."""
        log_weights = self.log_weights(query, sentences)
        ids = sentences.ids.clamp(min=0).unsqueeze(-2)
        return log_weights.gather(-1, ids.expand(*log_weights.shape[:-1], -1))


def sentence_incompatibility(score: Scorer | type[Scorer]) -> str | None:
    """Return the reason why a scorer cannot score sentences; None if it can."""
    name = score.__name__ if isinstance(score, type) else type(score).__name__
    if score.stateful:
        return f"{name} follows the weights of earlier queries, word by word: it cannot score sentences"
    if score.position_dependent:
        return f"{name} depends on the positions of words: it cannot score sentences"
    return None
