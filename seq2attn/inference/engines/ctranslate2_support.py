"""Which models CTranslate2 can compute, and which searches it makes as torch does."""

from collections.abc import Iterator

from seq2attn.inference.engines.engine import changed_keys, missing
from seq2attn.recipe import (
    AnyRecipe,
    AttentionRecipe,
    DecodingRecipe,
    Recipe,
    TransformerDecoderRecipe,
    TransformerEncoderRecipe,
)
from seq2attn.recipe.sections import Fault

ACTIVATIONS = ("relu", "gelu", "silu")
SCORERS = ("scaled_dot", "dot")
# "alibi" has another form in its encoders.
POSITIONS = ("sinusoidal", "learned", "none", "rotary", "t5", "shaw")
DECODER_POSITIONS = (*POSITIONS, "alibi")

# The keys that are converted, checked here, or without effect after training.
OF_STACKS = {
    *("kind", "size", "layers", "feed_forward", "activation", "norm", "positions"),
    *("self_attention", "cross_attention", "dropout", "feed_forward_dropout", "word_dropout"),
}
OF_ATTENTIONS = {"score", "normalize", "heads", "key_heads", "dropout"}
OF_MODELS = {"encoder", "decoder", "tied"}

# Settings that are the same in both searches, or that only choose among the hypotheses that are found. It
# forbids tokens before its softmax and torch after it, and a prefix has no part in its scores: `min_length`,
# `no_repeat_ngram` and prefixes give other hypotheses.
OF_DECODING = {
    *("beam", "nbest", "length_normalization", "length_penalty", "max_length", "max_length_ratio"),
    *("max_source", "replace_unknown", "batch_tokens", "validation_beam"),
    *("temperature", "top_k", "top_p", "seed"),  # without effect unless `sample` is set
}
LARGEST_PENALTY = 1.0  # it ends its search when the beam is full, before the long outputs of larger ones


def unsupported_search(decoding: DecodingRecipe, vocabulary: int) -> str | None:
    """Return the setting of a search that torch has to make; None if there is none."""
    for key in changed_keys(decoding, OF_DECODING):
        return key
    if decoding.length_normalization != "none" and decoding.length_penalty > LARGEST_PENALTY:
        return f"length_penalty above {LARGEST_PENALTY:g}"
    if 2 * decoding.beam > vocabulary:
        return "a beam that is larger than half the vocabulary"
    return None


def unsupported_keys(recipe: AnyRecipe) -> Iterator[Fault]:
    """Yield the keys of a recipe whose model CTranslate2 cannot compute, each with the reason."""
    if not isinstance(recipe, Recipe):
        yield Fault("task", f"it writes texts from texts, and this is {recipe.task}")
        return
    model = recipe.model
    yield from missing("model", model, OF_MODELS)
    stacks = {"model.encoder": model.encoder, "model.decoder": model.decoder}
    for path, section in stacks.items():
        if isinstance(section, TransformerEncoderRecipe | TransformerDecoderRecipe):
            yield from _stack(path, section)
        else:
            yield Fault(f"{path}.kind", f"it has only transformer, not {section.kind}")


def _stack(path: str, section: TransformerEncoderRecipe | TransformerDecoderRecipe) -> Iterator[Fault]:
    yield from missing(path, section, OF_STACKS)
    if section.activation not in ACTIVATIONS:
        yield Fault(f"{path}.activation", f"it has {', '.join(ACTIVATIONS)}, not {section.activation}")
    positions = DECODER_POSITIONS if section.causal else POSITIONS
    if section.positions.name not in positions:
        yield Fault(f"{path}.positions", f"it has {', '.join(positions)} there, not {section.positions.name}")
    attentions = [(f"{path}.self_attention", one) for one in section.self_attentions]
    if isinstance(section, TransformerDecoderRecipe):
        attentions += [(f"{path}.cross_attention", one) for one in section.cross_attentions]
    heads = attentions[0][1].heads
    faults = [
        fault
        for where, one in attentions
        for fault in _attention(where, one, heads, section.positions.name == "shaw")
    ]
    yield from dict.fromkeys(faults)  # those of equal layers once


def _attention(path: str, section: AttentionRecipe, heads: int, shaw: bool) -> Iterator[Fault]:
    yield from missing(path, section, OF_ATTENTIONS)
    if section.score.name not in SCORERS:
        yield Fault(f"{path}.score", f"it has {' and '.join(SCORERS)}, not {section.score.name}")
    elif section.score.name == "dot" and shaw and "self" in path:
        yield Fault(f"{path}.score", "its shaw positions need scaled_dot")
    if section.normalize != AttentionRecipe().normalize:
        yield Fault(f"{path}.normalize", "it has softmax without temperature")
    if section.heads != heads:
        yield Fault(
            f"{path}.heads", f"all attentions of a stack have {heads} heads there: got {section.heads}"
        )
