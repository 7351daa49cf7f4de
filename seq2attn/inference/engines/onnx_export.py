"""Folders with a model for ONNX Runtime, which other programs can load, too."""

import logging
from pathlib import Path
from typing import Any

from seq2attn.inference.engines.exported_folder import cached, finish, require_supported, vocabularies
from seq2attn.inference.engines.onnx_engine import OnnxEngine
from seq2attn.inference.engines.onnx_graph import import_onnx
from seq2attn.inference.engines.onnx_model import STEP, first_graph, save_model
from seq2attn.inference.engines.onnx_support import unsupported_keys
from seq2attn.inference.generator import Generator
from seq2attn.recipe import AnyRecipe

NAME = "onnx"
FORMAT = 1  # of the folders; it changes with what this code writes


def engine(
    recipe: AnyRecipe, generator: Generator[Any], quantize: str | None, folder: Path | None = None
) -> OnnxEngine:
    """Return the engine of a model, from a folder that `export` has written, or from the cache.

    A model that is not in the cache yet is written there, under the hash of its weights.
    """
    version = import_onnx().__version__
    require_supported(NAME, [*unsupported_keys(recipe)])
    if folder is None:
        versions = FORMAT, version, quantize
        folder = cached(
            NAME, recipe, generator, versions, lambda draft: export(recipe, generator, draft, quantize)
        )
    return OnnxEngine(folder, generator, quantize)


def export(recipe: AnyRecipe, generator: Generator[Any], folder: Path, quantize: str | None = None) -> None:
    """Write a model, its vocabularies and export.json to an existing folder: the same bytes every time.

    EngineError if it has a part that cannot be written.
    """
    version = import_onnx().__version__
    require_supported(NAME, [*unsupported_keys(recipe)])
    names = save_model(generator.model.eval(), folder)
    if quantize is not None:
        for file in (first_graph(generator.model), STEP):
            _quantize(folder / file)
    target = generator.tokenizer.target
    more = {
        "format": FORMAT,
        "onnx": version,
        "quantize": quantize,
        "state": names.state,
        "memory": names.memory,
        **({"source_eos": source.eos} if (source := vocabularies(generator).get("source")) else {}),
        "bos": target.bos,
        "eos": target.eos,
        "never": [target.pad, target.bos],
    }
    finish(folder, NAME, recipe, generator, more)


def _quantize(path: Path) -> None:
    """Let products of a graph use weights of 8 bits; what they multiply is quantized as it comes."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before, handler = logging.root.manager.disable, logging.NullHandler()
    logging.disable(logging.WARNING)  # it advises on the root logger,
    logging.root.addHandler(handler)  # which would get a handler that prints, if it had none
    try:
        quantize_dynamic(str(path), str(path), weight_type=QuantType.QInt8)
    finally:
        logging.root.removeHandler(handler)
        logging.disable(before)
