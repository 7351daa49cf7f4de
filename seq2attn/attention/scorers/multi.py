"""More than one scorer, for normalizers that need more than one score of each query and key."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention.interfaces import Scorer
from seq2attn.attention.memory import Past
from seq2attn.errors import Seq2attnError


class MultiScorer(Scorer):
    """Scorers that differ only in their parameters. Their keys are concatenated, and so are their traces."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        super().__init__()
        kinds = [(type(scorer), *(part.shape for part in scorer.parameters())) for scorer in scorers]
        if not kinds or kinds.count(kinds[0]) < len(kinds):
            names = ", ".join(type(scorer).__name__ for scorer in scorers) or "none"
            raise Seq2attnError(
                f"MultiScorer needs scorers of the same class and sizes, got {names}; make them equal"
            )
        first = scorers[0]
        self.stateful, self.position_dependent = first.stateful, first.position_dependent
        self.positive = first.positive
        self.scorers = nn.ModuleList(scorers)

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """Return the keys of all scorers, concatenated."""
        return torch.cat([scorer.keys(states) for scorer in self._scorers()], -1)

    def initial_state(self, keys: Float[Tensor, "*b S K"]) -> Float[Tensor, "*b S C"] | None:
        """Return the initial states of all scorers, concatenated."""
        shares = keys.tensor_split(len(self.scorers), -1)
        return _concatenated(
            [scorer.initial_state(share) for scorer, share in zip(self._scorers(), shares, strict=True)]
        )

    def update_trace(
        self,
        query: Float[Tensor, "*b T Q"],
        keys: Float[Tensor, "*b S K"],
        weights: Float[Tensor, "*b T S"],
        past: Past,
    ) -> Float[Tensor, "*b S C"] | None:
        """Return the next traces of all scorers, concatenated."""
        return _concatenated(
            [
                scorer.update_trace(query, share, weights, own_past)
                for scorer, share, own_past in self._shares(keys, past)
            ]
        )

    def forward(
        self, query: Float[Tensor, "*b T Q"], keys: Float[Tensor, "*b S K"], past: Past
    ) -> Float[Tensor, "N *b T S"]:
        """Return the scores of all scorers, stacked in front."""
        shares = self._shares(keys, past)
        return torch.stack([scorer(query, share, own_past) for scorer, share, own_past in shares])

    def _shares(self, keys: Tensor, past: Past) -> Iterator[tuple[Scorer, Tensor, Past]]:
        """Yield each scorer with its share of the keys, and the past with its share of the trace."""
        count = len(self.scorers)
        traces = [None] * count if past.trace is None else past.trace.tensor_split(count, -1)
        for scorer, share, trace in zip(self._scorers(), keys.tensor_split(count, -1), traces, strict=True):
            yield scorer, share, past._replace(trace=trace)

    def _scorers(self) -> Iterator[Scorer]:
        yield from self.scorers  # type: ignore[misc]


def _concatenated(traces: Sequence[Tensor | None]) -> Tensor | None:
    present = [trace for trace in traces if trace is not None]
    return torch.cat(present, -1) if present else None
