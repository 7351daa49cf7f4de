"""The layers between the hidden state of a recurrent decoder and the logits.

Letters: B batch, T steps, H width of a hidden state, D of a context, E of an embedding, R of a readout.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.layers.basic import Dropout, Maxout


class Readout(nn.Module):
    """Combines hidden state, context and word to the input of the output layer.

    tanh: tanh(W [context; state]), no bias (Luong et al. 2015, eq. 5), the "attentional vector";
    maxout: of W [context; state; word] (Bahdanau et al. 2015, A.2.2).
    """

    def __init__(
        self, kind: Literal["tanh", "maxout"], state: int, context: int, word: int, size: int
    ) -> None:
        super().__init__()
        self.kind, self.size = kind, size
        if kind == "tanh":
            self.combine = nn.Linear(context + state, size, bias=False)
        else:
            self.combine = nn.Linear(context + state + word, 2 * size)
        self.activation: nn.Module = nn.Tanh() if kind == "tanh" else Maxout()

    def forward(
        self,
        state: Float[Tensor, "B T H"],
        context: Float[Tensor, "B T D"] | None,
        word: Float[Tensor, "B T E"],
    ) -> Float[Tensor, "B T R"]:
        """See the class."""
        parts = [state] if context is None else [context, state]
        parts += [word] if self.kind == "maxout" else []
        return self.activation(self.combine(torch.cat(parts, -1)))  # type: ignore[no-any-return]


class OutputLayers(NamedTuple):
    """The layers from hidden state, context and word to the logits: readout, dropout, output."""

    readout: Readout
    output: nn.Linear
    dropout: Dropout
