"""Models, and `build`: the one place that knows both recipes and parts."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seq2attn.models.decoders import (
    Decoded,
    Decoder,
)
from seq2attn.models.encoders import Encoder


class Seq2Seq(nn.Module):
    """An encoder and a decoder of any two kinds."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(
        self,
        source: Int[Tensor, "B S"],
        source_mask: Bool[Tensor, "B S"],
        reads: Int[Tensor, "B T"],
        look: Sequence[int] = (),
        copies: Int[Tensor, "B S"] | None = None,
        sentences: Int[Tensor, "B S"] | None = None,
    ) -> Decoded:
        """Logits (B, T, V) of what follows each token that the decoder reads, and the weights of the
        layers named by `look`. copies: what the slots of the source stand for, if the decoder copies;
        sentences: the number of each slot's sentence, -1 = of none, if it looks at them."""
        encoded = self.encoder(source, source_mask)._replace(copies=copies, sentences=sentences)
        decoded: Decoded = self.decoder(reads, encoded, look)
        return decoded

    def start(
        self,
        source: Int[Tensor, "B S"],
        source_mask: Bool[Tensor, "B S"],
        copies: Int[Tensor, "B S"] | None = None,
        sentences: Int[Tensor, "B S"] | None = None,
    ) -> Any:
        """The decoder's state before the first token."""
        encoded = self.encoder(source, source_mask)._replace(copies=copies, sentences=sentences)
        return self.decoder.start(encoded)

    def step(self, token: Int[Tensor, " B"], state: Any) -> tuple[Float[Tensor, "B V"], Any]:
        """Read one token; logits of the next, and the state after it."""
        return self.decoder.step(token, state)
