"""The result of forced decoding, and the heads that its weights are of."""

from typing import NamedTuple

from torch import Tensor

from seq2attn.errors import Seq2attnError
from seq2attn.inference.attention_norms import vector_norms


class ForcedDecoding(NamedTuple):
    """The result of forced decoding of a target with T tokens, from a source with S positions: of a text its
    tokens and </s>, of an image its grid, row by row."""

    log_probability: float  # of all tokens and </s>, in nats
    weights: Tensor | None  # (T + 1, S), attention of each step to each position
    copied: Tensor | None = None  # (T + 1,), the share of each token's probability that is copied
    attention: str = ""  # the name of the layer and the head of the weights
    others: tuple[Tensor, ...] = ()  # (T + 1, S) each, the weights of further heads that were asked for
    of_tokens: Tensor | None = None  # (T + 1,), the log-probability of each token, in nats


def of_head(weights: Tensor, head: int | None, vectors: Tensor | None = None) -> Tensor:
    """Return the weights (B, T, S) of a head, from those of all (B, H, T, S); their mean if head is None.

    vectors: (B, H, S, D), those that are weighted; if given, return their norms (`vector_norms`).
    """
    count = weights.shape[1]
    if head is not None and not -count <= head < count:
        raise Seq2attnError(f"the layer has {numbered(count, 'head')}; got head {head}")
    if vectors is not None:
        return vector_norms(weights, vectors, head)
    return weights.mean(1) if head is None else weights[:, head]


def numbered(count: int, what: str) -> str:
    """Return `1 head, number 0` or `4 heads, 0 to 3`."""
    return f"{count} {what}s, 0 to {count - 1}" if count > 1 else f"1 {what}, number 0"


def head_name(layer: int, layers: int, head: int | None, heads: int) -> str:
    """Return the name of a head, or of the mean of all: `layer 4 (0 to 5), mean of 8 heads`."""
    layer_range, head_range = (f" (0 to {count - 1})" if count > 1 else "" for count in (layers, heads))
    if head is None and heads > 1:
        return f"layer {layer}{layer_range}, mean of {heads} heads"
    return f"layer {layer}{layer_range}, head {(head or 0) % heads}{head_range}"
