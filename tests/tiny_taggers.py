"""Recipes of tiny taggers and classifiers, a text for them, and small functions for their tests."""

from typing import Any

import numpy as np
import tiny_words
import torch
from tiny_words import sentences
from torch import Tensor

from seq2attn.data.word_batches import LabelledBatch
from seq2attn.layers.word_embedding import Words
from seq2attn.models.taggers import LabelScores

TEXT = sentences(5, 7, 1, 3, 0)
TAGGERS: dict[str, dict[str, Any]] = {
    "linear": {"head": {"kind": "linear"}},
    "crf": {},
    "cnn": {"embedding": {"size": 7, "characters": {"kind": "cnn", "size": 7}, "join": "gate"}},
    "transformer": {"encoder": tiny_words.TRANSFORMER},
    "rotary": {"encoder": {**tiny_words.TRANSFORMER, "size": 12, "positions": "rotary"}},
    "attention": {"attention": {"score": "additive"}},
    "gate": {"attention": {"score": "general", "join": "gate", "exclude_self": True}},
    "heads": {"attention": {"heads": 5, "window": 2, "sinks": 1, "exclude_self": True}},
    "local": {"attention": {"normalize": {"name": "local_p", "reach": 2}, "score": "dot"}},
    "labels": {"label_attention": {"size": 3, "score": "additive"}},
    "label-heads": {"label_attention": {"size": 3, "heads": 2}},
    "pooling": {"pooling": {"kind": "attention", "queries": 3, "penalty": 0.5}},
    "pooling-heads": {"pooling": {"kind": "attention", "queries": 3, "score": "dot", "heads": 2, "size": 6}},
    "mean": {"pooling": {"kind": "mean"}},
    "all": {
        "attention": {"normalize": "sparsemax"},
        "label_attention": {"heads": 2},
        "pooling": {"kind": "max"},
        "encoder": {"kind": "recurrent", "size": 5, "cell": "gru", "layers": 2, "dropout": 0.0},
    },
    "spans": {"head": {"kind": "spans", "width": 3, "hidden": 11, "width_size": 2}},
    "spans-additive": {"head": {"kind": "spans", "width": 11, "attention": {"score": "additive"}}},
}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "attention": {},
    "hops": {"pooling": {"kind": "attention", "queries": 3, "size": 7, "penalty": 1.0}},
    "heads": {"pooling": {"kind": "attention", "score": "scaled_dot", "heads": 5, "queries": 2}},
    "mean": {"pooling": {"kind": "mean"}},
    "max": {"pooling": {"kind": "max"}, "encoder": tiny_words.TRANSFORMER},
}
MODELS = [("tagger", name) for name in TAGGERS] + [("classifier", name) for name in CLASSIFIERS]


def model_of(kind: str, name: str) -> Any:
    return (
        tiny_words.tagger(**TAGGERS[name]) if kind == "tagger" else tiny_words.classifier(**CLASSIFIERS[name])
    )


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def array(x: Tensor) -> np.ndarray:
    return x.detach().numpy()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def real(output: LabelScores, row: int) -> Tensor:
    """The scores of a sentence, or of its words or spans."""
    return output.scores[row][output.mask[row]]


def mask(*lengths: int) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def scored(scores: Tensor, *lengths: int) -> LabelScores:
    return LabelScores(scores, None, mask(*lengths))


def labelled(words: Words, labels: Tensor) -> LabelledBatch:
    return LabelledBatch(words, labels, int(words.mask.sum()), "")
