"""Sequence-to-sequence models: an encoder, and a decoder that attends to its states."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from seq2attn.data.sources import AnySource
from seq2attn.models.decoders import Decoded, Decoder
from seq2attn.models.encoders import Encoded, Encoder
from seq2attn.models.vision.encoder import ImageEncoder


class Seq2Seq(nn.Module):
    """An encoder, of texts or of images, and a decoder, of any two kinds."""

    def __init__(self, encoder: Encoder | ImageEncoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(
        self, source: AnySource, target_input: Int[Tensor, "B T"], weights_of: Sequence[int] = ()
    ) -> Decoded:
        """Return the logits (B, T, V) of the token after each of `target_input`.

        weights_of: the decoder layers whose cross-attention weights are returned, in this order.
        """
        decoded: Decoded = self.decoder(target_input, self.encode(source), weights_of)
        return decoded

    def encode(self, source: AnySource) -> Encoded:
        """Return the encoder's states, with the ids of the source that decoders need."""
        encoded: Encoded = self.encoder(*source.inputs)
        return encoded._replace(copy_ids=source.copy_ids, sentence_ids=source.sentence_ids)

    def start(self, source: AnySource) -> Any:
        """Return the decoder's state before the first token."""
        return self.decoder.start(self.encode(source))

    def step(self, token: Int[Tensor, " B"], state: Any) -> tuple[Float[Tensor, "B V"], Any]:
        """Read one token; return the logits of the next one, and the state after it."""
        return self.decoder.step(token, state)
