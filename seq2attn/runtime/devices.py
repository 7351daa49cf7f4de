"""Devices and precisions, and what to say when memory runs out."""

import contextlib
import re
from collections.abc import Iterator

import torch

from seq2attn.errors import Seq2attnError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """cpu, cuda, cuda:1, mps, ...; auto = the best there is."""
    if name == "auto":
        accelerated = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
        return torch.device(accelerated)
    try:
        device = torch.device(name)
    except RuntimeError as error:  # whose list has what no one has
        raise Seq2attnError(f"unknown device '{name}': expected cpu, cuda, cuda:1, mps or auto") from error
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = re.split(r"[.\n]", str(error))[0][:100]
        raise Seq2attnError(f"device '{name}' cannot be used here ({why}); try auto or cpu") from error
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a model computes in fp32, bf16 or fp16; weights stay float32."""
    if precision not in PRECISIONS:
        raise Seq2attnError(f"unknown precision '{precision}': expected fp32, bf16 or fp16")
    if precision == "fp16" and device.type == "cpu":
        raise Seq2attnError("precision fp16 needs a GPU, and this is a CPU: use bf16 or fp32")
    enabled = precision != "fp32"
    return torch.autocast(device.type, PRECISIONS[precision] if enabled else None, enabled)


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory has run out: torch has no type of its own for that on a CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)


@contextlib.contextmanager
def fitting() -> Iterator[None]:
    """Say what to lower where a model that is being built does not fit into memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise Seq2attnError(
            "the model does not fit into memory: lower model.*.size, layers or text.size"
        ) from error
