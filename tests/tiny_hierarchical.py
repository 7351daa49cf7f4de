"""Recipes of models whose attention weights sentences, too."""

from typing import Any

import tiny


def recurrent(order: str = "luong", above: Any = None, attention: Any = None, **options: Any) -> Any:
    decoder = tiny.recurrent_decoder(order, **options)
    decoder["attention"] = {"score": "additive", **(attention or {}), "sentences": above or {}}
    return {"encoder": tiny.recurrent_encoder(), "decoder": decoder}


def transformer(*layers: Any, **options: Any) -> Any:
    cross = [{"heads": 5, **layer} for layer in layers]
    decoder = tiny.transformer(decoder=True, cross_attention=cross if len(cross) > 1 else cross[0], **options)
    return {"encoder": tiny.transformer(), "decoder": decoder}


ABOVE: dict[str, Any] = {"sentences": {"score": {"name": "additive", "size": 7}}}
