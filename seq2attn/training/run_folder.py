"""A run folder that explains itself: recipe, vocabularies, weights, log, and what belongs together.

    recipe.yaml           complete, as run
    text/*.model          SentencePiece
    weights/*.safetensors never changed once written
    version.json          the folder's truth: format, checksums, which weights are best, last, average
    training_state.pt     what resuming needs, read as plain tensors only
    log.jsonl             one record a line

Each file is written beside its place and renamed, and version.json last: whenever the power goes, the folder
is as it was before or as it is after. Loading executes nothing from it.
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
NAMED = 3  # tensors that an error names
Weights = dict[str, Tensor]

_UNREADABLE = (RuntimeError, NotImplementedError, EOFError, OSError, ValueError, LookupError)


class RunError(Seq2attnError):
    """A run folder is missing, damaged, in the way, or of another format."""


@dataclass
class Version:
    """What version.json says."""

    format: str = FORMAT
    seq2attn: str = ""
    torch: str = torch.__version__
    data: str = ""  # the fingerprint of the training data
    best: str = ""  # file names below weights/
    last: str = ""
    average: str = ""
    scores: dict[str, list[float]] = field(default_factory=dict)  # of the kept weights; larger is better
    checksums: dict[str, str] = field(default_factory=dict)  # SHA-256 by path
    origin: dict[str, str] = field(default_factory=dict)  # where the run comes from, if it was not begun anew
    alignment: dict[str, int | None] | None = None  # the layer and head that align best, once measured


class RunFolder:
    """A run on disk. Make it with `create`, or `open` one that is there."""

    def __init__(self, path: Path, version: Version) -> None:
        self.path, self.version = path, version

    @classmethod
    def create(
        cls, path: Path, recipe: AnyRecipe, version: Version, files: Mapping[str, bytes] | None = None
    ) -> "RunFolder":
        """A new run with some files in it, by name; refuses a folder that is not vacant."""
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
        run.path = draft.replace(path)  # whole, or not there
        return run

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """A run that is there."""
        path = Path(path)
        file = path / "version.json"
        if not file.is_file():
            there = "has no version.json" if path.is_dir() else "is no folder"
            why = there if path.exists() else "does not exist"
            raise RunError(f"{path} {why}: expected a run folder, as `seq2attn train` makes it")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise TypeError("expected names and values")
            if (has := content.get("format")) not in READABLE:
                known = f"{', '.join(READABLE[:-1])} and {FORMAT}"
                raise RunError(f"{file}: this seq2attn reads the run formats {known}, the folder has {has}")
            return cls(path, Version(**content))
        except (UnicodeDecodeError, json.JSONDecodeError, TypeError, AttributeError) as error:
            raise RunError(f"{file} is damaged: {error}") from error

    @property
    def recipe(self) -> AnyRecipe:
        """The recipe as it was run; its data need not be there any more."""
        if not (self.path / "recipe.yaml").is_file():
            raise RunError(f"{self.path / 'recipe.yaml'} is missing: the run folder is incomplete")
        return read(self.path / "recipe.yaml", check_files=False)

    def commit(self) -> None:
        """Make what `version` says the truth."""
        text = json.dumps(asdict(self.version), indent=2, sort_keys=True) + "\n"
        atomic.write(self.path / "version.json", text.encode())

    def add(self, name: str, content: bytes) -> None:
        """A file that is checked by its checksum when it is read; commit makes it part of the run."""
        self.version.checksums[name] = hashlib.sha256(content).hexdigest()
        atomic.write(self.path / name, content)

    def content(self, name: str) -> bytes:
        """A file's bytes, if they are the ones that were written."""
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
        """Weights below weights/, as safetensors."""
        self.add(f"weights/{name}", save({key: value.contiguous() for key, value in weights.items()}))

    def load_weights(self, which: str = "best") -> Weights:
        """best, last, average, or the name of a file below weights/."""
        name = {"best": self.version.best, "last": self.version.last, "average": self.version.average}.get(
            which, which
        )
        kept = [key.removeprefix("weights/") for key in self.version.checksums if key.startswith("weights/")]
        if name not in kept:
            there = ", ".join(sorted(kept)) or "none yet (training has not reached its first validation)"
            raise RunError(f"{self.path}: no weights '{which}'; there are: {there}")
        try:
            return _renamed(load(self.content(f"weights/{name}")))
        except SafetensorError as error:
            raise RunError(f"{self.path / 'weights' / name} is damaged: {error}") from error

    def last_weights(self, count: int) -> list[str]:
        """The names of the last validated weights, oldest first."""
        return sorted(name for name in self.version.scores if name.startswith("step-"))[-count:]

    def prune(self, keep: Iterable[str]) -> None:
        """Forget weights that are neither kept nor named as best, last or average; then commit."""
        keep = {*keep, self.version.best, self.version.last, self.version.average}
        names = [key.removeprefix("weights/") for key in self.version.checksums if key.startswith("weights/")]
        stale = [name for name in names if name not in keep]
        for name in stale:
            del self.version.checksums[f"weights/{name}"]
            self.version.scores.pop(name, None)
        self.commit()  # first the truth, then the files: never a name without its file
        for name in stale:
            (self.path / "weights" / name).unlink(missing_ok=True)

    # ---- training state and log ---------------------------------------------------------------------

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Everything that resuming needs, in one file."""
        atomic.write(self.path / "training_state.pt", lambda file: torch.save(dict(state), file))

    def load_state(self) -> dict[str, Any] | None:
        """The state, or None if training had not saved any yet."""
        file = self.path / "training_state.pt"
        if not file.exists():
            return None
        if self.version.format not in RESUMABLE:
            raise RunError(
                f"{self.path} was begun by an earlier seq2attn (format {self.version.format}): its weights "
                "can be used, but its training cannot go on"
            )
        try:
            with zipfile.ZipFile(file) as archive:  # torch.load does not look at the checksums in it
                if (part := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"the checksum of {part} is wrong")
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except (zipfile.BadZipFile, pickle.UnpicklingError, *_UNREADABLE) as error:
            raise RunError(f"{file} is damaged and training cannot go on from it: {error}") from error
        return self._upgraded(state) if "learner" in state else state

    def _upgraded(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the training state of format 0.2 as one of this format, and make the folder one of it."""
        warnings.warn(
            f"{self.path} was begun with run format 0.2: its training goes on, but random numbers (dropout, "
            "sampled attention) are drawn in another way since 0.3, so that its weights will not be those "
            "that an uninterrupted training would have given",
            stacklevel=2,
        )
        self.version.format = FORMAT
        trainer = state["learner"]
        named = {name: trainer[name] and _renamed(trainer[name]) for name in ("model", "moving")}
        return {"trainer": {**trainer, **named}, "progress": state["progress"]}

    def log(self, record: Mapping[str, Any]) -> None:
        """One line more in log.jsonl."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def rewind(self, step: int) -> None:
        """Forget what was logged and kept after a step that training goes back to, averages, and files that
        were being written or removed when training was killed.
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
    """The name of the weights of a step; names sort as their steps do."""
    return f"step-{step:08d}.safetensors"


def require_empty(path: Path) -> None:
    """Raise RunError if there is anything where a new run is to be."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(
            f"{path} exists and is not overwritten: go on with --resume, or choose another with --run"
        )


def tensors_of(model: nn.Module) -> Weights:
    """A model's tensors by name, not copied; shared ones once, by their first name."""
    first = {id(tensor): name for name, tensor in reversed(model.state_dict(keep_vars=True).items())}
    return {name: tensor for name, tensor in model.state_dict().items() if name in first.values()}


def weights_of(model: nn.Module) -> Weights:
    """Copies of a model's tensors on the CPU."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in tensors_of(model).items()}


def load_weights(model: nn.Module, weights: Weights, run: Path | None = None) -> None:
    """Put tensors into a model: all of them, of the right shapes, or an error that names what differs.

    run: whose weights they are, if they are a run's.
    """
    own = tensors_of(model)
    wrong = [f"{name} is missing" for name in own.keys() - weights.keys()]
    wrong += [f"{name} is not part of the model" for name in weights.keys() - own.keys()]
    wrong += [
        f"{name} has shape {tuple(weights[name].shape)}, the model's has {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    ]
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        whose, again = "", ""
        if run is not None:
            whose, again = f" of {run}", f": seq2attn train {run / 'recipe.yaml'} --run {run}-again"
        raise RunError(
            f"the weights{whose} do not fit the recipe's model: {'; '.join(sorted(wrong)[:NAMED])}{more}. "
            "They were made with other parts than the recipe names now, or by another seq2attn; train it "
            f"again{again}"
        )
    model.load_state_dict(weights, strict=False)


# Names of tensors before a format, and since: each pattern is replaced wherever it matches.
_RENAMED = {
    # 0.2: layers that read in two directions are one layer of torch for each direction
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
    """Weights of an earlier format under the names of this one."""

    def name(old: str) -> str:
        for pattern, new in _RENAMED.items():
            old = re.sub(pattern, new, old)
        return old

    return {name(old): tensor for old, tensor in weights.items()}


def average(several: Iterable[Weights]) -> Weights:
    """The mean of several weights, summed in float64 (Vaswani et al. 2017, section 6.1)."""
    total: Weights = {}
    count = 0
    for weights in several:
        count += 1
        for name, tensor in weights.items():
            total[name] = total[name] + tensor.double() if name in total else tensor.double()
    if not count:
        raise RunError("nothing to average: no weights were given")
    return {name: (tensor / count).float() for name, tensor in total.items()}
