"""What attention moves, not only how it is weighted: the norms of weighted value vectors.

Letters: B sentences, H heads, T target positions, S source positions, V width of a value, D of the output.
"""

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seq2attn.attention.heads import MultiHead
from seq2attn.errors import Seq2attnError
from seq2attn.models.decoders.base import Decoder


@contextlib.contextmanager
def recorded_vectors(decoder: Decoder, layers: Collection[int]) -> Iterator[dict[int, Tensor]]:
    """Yield a dict that has, after a forward pass of the decoder, the transformed source vectors f(x)
    (B, H, S, D) of its layers; H is 1 without heads.

    With heads, f_h(x) = (x W_value + b_value) W_out of head h; without, f(x) = x, the value itself.
    Seq2attnError for a shift head, which weights none.
    """
    if any(decoder.is_shift_head(layer) for layer in layers):
        raise Seq2attnError("a shift head weights no vectors: take its attention, or norms of another layer")
    vectors: dict[int, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for layer in layers:
            owner = multi_head(decoder, layer)

            def record(
                _: Any, arguments: Any, options: Any, layer: int = layer, owner: MultiHead | None = owner
            ) -> None:
                memory = arguments[1] if len(arguments) > 1 else options["memory"]
                vectors[layer] = _transformed(memory.values, owner)

            attention = decoder.cross_attention(layer)
            stack.callback(attention.register_forward_pre_hook(record, with_kwargs=True).remove)
        yield vectors


def multi_head(decoder: Decoder, layer: int) -> MultiHead | None:
    """Return the heads of the cross-attention of a layer; None if it has none."""
    attention = decoder.cross_attention(layer)
    owners = (module for module in decoder.modules() if isinstance(module, MultiHead))
    return next((owner for owner in owners if owner.attention is attention), None)


def _transformed(values: Tensor, owner: MultiHead | None) -> Float[Tensor, "B H S D"]:
    if owner is None:
        return values.float().unsqueeze(1)
    output = owner.out.weight.float().unflatten(1, (owner.heads, -1))  # (D, H, V)
    return torch.einsum("bhsv,dhv->bhsd", values.float(), output)


def vector_norms(
    weights: Float[Tensor, "B H T S"], vectors: Float[Tensor, "B H S D"], head: int | None
) -> Float[Tensor, "B T S"]:
    """Return the norms ||alpha f(x)|| of the weighted vectors of a head (Kobayashi et al. 2020), in rows that
    sum to 1, or to 0 if all are 0.

    head: None is all heads together: the norm of the sum of their vectors, ||sum_h alpha_h f_h(x)||.
    """
    if head is None:
        products = torch.einsum("bhsd,bgsd->bshg", vectors, vectors)
        of_others = torch.einsum("bgts,bshg->bhts", weights, products)
        norms = (weights * of_others).sum(1).clamp(min=0).sqrt()
    else:
        norms = weights[:, head].abs() * vectors[:, head].norm(dim=-1).unsqueeze(1)
    total: Tensor = norms.sum(-1, keepdim=True)
    return norms / total.masked_fill(total == 0, 1)
