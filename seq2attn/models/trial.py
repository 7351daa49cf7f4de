"""Trials of plugins' encoders and decoders: when a model is built, each of them runs on a tiny batch.

So a class that breaks the interface is an error before training, which says what to fix. The laws that are
checked are those that would otherwise give wrong results without an error: no state depends on padding, and
`step`, in a search over several hypotheses, gives the logits of `forward`.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from seq2attn.attention import Attention
from seq2attn.attention.state import reorder
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Embedding, Embeds
from seq2attn.models.decoders import Decoded, Decoder
from seq2attn.models.encoders import Encoded, Encoder
from seq2attn.runtime.plugin_errors import blaming

MASK = torch.tensor([[True, True, True], [True, False, False]], device="cpu")  # (B, S)
EACH, SWAPPED = [0, 0, 1, 1], [1, 0, 3, 2]  # the source of each of four hypotheses; the two of each swapped
TOLERANCE = 1e-4


def try_encoder(encoder: Any, embedding: Embeds) -> Encoder:
    """Return an encoder of a plugin. Seq2attnError if it breaks the interface."""
    name = type(encoder).__name__
    if not isinstance(encoder, Encoder):
        raise Seq2attnError(
            f"{name} is in ENCODERS, but is no subclass of Encoder (seq2attn.models.encoders)"
        )
    _check_set(encoder, "embedding", embedding)
    if not isinstance(getattr(encoder, "size", None), int):
        raise Seq2attnError(
            f"{name} must set self.size in its constructor: the width of its states, a number"
        )
    vectors = _random(*MASK.shape, embedding.size)
    with _trying(encoder):
        encoded = encoder.encode(vectors, MASK)
        alone = encoder.encode(vectors[1:, :1], MASK[1:, :1])
    where = f"{name}.encode"
    if not isinstance(encoded, Encoded):
        raise Seq2attnError(f"{where} must return Encoded(states, mask, summary), got {encoded!r:.60}")
    sentences, length = MASK.shape
    _check_shape(where, "states", encoded.states, (sentences, length, encoder.size))
    _check_shape(where, "a mask", encoded.mask, (sentences, 1, length))
    _check_shape(where, "a summary", encoded.summary, (sentences, encoder.size))
    if encoded.states[~MASK].any():
        raise Seq2attnError(f"{where}: states at padding must be zero: multiply them by mask.unsqueeze(-1)")
    pairs = (encoded.states[1, :1], alone.states[0]), (encoded.summary[1], alone.summary[0])
    if not all(_close(padded, plain) for padded, plain in pairs):
        raise Seq2attnError(
            f"{where}: states or summary of a sentence change with the padding behind it: set the vectors to "
            "zero at padding (mask is True at tokens), and leave it out of means and maxima"
        )
    return encoder


def try_decoder(
    decoder: Any, embedding: Embedding, output: nn.Linear, source_size: int, attentions: int
) -> Decoder:
    """Return a decoder of a plugin. Seq2attnError if it breaks the interface.

    source_size: the width of the encoder's states; attentions: the number of those that it was given.
    """
    name = type(decoder).__name__
    if not isinstance(decoder, Decoder):
        raise Seq2attnError(
            f"{name} is in DECODERS, but is no subclass of Decoder (seq2attn.models.decoders)"
        )
    _check_set(decoder, "embedding", embedding)
    _check_set(decoder, "output", output)
    if attentions and decoder.attention_layers != attentions:
        raise Seq2attnError(
            f"{name} was given attention to the source, and has attention_layers {decoder.attention_layers}: "
            f"set it to {attentions}"
        )
    tokens = torch.arange(12, device="cpu").view(4, 3) % output.out_features  # (N, T)
    layers = range(decoder.attention_layers)
    with _trying(decoder):
        if not all(isinstance(decoder.cross_attention(layer), Attention) for layer in layers):
            raise Seq2attnError(
                f"{name}.cross_attention must return an Attention (of MultiHead, its attention)"
            )
        encoded = _encoded(decoder, source_size)
        decoded = decoder(tokens, reorder(encoded, torch.tensor(EACH, device="cpu")), layers)
        _check_decoded(decoder, decoded, (*tokens.shape, output.out_features))
        stepped = _search(decoder, encoded, tokens)
    _check_shape(f"{name}.step", "logits", stepped[:, 0], (len(tokens), output.out_features))
    if not _close(stepped, decoded.logits):
        raise Seq2attnError(
            f"{name}: step and forward must give the same logits for the same tokens, and differ by "
            f"{(stepped - decoded.logits).abs().max():.2g} (in a search of two hypotheses for each source)"
        )
    return decoder


def _check_decoded(decoder: Decoder, decoded: Any, shape: tuple[int, int, int]) -> None:
    """Check the output of forward() for all layers; shape: of the logits."""
    where, layers = f"{type(decoder).__name__}.forward", decoder.attention_layers
    if not isinstance(decoded, Decoded):
        raise Seq2attnError(f"{where} must return Decoded(predicted, weights), got {decoded!r:.60}")
    _check_shape(where, "logits", decoded.logits, shape)
    if layers and decoded.weights is None:
        raise Seq2attnError(f"{where} must return the weights of the layers in weights_of, got none")
    if layers and decoded.weights is not None:
        heads = decoded.weights.shape[2] if decoded.weights.dim() == 5 else 1
        expected = (shape[0], layers, heads, shape[1], MASK.shape[1])
        _check_shape(where, "weights (see stack_layers)", decoded.weights, expected)


def _search(decoder: Decoder, encoded: Encoded, tokens: Tensor) -> Tensor:
    """Return the logits (N, T, V) of all hypotheses, which step as in a search: their rows are swapped."""
    each, swapped = (torch.tensor(index, device="cpu") for index in (EACH, SWAPPED))
    sentences, rows = torch.arange(len(MASK), device="cpu"), torch.arange(len(tokens), device="cpu")
    state, logits = reorder(decoder.start(encoded), each, sentences), []
    for step in range(tokens.shape[1]):
        step_logits, state = decoder.step(tokens[rows, step], state)
        logits.append(step_logits[rows])  # swapping is its own inverse
        state, rows = reorder(state, swapped, sentences), rows[swapped]
    return torch.stack(logits, 1)


def _encoded(decoder: Decoder, size: int) -> Encoded:
    states = _random(*MASK.shape, size) * MASK.unsqueeze(-1)
    sentence_ids = torch.where(MASK, 0, -1) if decoder.hierarchical else None
    return Encoded(states, MASK.unsqueeze(1), states.mean(1), sentence_ids=sentence_ids)


@contextlib.contextmanager
def _trying(part: nn.Module) -> Iterator[None]:
    """Run a part as in evaluation, without an effect on it or on random numbers."""
    part.eval()
    with blaming(type(part)), torch.no_grad(), torch.random.fork_rng(devices=()):
        yield
    part.train()


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(1), device="cpu")


def _check_set(part: nn.Module, name: str, given: Any) -> None:
    if getattr(part, name, None) is not given:
        raise Seq2attnError(
            f"{type(part).__name__} must set self.{name} in its constructor, to the {name} that it is given"
        )


def _check_shape(where: str, what: str, tensor: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(tensor, Tensor) or tensor.shape != shape:
        given = tuple(tensor.shape) if isinstance(tensor, Tensor) else f"{tensor!r:.60}"
        raise Seq2attnError(f"{where} must return {what} of the shape {shape}, got {given}")


def _close(left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, rtol=TOLERANCE, atol=TOLERANCE)
