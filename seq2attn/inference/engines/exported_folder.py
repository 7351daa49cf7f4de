"""Folders with models for engines: each has export.json, with versions and with checksums of its files."""

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seq2attn.data.cache import cache_folder, checksum_of
from seq2attn.data.sources import PairTokenizer
from seq2attn.inference.engines.engine import EngineError
from seq2attn.inference.generator import Generator
from seq2attn.recipe import AnyRecipe
from seq2attn.recipe.sections import Fault
from seq2attn.runtime.drafts import draft_folder
from seq2attn.text.given_ids import dump_ids
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.version import __version__

NOTES = "export.json"


def finish(
    folder: Path, engine: str, recipe: AnyRecipe, generator: Generator[Any], more: Mapping[str, Any]
) -> None:
    """Write the vocabularies and export.json to a folder with a model: the same bytes every time.

    Where the ids of pieces are not those of their SentencePiece model, or texts may begin with tags, there is
    SIDE.ids.json with the ids of all pieces, tags included, and export.json has the tags.

    more: what the engine itself wants to be written there.
    """
    sides = vocabularies(generator)
    for side, vocabulary in sides.items():
        vocabulary.save(folder / f"{side}.model")
        if vocabulary.numbering is not None:
            ids = {piece: number for number, piece in enumerate(vocabulary.names)}
            (folder / f"{side}.ids.json").write_bytes(dump_ids(ids))
    numbering = sides["source"].numbering if "source" in sides else None
    tags = {} if numbering is None else {"tags": numbering.tags}
    checksums = {path.name: checksum_of(path) for path in sorted(folder.iterdir()) if path.name != NOTES}
    notes = {
        "engine": engine,
        "seq2attn": __version__,
        "recipe": recipe.name,
        "weights": weights_hash(generator.model.state_dict()),
        **tags,
        **more,
        "checksums": checksums,
    }
    (folder / NOTES).write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")


def notes_of(folder: Path) -> dict[str, Any]:
    """Return what export.json has. EngineError if there is none."""
    try:
        notes: dict[str, Any] = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{folder} has no readable {NOTES} ({error}): export the run again") from error
    return notes


def cached(
    engine: str,
    recipe: AnyRecipe,
    generator: Generator[Any],
    versions: Sequence[object],
    write: Callable[[Path], None],
) -> Path:
    """Return the folder of a model in the cache; it is written if it is not there, or damaged.

    versions: of what writes it; write: writes it to an existing folder.
    """
    parts = [
        weights_hash(generator.model.state_dict()),
        recipe.model.model_dump_json(),
        *(vocabulary.fingerprint for vocabulary in vocabularies(generator).values()),
        " ".join(map(str, [__version__, *versions])),
    ]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
    place = cache_folder("engines") / f"{engine}-{name}"
    if place.exists():
        if _intact(place):
            return place
        warnings.warn(f"{place} is damaged: it is made again from the run", stacklevel=2)
        shutil.rmtree(place)
    with draft_folder(place.parent, place.name) as draft:
        inner = draft / place.name
        inner.mkdir()
        write(inner)
        try:
            inner.replace(place)
        except OSError:
            if not _intact(place):  # another process has made it in the meantime
                raise
    return place


def require_supported(engine: str, faults: Sequence[Fault]) -> None:
    """Raise EngineError, with all keys of a recipe that an engine cannot compute, if there are any."""
    if faults:
        listed = "; ".join(f"{path}: {why}" for path, why in faults)
        raise EngineError(f"{engine} cannot compute this model, the engine torch can: {listed}")


def pair_tokenizer(engine: str, generator: Generator[Any]) -> PairTokenizer:
    """Return the tokenizer of a model that writes texts from texts."""
    tokenizer = generator.tokenizer
    if not isinstance(tokenizer, PairTokenizer):
        raise EngineError(f"{engine} writes texts from texts, and this model reads images")
    return tokenizer


def vocabularies(generator: Generator[Any]) -> dict[str, Vocabulary]:
    """Return the vocabularies of a model by side, source and target; images have none."""
    tokenizer = generator.tokenizer
    source = {"source": tokenizer.source} if isinstance(tokenizer, PairTokenizer) else {}
    return {**source, "target": tokenizer.target}


def weights_hash(weights: Mapping[str, Any]) -> str:
    """Return a hash of tensors with their names."""
    total = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name].detach().cpu().contiguous().numpy()
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(memoryview(array).cast("B"))
    return total.hexdigest()


def _intact(folder: Path) -> bool:
    """Return whether the files of an export are those that were written."""
    try:
        checksums = notes_of(folder)["checksums"]
        return all(checksum_of(folder / Path(name).name) == checksum for name, checksum in checksums.items())
    except (OSError, EngineError, LookupError, TypeError, AttributeError):
        return False
