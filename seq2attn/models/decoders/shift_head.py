"""A head for alignments alone: Shift-AET of Chen et al. (2020), "Accurate Word Alignment Induction from
Neural Machine Translation".

Letters: B sentences, T target positions, S source positions, H heads, Q width of a query.
"""

from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention import Attended, Attention
from seq2attn.attention.heads import head_size
from seq2attn.models.encoders import Encoded


class ShiftHead(nn.Module):
    """Attention to the source by states of the decoder; no state and no logit depends on it.

    Row t is that of the step that has read token t - 1 as its input, so the weights of a token are in the row
    after the one that predicts it: they are made when the token is known. The mean of the heads is the
    alignment.

    attention: of one head, whose queries and keys have the width Q / heads;
    layer: the layer of a Transformer whose states it reads.
    """

    def __init__(
        self, heads: int, query_size: int, key_size: int, attention: Attention, layer: int = 0
    ) -> None:
        super().__init__()
        self.width = head_size(query_size, heads)
        self.heads, self.attention, self.layer = heads, attention, layer
        self.norm = nn.LayerNorm(query_size)
        self.query, self.key = (nn.Linear(size, query_size, bias=False) for size in (query_size, key_size))

    def forward(self, states: Float[Tensor, "B T Q"], encoded: Encoded) -> Attended:
        """Return the weights (B, H, T, S) of states of the decoder, one for each token that it has read."""
        keys = self._split_heads(self.key(encoded.states))  # (B, H, S, D)
        memory = self.attention.remember(keys, encoded.mask.unsqueeze(1))
        attended: Attended = self.attention(self._split_heads(self.query(self.norm(states))), memory)
        return attended

    def _split_heads(self, x: Tensor) -> Tensor:  # (B, L, H * D) -> (B, H, L, D)
        heads: Tensor = x.unflatten(-1, (self.heads, self.width))
        return heads.transpose(1, 2)
