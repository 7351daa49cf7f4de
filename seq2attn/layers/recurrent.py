"""LSTM and GRU over padded sequences, in one direction or in both.

Letters: B batch, S slots, I width of what enters, H width of a state, D that of both directions together.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seq2attn.layers.basic import Dropout

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Read(NamedTuple):
    """What has been read of sequences."""

    states: Tensor  # (B, S, D), of the top layer; anything on padding
    last: Tensor  # (B, D), of each direction the state after its last token; of no token, anything


class Recurrent(nn.Module):
    """(Layered) LSTM or GRU, in one direction or both (Schuster & Paliwal 1997).

    Padding stands on the right. To read backwards, each sequence is turned round within its own length, so
    that padding comes last in either direction and no token's state knows of it. Packed sequences would do
    the same, but torch reads those cell by cell on a CPU, which takes two to six times as long as its fused
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

    def forward(self, x: Float[Tensor, "B S I"], mask: Bool[Tensor, "B S"]) -> Read:
        """See the class; True in the mask = a token."""
        lengths = mask.sum(-1, keepdim=True)
        slots = torch.arange(x.shape[1], device=x.device)
        turned = torch.where(slots < lengths, lengths - 1 - slots, slots)  # its own inverse
        final = (lengths - 1).clamp(min=0)
        read = self._layer(self.layers[0], x, turned, final)
        for directions in self.layers[1:]:
            read = self._layer(directions, self.dropout(read.states), turned, final)
        return read

    def _layer(
        self, directions: nn.Module, x: Tensor, turned: Int[Tensor, "B S"], final: Int[Tensor, "B 1"]
    ) -> Read:
        forwards, *backwards = directions.children()
        outputs = [forwards(x)[0]]
        last = [_at(outputs[0], final)]
        for rnn in backwards:
            output, _ = rnn(_at(x, turned))
            outputs.append(_at(output, turned))
            last.append(_at(output, final))
        return Read(torch.cat(outputs, -1), torch.cat(last, -1).squeeze(1))


def _at(x: Float[Tensor, "B S E"], slots: Int[Tensor, "B N"]) -> Float[Tensor, "B N E"]:
    return x.gather(1, slots.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
