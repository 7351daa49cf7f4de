"""Folders with a model for CTranslate2, which other programs can load, too."""

from pathlib import Path
from typing import Any, cast

from seq2attn.inference.engines.ctranslate2_engine import CTranslate2Engine
from seq2attn.inference.engines.ctranslate2_model import POSITIONS, import_ctranslate2, save_model
from seq2attn.inference.engines.ctranslate2_support import unsupported_keys
from seq2attn.inference.engines.exported_folder import cached, finish, pair_tokenizer, require_supported
from seq2attn.inference.generator import Generator
from seq2attn.layers.basic import Embedding
from seq2attn.recipe import AnyRecipe, Recipe

NAME = "ctranslate2"
FORMAT = 1  # of the folders; it changes with what this code writes


def engine(
    recipe: AnyRecipe, generator: Generator[Any], quantize: str | None, folder: Path | None = None
) -> CTranslate2Engine:
    """Return the engine of a model, from a folder that `export` has written, or from the cache.

    A model that is not in the cache yet is written there, under the hash of its weights.
    """
    version = import_ctranslate2().__version__
    require_supported(NAME, [*unsupported_keys(recipe)])
    tokenizer = pair_tokenizer(NAME, generator)
    model = generator.model
    lengths = _length(model.encoder), _length(model.decoder)
    if folder is None:
        versions = FORMAT, version
        folder = cached(NAME, recipe, generator, versions, lambda draft: export(recipe, generator, draft))
    return CTranslate2Engine(folder, tokenizer.source, tokenizer.target, lengths, generator.device, quantize)


def export(recipe: AnyRecipe, generator: Generator[Any], folder: Path, quantize: str | None = None) -> None:
    """Write a model, its vocabularies and export.json to an existing folder: the same bytes every time.

    EngineError if CTranslate2 cannot compute it.
    """
    version = import_ctranslate2().__version__
    require_supported(NAME, [*unsupported_keys(recipe)])
    tokenizer = pair_tokenizer(NAME, generator)
    save_model(cast(Recipe, recipe), generator.model, (tokenizer.source, tokenizer.target), folder, quantize)
    finish(folder, NAME, recipe, generator, {"format": FORMAT, "ctranslate2": version, "quantize": quantize})


def _length(stack: Any) -> int | None:
    """Return the number of positions of an encoder or decoder in the engine; None: any."""
    embedding = cast(Embedding, stack.embedding)
    if embedding.positions is None:
        return None
    return POSITIONS if embedding.max_length is None else embedding.max_length
