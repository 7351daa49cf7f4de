"""LSTM and GRU over padded sequences, in one direction or in both.

Letters: B batch, S positions, I width of the input, D width of a state, of both directions together.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seq2attn.layers.basic import Dropout

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentOutput(NamedTuple):
    """The states of the top layer."""

    states: Tensor  # (B, S, D), arbitrary at padding
    last: Tensor  # (B, D), the state of each direction after its last token; arbitrary without tokens


class Recurrent(nn.Module):
    """(Layered) LSTM or GRU, in one direction or both (Schuster & Paliwal 1997).

    Padding is on the right. To read backwards, each sequence is reversed within its own length, so that
    padding comes last in either direction and no token's state depends on it. Packed sequences would do the
    same, but torch reads those cell by cell on a CPU, which takes two to six times as long as its fused
    layer, and needs the lengths on the CPU, for which a GPU has to wait.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        size: int,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        directions = 2 if bidirectional else 1
        self.size, self.dropout = size * directions, Dropout(dropout)
        widths = [input_size] + [self.size] * (layers - 1)
        self.layers = nn.ModuleList(
            nn.ModuleList(CELLS[cell](width, size, batch_first=True) for _ in range(directions))
            for width in widths
        )

    def forward(self, x: Float[Tensor, "B S I"], mask: Bool[Tensor, "B S"]) -> RecurrentOutput:
        """See the class; True in the mask = a token."""
        lengths = mask.sum(-1, keepdim=True)  # (B, 1)
        positions = torch.arange(x.shape[1], device=x.device)  # (S,)
        # (B, S), its own inverse
        reversal = torch.where(positions < lengths, lengths - 1 - positions, positions)
        last_position = (lengths - 1).clamp(min=0)  # (B, 1)
        output = self._layer(self.layers[0], x, reversal, last_position)
        for directions in self.layers[1:]:
            output = self._layer(directions, self.dropout(output.states), reversal, last_position)
        return output

    def _layer(
        self,
        directions: nn.Module,
        x: Tensor,
        reversal: Int[Tensor, "B S"],
        last_position: Int[Tensor, "B 1"],
    ) -> RecurrentOutput:
        forwards, *backwards = directions.children()
        outputs = [forwards(x)[0]]  # (B, S, H)
        last = [_at(outputs[0], last_position)]  # (B, 1, H)
        for rnn in backwards:
            output, _ = rnn(_at(x, reversal))
            outputs.append(_at(output, reversal))
            last.append(_at(output, last_position))
        return RecurrentOutput(torch.cat(outputs, -1), torch.cat(last, -1).squeeze(1))


def _at(x: Float[Tensor, "B S E"], positions: Int[Tensor, "B N"]) -> Float[Tensor, "B N E"]:
    return x.gather(1, positions.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
