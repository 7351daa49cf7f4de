"""Models whose parameters are divided among processes: each keeps a part of every parameter, and the moments
and moving averages of that part only (FSDP2, `torch.distributed.fsdp.fully_shard`).

A part of the model is whole only while it computes. Layers of Transformers are gathered one by one,
everything else at once. What is validated and saved is always the whole model, so that nobody sees how it was
trained.

torch's modules for this take half a second to import, so only `shard` and `like` do it.
"""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seq2attn.models.decoders.transformer import DecoderLayer
from seq2attn.models.encoders import EncoderLayer

T = TypeVar("T")

KERNELS = ("fused", "foreach")  # options of an optimizer that decide how it computes, not what
# What is gathered by itself, and the methods besides forward that compute with its parameters.
LAYERS: dict[type[nn.Module], tuple[str, ...]] = {EncoderLayer: (), DecoderLayer: ("start",)}


def shard(model: nn.Module) -> None:
    """Divide the parameters of a model, on its device and equal in all processes, among the processes of the
    default group. Parameters of no dimension stay whole. Gradients become sums over the processes, in each
    its part, in the last backward pass of an update (`syncs_after`)."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # Keys and values of a layer are views for its heads, and nothing writes into what a layer returns.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    scalars = {parameter for parameter in model.parameters() if not parameter.dim()}
    for layer in [*model.modules()]:
        methods = LAYERS.get(type(layer))
        if methods is not None:
            fully_shard(layer, ignored_params=scalars & {*layer.parameters()})
            for method in methods:
                register_fsdp_forward_method(layer, method)
    fully_shard(model, ignored_params=scalars)
    for part in _gathered_together(model):
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo has no sum with a factor


def syncs_after(model: nn.Module, last: bool) -> None:
    """Say whether the next backward pass is the last of the update, in which gradients are summed."""
    if _is_sharded(model):
        model.set_requires_gradient_sync(last)  # type: ignore[operator]


def summed_here(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters whose gradients nobody has summed over the processes yet: those that are whole."""
    return (parameter for parameter in model.parameters() if not _is_part(parameter))


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Let every process have the whole model until the end of the context, without gradients, so that each
    may use it as often as it likes. A model that is not sharded is whole anyway."""
    parts = [*_gathered_together(model)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not model)
            part.reshard()


def whole(value: T) -> T:
    """Return a value, for example the state of an optimizer, with whole tensors in the place of parts: on the
    CPU, one after the other, since the device need not hold all of them. All processes must call it
    together."""
    if _is_part(value):
        return value.full_tensor().cpu()  # type: ignore[no-any-return, attr-defined]
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}  # type: ignore[return-value]
    return value


def like(tensor: Tensor, value: Tensor) -> Tensor:
    """Return a whole value, equal in all processes, divided as a tensor is."""
    if not _is_part(tensor):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    part: DTensor = tensor  # type: ignore[assignment]
    return distribute_tensor(value.to(part.device), part.device_mesh, part.placements, src_data_rank=None)


def unfuse(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Let optimizers of a sharded model move one parameter after the other: their kernels for many take no
    parts together with whole tensors."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.update({name: False for name in KERNELS if name in group})


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer a whole state, also of one with other kernels, divided as its parameters are."""
    kernels = [{name: group[name] for name in KERNELS if name in group} for group in optimizer.param_groups]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    divided = {
        index: {
            name: like(parameters[index], part) if _fits(parameters[index], part) else part
            for name, part in parts.items()
        }
        for index, parts in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": divided})
    for group, own in zip(optimizer.param_groups, kernels, strict=True):
        group.update(own)


def clip(parameters: Iterable[nn.Parameter], largest: float) -> float:
    """Clip the gradients to a norm, and return their norm before it."""
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    kinds = [[one for one in trained if _is_part(one) is divided] for divided in (False, True)]
    kinds = [kind for kind in kinds if kind] or [[]]  # torch computes with parts, or with whole tensors
    gradients = [[one.grad for one in kind if one.grad is not None] for kind in kinds]
    norms = [whole(nn.utils.get_total_norm(of_kind)) for of_kind in gradients]
    total = norms[0] if len(norms) == 1 else torch.stack([norm.cpu() for norm in norms]).square().sum().sqrt()
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, largest, total)
    return float(total)


def _gathered_together(model: nn.Module) -> Iterator[Any]:
    """Yield the modules that `shard` has made: the whole model first, and layers."""
    return (part for part in model.modules() if _is_sharded(part))


def _is_sharded(module: nn.Module) -> bool:
    return hasattr(module, "set_requires_gradient_sync")


def _is_part(value: object) -> bool:
    """Return whether this is a part of a tensor, a DTensor."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def _fits(parameter: Tensor, part: Any) -> bool:
    return isinstance(part, Tensor) and part.shape == parameter.shape
