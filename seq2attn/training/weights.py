"""The weights of a model: its tensors by name, checked when they are loaded, of all run formats, averaged."""

import re
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from seq2attn.training.sharding import like, whole
from seq2attn.training.version_file import RunError

MAX_NAMED_TENSORS = 3  # in an error message
Weights = dict[str, Tensor]


def weights_name(step: int) -> str:
    """Return the file name of the weights of a step; names sort like their steps."""
    return f"step-{step:08d}.safetensors"


def tensors_of(model: nn.Module) -> Weights:
    """Return a model's tensors by name, not copied; a shared tensor only once, under its first name."""
    first = {id(tensor): name for name, tensor in reversed(model.state_dict(keep_vars=True).items())}
    return {name: tensor for name, tensor in model.state_dict().items() if name in first.values()}


def weights_of(model: nn.Module) -> Weights:
    """Return copies of a model's tensors on the CPU."""
    return {name: whole(tensor).to("cpu", copy=True) for name, tensor in tensors_of(model).items()}


def load_weights(model: nn.Module, weights: Weights, run: Path | None = None) -> None:
    """Copy weights into a model. RunError, which names the differences, unless names and shapes all agree.

    run: the run folder of the weights, for the error message.
    """
    expected = tensors_of(model)
    faults = [f"{name} is missing" for name in expected.keys() - weights.keys()]
    faults += [f"{name} is not part of the model" for name in weights.keys() - expected.keys()]
    faults += [
        f"{name} has shape {tuple(weights[name].shape)}, the model's has {tuple(expected[name].shape)}"
        for name in expected.keys() & weights.keys()
        if expected[name].shape != weights[name].shape
    ]
    if faults:
        named, others = sorted(faults)[:MAX_NAMED_TENSORS], len(faults) - MAX_NAMED_TENSORS
        more = f"; and {others} more" if others > 0 else ""
        of_run, command = "", ""
        if run is not None:
            of_run, command = f" of {run}", f": seq2attn train {run / 'recipe.yaml'} --run {run}-again"
        raise RunError(
            f"the weights{of_run} do not fit the recipe's model: {'; '.join(named)}{more}. "
            "They were made with another recipe, or by another version of seq2attn; train the model "
            f"again{command}"
        )
    divided = {name: like(expected[name], tensor) for name, tensor in weights.items()}
    model.load_state_dict(divided, strict=False)


# The changes of tensor names, by format: each pattern is replaced wherever it matches.
_RENAMINGS = {
    # 0.2: a bidirectional layer has a torch layer for each direction
    r"^((?:(?!decoder\.).)*\.rnn)\.((?:weight|bias)_[ih]h)_l(\d+)$": r"\1.layers.\3.0.\2_l0",
    r"^((?:(?!decoder\.).)*\.rnn)\.((?:weight|bias)_[ih]h)_l(\d+)_reverse$": r"\1.layers.\3.1.\2_l0",
    # 0.3: the field's names
    r"^(encoder\.layers\.\d+)\.attention\.": r"\1.self_attention.",
    r"^(encoder\.layers\.\d+)\.around_attention\.": r"\1.self_attention_residual.",
    r"^(decoder\.layers\.\d+)\.(around_)?own\.": r"\1.\2self_attention.",
    r"^(decoder\.layers\.\d+)\.(around_)?source\.": r"\1.\2cross_attention.",
    r"^((?:en|de)coder\.layers\.\d+)\.around_(\w+)\.": r"\1.\2_residual.",
    r"^decoder\.copier\.": "decoder.pointer_generator.",
    r"^encoder\.embedding\.speller\.": "encoder.embedding.character_encoder.",
}


def renamed(weights: Weights) -> Weights:
    """Return weights of this or an earlier format with the tensor names of this format."""

    def current(name: str) -> str:
        for pattern, replacement in _RENAMINGS.items():
            name = re.sub(pattern, replacement, name)
        return name

    return {current(name): tensor for name, tensor in weights.items()}


def move_average(moving: Weights, weights: Weights, decay: float, step: int) -> None:
    """Move an exponential moving average towards the weights of a step, in place. Whole numbers, as the
    number of batches that a norm has seen, are copied: they have no mean."""
    # A decay that rises: the first weights are random, and a constant one would long keep them.
    decay = min(decay, (1 + step) / (10 + step))
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            moving[name].lerp_(tensor, 1 - decay)
        else:
            moving[name].copy_(tensor)


def average(checkpoints: Iterable[Weights]) -> Weights:
    """Return the mean of the weights of checkpoints, summed in float64 (Vaswani et al. 2017, section 6.1)."""
    total: Weights = {}
    count = 0
    for weights in checkpoints:
        count += 1
        for name, tensor in weights.items():
            total[name] = total[name] + tensor.double() if name in total else tensor.double()
    if not count:
        raise RunError("nothing to average: no weights were given")
    return {name: (tensor / count).float() for name, tensor in total.items()}
