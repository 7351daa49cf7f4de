"""Folders with a model for CTranslate2, which other programs can load, too."""

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from seq2attn.data.cache import cache_folder, checksum_of
from seq2attn.data.sources import PairTokenizer
from seq2attn.inference.engines.ctranslate2_engine import CTranslate2Engine
from seq2attn.inference.engines.ctranslate2_model import POSITIONS, import_ctranslate2, save_model
from seq2attn.inference.engines.ctranslate2_support import unsupported_keys
from seq2attn.inference.engines.engine import EngineError
from seq2attn.inference.generator import Generator
from seq2attn.layers.basic import Embedding
from seq2attn.recipe import AnyRecipe, Recipe
from seq2attn.runtime.drafts import draft_folder
from seq2attn.version import __version__

NOTES = "export.json"
FORMAT = 1  # of the folders; it changes with what this code writes


def engine(
    recipe: AnyRecipe, generator: Generator[Any], quantize: str | None, folder: Path | None = None
) -> CTranslate2Engine:
    """Return the engine of a model, from a folder that `export` has written, or from the cache.

    A model that is not in the cache yet is written there, under the hash of its weights.
    """
    require_supported(recipe)
    tokenizer = _tokenizer(generator)
    model = generator.model
    lengths = _length(model.encoder), _length(model.decoder)
    folder = _cached(recipe, generator) if folder is None else folder
    return CTranslate2Engine(folder, tokenizer.source, tokenizer.target, lengths, generator.device, quantize)


def export(recipe: AnyRecipe, generator: Generator[Any], folder: Path, quantize: str | None = None) -> None:
    """Write a model, its vocabularies and export.json to an existing folder: the same bytes every time.

    EngineError if CTranslate2 cannot compute it.
    """
    require_supported(recipe)
    tokenizer = _tokenizer(generator)
    vocabularies = tokenizer.source, tokenizer.target
    save_model(cast(Recipe, recipe), generator.model, vocabularies, folder, quantize)
    tokenizer.source.save(folder / "source.model")
    tokenizer.target.save(folder / "target.model")
    checksums = {path.name: checksum_of(path) for path in sorted(folder.iterdir()) if path.name != NOTES}
    notes = {
        "engine": "ctranslate2",
        "format": FORMAT,
        "seq2attn": __version__,
        "ctranslate2": import_ctranslate2().__version__,
        "recipe": recipe.name,
        "quantize": quantize,
        "weights": weights_hash(generator.model.state_dict()),
        "checksums": checksums,
    }
    (folder / NOTES).write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")


def require_supported(recipe: AnyRecipe) -> None:
    """Raise EngineError, with all keys of the recipe that CTranslate2 cannot compute, if there are any."""
    import_ctranslate2()
    faults = [f"{path}: {why}" for path, why in unsupported_keys(recipe)]
    if faults:
        raise EngineError("ctranslate2 cannot compute this model, the engine torch can: " + "; ".join(faults))


def weights_hash(weights: Mapping[str, Any]) -> str:
    """Return a hash of tensors with their names."""
    total = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name].detach().cpu().contiguous().numpy()
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(memoryview(array).cast("B"))
    return total.hexdigest()


def _cached(recipe: AnyRecipe, generator: Generator[Any]) -> Path:
    """Return the folder of a model in the cache; it is written if it is not there, or damaged."""
    tokenizer = _tokenizer(generator)
    parts = [
        weights_hash(generator.model.state_dict()),
        recipe.model.model_dump_json(),
        tokenizer.source.fingerprint,
        tokenizer.target.fingerprint,
        f"{FORMAT} {__version__} {import_ctranslate2().__version__}",
    ]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
    place = cache_folder("engines") / f"ctranslate2-{name}"
    if place.exists():
        if _intact(place):
            return place
        warnings.warn(f"{place} is damaged: it is made again from the run", stacklevel=2)
        shutil.rmtree(place)
    with draft_folder(place.parent, place.name) as draft:
        inner = draft / place.name
        inner.mkdir()
        export(recipe, generator, inner)
        try:
            inner.replace(place)
        except OSError:
            if not _intact(place):  # another process has made it in the meantime
                raise
    return place


def _intact(folder: Path) -> bool:
    """Return whether the files of an export are those that were written."""
    try:
        checksums = json.loads((folder / NOTES).read_text(encoding="utf-8"))["checksums"]
        return all(checksum_of(folder / Path(name).name) == checksum for name, checksum in checksums.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _tokenizer(generator: Generator[Any]) -> PairTokenizer:
    """Return the tokenizer of a model that writes texts from texts."""
    tokenizer = generator.tokenizer
    if not isinstance(tokenizer, PairTokenizer):
        raise EngineError("ctranslate2 writes texts from texts, and this model reads images")
    return tokenizer


def _length(stack: Any) -> int | None:
    """Return the number of positions of an encoder or decoder in the engine; None: any."""
    embedding = cast(Embedding, stack.embedding)
    if embedding.positions is None:
        return None
    return POSITIONS if embedding.max_length is None else embedding.max_length
