"""What is inside a tagger or classifier for one text: attention weights and hidden states.

Letters: B = 1, S words, H heads, K labels, N spans, D width of a state.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seq2attn.inference.activations import kept, recorded, recorded_states
from seq2attn.models.encoders import EncoderLayer
from seq2attn.models.taggers import Classifier, LabelScores, SpanTagger, Tagger
from seq2attn.text.tag_schemes import OUTSIDE


class LabelActivations(NamedTuple):
    """All attention weights and hidden states of a model that labels words, spans or texts, for a batch of
    one text.

    Weights are those before dropout. If they were asked for with gradients, all are parts of one graph:
    losses on scores or weights have gradients with respect to the embeddings, `encoder_states[0]`.
    """

    words: list[str]  # S
    labels: list[str]  # K; of a model of spans O, which is none, and the types
    scores: Tensor  # (B, S, K) of words, (B, N, K) of spans, (B, K) of a text; a CRF's emissions
    # (B, H, S, S) at words, (B, H, N, S) at spans, (B, H, 1, S) at a text: of the heads of the model's own
    # attention, then of the queries of its pooling; None if it has neither
    attention: Tensor | None
    label_attention: Tensor | None  # (B, H, S, K), if words attend to labels
    spans: Tensor | None  # (N, 2), the first and the last word of each span
    encoder_attention: tuple[Tensor, ...]  # (B, H, S, S) of each layer of self-attention, if there are any
    encoder_states: tuple[Tensor, ...]  # (B, S, D): embeddings, the output of each layer, the final states


def label_activations(
    model: Tagger | SpanTagger | Classifier,
    forward: Callable[[], LabelScores],
    names: tuple[list[str], Sequence[str]],
    gradients: bool = False,
) -> LabelActivations:
    """Return the activations of a text, from one pass of the model, which is in evaluation.

    forward: runs the model on a batch of that text, with weights; names: its words, and the labels;
    gradients: whether they are parts of a graph, on the model's device; otherwise they are on the CPU.
    """
    encoder = model.encoder
    layers = [part for part in encoder.modules() if isinstance(part, EncoderLayer)]
    embedding = getattr(encoder, "embedding", None)
    final: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        final.append(kept(arguments[0], gradients))

    with (
        contextlib.ExitStack() as stack,
        torch.set_grad_enabled(gradients),
        # cuDNN's recurrent layers have no gradients in evaluation
        torch.backends.cudnn.flags(enabled=not gradients),
        recorded([layer.self_attention for layer in layers], gradients) as of_encoder,
        recorded_states([embedding, *layers, encoder], gradients) as read,
    ):
        labels = list(names[1])
        if isinstance(model, SpanTagger):  # which calls its encoder in two parts
            labels = [OUTSIDE, *model.types]
            stack.callback(model.pooling.register_forward_pre_hook(keep).remove)
        output = forward()
    weights = output.weights
    if weights is not None and weights.ndim == 3:  # of a text
        weights = weights.unsqueeze(2)
    return LabelActivations(
        names[0],
        labels,
        kept(output.scores, gradients),
        None if weights is None else kept(weights, gradients),
        None if output.label_weights is None else kept(output.label_weights, gradients),
        None if output.spans is None else output.spans.cpu(),
        tuple(of_encoder),
        (*read(), *final),
    )
