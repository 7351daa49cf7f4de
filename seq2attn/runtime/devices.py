"""Devices, precisions and out-of-memory errors."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import torch

from seq2attn.errors import Seq2attnError, require_type

TOO_LARGE = "the model does not fit into memory: lower model.*.size, layers or text.size"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """Return a device by its name: cpu, cuda, cuda:1, mps, ...; auto: cuda, mps or cpu, whichever there is.
    Of the processes that torchrun has started, each gets a GPU of its own.

    Seq2attnError if the device is unknown or cannot be used.
    """
    require_type(name, (str, torch.device), "a device, such as auto, cpu or cuda:1")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
    except RuntimeError as error:  # its message lists devices that seq2attn does not support
        raise Seq2attnError(f"unknown device '{name}': expected cpu, cuda, cuda:1, mps or auto") from error
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = re.split(r"[.\n]", str(error))[0][:100]
        raise Seq2attnError(f"device '{name}' cannot be used here ({reason}); try auto or cpu") from error
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # parts of torch, as FSDP2, take the current one
    return device


class _Autocast(torch.autocast):
    """Autocast that forgets the narrow copies of weights at its end.

    torch keeps them until the outermost autocast ends, and looks them up by the identity of a weight. Within
    another autocast, such as one that turns it off for a whole training, they would outlive the update of the
    weights, and every later batch would be computed with the weights of the first.
    """

    def __exit__(self, *raised: Any) -> Any:
        """See torch.autocast."""
        result = super().__exit__(*raised)
        torch.clear_autocast_cache()
        return result


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context in which a model computes in fp32, bf16 or fp16; its weights stay float32.

    Seq2attnError for an unknown precision, or one that the device does not support.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise Seq2attnError(f"unknown precision '{precision}': expected fp32, bf16 or fp16")
    if precision == "fp16" and device.type == "cpu":
        raise Seq2attnError("precision fp16 needs a GPU, and this is a CPU: use bf16 or fp32")
    enabled = precision != "fp32"
    return _Autocast(device.type, PRECISIONS[precision] if enabled else None, enabled)


def emulates_bf16(device: torch.device) -> bool:
    """Return whether a device is an x86-64 processor without instructions for bf16: it computes that with
    float32 and conversions, more slowly than float32 itself."""
    if device.type != "cpu":
        return False
    known: dict[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # older versions of torch do not tell
    return known.get("architecture") == "x86_64" and not (known["amx_bf16"] or known["avx512_bf16"])


def require_float32(model: torch.nn.Module) -> None:
    """Raise Seq2attnError if a model was converted to half precision: its weights stay float32."""
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    if dtype in (torch.float16, torch.bfloat16):
        raise Seq2attnError(
            f"the model was converted to {dtype}, and its weights must stay float32: load it with a "
            'precision instead, as in load(run, precision="bf16")'
        )


def out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out. On a CPU torch raises a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)


class OutOfMemoryError(Seq2attnError, MemoryError):
    """Memory ran out; the message says what to lower."""


@contextlib.contextmanager
def explain_out_of_memory(message: str) -> Iterator[None]:
    """Re-raise out-of-memory errors as an OutOfMemoryError with this message, which says what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, OutOfMemoryError) or not out_of_memory(error):
            raise
        raise OutOfMemoryError(message) from error
