"""Several scorers at once, for normalizers that need more than one score."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention.attention import Past, Scorer
from seq2attn.errors import Seq2attnError


class Several(Scorer):
    """Scorers that differ in nothing but their weights, side by side; keys and traces share a memory."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        super().__init__()
        kinds = [(type(scorer), *(part.shape for part in scorer.parameters())) for scorer in scorers]
        if not kinds or kinds.count(kinds[0]) < len(kinds):
            names = ", ".join(type(scorer).__name__ for scorer in scorers) or "none"
            raise Seq2attnError(
                f"Several needs scorers of one kind and of the same sizes, got {names}; make them alike"
            )
        one = scorers[0]
        self.stateful, self.position_dependent, self.positive = (
            one.stateful,
            one.position_dependent,
            one.positive,
        )
        self.scorers = nn.ModuleList(scorers)

    def keys(self, states: Float[Tensor, "*b S D"]) -> Float[Tensor, "*b S K"]:
        """The keys of all, one behind the other."""
        return torch.cat([scorer.keys(states) for scorer in self._each()], -1)

    def initial_state(self, keys: Float[Tensor, "*b S K"]) -> Float[Tensor, "*b S C"] | None:
        """The notes of all, one behind the other."""
        shares = keys.tensor_split(len(self.scorers), -1)
        return _together([one.initial_state(share) for one, share in zip(self._each(), shares, strict=True)])

    def update_trace(
        self,
        query: Float[Tensor, "*b T Q"],
        keys: Float[Tensor, "*b S K"],
        weights: Float[Tensor, "*b T S"],
        past: Past,
    ) -> Float[Tensor, "*b S C"] | None:
        """The same, once a query has its weights."""
        return _together(
            [one.update_trace(query, own, weights, noted) for one, own, noted in self._own(keys, past)]
        )

    def forward(
        self, query: Float[Tensor, "*b T Q"], keys: Float[Tensor, "*b S K"], past: Past
    ) -> Float[Tensor, "N *b T S"]:
        """The scores of all, stacked in front."""
        return torch.stack([one(query, own, noted) for one, own, noted in self._own(keys, past)])

    def _own(self, keys: Tensor, past: Past) -> Iterator[tuple[Scorer, Tensor, Past]]:
        """Each scorer with its share of the keys and of the trace."""
        count = len(self.scorers)
        traces = [None] * count if past.trace is None else past.trace.tensor_split(count, -1)
        for one, own, trace in zip(self._each(), keys.tensor_split(count, -1), traces, strict=True):
            yield one, own, past._replace(trace=trace)

    def _each(self) -> Iterator[Scorer]:
        yield from self.scorers  # type: ignore[misc]


def _together(traces: Sequence[Tensor | None]) -> Tensor | None:
    kept = [trace for trace in traces if trace is not None]
    return torch.cat(kept, -1) if kept else None
