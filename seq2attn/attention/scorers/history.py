"""Additive scores that know what was looked at before: U k + V f stands inside the tanh, f being the history.

The past's weights are those before dropout, and zero on what is masked, so that padding changes nothing.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention.attention import Past
from seq2attn.attention.scorers.additive import Additive
from seq2attn.errors import Seq2attnError


class LookingBack(Additive):
    """v . tanh(W q + U k + V f [+ b]) with some features f (..., S, F) of the past; a subclass says which."""

    stateful = True

    def __init__(self, query_size: int, key_size: int, features: int, size: int | None, bias: bool) -> None:
        super().__init__(query_size, key_size, size=size, bias=bias)
        self.history = nn.Linear(features, self.energy.in_features, bias=False)

    def features(self, keys: Float[Tensor, "*b S K"], past: Past) -> Float[Tensor, "*b S F"]:
        """What the past says about every slot."""
        raise NotImplementedError(f"{type(self).__name__} must say what it knows of the past: features()")

    def inside(self, keys: Float[Tensor, "*b S K"], past: Past) -> Float[Tensor, "*b S A"]:
        """U k + V f."""
        held = keys[..., : self.energy.in_features]
        return held + self.history(self.features(keys, past))  # type: ignore[no-any-return]


class LocationSensitive(LookingBack):
    """f = F * a: a convolution over the last weights (Chorowski et al. 2015, eq. 8 and 9).

    filters, width: how many, and how many slots each sees (odd). cumulative: the sum of all weights so far is
    a second channel (Shen et al. 2018, Tacotron 2). start: the last weights before the first query: `zeros`,
    or all on the `first` slot (as Chorowski et al.).
    """

    position_dependent = True

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        size: Annotated[int, Ge(1)] | None = None,
        filters: Annotated[int, Ge(1)] = 32,
        width: Annotated[int, Ge(1)] = 31,
        cumulative: bool = True,
        start: Literal["zeros", "first"] = "zeros",
    ) -> None:
        super().__init__(query_size, key_size, filters, size, bias=True)
        if width % 2 == 0:
            raise Seq2attnError(
                f"LocationSensitive needs an odd width, as many slots before as behind; got {width}; "
                f"take {width + 1}"
            )
        self.cumulative, self.start = cumulative, start
        self.convolve = nn.Conv1d(1 + cumulative, filters, width, padding=width // 2, bias=False)

    def features(self, keys: Float[Tensor, "*b S K"], past: Past) -> Float[Tensor, "*b S F"]:
        """F * [a; sum of a]."""
        last, coverage = remembered(self, past.weights), remembered(self, past.coverage)
        if self.start == "first" and not past.step:
            last = last + (torch.arange(last.shape[-1], device=last.device) == 0)
        channels = torch.stack([last, coverage] if self.cumulative else [last], -2)  # (..., 1 or 2, S)
        seen = self.convolve(channels.reshape(-1, *channels.shape[-2:]))
        return seen.mT.reshape(*last.shape, -1)  # type: ignore[no-any-return]


class Coverage(LookingBack):
    """f = the sum of all weights so far (See et al. 2017, eq. 11)."""

    def __init__(
        self, query_size: int, key_size: int, *, size: Annotated[int, Ge(1)] | None = None, bias: bool = True
    ) -> None:
        super().__init__(query_size, key_size, 1, size, bias)

    def features(self, keys: Float[Tensor, "*b S K"], past: Past) -> Float[Tensor, "*b S F"]:
        """The coverage."""
        return remembered(self, past.coverage).unsqueeze(-1)


class Fertility(LookingBack):
    """f = the sum of all weights so far / Phi, Phi = N sigmoid(u . k): how many words a slot should become.

    The linguistic coverage of Tu et al. (2016, eq. 9 and 10). most: N, the most words a slot may become.
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        size: Annotated[int, Ge(1)] | None = None,
        bias: bool = False,
        most: Annotated[float, Gt(0)] = 2.0,
    ) -> None:
        super().__init__(query_size, key_size, 1, size, bias)
        self.most, self.fertility = most, nn.Linear(key_size, 1, bias=False)

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """[U k, Phi]; Phi is not let down to 0, by which the coverage is divided."""
        fertility = self.most * self.fertility(states).sigmoid().clamp(min=1e-3)
        return torch.cat([super().keys(states), fertility], -1)

    def features(self, keys: Float[Tensor, "*b S K"], past: Past) -> Float[Tensor, "*b S F"]:
        """The coverage / Phi."""
        return remembered(self, past.coverage).unsqueeze(-1) / keys[..., -1:]


class NeuralCoverage(LookingBack):
    """f = GRU([weight; k; q], f), one small state for every slot (Tu et al. 2016, eq. 7 and 8).

    width: the size of that state; before the first query it is zero.
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        size: Annotated[int, Ge(1)] | None = None,
        bias: bool = False,
        width: Annotated[int, Ge(1)] = 10,
    ) -> None:
        super().__init__(query_size, key_size, width, size, bias)
        self.cell = nn.GRUCell(1 + key_size + query_size, width)

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """[U k, what k brings to the GRU's gates]: made once per source, as it is the larger part."""
        of_key = self.cell.weight_ih[:, 1 : 1 + states.shape[-1]]
        return torch.cat([super().keys(states), F.linear(states, of_key, self.cell.bias_ih)], -1)

    def initial_state(self, keys: Float[Tensor, "*b S K"]) -> Float[Tensor, "*b S C"] | None:
        """Zeros."""
        return keys.new_zeros(*keys.shape[:-1], self.cell.hidden_size)

    def update_trace(
        self,
        query: Float[Tensor, "*b T Q"],
        keys: Float[Tensor, "*b S K"],
        weights: Float[Tensor, "*b T S"],
        past: Past,
    ) -> Float[Tensor, "*b S C"] | None:
        """The next state of the GRU, for one query; the same if it saw nothing."""
        trace, cell = remembered(self, past.trace), self.cell
        of_weight, of_query = cell.weight_ih[:, :1], cell.weight_ih[:, -query.shape[-1] :]
        new = (
            keys[..., self.energy.in_features :] + F.linear(query, of_query) + F.linear(weights.mT, of_weight)
        )
        reset, update, fresh = new.chunk(3, -1)
        old_reset, old_update, old = F.linear(trace, cell.weight_hh, cell.bias_hh).chunk(3, -1)
        fresh = torch.tanh(fresh + (reset + old_reset).sigmoid() * old)
        fresh = torch.lerp(fresh, trace, (update + old_update).sigmoid())
        return torch.where((weights != 0).any(-1, keepdim=True), fresh, trace)

    def features(self, keys: Float[Tensor, "*b S K"], past: Past) -> Float[Tensor, "*b S F"]:
        """The GRU's state."""
        return remembered(self, past.trace)


def remembered(scorer: Additive, part: Tensor | None) -> Tensor:
    """A part of the past that must be there."""
    if part is None:
        raise Seq2attnError(
            f"{type(scorer).__name__} looks back, but the past does not say at what: "
            "expected that of Attention.begin, carried on with every answer; hand it over as `past`"
        )
    return part
