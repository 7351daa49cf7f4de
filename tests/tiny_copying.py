"""Tiny models that copy, as recipes, their sources, and a vocabulary."""

from typing import Any

import numpy as np
import tiny
import torch

from seq2attn.data.sources import Source
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.vocabulary_training import train_vocabulary

V = tiny.TARGET
LENGTHS = (7, 3, 5)


def recurrent(order: str = "luong", attention: Any = None, **options: Any) -> dict[str, Any]:
    decoder = tiny.recurrent_decoder(order, **{"copying": True, **options})
    decoder["attention"] = attention or {"score": "additive"}
    return {"encoder": tiny.recurrent_encoder(), "decoder": decoder}


def transformer(copying: Any = True, **options: Any) -> dict[str, Any]:
    return {
        "encoder": tiny.transformer(),
        "decoder": tiny.transformer(decoder=True, copying=copying, **options),
    }


MODELS = {
    "luong": recurrent(),
    "luong-lstm-2": recurrent(layers=2, readout="maxout"),
    "luong-heads": recurrent(attention={"score": "scaled_dot", "heads": 2}, cell="gru"),
    "luong-one-head": {
        **(recipe := recurrent(attention={"score": "scaled_dot", "heads": 7})),
        "decoder": {**recipe["decoder"], "copying": {"head": 4}},
    },
    "feeding": recurrent(input_feeding=True),
    "bahdanau": recurrent("bahdanau", readout="maxout", cell="gru"),
    "sparse-tanh": recurrent("bahdanau", {"score": "additive", "normalize": "sparsemax"}),
    "coverage": recurrent(attention={"score": "coverage"}),
    "entmax": recurrent(attention={"score": "general", "normalize": "entmax"}),
    "transformer": transformer(),
    "transformer-post": transformer(norm="post", positions="rotary"),
    "transformer-first": transformer({"layer": 0, "head": 3}, layers=3),
    "transformer-window": transformer(
        {"layer": -2}, self_attention={"heads": 2, "window": 2}, cross_attention={"heads": 5, "key_heads": 1}
    ),
}


def sources(*lengths: int, width: int | None = None) -> Source:
    """Sources whose tokens are repeated, with what they copy; padding copies garbage."""
    source = tiny.sources(*lengths, width=width)
    source.tokens[:, 1::3] = source.tokens[:, :1]
    source.tokens[:, 2] = 13
    return source._replace(copy_ids=tiny.copy_ids(source))


def decode(model: Seq2Seq, *lengths: int, weights_of: Any = ()) -> Any:
    source = sources(*(lengths or LENGTHS))
    return model(source, tiny.reads(len(source.tokens), 5), weights_of)


def set_gate(model: Seq2Seq, logit: float) -> None:
    """Set the gate: large = generate, small = copy."""
    with torch.no_grad():
        model.decoder.pointer_generator.gate.weight.zero_()
        model.decoder.pointer_generator.gate.bias.fill_(logit)


WORDS = ["the cat sees a dog", "a dog sees the cat", "the dog runs", "a cat runs", "who runs ?"]


def words(*more: str, model: Any = "word", size: int = 13, **options: Any) -> Vocabulary:
    return train_vocabulary([*WORDS, *more], model=model, size=size, **options)


def mixture_equation(logits: Any, gate: Any, weights: Any, ids: Any) -> np.ndarray:
    """See et al. 2017, eq. 9, word by word; without weights only what is generated."""
    B, T, S = weights.shape
    p = np.zeros((B, T, logits.shape[-1] + S))
    for b in range(B):
        for t in range(T):
            g = gate[b, t] if weights[b, t].sum() else 1.0
            p[b, t, : logits.shape[-1]] = g * np.exp(logits[b, t]) / np.exp(logits[b, t]).sum()
            for s in range(S):
                p[b, t, ids[b, s]] += (1 - g) * weights[b, t, s]
    return p
