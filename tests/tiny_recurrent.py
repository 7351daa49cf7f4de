"""Recurrent models of many kinds with random weights, and those that the engine onnx does not have."""

from typing import Any

ENCODER = {"kind": "recurrent", "embedding": 8, "size": 6}
DECODER = {"kind": "recurrent", "embedding": 8, "size": 12, "order": "bahdanau", "readout_size": 10}
ADDITIVE = {"score": "additive"}
HEADS = {"heads": 3, "key_heads": 1, "query_key_norm": True, "talking": True}


def model(attention: dict[str, Any] | None = ADDITIVE, **decoder: Any) -> dict[str, Any]:
    """A model whose queries and keys have the same size."""
    return {"encoder": ENCODER, "decoder": {**DECODER, "attention": attention, **decoder}}


# One of each kind of cell, order, readout and number of heads.
VARIANTS: dict[str, dict[str, Any]] = {
    "bahdanau, maxout": model(readout="maxout"),
    "luong, gru, heads": {
        "encoder": {**ENCODER, "cell": "gru", "layers": 2, "bidirectional": False, "size": 12},
        "decoder": model(HEADS, cell="gru", order="luong", input_feeding=True, layers=2)["decoder"],
    },
    "cho": model(None, order="cho"),
    "sutskever": {"encoder": {**ENCODER, "layers": 2}, "decoder": {**DECODER, "order": "sutskever"}},
}

REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "transformer": (
        {
            "encoder": {
                "kind": "transformer",
                "size": 16,
                "layers": 1,
                "feed_forward": 8,
                "self_attention": {},
            },
            "decoder": model()["decoder"],
        },
        ["model.encoder.kind"],
    ),
    "copying": (model(copying=True), ["model.decoder.copying"]),
    "latent": (model(latent="marginal"), ["model.decoder.latent"]),
    "normalizer": (model({"score": "dot", "normalize": "ntm"}), ["model.decoder.attention.normalize"]),
    "first": (
        model({"score": {"name": "location_sensitive", "start": "first"}}),
        ["model.decoder.attention.score.start"],
    ),
    "alpha": (
        model({"score": "dot", "normalize": {"name": "entmax", "alpha": 1.3}}),
        ["model.decoder.attention.normalize.alpha"],
    ),
    "sentences": (model({"score": "dot", "sentences": {}}), ["model.decoder.attention.sentences"]),
}
