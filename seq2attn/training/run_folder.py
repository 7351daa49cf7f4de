"""Run folders: recipe, vocabularies, weights, training state and log of one training.

    recipe.yaml           the complete recipe of the run
    text/*                vocabularies: SentencePiece models, or JSON for words and labels
    weights/*.safetensors never changed once written
    version.json          format, checksums, and which weights are best, last and average
    training_state.pt     everything that resuming needs, read as plain tensors only
    log.jsonl             one record per line

Each file is written under a temporary name and then renamed, version.json last: if the process is killed or
the power fails, the folder is in the state before or after the change. Loading executes no code from it.
"""

import hashlib
import json
import pickle
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from seq2attn.errors import Seq2attnError
from seq2attn.recipe import AnyRecipe, read, write
from seq2attn.runtime import files as atomic

FORMAT = "0.3"
READABLE = ("0.1", "0.2", FORMAT)
RESUMABLE = ("0.2", FORMAT)
MAX_NAMED_TENSORS = 3  # in an error message
Weights = dict[str, Tensor]

# Errors that torch.load may raise for a damaged file, besides its own.
_LOAD_ERRORS = (RuntimeError, NotImplementedError, EOFError, OSError, ValueError, LookupError)


class RunError(Seq2attnError):
    """A run folder is missing, damaged or of another format, or a new one cannot be made."""


@dataclass
class Version:
    """The content of version.json."""

    format: str = FORMAT
    seq2attn: str = ""
    torch: str = torch.__version__
    data: str = ""  # the fingerprint of the training data
    best: str = ""  # file names below weights/
    last: str = ""
    average: str = ""
    scores: dict[str, list[float]] = field(default_factory=dict)  # of the kept weights; larger is better
    checksums: dict[str, str] = field(default_factory=dict)  # SHA-256 by path
    origin: dict[str, str] = field(default_factory=dict)  # the run or model that it was made from, if any
    alignment: dict[str, int | None] | None = None  # the layer and head that align best, once measured


class RunFolder:
    """A run on disk. `create` makes a new one, `open` reads an existing one."""

    def __init__(self, path: Path, version: Version) -> None:
        self.path, self.version = path, version

    @classmethod
    def create(
        cls, path: Path, recipe: AnyRecipe, version: Version, files: Mapping[str, bytes] | None = None
    ) -> "RunFolder":
        """Make a new run with these files, by name. RunError if the folder exists and is not empty."""
        require_empty(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        except OSError as error:
            raise RunError(f"{path} cannot be made: {error.strerror} ({error.filename})") from error
        draft.chmod(0o755)
        (draft / "weights").mkdir()
        (draft / "text").mkdir()
        write(recipe, draft / "recipe.yaml")
        run = cls(draft, version)
        for name, content in (files or {}).items():
            run.add(name, content)
        run.commit()
        return cls(draft.replace(path), version)  # atomic: there is never an incomplete folder

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Open an existing run. RunError if it is missing, damaged, or of an unknown format."""
        path = Path(path)
        file = path / "version.json"
        if not file.is_file():
            if not path.exists():
                fault = "does not exist"
            else:
                fault = "has no version.json" if path.is_dir() else "is no folder"
            raise RunError(f"{path} {fault}: expected a run folder, as `seq2attn train` makes it")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise TypeError("expected names and values")
            if (run_format := content.get("format")) not in READABLE:
                readable = f"{', '.join(READABLE[:-1])} and {FORMAT}"
                raise RunError(
                    f"{file}: this seq2attn reads the run formats {readable}, the folder has {run_format}"
                )
            return cls(path, Version(**content))
        except (UnicodeDecodeError, json.JSONDecodeError, TypeError, AttributeError) as error:
            raise RunError(f"{file} is damaged: {error}") from error

    @property
    def recipe(self) -> AnyRecipe:
        """The recipe of the run. Its data files need not exist any more."""
        if not (self.path / "recipe.yaml").is_file():
            raise RunError(f"{self.path / 'recipe.yaml'} is missing: the run folder is incomplete")
        return read(self.path / "recipe.yaml", check_files=False)

    def commit(self) -> None:
        """Write version.json atomically: readers now see the new state."""
        text = json.dumps(asdict(self.version), indent=2, sort_keys=True) + "\n"
        atomic.write(self.path / "version.json", text.encode())

    def add(self, name: str, content: bytes) -> None:
        """Write a file and note its checksum; `commit` makes it part of the run."""
        self.version.checksums[name] = hashlib.sha256(content).hexdigest()
        atomic.write(self.path / name, content)

    def content(self, name: str) -> bytes:
        """Return the bytes of a file. RunError if it is missing or its checksum differs."""
        file = self.path / name
        try:
            content = file.read_bytes()
        except OSError as error:
            raise RunError(
                f"{file} cannot be read: {error.strerror}; the run folder is incomplete"
            ) from error
        if self.version.checksums.get(name) != hashlib.sha256(content).hexdigest():
            raise RunError(f"{file} is damaged: its checksum is not the one in version.json; copy it again")
        return content

    # ---- weights ------------------------------------------------------------------------------------

    def save_weights(self, name: str, weights: Weights) -> None:
        """Write weights to weights/NAME as safetensors; `commit` makes them part of the run."""
        if self.version.format in RESUMABLE:  # a folder of 0.1 stays one, so that its training is not resumed
            self.version.format = FORMAT
        self.add(f"weights/{name}", save({key: value.contiguous() for key, value in weights.items()}))

    def load_weights(self, which: str = "best") -> Weights:
        """Return weights: best, last, average, or those of a file below weights/."""
        name = {"best": self.version.best, "last": self.version.last, "average": self.version.average}.get(
            which, which
        )
        kept = [key.removeprefix("weights/") for key in self.version.checksums if key.startswith("weights/")]
        if name not in kept:
            names = ", ".join(sorted(kept)) or "none yet (training has not reached its first validation)"
            raise RunError(f"{self.path}: no weights '{which}'; there are: {names}")
        try:
            return _renamed(load(self.content(f"weights/{name}")))
        except SafetensorError as error:
            raise RunError(f"{self.path / 'weights' / name} is damaged: {error}") from error

    def last_weights(self, count: int) -> list[str]:
        """Return the names of the last `count` validated weights, oldest first."""
        return sorted(name for name in self.version.scores if name.startswith("step-"))[-count:]

    def prune(self, keep: Iterable[str]) -> None:
        """Commit, and delete all weights but these and the best, last and average ones."""
        keep = {*keep, self.version.best, self.version.last, self.version.average}
        names = [key.removeprefix("weights/") for key in self.version.checksums if key.startswith("weights/")]
        stale = [name for name in names if name not in keep]
        for name in stale:
            del self.version.checksums[f"weights/{name}"]
            self.version.scores.pop(name, None)
        self.commit()  # before the files are deleted: version.json never names a file that is gone
        for name in stale:
            (self.path / "weights" / name).unlink(missing_ok=True)

    # ---- training state and log ---------------------------------------------------------------------

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write everything that resuming needs to one file."""
        atomic.write(self.path / "training_state.pt", lambda file: torch.save(dict(state), file))

    def load_state(self) -> dict[str, Any] | None:
        """Return the saved training state, None if there is none. RunError if it cannot be resumed from."""
        file = self.path / "training_state.pt"
        if not file.exists():
            return None
        if self.version.format not in RESUMABLE:
            raise RunError(
                f"{self.path} was begun by an earlier seq2attn (format {self.version.format}): its weights "
                "can be used, but its training cannot be resumed"
            )
        try:
            with zipfile.ZipFile(file) as archive:  # torch.load ignores the archive's checksums
                if (member := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"the checksum of {member} is wrong")
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except (zipfile.BadZipFile, pickle.UnpicklingError, *_LOAD_ERRORS) as error:
            raise RunError(f"{file} is damaged and training cannot be resumed from it: {error}") from error
        return self._upgraded(state) if "learner" in state else state

    def _upgraded(self, state: dict[str, Any]) -> dict[str, Any]:
        """Convert a training state of format 0.2 to this format, and set the folder's format to it."""
        warnings.warn(
            f"{self.path} was begun with run format 0.2: its training continues, but random numbers "
            "(dropout, sampled attention) are seeded in another way since 0.3, so that its weights "
            "will differ from those of an uninterrupted training",
            stacklevel=2,
        )
        self.version.format = FORMAT
        trainer = state["learner"]
        renamed = {key: trainer[key] and _renamed(trainer[key]) for key in ("model", "moving")}
        return {"trainer": {**trainer, **renamed}, "progress": state["progress"]}

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a record to log.jsonl."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def rewind(self, step: int) -> None:
        """Undo everything after a step: delete later weights, averages and log records, and also files that
        were being written or deleted when training was killed.
        """
        for file in [*self.path.rglob(f"{atomic.DRAFT}*"), *self.path.glob("weights/step-*")]:
            if f"weights/{file.name}" not in self.version.checksums:
                file.unlink()
        scores = self.version.scores
        for name in list(scores):
            if not name.startswith("step-") or name > weights_name(step):
                del scores[name]
        self.version.best = max(scores, key=lambda name: scores[name], default="")
        self.version.last, self.version.average = max(scores, default=""), ""
        self.prune(scores)
        file = self.path / "log.jsonl"
        if file.exists():
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [
                line
                for line in lines
                if line.endswith("\n") and json.loads(line).get("step", step + 1) <= step
            ]
            atomic.write(file, "".join(kept).encode())


def weights_name(step: int) -> str:
    """Return the file name of the weights of a step; names sort like their steps."""
    return f"step-{step:08d}.safetensors"


def require_empty(path: Path) -> None:
    """Raise RunError if a new run cannot be made at a path because something is there."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(
            f"{path} exists and is not overwritten: continue it with --resume, or choose another with --run"
        )


def tensors_of(model: nn.Module) -> Weights:
    """Return a model's tensors by name, not copied; a shared tensor only once, under its first name."""
    first = {id(tensor): name for name, tensor in reversed(model.state_dict(keep_vars=True).items())}
    return {name: tensor for name, tensor in model.state_dict().items() if name in first.values()}


def weights_of(model: nn.Module) -> Weights:
    """Return copies of a model's tensors on the CPU."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in tensors_of(model).items()}


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
    model.load_state_dict(weights, strict=False)


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


def _renamed(weights: Weights) -> Weights:
    """Return weights of this or an earlier format with the tensor names of this format."""

    def current(name: str) -> str:
        for pattern, replacement in _RENAMINGS.items():
            name = re.sub(pattern, replacement, name)
        return name

    return {current(name): tensor for name, tensor in weights.items()}


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
