"""Import of Marian models, as OPUS-MT publishes them, from the form of Transformers into a run folder.

Tensors are copied as they are; every tensor of the file is used, or known to repeat another one. The two
SentencePiece models are copied untouched, with the ids that vocab.json gives their pieces.
"""

import hashlib
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from seq2attn.attention.positions import Sinusoidal
from seq2attn.models.seq2seq_factory import build
from seq2attn.pretrained.marian_config import CONFIG, MarianConfig, read_config
from seq2attn.recipe import AnyRecipe
from seq2attn.recipe import read as read_recipe
from seq2attn.runtime import files
from seq2attn.text.given_ids import FaultyIdsError, Numbering, dump_ids, read_ids
from seq2attn.text.vocabulary import Vocabulary, VocabularyError
from seq2attn.training.run_folder import RunFolder, require_empty
from seq2attn.training.version_file import RunError, Version, environment
from seq2attn.training.weights import Weights, load_weights, tensors_of
from seq2attn.version import __version__

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there is read
SOURCE, TARGET, IDS, TARGET_IDS = "source.spm", "target.spm", "vocab.json", "target_vocab.json"
CARD = "README.md"
FILE = "imported.safetensors"
START = "<pad>"  # what the decoder reads first
MAX_NAMED = 10  # tensors in an error message
CLOSE = 1e-5  # the largest difference of a table of positions

_TABLES = ("model.shared.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
_OUTPUT, _BIAS = "lm_head.weight", "final_logits_bias"
_POSITIONS = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")
_PARTS = {  # of a layer, ours and theirs
    "self_attention": "self_attn",
    "cross_attention": "encoder_attn",
    "self_attention_residual.norm": "self_attn_layer_norm",
    "cross_attention_residual.norm": "encoder_attn_layer_norm",
    "feed_forward.inner": "fc1",
    "feed_forward.outer": "fc2",
    "feed_forward_residual.norm": "final_layer_norm",
}
_PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}


class Imported(NamedTuple):
    """A run folder that was made of a model of another tool."""

    folder: RunFolder
    tensors: int  # of the file, all of them used
    parameters: int


def import_marian(
    model: str | Path, run: str | Path, name: str | None = None, revision: str | None = None
) -> Imported:
    """Make a run folder of a Marian model in the form of Transformers; nothing of it is executed.

    model: the folder with config.json, weights, source.spm, target.spm and vocab.json.
    name, revision: the model's name, and its commit on the hub, for the record; its folder's name if None.

    Raises:
        RunError: files are missing or damaged, or something of the model is not understood, with its name.
    """
    model, run = Path(model), Path(run)
    require_empty(run)
    name = name or model.resolve().name
    config = read_config(model, name)
    vocabularies = _vocabularies(model, config)
    file, given = _tensors(model)
    origin = {
        "kind": "marian",
        "name": name,
        "revision": revision,
        "sha256": hashlib.sha256(files.read(file)).hexdigest(),
        "license": _license(model),
    }
    recipe = _recipe(model, config, origin)
    network = build(recipe.model, *config.sizes)
    weights = _renamed(file, given, config, tensors_of(network))
    load_weights(network, weights)
    version = Version(seq2attn=__version__, environment=environment())
    version.origin = {key: value for key, value in origin.items() if value is not None}
    names = [*recipe.text.names[0], *recipe.text.names[1]]
    folder = RunFolder.create(run, recipe, version, dict(zip(names, vocabularies, strict=True)))
    folder.save_weights(FILE, weights)
    version.best = version.last = FILE
    folder.commit()
    return Imported(folder, len(given), sum(tensor.numel() for tensor in weights.values()))


def _recipe(model: Path, config: MarianConfig, origin: Mapping[str, Any]) -> AnyRecipe:
    """Return the recipe of the run. Its training section is a start for whoever trains the model further."""
    model = model.resolve()
    ids = [str(model / IDS)] + ([] if config.joint else [str(model / TARGET_IDS)])
    return read_recipe(
        {
            "name": str(origin["name"]).replace("/", "_"),
            "task": "translation",
            "origin": dict(origin),
            "data": {"languages": [*config.languages]},
            "text": {
                "joint": config.joint,
                "files": [str(model / SOURCE), str(model / TARGET)],
                "ids": ids[0] if config.joint else ids,
                "start": START,
                "tags": "marked",
            },
            "model": config.model(),
            "training": {"learning_rate": 5e-5, "max_epochs": 3},
            "decoding": config.decoding(),
        },
        check_files=False,
    )


# ---- vocabularies ---------------------------------------------------------------------------------------


def _vocabularies(model: Path, config: MarianConfig) -> list[bytes]:
    """Return the SentencePiece models and the ids. RunError if ids are not those of the configuration."""
    models, ids = [_content(model / SOURCE), _content(model / TARGET)], list[dict[str, int]]()
    files_of_ids = [IDS] if config.joint else [IDS, TARGET_IDS]
    for file, size in zip(files_of_ids, config.sizes, strict=False):
        try:
            ids.append(read_ids(_content(model / file)))
        except FaultyIdsError as error:
            raise RunError(f"{model / file} is damaged: {error}") from error
        if len(ids[-1]) != size:
            raise RunError(f"{model / file} has {len(ids[-1]):,} pieces, and {CONFIG} gives {size:,}")
    for key, piece, number in config.special():
        if ids[-1].get(piece) != number:
            given = ids[-1].get(piece)
            raise RunError(f"{model / CONFIG}: {key}: {number}, and {files_of_ids[-1]} gives {piece} {given}")
    for name, content, mapping in ((SOURCE, models[0], ids[0]), (TARGET, models[1], ids[-1])):
        try:
            Vocabulary(content, numbering=Numbering(mapping, START))
        except VocabularyError as error:
            raise RunError(f"{model / name}: {error}") from error
    return [*models, *map(dump_ids, ids)]


def _content(path: Path) -> bytes:
    try:
        return files.read(path)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error


def _license(model: Path) -> str | None:
    """Return the licence that the model's card names, if it names one."""
    try:
        text = files.read(model / CARD).decode("utf-8", "replace")
        head = text.split("---")[1] if text.startswith("---") else ""
        values = yaml.safe_load(head)
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return None
    named = values.get("license") if isinstance(values, dict) else None
    return named if isinstance(named, str) else None


# ---- tensors --------------------------------------------------------------------------------------------


def _tensors(model: Path) -> tuple[Path, Weights]:
    """Return the file of weights and its tensors. RunError if there is none, or it holds anything else."""
    for file in (model / name for name in WEIGHTS):
        if not file.exists():
            continue
        try:
            if file.suffix == ".safetensors":
                return file, load(files.read(file))
            files.require_regular(file)
            tensors = torch.load(file, map_location="cpu", weights_only=True)
        except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
            raise RunError(f"{file} is damaged: {error}") from error
        except pickle.UnpicklingError as error:
            raise RunError(
                f"{file} holds more than tensors, or is damaged, and is not loaded: its loading could run "
                "any code. Use model.safetensors, or a file that was saved as tensors only"
            ) from error
        if isinstance(tensors, dict) and all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            return file, dict(tensors)
        raise RunError(f"{file}: expected tensors by name")
    raise RunError(f"{model} has no weights: expected {' or '.join(WEIGHTS)}")


def _renamed(file: Path, given: Weights, config: MarianConfig, own: Weights) -> Weights:
    """Return the tensors by the names that they have in our model, in float32.

    RunError, which names them, for tensors that are missing, have another shape, or have no use.
    """
    bias = given.get(_BIAS, torch.zeros(1, config.sizes[1], device="cpu"))
    table = next((name for name in (*_TABLES, _OUTPUT) if name in given), _TABLES[0])
    wanted = dict(_of_layers(config.config))
    if config.joint:
        repeated = dict.fromkeys((*_TABLES, _OUTPUT), table)
        wanted["encoder.embedding.table.weight"] = table
    else:
        decoder = next((name for name in (_TABLES[2], _OUTPUT) if name in given), _TABLES[2])
        repeated = {_OUTPUT: decoder}
        wanted["encoder.embedding.table.weight"] = _TABLES[1]
        wanted["decoder.embedding.table.weight"] = decoder
    faults = [f"{name} is missing" for name in wanted.values() if name not in given]
    weights = {name: given[theirs].float() for name, theirs in wanted.items() if theirs in given}
    weights["decoder.output.bias"] = bias.float().reshape(-1)
    faults += [
        f"{wanted.get(name, _BIAS)} has the shape {tuple(tensor.shape)}, and by {CONFIG} it is "
        f"{tuple(own[name].shape)}"
        for name, tensor in weights.items()
        if name in own and tensor.shape != own[name].shape
    ]
    faults += _of_others(given, {*wanted.values(), _BIAS}, repeated, config.config["d_model"])
    faults += [f"our {name} has no counterpart" for name in own.keys() ^ weights.keys() if not faults]
    if faults:
        more = f"; and {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
        raise RunError(f"{file}: {'; '.join(faults[:MAX_NAMED])}{more}")
    return weights


def _of_others(given: Weights, used: set[str], repeated: Mapping[str, str], width: int) -> Iterator[str]:
    """Yield faults of tensors that are not used: only those that repeat another one need not be."""
    for name, tensor in given.items():
        if name in used:
            continue
        if name in _POSITIONS:
            zeros = torch.zeros(1, len(tensor), width, dtype=torch.float64, device="cpu")
            table = Sinusoidal(width, layout="halves")(zeros, 0)[0]
            if tensor.shape != table.shape or (tensor.double() - table).abs().max() > CLOSE * len(tensor):
                yield f"{name} is not the table of sinusoidal positions"
        elif name not in repeated:
            yield f"{name} {tuple(tensor.shape)} has no use in this model"
        elif repeated[name] in given and not torch.equal(tensor, given[repeated[name]]):
            yield f"{name} differs from {repeated[name]}, which it should repeat"


def _of_layers(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of each tensor of all layers in our model, and in theirs."""
    for side in ("encoder", "decoder"):
        for layer in range(config[f"{side}_layers"]):
            for ours, theirs in _PARTS.items():
                if side == "encoder" and ours.startswith("cross"):
                    continue
                attention = ours.endswith("attention")
                inner = _PROJECTIONS.items() if attention else [("", "")]
                for (our_part, their_part), kind in (
                    (parts, kind) for parts in inner for kind in ("weight", "bias")
                ):
                    our_name = ".".join(filter(None, (ours, our_part, kind)))
                    their_name = ".".join(filter(None, (theirs, their_part, kind)))
                    yield f"{side}.layers.{layer}.{our_name}", f"model.{side}.layers.{layer}.{their_name}"
