"""Several attentions side by side."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention import Attended, Attention, Memory, Past
from seq2attn.errors import Seq2attnError


class MultiHead(nn.Module):
    """Several attentions side by side, each in its own projection of the space (Vaswani et al. 2017).

    `rotary` turns projected queries and keys by their positions; `None` leaves them.
    """

    def __init__(
        self,
        heads: int,
        query_size: int,
        key_size: int,
        attention: Attention,
        rotary: Callable[[Tensor, Tensor | None], Tensor] | None = None,
    ) -> None:
        super().__init__()
        head_size(query_size, heads)
        self.heads, self.attention, self.rotary = heads, attention, rotary
        self.looks_back = attention.looks_back
        self.query, self.key, self.value, self.out = (
            nn.Linear(size, query_size) for size in (query_size, key_size, key_size, query_size)
        )

    def remember(self, states: Tensor, mask: Tensor, start: Tensor | None = None) -> Memory:
        """States (B, S, K); mask (B, 1 or T, S); start (B,): position of the first state (0 if None)."""
        keys, values = self._split(self.key(states)), self._split(self.value(states))
        return self.attention.remember(self._turn(keys, start), mask.unsqueeze(1), values)

    def begin(self, memory: Memory) -> Past:
        """The past before the first query."""
        return self.attention.begin(memory)

    def forward(
        self,
        query: Float[Tensor, "B T Q"],
        memory: Memory,
        past: Past | None = None,
        need_weights: bool = True,
    ) -> Attended:
        """Context (B, T, Q), weights (B, H, T, S)."""
        queries = self._turn(self._split(self.query(query)), None if past is None else past.step)
        attended: Attended = self.attention(queries, memory, past, need_weights)
        return attended._replace(context=self.out(attended.context.transpose(1, 2).flatten(2)))

    def _split(self, x: Tensor) -> Tensor:  # (B, L, H*D) -> (B, H, L, D)
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)

    def _turn(self, x: Tensor, start: Tensor | None) -> Tensor:
        return x if self.rotary is None else self.rotary(x, start)


def head_size(size: int, heads: int) -> int:
    """The width of one head; an error if the heads do not divide the size."""
    if heads < 1 or size % heads:
        raise Seq2attnError(f"heads must divide the size: got heads={heads} for size={size}")
    return size // heads
