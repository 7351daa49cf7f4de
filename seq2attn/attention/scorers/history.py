"""Additive scores that depend on earlier weights: U k + V f inside the tanh, with features f of the past.

The weights of the past are those before dropout, and zero where masked, so that padding changes nothing.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention.memory import Past
from seq2attn.attention.scorers.additive import Additive
from seq2attn.errors import NotDefinedError, Seq2attnError


class HistoryScorer(Additive):
    """v . tanh(W q + U k + V f [+ b]) with features f (..., S, F) of the past, which a subclass defines."""

    stateful = True

    def __init__(self, query_size: int, key_size: int, features: int, size: int | None, bias: bool) -> None:
        super().__init__(query_size, key_size, size=size, bias=bias)
        self.history = nn.Linear(features, self.energy.in_features, bias=False)

    def features(self, keys: Float[Tensor, "*b S K"], past: Past) -> Float[Tensor, "*b S F"]:
        """Return the features of every source position."""
        raise NotDefinedError(f"{type(self).__name__} must define its features of the past: write features()")

    def key_term(self, keys: Float[Tensor, "*b S K"], past: Past) -> Float[Tensor, "*b S A"]:
        """Return U k + V f."""
        key_term = keys[..., : self.energy.in_features]
        return key_term + self.history(self.features(keys, past))  # type: ignore[no-any-return]


class LocationSensitive(HistoryScorer):
    """v . tanh(W q + U k + V f + b), f = F * a, a convolution over the last weights (Chorowski et al. 2015,
    eq. 8 and 9).

    filters: the number of filters; width: the number of positions that each covers (odd), or of rows and
    columns, if the positions lie on a grid. cumulative: the sum of all weights so far is a second channel
    (Shen et al. 2018, Tacotron 2), or the `only` one: with width [11, 11], F is then the coverage vector of
    WAP (Zhang et al. 2017, eq. 9). start: the weights before the first query: `zeros`, or all on the `first`
    position (as Chorowski et al.).
    """

    position_dependent = True

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        size: Annotated[int, Ge(1)] | None = None,
        filters: Annotated[int, Ge(1)] = 32,
        width: Annotated[int, Ge(1)] | tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]] = 31,
        cumulative: bool | Literal["only"] = True,
        start: Literal["zeros", "first"] = "zeros",
    ) -> None:
        super().__init__(query_size, key_size, filters, size, bias=True)
        widths = (width,) if isinstance(width, int) else width
        for odd in widths:
            if odd % 2 == 0:
                raise Seq2attnError(
                    f"LocationSensitive needs an odd width, as many positions before as after; got {odd}; "
                    f"take {odd + 1}"
                )
        self.cumulative, self.start = cumulative, start
        convolution = nn.Conv1d if len(widths) == 1 else nn.Conv2d
        channels, padding = 2 if cumulative is True else 1, tuple(odd // 2 for odd in widths)
        self.convolve = convolution(channels, filters, widths, padding=padding, bias=False)  # type: ignore[arg-type]

    def features(self, keys: Float[Tensor, "*b S K"], past: Past) -> Float[Tensor, "*b S F"]:
        """Return F * [a; sum of a]. On a grid, a filter that has no rows covers positions of one row."""
        last, coverage = require_past(self, past.weights), require_past(self, past.coverage)
        if self.start == "first" and not past.step:
            last = last + (torch.arange(last.shape[-1], device=last.device) == 0)
        used = {True: [last, coverage], False: [last], "only": [coverage]}[self.cumulative]
        channels = torch.stack(used, -2).reshape(-1, len(used), last.shape[-1])  # (N, 1 or 2, S)
        if past.grid is None:
            if isinstance(self.convolve, nn.Conv2d):
                raise Seq2attnError(
                    "LocationSensitive with a width of rows and columns is for a grid, and these positions "
                    "are a sequence: give one number"
                )
            filtered: Tensor = self.convolve(channels)  # (N, filters, S)
        else:
            weight = self.convolve.weight  # (filters, 1 or 2, [rows,] columns)
            weight = weight if weight.dim() == 4 else weight.unsqueeze(-2)
            padding = (weight.shape[-2] // 2, weight.shape[-1] // 2)
            filtered = F.conv2d(channels.unflatten(-1, past.grid), weight, padding=padding).flatten(2)
        return filtered.mT.reshape(*last.shape, -1)


class Coverage(HistoryScorer):
    """v . tanh(W q + U k + V f [+ b]), f = the sum of all weights so far (See et al. 2017, eq. 11)."""

    def __init__(
        self, query_size: int, key_size: int, *, size: Annotated[int, Ge(1)] | None = None, bias: bool = True
    ) -> None:
        super().__init__(query_size, key_size, 1, size, bias)

    def features(self, keys: Float[Tensor, "*b S K"], past: Past) -> Float[Tensor, "*b S F"]:
        """Return the coverage."""
        return require_past(self, past.coverage).unsqueeze(-1)


class Fertility(HistoryScorer):
    """v . tanh(W q + U k + V f [+ b]), f = the sum of all weights so far / Phi; Phi = N sigmoid(u . k), the
    fertility, is the number of target words that a source position is translated to.

    The linguistic coverage of Tu et al. (2016, eq. 9 and 10). most: N, the largest fertility.
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
        """Return [U k, Phi]; Phi has a floor above 0, as the coverage is divided by it."""
        fertility = self.most * self.fertility(states).sigmoid().clamp(min=1e-3)
        return torch.cat([super().keys(states), fertility], -1)

    def features(self, keys: Float[Tensor, "*b S K"], past: Past) -> Float[Tensor, "*b S F"]:
        """Return the coverage / Phi."""
        return require_past(self, past.coverage).unsqueeze(-1) / keys[..., -1:]


class NeuralCoverage(HistoryScorer):
    """v . tanh(W q + U k + V f [+ b]), f = GRU([weight; k; q], f), a small state for each source position
    (Tu et al. 2016, eq. 7 and 8).

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
        """Return [U k, k's share of the GRU's gates]: the larger part of the gates, made once per source."""
        of_key = self.cell.weight_ih[:, 1 : 1 + states.shape[-1]]
        return torch.cat([super().keys(states), F.linear(states, of_key, self.cell.bias_ih)], -1)

    def initial_state(self, keys: Float[Tensor, "*b S K"]) -> Float[Tensor, "*b S C"] | None:
        """Return states of zeros."""
        return keys.new_zeros(*keys.shape[:-1], self.cell.hidden_size)

    def update_trace(
        self,
        query: Float[Tensor, "*b T Q"],
        keys: Float[Tensor, "*b S K"],
        weights: Float[Tensor, "*b T S"],
        past: Past,
    ) -> Float[Tensor, "*b S C"] | None:
        """Return the next states of the GRU, after a single query; unchanged where all weights are 0."""
        trace, cell = require_past(self, past.trace), self.cell
        of_weight, of_query = cell.weight_ih[:, :1], cell.weight_ih[:, -query.shape[-1] :]
        new = (
            keys[..., self.energy.in_features :] + F.linear(query, of_query) + F.linear(weights.mT, of_weight)
        )
        reset, update, fresh = new.chunk(3, -1)  # (..., S, C) each
        old_reset, old_update, old = F.linear(trace, cell.weight_hh, cell.bias_hh).chunk(3, -1)
        fresh = torch.tanh(fresh + (reset + old_reset).sigmoid() * old)
        fresh = torch.lerp(fresh, trace, (update + old_update).sigmoid())
        return torch.where((weights != 0).any(-1, keepdim=True), fresh, trace)

    def features(self, keys: Float[Tensor, "*b S K"], past: Past) -> Float[Tensor, "*b S F"]:
        """Return the states of the GRU."""
        return require_past(self, past.trace)


def require_past(scorer: Additive, field: Tensor | None) -> Tensor:
    """Return a field of the past; Seq2attnError if it is None."""
    if field is None:
        raise Seq2attnError(
            f"{type(scorer).__name__} depends on earlier weights, but the past does not hold them: start "
            "with Attention.initial_state(memory), and pass on the past of each output"
        )
    return field
