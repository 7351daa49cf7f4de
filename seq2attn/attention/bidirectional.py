"""Attention in both directions between two sequences, a context (such as a text) and a query (a question).

Letters: B batch, T context words, J query words, D width of both.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.compatibility import incompatibilities
from seq2attn.attention.interfaces import Normalizer, Scorer
from seq2attn.attention.masks import check_mask
from seq2attn.attention.memory import Past
from seq2attn.attention.normalizers import Softmax, nonempty
from seq2attn.attention.precision import full_precision
from seq2attn.attention.scorers import Trilinear
from seq2attn.errors import Seq2attnError


class Flow(NamedTuple):
    """The context encoded together with its query, and the weights of both directions.

    States at padding are zero if H is zero there.
    """

    states: Tensor  # (B, T, 4 D): G = [H; U~; H * U~; H * H~]
    query_weights: Tensor  # (B, T, J), of the query's words for each word of the context
    context_weights: Tensor  # (B, T), of the context's words for the whole query


class BidirectionalFlow(nn.Module):
    """Bidirectional attention flow (BiDAF; Seo et al. 2017, eq. 1-2 and section 2.4).

    S_tj = score(h_t, u_j) of context H (T, D) and query U (J, D).
    Context-to-query attention: a_t = normalize_j(S_tj), U~_t = sum_j a_tj u_j. Query-to-context attention:
    b = normalize_t(max_j S_tj), h~ = sum_t b_t h_t, the same H~ for every t. G = [H; U~; H * U~; H * H~].

    score: the paper's w . [h; u; h * u] (trilinear) if None. normalize: the normalizer of both directions,
    softmax if None; if it depends on its query (local_p), the second direction's query is the mean of the
    u_j.
    """

    def __init__(self, size: int, score: Scorer | None = None, normalize: Normalizer | None = None) -> None:
        super().__init__()
        self.score = Trilinear(size, size) if score is None else score
        self.normalize = Softmax(size) if normalize is None else normalize
        for _, why in incompatibilities(self.score, self.normalize, "bidirectional attention"):
            raise Seq2attnError(why)

    def forward(
        self,
        context: Float[Tensor, "B T D"],
        query: Float[Tensor, "B J D"],
        context_mask: Bool[Tensor, "B T"],
        query_mask: Bool[Tensor, "B J"],
    ) -> Flow:
        """Return the flow; True in the masks = a word. With an empty query, G = [H; 0; 0; 0]."""
        check_mask(context_mask, context.shape[:2], "(B, T), True = a word of the context")
        check_mask(query_mask, query.shape[:2], "(B, J), True = a word of the query")
        mask = context_mask.unsqueeze(-1) & query_mask.unsqueeze(-2)  # (B, T, J)
        past = Past(None, None, 0)
        with full_precision(mask.device):
            h, u = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (context, query))
            scores = self.score(h, self.score.keys(u), past)  # (B, T, J)
            best = scores.masked_fill(~nonempty(mask), float("-inf")).amax(-1).unsqueeze(-2)  # (B, 1, T)
            words = query_mask.unsqueeze(-1)
            mean = (u * words).sum(-2, keepdim=True) / words.sum(-2, keepdim=True).clamp(min=1)  # (B, 1, D)
            query_weights = self.normalize(scores, mask, past, h)  # (B, T, J)
            query_used = self._sampled(query_weights, past)
            context_weights = self.normalize(best, mask.any(-1).unsqueeze(-2), past, mean)  # (B, 1, T)
            context_used = self._sampled(context_weights, past)
        attended_query = query_used.to(query.dtype) @ query  # (B, T, D), U~
        attended_context = context_used.to(context.dtype) @ context  # (B, 1, D), h~
        states = torch.cat(
            [context, attended_query, context * attended_query, context * attended_context], -1
        )
        return Flow(states, query_weights, context_weights.squeeze(-2))

    def _sampled(self, weights: Tensor, past: Past) -> Tensor:
        """Return a sample from the weights if the normalizer samples, else the weights."""
        sampled = self.normalize.sample(weights, past)
        return weights if sampled is None else sampled
