"""Tiny models of every kind, as recipes, for the tests of decoders, search and models.

Sizes differ wherever they may, so that two swapped sizes cannot agree by luck.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seq2attn.attention import Past
from seq2attn.attention.scorers import ScaledDot
from seq2attn.attention.state import GrowingBuffer, PerSource
from seq2attn.data.sources import Source
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import ModelRecipe

SOURCE, TARGET = 19, 17  # sizes of the vocabularies
PAD, UNK, BOS, EOS = 0, 1, 2, 3
SPECIALS = 4

ATTENTIONS = {"additive": {"score": "additive"}, "heads": {"score": "scaled_dot", "heads": 2}}

LATENT: dict[str, dict[str, Any]] = {
    "luong-marginal": {"order": "luong", "latent": "marginal"},
    "bahdanau-marginal": {"order": "bahdanau", "latent": "marginal", "readout": "maxout", "cell": "gru"},
    "feeding-marginal": {"order": "luong", "latent": "marginal", "input_feeding": True, "top": 3},
    "feeding-posterior": {"order": "luong", "latent": "posterior", "input_feeding": True, "layers": 2},
    "feeding-posterior-maxout": {
        "order": "luong",
        "latent": "posterior",
        "input_feeding": True,
        "top": 3,
        "readout": "maxout",
    },
}


def recurrent_encoder(**options: Any) -> dict[str, Any]:
    return {"kind": "recurrent", "embedding": 11, "size": 5, **options}


def recurrent_decoder(order: str, attention: str | None = None, **options: Any) -> dict[str, Any]:
    section = {} if attention is None else {"attention": ATTENTIONS[attention]}
    sizes = {"embedding": 13, "size": 14, "readout_size": 9}
    return {"kind": "recurrent", "order": order, **sizes, **section, **options}


def transformer(decoder: bool = False, **options: Any) -> dict[str, Any]:
    sizes = {"size": 20, "layers": 2, "feed_forward": 23, "dropout": 0.0}
    section = {"cross_attention": {"heads": 5}} if decoder else {}
    return {"kind": "transformer", **sizes, "self_attention": {"heads": 2}, **section, **options}


# Norm, positions, self-attention and cross-attention of Transformers with special attention.
SIGHTS: dict[str, tuple[str, Any, Any, Any]] = {
    "alibi-window": ("pre", "alibi", {"heads": 5, "window": 3}, {"heads": 2, "talking": True}),
    "t5-dot": (
        "post",
        {"name": "t5", "buckets": 5, "max_distance": 7},
        {"heads": 4, "score": "dot"},
        {"heads": 5},
    ),
    "shaw": ("pre", {"name": "shaw", "reach": 2}, {"heads": 4, "key_heads": 2}, {"heads": 5}),
    "shaw-keys-window": (
        "pre",
        {"name": "shaw", "reach": 3, "values": False},
        {"heads": 2, "window": 2, "query_key_norm": True},
        {"heads": 4, "key_heads": 2, "query_key_norm": True},
    ),
    "rotary-sinks": (
        "pre",
        {"name": "rotary", "layout": "half"},
        {"heads": 2, "key_heads": 1, "query_key_norm": True, "window": 2, "sinks": 1},
        {"heads": 5, "key_heads": 1},
    ),
    "by-layer": (
        "pre",
        "rotary",
        [{"heads": 2, "normalize": "sum", "score": "linear"}, {"heads": 5, "talking": True, "window": 1}],
        [{"heads": 4, "key_heads": 2}, {"heads": 4, "score": "additive"}],
    ),
    "nowhere": (
        "post",
        "none",
        {"heads": 2, "normalize": "sparsemax", "window": 4, "sinks": 2},
        {"heads": 5},
    ),
}


def _all_models() -> dict[str, dict[str, Any]]:
    """Every kind of decoder with an encoder, by its name."""
    recipes = {}
    orders = [(o, a) for o in ("bahdanau", "luong", "feeding") for a in ATTENTIONS] + [
        ("cho", None),
        ("sutskever", None),
    ]
    for (order, attention), cell, layers, readout in itertools.product(
        orders, ("lstm", "gru"), (1, 2), ("tanh", "maxout")
    ):
        options = {"cell": cell, "layers": layers, "readout": readout}
        if order == "feeding":
            decoder = recurrent_decoder("luong", attention, input_feeding=True, **options)
        else:
            decoder = recurrent_decoder(order, attention, **options)
        name = "-".join([order, *([attention] if attention else []), cell, str(layers), readout])
        recipes[name] = {"encoder": recurrent_encoder(cell=cell), "decoder": decoder}
    for norm, positions in itertools.product(("pre", "post"), ("sinusoidal", "learned", "rotary")):
        options = {"norm": norm, "positions": positions}
        recipes[f"transformer-{norm}-{positions}"] = {
            "encoder": transformer(**options),
            "decoder": transformer(decoder=True, **options),
        }
    for name, (norm, positions, self_attention, cross_attention) in SIGHTS.items():
        options = {"norm": norm, "positions": positions, "self_attention": self_attention}
        recipes[f"transformer-{name}"] = {
            "encoder": transformer(**options),
            "decoder": transformer(decoder=True, **options, cross_attention=cross_attention),
        }
    for name, options in LATENT.items():
        decoder = recurrent_decoder(attention="additive", **options)
        recipes[name] = {"encoder": recurrent_encoder(), "decoder": decoder}
    recipes["transformer-reads-recurrent"] = {
        "encoder": recurrent_encoder(),
        "decoder": transformer(decoder=True),
    }
    recipes["recurrent-reads-transformer"] = {
        "encoder": transformer(),
        "decoder": recurrent_decoder("luong", "additive"),
    }
    return recipes


MODELS = _all_models()
SOME = {  # one of each kind, for tests that take longer
    name: MODELS[name]
    for name in (
        "bahdanau-additive-gru-1-maxout",
        "luong-heads-lstm-2-tanh",
        "feeding-additive-lstm-1-tanh",
        "cho-gru-1-maxout",
        "sutskever-lstm-2-tanh",
        "luong-marginal",
        "feeding-posterior-maxout",
        "transformer-pre-rotary",
        "transformer-post-sinusoidal",
        "transformer-pre-learned",
        "transformer-t5-dot",
        "transformer-rotary-sinks",
    )
}


class Fading(ScaledDot):
    """A stateful scorer: the more a position was attended to, the lower its score."""

    stateful = True

    def dot(self, query: Tensor) -> None:
        return None

    def forward(self, query: Tensor, keys: Tensor, past: Past) -> Tensor:
        return query @ keys.mT / query.shape[-1] ** 0.5 - past.coverage.unsqueeze(-2)


def model(recipe: dict[str, Any], seed: int = 1, target: int = TARGET) -> Seq2Seq:
    """A model in evaluation mode, freshly initialised; its output is sharpened so that tokens differ."""
    torch.manual_seed(seed)
    built = build(ModelRecipe.model_validate(recipe), SOURCE, target).eval()
    with torch.no_grad():
        built.decoder.output.weight.mul_(5)
    return built


def sources(*lengths: int, width: int | None = None, seed: int = 1, model: Seq2Seq | None = None) -> Source:
    """Random sentences of these lengths, padded with garbage; with the ids that the model needs."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(SPECIALS, SOURCE, (len(lengths), width or max(lengths)), generator=generator)
    source = Source(tokens, torch.arange(tokens.shape[1]) < torch.tensor(lengths)[:, None])
    return source if model is None else with_ids(source, model)


def with_ids(source: Source, model: Seq2Seq) -> Source:
    """The source with copy ids and sentence ids, if the model's decoder needs them."""
    if model.decoder.pointer_generator is not None:
        source = source._replace(copy_ids=copy_ids(source))
    return source._replace(sentence_ids=sentence_ids(source)) if model.decoder.hierarchical else source


def copy_ids(source: Source) -> Tensor:
    """The target ids of the source's tokens: the target vocabulary lacks those from 11 on. Garbage at
    padding."""
    ids = torch.full_like(source.tokens, TARGET + 1)
    for row, length in enumerate(source.mask.sum(1).tolist()):
        tokens = source.tokens[row, :length].tolist()
        ids[row, :length] = torch.tensor([t if t < 11 else TARGET + tokens.index(t) for t in tokens])
    return ids


def sentence_ids(source: Source) -> Tensor:
    """The sentence of each token: tokens that 3 divides begin one."""
    return (source.tokens % 3 == 0).long().cumsum(-1).masked_fill(~source.mask, -1)


def rows(source: Source, index: slice | list[int], width: int | None = None) -> Source:
    """Some sources of a batch, up to a width."""
    return Source(*(None if part is None else part[index, :width] for part in source))


def reads(count: int, length: int, seed: int = 1) -> Tensor:
    """Input of a decoder: the begin-of-sentence, then random tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(SPECIALS, TARGET, (count, length), generator=generator)
    tokens[:, 0] = BOS
    return tokens


def tensors(state: Any) -> Iterator[Tensor]:
    """All tensors in a decoder's state."""
    if isinstance(state, Tensor):
        yield state
    if isinstance(state, GrowingBuffer):
        yield state.all
    if isinstance(state, PerSource):
        yield from tensors(state.value)
    for part in state if isinstance(state, tuple) else ():
        yield from tensors(part)
