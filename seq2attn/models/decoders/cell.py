"""The recurrent cell of decoders.

Letters: B batch, T steps, I width of the input, H of a hidden state, D of the source's summary.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.layers.basic import dropped
from seq2attn.layers.recurrent import CELLS


class Cell(nn.Module):
    """An LSTM or GRU whose state is batch first and starts from the source's summary.

    State: a tuple of (B, layers, H), h and for an LSTM c; each starts as tanh(W summary).
    """

    def __init__(
        self, kind: str, input_size: int, size: int, summary_size: int, layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.rnn = CELLS[kind](input_size, size, layers, batch_first=True, dropout=between)
        parts = 2 if kind == "lstm" else 1
        self.bridge = nn.ModuleList(nn.Linear(summary_size, layers * size) for _ in range(parts))

    def start(self, summary: Float[Tensor, "B D"]) -> tuple[Tensor, ...]:
        """Return the state before the first token."""
        return tuple(
            bridge(summary).tanh().unflatten(-1, (self.rnn.num_layers, -1)) for bridge in self.bridge
        )

    def forward(
        self, inputs: Float[Tensor, "B T I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "B T H"], tuple[Tensor, ...]]:
        """Return the top layer's outputs, and the state after the last of them."""
        if inputs.shape[1] == 1:
            return self._step(inputs.squeeze(1), state)
        before = [part.transpose(0, 1).contiguous() for part in state]  # (layers, B, H) each
        outputs, after = self.rnn(inputs, tuple(before) if len(before) > 1 else before[0])
        parts = after if isinstance(after, tuple) else (after,)
        return outputs, tuple(part.transpose(0, 1) for part in parts)

    def _step(self, x: Float[Tensor, "B I"], state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Read one token, cell by cell: on a CPU torch's layers pack their weights anew at each call."""
        layers: list[tuple[Tensor, ...]] = []
        for weights, *before in zip(self.rnn.all_weights, *(part.unbind(1) for part in state), strict=True):
            if layers and self.training:
                x = dropped(x, self.rnn.dropout)
            if len(before) > 1:
                layers.append(torch.lstm_cell(x, before, *weights))
            else:
                layers.append((torch.gru_cell(x, *before, *weights),))
            x = layers[-1][0]  # (B, H)
        return x.unsqueeze(1), tuple(torch.stack(parts, 1) for parts in zip(*layers, strict=True))
