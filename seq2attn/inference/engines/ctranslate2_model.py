"""A Transformer in the form of CTranslate2: its specification, filled with the weights.

Embeddings are scaled, and positions are added, as here: tables of positions are computed and stored, since
its own begin at 1 and have another layout. So they end at `POSITIONS`; longer texts are left to torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seq2attn.attention.heads import MultiHead
from seq2attn.attention.positions import T5, Shaw
from seq2attn.attention.scorers import ScaledDot
from seq2attn.inference.engines.engine import EngineError
from seq2attn.layers.basic import Embedding, FeedForward, Residual
from seq2attn.models.decoders import DecoderLayer, TransformerDecoder
from seq2attn.models.encoders import EncoderLayer, TransformerEncoder
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.recipe import Recipe, TransformerDecoderRecipe, TransformerEncoderRecipe
from seq2attn.text.vocabulary import Vocabulary

POSITIONS = 2048  # of tables of positions that have no end of their own
FORBIDDEN = -1e4  # added to the output's bias of tokens that are never produced
RELATIVE: dict[str, dict[str, Any]] = {
    "t5": {"relative_attention_bias": True},
    "shaw": {"relative_position": True},
    "alibi": {"alibi": True},
}


def import_ctranslate2() -> Any:
    """Return the module ctranslate2. EngineError if it is not installed."""
    try:
        import ctranslate2
        import ctranslate2.specs
    except ImportError as error:
        raise EngineError(
            "the engine ctranslate2 needs the package ctranslate2: pip install 'seq2attn[ctranslate2]'"
        ) from error
    return ctranslate2


def save_model(
    recipe: Recipe,
    model: Seq2Seq,
    vocabularies: tuple[Vocabulary, Vocabulary],
    folder: Path,
    quantize: str | None = None,
) -> None:
    """Write a model that CTranslate2 can load to an existing folder.

    The recipe must have no `unsupported_keys`. vocabularies: of the source and the target; quantize: int8, or
    None for float32.
    """
    source, target = vocabularies
    spec = _spec(recipe)
    _encoder(spec.encoder, cast(TransformerEncoder, model.encoder))
    _decoder(spec.decoder, cast(TransformerDecoder, model.decoder), [target.pad, target.bos])
    spec.register_source_vocabulary(source.names)
    names = target.names
    spec.register_target_vocabulary(names)
    config = spec.config
    config.bos_token = config.decoder_start_token = names[target.bos]
    config.eos_token, config.unk_token = names[target.eos], names[target.unk]
    config.add_source_bos, config.add_source_eos = False, True
    config.layer_norm_epsilon = nn.LayerNorm(1).eps
    spec.validate()
    spec.optimize(quantization=quantize)
    spec.save(str(folder))


def _spec(recipe: Recipe) -> Any:
    """Return the specification of a model, without weights."""
    specs = import_ctranslate2().specs
    activations = specs.common_spec.Activation
    names = {"relu": activations.RELU, "gelu": activations.GELU, "silu": activations.SWISH}
    stacks = []
    sections = recipe.model.encoder, recipe.model.decoder
    for section in cast("tuple[TransformerEncoderRecipe | TransformerDecoderRecipe, ...]", sections):
        attentions = [*section.self_attentions, *getattr(section, "cross_attentions", ())]
        heads, positions = attentions[0].heads, section.positions
        options = {"pre_norm": section.norm == "pre", "activation": names[section.activation]}
        options |= RELATIVE.get(positions.name, {})
        if any(attention.key_heads for attention in attentions):
            options["num_heads_kv"] = heads  # of the layers that have no number of their own
        if positions.name == "rotary":
            options["rotary_dim"] = 0  # of a head: all
            options["rotary_interleave"] = positions.options["layout"] == "interleaved"
            options["rotary_base"] = positions.options["base"]
        stacks.append((section.layers, heads, options))
    (encoder, decoder), transformer = stacks, specs.transformer_spec
    return transformer.TransformerSpec(
        transformer.TransformerEncoderSpec(*encoder[:2], **encoder[2]),
        transformer.TransformerDecoderSpec(*decoder[:2], **decoder[2]),
    )


def _encoder(spec: Any, encoder: TransformerEncoder) -> None:
    _embedding(spec, spec.embeddings[0], cast(Embedding, encoder.embedding))
    if isinstance(encoder.norm, nn.LayerNorm):
        _norm(spec.layer_norm, encoder.norm)
    for part, layer in zip(spec.layer, cast("list[EncoderLayer]", list(encoder.layers)), strict=True):
        _self_attention(part.self_attention, layer.self_attention, layer.self_attention_residual)
        _feed_forward(part.ffn, layer.feed_forward, layer.feed_forward_residual)


def _decoder(spec: Any, decoder: TransformerDecoder, never: Sequence[int]) -> None:
    _embedding(spec, spec.embeddings, decoder.embedding)
    if isinstance(decoder.norm, nn.LayerNorm):
        _norm(spec.layer_norm, decoder.norm)
    for part, layer in zip(spec.layer, cast("list[DecoderLayer]", list(decoder.layers)), strict=True):
        _self_attention(part.self_attention, layer.self_attention, layer.self_attention_residual)
        attention = layer.cross_attention
        _linear(part.attention.linear[0], attention.query)
        _linear(part.attention.linear[1], attention.key, attention.value)
        _attention(part.attention, attention, layer.cross_attention_residual)
        _feed_forward(part.ffn, layer.feed_forward, layer.feed_forward_residual)
    _linear(spec.projection, decoder.output)
    spec.projection.bias[list(never)] += FORBIDDEN


def _self_attention(spec: Any, attention: MultiHead, residual: Residual) -> None:
    _linear(spec.linear[0], attention.query, attention.key, attention.value)
    _attention(spec, attention, residual)
    relative = attention.attention.relative
    if isinstance(relative, T5):
        spec.relative_attention_bias = _array(relative.table.weight)
        spec.relative_attention_max_distance = np.dtype("int32").type(relative.max_distance)
    if isinstance(relative, Shaw):
        values = torch.zeros_like(relative.of_keys) if relative.of_values is None else relative.of_values
        later = ((0, relative.reach - relative.behind), (0, 0))  # distances that a decoder does not have
        spec.relative_position_keys = np.pad(_array(relative.of_keys), later)
        spec.relative_position_values = np.pad(_array(values), later)


def _attention(spec: Any, attention: MultiHead, residual: Residual) -> None:
    """Fill in what self- and cross-attention share."""
    _linear(spec.linear[-1], attention.out)
    _norm(spec.layer_norm, residual.norm)
    if not isinstance(attention.attention.score, ScaledDot):
        spec.queries_scale = np.dtype("float32").type(1)
    if attention.group > 1:
        spec.num_heads_kv = np.dtype("int32").type(attention.heads // attention.group)


def _feed_forward(spec: Any, feed_forward: FeedForward, residual: Residual) -> None:
    _linear(spec.linear_0, feed_forward.inner)
    _linear(spec.linear_1, feed_forward.outer)
    _norm(spec.layer_norm, residual.norm)


def _embedding(stack: Any, spec: Any, embedding: Embedding) -> None:
    spec.weight = _array(embedding.table.weight)
    stack.scale_embeddings = np.dtype("float32").type(embedding.scale)
    positions = embedding.positions
    if positions is None:  # they are relative, or rotations
        return
    length = POSITIONS if embedding.max_length is None else embedding.max_length
    if not hasattr(stack, "position_encodings"):
        stack.position_encodings = import_ctranslate2().specs.transformer_spec.PositionEncoderSpec()
    with torch.no_grad():
        table = positions(torch.zeros(1, length, embedding.size, device=embedding.table.weight.device), 0)[0]
    stack.position_encodings.encodings = _array(table)


def _linear(spec: Any, *layers: nn.Linear) -> None:
    """Fill in a linear layer: these, one below the other."""
    spec.weight = np.concatenate([_array(layer.weight) for layer in layers])
    spec.bias = np.concatenate([_array(layer.bias) for layer in layers])


def _norm(spec: Any, norm: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = _array(norm.weight), _array(norm.bias)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    """Return a copy of a tensor."""
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy().copy()
    return array
