"""What is inside a sequence-to-sequence model for one source and target: attention weights and hidden states.

Letters: B = 1, L layers, H heads, S source positions, T steps of the decoder, D width of a state, V tokens.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seq2attn.data.batches import PairIds, collate
from seq2attn.inference.generator import Generator
from seq2attn.models.decoders.transformer import DecoderLayer
from seq2attn.models.encoders import EncoderLayer
from seq2attn.runtime.devices import autocast, require_float32


class Activations(NamedTuple):
    """All attention weights and hidden states of a model, for a batch of one pair.

    The S positions are those of the source's pieces and of </s>, or the places of an image's grid, row by
    row. Step t reads the piece before the one that it predicts: first <s>; the last predicts </s>. Weights
    are those before dropout.

    If they were asked for with gradients, all are parts of one graph: losses on weights or log-probabilities
    have gradients with respect to the embeddings, `encoder_states[0]` and `decoder_states[0]`, and to all
    parameters. `cross_attention` is stacked; see `Decoded` for a gradient with respect to it.
    """

    source: list[str]  # names of the S positions; of an image "row,column"
    target: list[str]  # the T pieces that the steps predict
    log_probabilities: Tensor  # (B, T, V), of all next tokens, in nats
    target_log_probabilities: Tensor  # (B, T), of those in `target`
    cross_attention: Tensor | None  # (B, L, H, T, S); None if the decoder has no attention
    encoder_attention: tuple[Tensor, ...]  # (B, H, S, S) of each layer of self-attention, if there are any
    decoder_attention: tuple[Tensor, ...]  # (B, H, T, T) likewise
    encoder_states: tuple[Tensor, ...]  # (B, S, D): embeddings, the output of each layer, the final states
    decoder_states: tuple[Tensor, ...]  # (B, T, D): embeddings, the output of each layer


def activations(
    generator: Generator[Any], pair: PairIds, names: tuple[list[str], list[str]], gradients: bool = False
) -> Activations:
    """Return the activations of a pair, from one forced pass.

    names: of the positions of source and target, as in `Activations`;
    gradients: whether they are parts of a graph, on the model's device; otherwise they are on the CPU.
    """
    model = generator.model.eval()
    require_float32(model)
    encoder, decoder = model.encoder, model.decoder
    parts = [part for part in encoder.modules() if isinstance(part, EncoderLayer)]
    layers = [part for part in decoder.modules() if isinstance(part, DecoderLayer)]
    batch = collate(generator.tokenizer, [pair]).to(generator.device)
    before = getattr(encoder, "embedding", None)
    cell = getattr(decoder, "cell", None)
    with (
        torch.set_grad_enabled(gradients),
        # cuDNN's recurrent layers have no gradients in evaluation
        torch.backends.cudnn.flags(enabled=not gradients),
        recorded([part.self_attention for part in parts], gradients) as of_encoder,
        recorded([layer.self_attention for layer in layers], gradients) as of_decoder,
        recorded_states([before, *parts, encoder], gradients) as read,
        recorded_states([decoder.embedding, *layers, cell], gradients) as written,
        autocast(generator.device, generator.precision),
    ):
        decoded = model(batch.source, batch.target_input, range(decoder.attention_layers))
        log_p = decoded.logits.float().log_softmax(-1)
    target_log_p = log_p.gather(-1, batch.target[..., None]).squeeze(-1)
    return Activations(
        *names,
        kept(log_p, gradients),
        kept(target_log_p, gradients),
        None if decoded.weights is None else kept(decoded.weights, gradients),
        tuple(of_encoder),
        tuple(of_decoder),
        read(),
        written(),
    )


def kept(tensor: Tensor, gradients: bool) -> Tensor:
    """Return a tensor as activations are returned: with its graph, or in float32 on the CPU."""
    return tensor if gradients else tensor.detach().float().cpu()


@contextlib.contextmanager
def recorded(attentions: Sequence[nn.Module], gradients: bool = False) -> Iterator[list[Tensor]]:
    """Let attentions compute exact weights as long as the context lasts, and yield the list that they come
    into, in the order of the calls: (B, H, T, S), with H = 1 without heads.

    gradients: whether they stay parts of the graph, on their device.
    """
    weights: list[Tensor] = []

    def ask(_: nn.Module, arguments: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, {**options, "need_weights": True}

    def record(_: nn.Module, __: Any, attended: Any) -> None:
        of_heads = attended.weights if attended.weights.ndim == 4 else attended.weights.unsqueeze(1)
        weights.append(kept(of_heads, gradients))

    with contextlib.ExitStack() as stack:
        for attention in attentions:
            stack.callback(attention.register_forward_pre_hook(ask, with_kwargs=True).remove)
            stack.callback(attention.register_forward_hook(record).remove)
        yield weights


@contextlib.contextmanager
def recorded_states(modules: Sequence[nn.Module | None], gradients: bool) -> Iterator[Any]:
    """Yield a function that returns, after a call of the model, what each of these modules has returned:
    states (B, positions, D). A module that was called for each step has its states in one tensor."""
    outputs: list[list[Tensor]] = []
    with contextlib.ExitStack() as stack:
        for module in modules:
            if module is not None:
                states_of_module: list[Tensor] = []
                outputs.append(states_of_module)

                def record(_: nn.Module, __: Any, output: Any, own: list[Tensor] = states_of_module) -> None:
                    states = output if isinstance(output, Tensor) else output[0]
                    own.append(kept(states, gradients))

                stack.callback(module.register_forward_hook(record).remove)
        yield lambda: tuple(own[0] if len(own) == 1 else torch.cat(own, 1) for own in outputs if own)
