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
    looking = {} if attention is None else {"attention": ATTENTIONS[attention]}
    return {
        "kind": "recurrent",
        "order": order,
        "embedding": 13,
        "size": 14,
        "readout_size": 9,
        **looking,
        **options,
    }


def transformer(decoder: bool = False, **options: Any) -> dict[str, Any]:
    sizes = {"size": 20, "layers": 2, "feed_forward": 23, "dropout": 0.0}
    looking = {"cross_attention": {"heads": 5}} if decoder else {}
    return {"kind": "transformer", **sizes, "self_attention": {"heads": 2}, **looking, **options}


# Positions, self-attention and cross-attention of Transformers that see in special ways.
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


def _every() -> dict[str, dict[str, Any]]:
    """Every kind of decoder with an encoder, by its name."""
    found = {}
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
        found[name] = {"encoder": recurrent_encoder(cell=cell), "decoder": decoder}
    for norm, positions in itertools.product(("pre", "post"), ("sinusoidal", "learned", "rotary")):
        options = {"norm": norm, "positions": positions}
        found[f"transformer-{norm}-{positions}"] = {
            "encoder": transformer(**options),
            "decoder": transformer(decoder=True, **options),
        }
    for name, (norm, positions, own, source) in SIGHTS.items():
        options = {"norm": norm, "positions": positions, "self_attention": own}
        found[f"transformer-{name}"] = {
            "encoder": transformer(**options),
            "decoder": transformer(decoder=True, **options, cross_attention=source),
        }
    for name, options in LATENT.items():
        decoder = recurrent_decoder(attention="additive", **options)
        found[name] = {"encoder": recurrent_encoder(), "decoder": decoder}
    found["transformer-reads-recurrent"] = {
        "encoder": recurrent_encoder(),
        "decoder": transformer(decoder=True),
    }
    found["recurrent-reads-transformer"] = {
        "encoder": transformer(),
        "decoder": recurrent_decoder("luong", "additive"),
    }
    return found


MODELS = _every()
SOME = {  # one of each kind, for what takes longer
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
    """A scorer that follows its past: what has been looked at is worth less."""

    stateful = True

    def dot(self, query: Tensor) -> None:
        return None

    def forward(self, query: Tensor, keys: Tensor, past: Past) -> Tensor:
        return query @ keys.mT / query.shape[-1] ** 0.5 - past.coverage.unsqueeze(-2)


def model(recipe: dict[str, Any], seed: int = 1, target: int = TARGET) -> Seq2Seq:
    """In evaluation, freshly initialised; its output is sharpened so that tokens differ clearly."""
    torch.manual_seed(seed)
    built = build(ModelRecipe.model_validate(recipe), SOURCE, target).eval()
    with torch.no_grad():
        built.decoder.output.weight.mul_(5)
    return built


def sources(*lengths: int, width: int | None = None, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random sentences of these lengths, padded with garbage, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(SPECIALS, SOURCE, (len(lengths), width or max(lengths)), generator=generator)
    return tokens, torch.arange(tokens.shape[1]) < torch.tensor(lengths)[:, None]


def reads(count: int, length: int, seed: int = 1) -> Tensor:
    """What a decoder reads: the begin-of-sentence, then random tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(SPECIALS, TARGET, (count, length), generator=generator)
    tokens[:, 0] = BOS
    return tokens


def tensors(state: Any) -> Iterator[Tensor]:
    """All that a decoder's state holds."""
    if isinstance(state, Tensor):
        yield state
    if isinstance(state, GrowingBuffer):
        yield state.all
    if isinstance(state, PerSource):
        yield from tensors(state.value)
    for part in state if isinstance(state, tuple) else ():
        yield from tensors(part)
