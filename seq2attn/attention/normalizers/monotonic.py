"""Monotonic attention: a scan of the source that continues from its last stop, and never goes back.

All classes here use the same process. The scan visits the source positions in order, from its last stop on,
that position included; it stops at position j with probability p_j, or moves on. If the alignment state b_j
is the probability that its last stop was at j,

    arrivals:  q_j = (1 - p_{j-1}) q_{j-1} + b_j            weights:  alpha_j = p_j q_j

(Raffel et al. 2017, eq. 13-14). If each p is 0 or 1, that *is* the hard scan, so that training and
decoding compute the same thing. Cost: O(S log S) a query, log2(S) steps deep.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.interfaces import Normalizer
from seq2attn.attention.memory import Past
from seq2attn.attention.normalizers.dense import mask_scores
from seq2attn.attention.normalizers.local import lengths, positions
from seq2attn.errors import Seq2attnError

Exhausted = Literal["zero", "keep", "last"]


def arrivals(going: Float[Tensor, "*b S"], alignment_state: Float[Tensor, "*b S"]) -> Float[Tensor, "*b S"]:
    """Return q_j = going_{j-1} q_{j-1} + alignment_state_j: the probability that a scan arrives at each
    position.

    Each pass of the loop doubles the distance from which scans are counted. The usual closed form divides by
    a product of probabilities, and loses all weight when that product nears 0. Here there is neither such a
    division nor a logarithm of a probability, so results are exact for probabilities of 0 and 1, too, and so
    are gradients.
    """
    length = alignment_state.shape[-1]
    arriving, going = alignment_state, F.pad(going[..., :-1], (1, 0))
    reach = 1
    while reach < length:
        arriving = arriving + going * F.pad(arriving[..., :-reach], (reach, 0))
        going = going * F.pad(going[..., :-reach], (reach, 0))
        reach *= 2
    return arriving


def first_position(zeros: Float[Tensor, "*b S"]) -> Float[Tensor, "*b S"]:
    """Return the alignment state at the first position."""
    return zeros + (positions(zeros) == 0)


def previous_state(part: Normalizer, past: Past) -> Tensor:
    """Return the alignment state (..., 1, S) of the past; Seq2attnError if there is none."""
    if past.alignment_state is None:
        raise Seq2attnError(
            f"{type(part).__name__} needs the alignment state of the last query, but past.alignment_state is "
            "None; start with Attention.initial_state(memory), and pass on the past of each output"
        )
    return past.alignment_state.unsqueeze(-2)


class MonotonicScan(Normalizer):
    """Base class of the normalizers that scan a source. `Monotonic` explains `exhausted`."""

    stateful = ordered = position_dependent = True
    exhausted: Exhausted = "last"

    def initial_state(self, zeros: Float[Tensor, "*b S"]) -> Float[Tensor, "*b S"]:
        """Return the alignment state at the first position."""
        return first_position(zeros)

    def forward(
        self,
        scores: Float[Tensor, "*e T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """Return the weights alone."""
        weights, _ = self.step(scores, mask, past, query)
        return weights

    def scan(
        self,
        scores: Float[Tensor, "*b 1 S"],
        mask: Bool[Tensor, "*c 1 S"],
        past: Past,
        hard: bool = False,
    ) -> tuple[Float[Tensor, "*b 1 S"], Float[Tensor, "*b S"]]:
        """Return the probability of a stop at each position, and the next alignment state.

        p = sigmoid(scores), or scores >= 0 if hard. Seq2attnError without a `past.alignment_state`.
        """
        scores = scores.masked_fill(~mask, float("-inf"))  # a scan passes masked positions
        before = previous_state(self, past)
        if hard:
            stops = (scores >= 0).to(scores)
            going = 1 - stops
        else:
            stops, going = scores.sigmoid(), (-scores).sigmoid()
        arriving = arrivals(going, before)
        weights = after = stops * arriving
        if self.exhausted == "keep":
            after = weights + before * going.flip(-1).cumprod(-1).flip(-1)
        elif self.exhausted == "last":
            missed = (going * arriving)[..., -1:]
            weights = after = weights + missed * (positions(scores) == lengths(mask) - 1)
        # An all-masked row has nothing to scan: its state stays the same.
        return weights, torch.where(mask.any(-1, keepdim=True), after, before).squeeze(-2)


class Monotonic(MonotonicScan):
    """The probability that a scan stops at a position, with p = sigmoid(e + r + noise) (Raffel et al. 2017,
    section 2).

    In training the weights are the expectation over all stops. N(0, noise^2) is added to the scores, so that
    p learns to be near 0 or 1. In evaluation the scan stops at the first position with p >= 0.5; with `hard`
    False the weights are the expectation there, too.

    bias: the initial r, a number that each head learns (low: scans go far, which long sources need);
    exhausted: the result of a scan that stops nowhere. "zero": no weight, for this query and all later ones,
    as in the paper's expectation; "keep": no weight for this query, and the next scan starts from the same
    position; "last": a stop at the last position (Arivazhagan et al. 2019), so that weights sum to 1.
    """

    def __init__(
        self,
        query_size: int = 1,
        heads: int = 1,
        *,
        bias: float = -1.0,
        noise: Annotated[float, Ge(0)] = 1.0,
        exhausted: Exhausted = "last",
        hard: bool = True,
    ) -> None:
        super().__init__(query_size, heads)
        self.noise, self.exhausted, self.hard = noise, exhausted, hard
        self.sums_to_one = exhausted == "last"
        self.bias = nn.Parameter(torch.full((heads, 1, 1), bias))

    def step(
        self,
        scores: Float[Tensor, "*b 1 S"],
        mask: Bool[Tensor, "*c 1 S"],
        past: Past,
        query: Float[Tensor, "*b 1 Q"],
    ) -> tuple[Float[Tensor, "*b 1 S"], Float[Tensor, "*b S"]]:
        """See the class."""
        scores = scores + self.bias
        if self.training and self.noise:
            scores = scores + self.noise * torch.randn_like(scores)
        return self.scan(scores, mask, past, hard=self.hard and not self.training)


class MoChA(Monotonic):
    """A softmax over a chunk of `width` positions that ends at the stop of a monotonic scan (Chiu & Raffel
    2018).

    beta_j = sum_k alpha_k softmax_{l in k-width+1 .. k}(u_l)_j. As chunks begin before the stop, small
    reorderings can be learned. Scores (2, ..., T, S): e of the scan, and u of the chunk. Each chunk has its
    own softmax, which takes memory (..., S, width): moving sums of exp(u) would lose chunks whose u are far
    below the highest.
    """

    n_scores = 2

    def __init__(
        self,
        query_size: int = 1,
        heads: int = 1,
        *,
        width: Annotated[int, Ge(1)] = 8,
        bias: float = -1.0,
        noise: Annotated[float, Ge(0)] = 1.0,
        exhausted: Exhausted = "last",
        hard: bool = True,
    ) -> None:
        super().__init__(query_size, heads, bias=bias, noise=noise, exhausted=exhausted, hard=hard)
        self.width: int | None = width

    def step(
        self,
        scores: Float[Tensor, "2 *b 1 S"],
        mask: Bool[Tensor, "*c 1 S"],
        past: Past,
        query: Float[Tensor, "*b 1 Q"],
    ) -> tuple[Float[Tensor, "*b 1 S"], Float[Tensor, "*b S"]]:
        """See the class."""
        stops, alignment_state = super().step(scores[0], mask, past, query)
        return self.spread(stops, scores[1], mask), alignment_state

    def spread(
        self, stops: Float[Tensor, "*b 1 S"], scores: Float[Tensor, "*b 1 S"], mask: Bool[Tensor, "*c 1 S"]
    ) -> Float[Tensor, "*b 1 S"]:
        """Spread the weight of every stop over the chunk that ends there."""
        length = scores.shape[-1]
        width = length if self.width is None else min(self.width, length)
        before = (width - 1, 0)
        inside = F.pad(mask, before).unfold(-1, width, 1)  # (..., 1, S, width)
        chunks = F.pad(scores, before).unfold(-1, width, 1)  # (..., 1, S, width)
        # An all-masked chunk has no stop, so its softmax does not matter.
        shares = mask_scores(chunks, inside).softmax(-1) * stops[..., None]
        # Folding sums the shares of a position in all chunks that overlap there.
        spread = F.fold(shares.flatten(0, -3).mT, (1, length + width - 1), (1, width))
        return spread[..., width - 1 :].view_as(scores)


class MILk(MoChA):
    """MoChA whose chunks begin at the first position: monotonic infinite look-back (Arivazhagan et al. 2019).

    beta_j = sum_{k >= j} alpha_k exp(u_j) / sum_{l <= k} exp(u_l); memory (..., S, S).
    """

    def __init__(
        self,
        query_size: int = 1,
        heads: int = 1,
        *,
        bias: float = -1.0,
        noise: Annotated[float, Ge(0)] = 1.0,
        exhausted: Exhausted = "last",
        hard: bool = True,
    ) -> None:
        super().__init__(query_size, heads, bias=bias, noise=noise, exhausted=exhausted, hard=hard)
        self.width = None


class HardMonotonic(MonotonicScan):
    """The prior of exact hard monotonic attention: a softmax over the positions from the last one on (Wu &
    Cotterell 2019).

    p_t(j) = sum_i b_i softmax_{k >= i}(e_t)_j: a Markov chain that never moves back. It is the same scan
    with p_j = exp(e_j) / sum_{k >= j} exp(e_k), which always stops; training and evaluation agree. The next
    alignment state b is p_t; once its token is known, a decoder replaces it by the posterior.
    """

    def step(
        self,
        scores: Float[Tensor, "*b 1 S"],
        mask: Bool[Tensor, "*c 1 S"],
        past: Past,
        query: Float[Tensor, "*b 1 Q"],
    ) -> tuple[Float[Tensor, "*b 1 S"], Float[Tensor, "*b S"]]:
        """See the class."""
        lowest = torch.finfo(scores.dtype).min  # finite: of -inf alone, logcumsumexp has gradient nan
        scores = scores.masked_fill(~mask, lowest)
        rest = scores.flip(-1).logcumsumexp(-1).flip(-1)  # of a position and all after it
        return self.scan(scores - F.pad(rest[..., 1:], (0, 1), value=lowest), mask, past)
