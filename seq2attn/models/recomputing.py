"""Gradient checkpointing: layers whose intermediate results are computed again in the backward pass."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from seq2attn.errors import Seq2attnError
from seq2attn.models.decoders.transformer import DecoderLayer
from seq2attn.models.encoders import EncoderLayer

LAYERS = (EncoderLayer, DecoderLayer)  # those without state that a second forward pass would change


def recompute_layers(model: nn.Module) -> None:
    """Let each Transformer layer of a model keep only its input in training, and compute the rest again for
    its gradient, with the same random numbers (Chen et al. 2016).

    Raises:
        Seq2attnError: the model has no such layer.
    """
    layers = [module for module in model.modules() if isinstance(module, LAYERS)]
    if not layers:
        raise Seq2attnError(
            "training.gradient_checkpointing: expected a model with Transformer layers, and this one has "
            "none: set it to false, and lower the size of a batch instead"
        )
    for layer in layers:
        layer.forward = partial(_recomputed, layer, layer.forward)  # type: ignore[method-assign]


def _recomputed(layer: nn.Module, forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
    if not (layer.training and torch.is_grad_enabled()):
        return forward(*args, **options)
    return checkpoint(forward, *args, use_reentrant=False, **options)
