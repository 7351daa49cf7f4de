"""version.json: the file of a run folder that names the others, with their checksums."""

import hashlib
import json
import os
import platform
import shlex
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from seq2attn.errors import Seq2attnError
from seq2attn.runtime.files import read

FORMAT = "0.3"
READABLE = ("0.1", "0.2", FORMAT)
RESUMABLE = ("0.2", FORMAT)
# The packages on which results may depend.
PACKAGES = ("torch", "numpy", "sentencepiece", "safetensors", "datasets", "pyarrow", "sacrebleu")

# A name in a folder of the run, never a path that leads out of it.
_PLAIN = r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*"
Name = Annotated[str, StringConstraints(pattern=rf"^({_PLAIN})?$")]  # empty: none
_Listed = Annotated[str, StringConstraints(pattern=rf"^(weights|text)/{_PLAIN}$")]
_Checksum = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class RunError(Seq2attnError):
    """A run folder is missing, damaged or of another format, or a new one cannot be made."""


@dataclass
class ChosenHead:
    """The layer and head that align best, how their weights are read, and how that was measured."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    layer: Annotated[int, Field(ge=0)]
    head: Annotated[int, Field(ge=0)] | None  # None: the mean of all
    shift: Literal[0, 1]
    method: Literal["attention", "norms"]
    measure: Literal["aer", "agreement"]
    score: float  # in percent, on the pairs that it was not chosen on
    pairs: Annotated[int, Field(ge=1)]  # how many it was chosen on
    gold: str = ""  # SHA-256 of the gold links


@dataclass
class Version:
    """The content of version.json. Fields that are not compared differ between two equal trainings."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    format: str = FORMAT
    seq2attn: str = ""
    torch: str = torch.__version__
    data: str = ""  # the fingerprint of the training data
    best: Name = ""  # file names below weights/
    last: Name = ""
    average: Name = ""
    scores: dict[Name, Annotated[list[float], Field(min_length=1)]] = field(
        default_factory=dict
    )  # of the kept weights; larger is better
    checksums: dict[_Listed, _Checksum] = field(default_factory=dict)  # SHA-256 by path
    # SHA-256 of recipe.yaml; two while it is being replaced. Empty: a run of an earlier version.
    recipe: list[_Checksum] = field(default_factory=list)
    origin: dict[str, str] = field(default_factory=dict)  # the run or model that it was made from, if any
    alignment: ChosenHead | None = None  # once measured
    id: str = field(default="", compare=False)  # names this training; also in training_state.pt
    log: tuple[int, str] = field(
        default=(0, ""), compare=False
    )  # bytes and SHA-256 of the start of log.jsonl
    environment: dict[str, str] = field(default_factory=dict, compare=False)  # in which training began


_VERSION = TypeAdapter(Version)


def read_version(path: Path) -> Version:
    """Read a version.json. RunError, which names file and field, if it is damaged or of an unknown format."""
    try:
        content = json.loads(read(path))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error or 'nested too deeply'}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} is damaged: expected names and values, got {type(content).__name__}")
    if (run_format := content.get("format")) not in READABLE:
        if run_format is None:
            raise RunError(f"{path} is damaged: it names no format; copy it again")
        readable = f"{', '.join(READABLE[:-1])} and {FORMAT}"
        raise RunError(
            f"{path}: this seq2attn reads the run formats {readable}, the folder has {run_format}: "
            "install the version of seq2attn that made it"
        )
    checksum = content.pop("checksum", None)  # earlier versions wrote none
    if checksum is not None and checksum != _checksum(content):
        raise RunError(
            f"{path} is damaged: its content does not have the checksum that it names; copy it again"
        )
    try:
        return _VERSION.validate_json(json.dumps(content))
    except ValidationError as error:
        raise RunError(f"{path} is damaged: {_shown(error.errors(include_url=False)[0])}") from error


def _shown(fault: Any) -> str:
    """Return a fault of a field: its name, what was expected, and what was given."""
    message = fault["msg"]
    if fault["type"] == "string_pattern_mismatch":
        message = "expected the plain name of a file below weights/ or text/, or the 64 digits of a checksum"
    given = json.dumps(fault["input"])
    return f"{'.'.join(map(str, fault['loc']))}: {message}, got {given[:100]}"


def write_version(version: Version) -> bytes:
    """Return the content of version.json, with a checksum of its own."""
    content = asdict(version)
    return (json.dumps({**content, "checksum": _checksum(content)}, indent=2, sort_keys=True) + "\n").encode()


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def environment() -> dict[str, str]:
    """Return where and how this process runs, for the record: results may depend on it."""
    packages = []
    for name in PACKAGES:
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "packages": ", ".join(packages),
        "command": shlex.join(sys.argv),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }
