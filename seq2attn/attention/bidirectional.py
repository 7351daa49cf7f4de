"""Attention in both directions between two sequences: what a text says to a question, and a question to it.

Letters: B batch, T context, J query words, D width of both.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.attention import Normalizer, Past, Scorer, incompatibilities
from seq2attn.attention.normalizers import Softmax, seen
from seq2attn.attention.scorers import Trilinear
from seq2attn.errors import Seq2attnError


class Flow(NamedTuple):
    """A context that has seen its query, and what looked at what; zero on padding if H is."""

    states: Tensor  # (B, T, 4 D): G = [H; U~; H * U~; H * H~]
    query_weights: Tensor  # (B, T, J), of the query's words for each word of the context
    context_weights: Tensor  # (B, T), of the context's words for the whole query


class BidirectionalFlow(nn.Module):
    """Bidirectional attention flow (BiDAF; Seo et al. 2017, eq. 1-2 and section 2.4).

    S_tj = score(h_t, u_j) of context H (T, D) and query U (J, D).
    To the query: a_t = normalize_j(S_tj), U~_t = sum_j a_tj u_j. To the context: b = normalize_t(max_j S_tj),
    h~ = sum_t b_t h_t, the same H~ for every t. G = [H; U~; H * U~; H * H~].

    score: the paper's w . [h; u; h * u] (trilinear) if None. normalize: one for both directions, softmax if
    None; where it reads its query (local_p), the query towards the context is the mean of the u_j.
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
        """True in the masks = a word. Of an empty query nothing flows: G = [H; 0; 0; 0]."""
        mask = context_mask.unsqueeze(-1) & query_mask.unsqueeze(-2)
        past = Past(None, None, 0)
        with torch.autocast(mask.device.type, enabled=False):
            h, u = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (context, query))
            scores = self.score(h, self.score.keys(u), past)
            best = scores.masked_fill(~seen(mask), float("-inf")).amax(-1).unsqueeze(-2)
            words = query_mask.unsqueeze(-1)  # the query as a whole is the mean of its words
            whole = (u * words).sum(-2, keepdim=True) / words.sum(-2, keepdim=True).clamp(min=1)
            to_query = self._weigh(scores, mask, past, h)
            to_context = self._weigh(best, mask.any(-1).unsqueeze(-2), past, whole)
        asked, told = (
            looked.to(values.dtype) @ values
            for (_, looked), values in ((to_query, query), (to_context, context))
        )
        states = torch.cat([context, asked, context * asked, context * told], -1)
        return Flow(states, to_query[0], to_context[0].squeeze(-2))

    def _weigh(self, scores: Tensor, mask: Tensor, past: Past, query: Tensor) -> tuple[Tensor, Tensor]:
        """The weights, and what is looked at: the weights, or what is drawn from them."""
        weights = self.normalize(scores, mask, past, query)
        drawn = self.normalize.sample(weights, past)
        return weights, weights if drawn is None else drawn
