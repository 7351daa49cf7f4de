"""Which models the engine onnx can compute, and which searches it leaves to torch."""

from collections.abc import Iterator

from seq2attn.inference.engines.engine import changed_keys, missing
from seq2attn.recipe import (
    AnyRecipe,
    AttentionRecipe,
    DecodingRecipe,
    RecurrentDecoderRecipe,
    RecurrentEncoderRecipe,
)
from seq2attn.recipe.image_text import ImageEncoderRecipe
from seq2attn.recipe.roots import WritingRecipe
from seq2attn.recipe.sections import Fault

# A law over both registries tests that these are all that can be written (tests/test_onnx.py).
SCORERS = (
    *("additive", "concat", "cosine", "coverage", "dot", "fertility", "gaussian", "general", "linear"),
    *("location", "location_sensitive", "neural_coverage", "perceptron", "scaled_dot", "trilinear"),
)
NORMALIZERS = ("softmax", "softmax_sink", "sigmoid", "sum", "sparsemax", "entmax", "hardmax", "local_p")

# The keys that are written, checked here, or without effect after training.
OF_MODELS = {"encoder", "decoder", "tied"}
OF_CELLS = {
    *("kind", "cell", "embedding", "layers", "size", "bidirectional"),
    *("dropout", "embedding_dropout", "word_dropout", "variational"),
}
OF_DECODERS = {*OF_CELLS, "order", "attention", "input_feeding", "readout", "readout_size"}
OF_ATTENTIONS = {"score", "normalize", "heads", "key_heads", "query_key_norm", "talking", "dropout"}

# The search is torch's own; what reads more than logits, or needs the number of a sentence, is left to it.
OF_DECODING = {
    *("beam", "nbest", "length_normalization", "length_penalty", "max_length", "max_length_ratio"),
    *("min_length", "no_repeat_ngram", "max_source", "replace_unknown", "batch_tokens", "validation_beam"),
    *("temperature", "top_k", "top_p", "seed"),  # without effect unless `sample` is set
}


def unsupported_search(decoding: DecodingRecipe) -> str | None:
    """Return the setting of a search that torch has to make with the model itself; None if there is none."""
    return next(changed_keys(decoding, OF_DECODING), None)


def unsupported_keys(recipe: AnyRecipe) -> Iterator[Fault]:
    """Yield the keys of a recipe whose model cannot be computed, each with the reason."""
    if not isinstance(recipe, WritingRecipe):
        yield Fault("task", f"it writes texts, and this is {recipe.task}")
        return
    model = recipe.model
    yield from missing("model", model, OF_MODELS)
    encoder, decoder = model.encoder, model.decoder
    if isinstance(encoder, RecurrentEncoderRecipe):
        yield from missing("model.encoder", encoder, OF_CELLS)
    elif not isinstance(encoder, ImageEncoderRecipe):  # images are encoded by torch
        yield Fault("model.encoder.kind", f"it has only recurrent, not {encoder.kind}")
    if not isinstance(decoder, RecurrentDecoderRecipe):
        yield Fault("model.decoder.kind", f"it has only recurrent, not {decoder.kind}")
        return
    yield from missing("model.decoder", decoder, OF_DECODERS)
    if decoder.attention is not None:
        yield from _attention("model.decoder.attention", decoder.attention)
        if isinstance(encoder, ImageEncoderRecipe) and decoder.attention.score.name == "location_sensitive":
            yield Fault("model.decoder.attention.score", "it has no filters over the grid of an image")


def _attention(path: str, section: AttentionRecipe) -> Iterator[Fault]:
    yield from missing(path, section, OF_ATTENTIONS)
    for key, part, known in (
        ("score", section.score, SCORERS),
        ("normalize", section.normalize, NORMALIZERS),
    ):
        if part.name not in known:
            yield Fault(f"{path}.{key}", f"it has {', '.join(known)}, not {part.name}")
    if section.score.name == "location_sensitive" and section.score.options.get("start") == "first":
        yield Fault(f"{path}.score.start", "it knows no first query: it has zeros")
    entmax = section.normalize.options if section.normalize.name == "entmax" else {}
    if entmax.get("learned") or entmax.get("alpha", 1.5) not in (1.5, 2.0):
        yield Fault(f"{path}.normalize.alpha", "it has 1.5 and 2, which need no search")
