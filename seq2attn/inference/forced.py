"""The result of forced decoding."""

from typing import NamedTuple

from torch import Tensor


class ForcedDecoding(NamedTuple):
    """The result of forced decoding of a target with T tokens, from a source with S positions: of a text its
    tokens and </s>, of an image its grid, row by row."""

    log_probability: float  # of all tokens and </s>, in nats
    weights: Tensor | None  # (T + 1, S), attention of each step to each position
    copied: Tensor | None = None  # (T + 1,), the share of each token's probability that is copied
    attention: str = ""  # the name of the layer and the head of the weights
