"""Monotonic attention: a pointer scans the memory from where it stands, and never goes back.

One process serves all. From the place of the last stop, that slot included, the slots are visited in order;
the scan stops at slot j with chance p_j, or goes on. If `belief` says where it stood before,

    arrivals:  q_j = (1 - p_{j-1}) q_{j-1} + belief_j            weights:  alpha_j = p_j q_j

(Raffel et al. 2017, eq. 13-14). With p of 0 and 1 alone that *is* the hard scan, so that what is trained and
what is decoded cannot mean different things. Cost: O(S log S) a query, log2(S) steps deep.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seq2attn.attention.attention import Normalizer, Past
from seq2attn.attention.normalizers.dense import masked
from seq2attn.attention.normalizers.local import lengths, places
from seq2attn.errors import Seq2attnError

Exhausted = Literal["zero", "keep", "last"]


def arrivals(going: Float[Tensor, "*b S"], alignment_state: Float[Tensor, "*b S"]) -> Float[Tensor, "*b S"]:
    """q_j = going_{j-1} q_{j-1} + belief_j: how likely a scan from `belief` arrives at each slot.

    Every doubling lets what starts up to twice as far back arrive. There is no division by a product of
    chances (the usual closed form: it loses all mass when that product nears 0), nor a logarithm of one, so
    chances of 0 and 1 and gradients are exact.
    """
    slots = alignment_state.shape[-1]
    arriving, going = alignment_state, F.pad(going[..., :-1], (1, 0))
    reach = 1
    while reach < slots:
        arriving = arriving + going * F.pad(arriving[..., :-reach], (reach, 0))
        going = going * F.pad(going[..., :-reach], (reach, 0))
        reach *= 2
    return arriving


def start(zeros: Float[Tensor, "*b S"]) -> Float[Tensor, "*b S"]:
    """All belief at the first slot."""
    return zeros + (places(zeros) == 0)


def stands(part: Normalizer, past: Past) -> Tensor:
    """The belief (..., 1, S) of the past; Seq2attnError where there is none."""
    if past.alignment_state is None:
        raise Seq2attnError(
            f"{type(part).__name__} must know where it stands, but past.belief is None; "
            "begin with Attention.begin(memory) and pass on the past of each answer"
        )
    return past.alignment_state.unsqueeze(-2)


class Pointer(Normalizer):
    """What all that scan a memory share: where they begin, and what they do at its end."""

    stateful = ordered = position_dependent = True
    exhausted: Exhausted = "last"

    def initial_state(self, zeros: Float[Tensor, "*b S"]) -> Float[Tensor, "*b S"]:
        """At the first slot."""
        return start(zeros)

    def forward(
        self,
        scores: Float[Tensor, "*e T S"],
        mask: Bool[Tensor, "*c M S"],
        past: Past,
        query: Float[Tensor, "*b T Q"],
    ) -> Float[Tensor, "*b T S"]:
        """The weights alone."""
        return self.step(scores, mask, past, query)[0]

    def scan(
        self,
        energies: Float[Tensor, "*b 1 S"],
        mask: Bool[Tensor, "*c 1 S"],
        past: Past,
        hard: bool = False,
    ) -> tuple[Float[Tensor, "*b 1 S"], Float[Tensor, "*b S"]]:
        """Where the scan stops, and the next belief; p = sigmoid(energies), or whether they are >= 0 if hard.

        Seq2attnError without a `past.belief`.
        """
        energies = energies.masked_fill(~mask, float("-inf"))  # a scan passes what it may not see
        before = stands(self, past)
        if hard:
            stops = (energies >= 0).to(energies)
            going = 1 - stops
        else:
            stops, going = energies.sigmoid(), (-energies).sigmoid()
        arriving = arrivals(going, before)
        weights = after = stops * arriving
        if self.exhausted == "keep":
            after = weights + before * going.flip(-1).cumprod(-1).flip(-1)
        elif self.exhausted == "last":
            missed = (going * arriving)[..., -1:]
            weights = after = weights + missed * (places(energies) == lengths(mask) - 1)
        # Who has nothing to scan has not come to its end either.
        return weights, torch.where(mask.any(-1, keepdim=True), after, before).squeeze(-2)


class Monotonic(Pointer):
    """p = sigmoid(e + r + noise), the expected stop of the scan (Raffel et al. 2017, section 2).

    In training the expectation, with N(0, noise^2) added to the energies so that p gets near 0 or 1; in
    evaluation the first slot with p >= 0.5 (`hard`; False: the expectation there too).

    bias: what r is at first, a number that each head learns (low: scans go far, which long memories need);
    exhausted: what a scan does that no slot has stopped. "zero": it looks at nothing, now and ever after,
    which is what the paper's expectation says; "keep": it looks at nothing, but stays where it stood;
    "last": it looks at the last slot (Arivazhagan et al. 2019), and then weights sum to one.
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
        energies = scores + self.bias
        if self.training and self.noise:
            energies = energies + self.noise * torch.randn_like(energies)
        return self.scan(energies, mask, past, hard=self.hard and not self.training)


class MoChA(Monotonic):
    """A softmax over the `width` slots up to and with the stop of a monotonic scan (Chiu & Raffel 2018).

    beta_j = sum_k alpha_k softmax_{l in k-width+1 .. k}(u_l)_j: chunks reach back a little, so that small
    swaps can be learnt. Scores (2, ..., T, S): the energies e of the scan, and u of the chunk. Each chunk has
    a softmax of its own, memory (..., S, width): moving sums of exp(u) lose chunks far below the highest u.
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
        return self.look_back(stops, scores[1], mask), alignment_state

    def look_back(
        self, stops: Float[Tensor, "*b 1 S"], scores: Float[Tensor, "*b 1 S"], mask: Bool[Tensor, "*c 1 S"]
    ) -> Float[Tensor, "*b 1 S"]:
        """Every stop's mass, spread over the chunk that ends there."""
        slots = scores.shape[-1]
        width = slots if self.width is None else min(self.width, slots)
        before = (width - 1, 0)
        inside = F.pad(mask, before).unfold(-1, width, 1)  # (..., 1, S, width)
        chunks = F.pad(scores, before).unfold(-1, width, 1)
        shares = masked(chunks, inside).softmax(-1) * stops[..., None]  # where all is hidden, nothing stops
        # Folding adds up what overlapping chunks give to the same slot.
        spread = F.fold(shares.flatten(0, -3).mT, (1, slots + width - 1), (1, width))
        return spread[..., width - 1 :].view_as(scores)


class MILk(MoChA):
    """MoChA whose chunks begin at the first slot: monotonic infinite look-back (Arivazhagan et al. 2019).

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


class HardMonotonic(Pointer):
    """The prior of exact hard monotonic attention (Wu & Cotterell 2019).

    p_t(j) = sum_i belief_i softmax_{k >= i}(e_t)_j: a chain whose next place is any from the last one on. It
    is the same scan with p_j = exp(e_j) / sum_{k >= j} exp(e_k), which always stops; training and evaluation
    agree. The belief afterwards is p_t; a decoder that has seen its token puts the posterior in its place.
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
        rest = scores.flip(-1).logcumsumexp(-1).flip(-1)  # of a slot and all behind it
        return self.scan(scores - F.pad(rest[..., 1:], (0, 1), value=lowest), mask, past)
