"""ENGINES: the programs that can search in the place of torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from seq2attn.inference.engines import ctranslate2_export
from seq2attn.inference.engines.engine import Engine, EngineError
from seq2attn.inference.generator import Generator
from seq2attn.recipe import AnyRecipe
from seq2attn.recipe.wording import unknown

TORCH = "torch"
QUANTIZED = ("int8",)


class EngineFunctions(NamedTuple):
    """What an engine's module provides. All raise EngineError if it cannot compute the model."""

    engine: Callable[[AnyRecipe, Generator[Any], str | None, Path | None], Engine]  # None: from the cache
    export: Callable[[AnyRecipe, Generator[Any], Path, str | None], None]


ENGINES = {
    "ctranslate2": EngineFunctions(ctranslate2_export.engine, ctranslate2_export.export),
}


def check_engine(name: str, quantize: str | None, precision: str) -> None:
    """Raise EngineError for an engine that does not exist, or that does not compute in this precision."""
    if name not in (TORCH, *ENGINES):
        raise EngineError(unknown(name, [TORCH, *ENGINES], "engine "))
    if quantize not in (None, *QUANTIZED):
        raise EngineError(unknown(str(quantize), QUANTIZED, "quantize "))
    if quantize and name == TORCH:
        raise EngineError(f"quantize: {quantize} is for the engines {', '.join(ENGINES)}: choose one, too")
    if name != TORCH and precision != "fp32":
        raise EngineError(
            f"precision: the engine {name} computes in fp32, or in int8 with quantize; got {precision}"
        )


def make_engine(
    name: str, recipe: AnyRecipe, predictor: Any, quantize: str | None = None, folder: Path | None = None
) -> Engine | None:
    """Return an engine with the model of a predictor; None for torch.

    quantize: int8, or None for float32; folder: with the exported model; None: the cache. EngineError if the
    engine is not installed, or cannot compute the model.
    """
    if name == TORCH:
        return None
    return ENGINES[name].engine(recipe, _generator(name, recipe, predictor), quantize, folder)


def export_model(
    name: str, recipe: AnyRecipe, predictor: Any, folder: Path, quantize: str | None = None
) -> None:
    """Write the model of a predictor to an existing folder, for an engine. Arguments: see `make_engine`."""
    ENGINES[name].export(recipe, _generator(name, recipe, predictor), folder, quantize)


def _generator(name: str, recipe: AnyRecipe, predictor: Any) -> Generator[Any]:
    generator = getattr(predictor, "generator", None)
    if not isinstance(generator, Generator):
        raise EngineError(f"task: the engine {name} searches for texts, and {recipe.task} has no search")
    return generator
