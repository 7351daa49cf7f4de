"""Runs on the Hugging Face hub: fetched into its cache by name, and copied from there.

Only the files of a run, or of a model that can be imported, are fetched, and none of them is executed. They
are read as those of a local run: with the checksums and the plain names of version.json.
"""

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from seq2attn.data.cache import cache_folder
from seq2attn.pretrained.marian import CARD, IDS, SOURCE, TARGET, TARGET_IDS, WEIGHTS, import_marian
from seq2attn.pretrained.marian_config import CONFIG, GENERATION, TOKENIZER
from seq2attn.runtime.drafts import draft_folder
from seq2attn.training.run_folder import RunFolder, require_empty
from seq2attn.training.version_file import RunError

PREFIX = "hf://"
VERSION = "version.json"
OF_A_RUN = [VERSION, "recipe.yaml", "log.jsonl", "text/*", "weights/*.safetensors", CARD]
OF_MARIAN = [CONFIG, GENERATION, TOKENIZER, SOURCE, TARGET, IDS, TARGET_IDS, CARD]
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


class HubName(NamedTuple):
    """A repository on the hub, and a branch, tag or commit of it; None: its main branch."""

    repository: str
    revision: str | None

    @classmethod
    def parse(cls, text: str) -> "HubName":
        """Read hf://user/name[@revision]. RunError for anything else."""
        match = _NAME.fullmatch(text)
        if match is None:
            raise RunError(f"expected hf://user/name[@revision], got {text}")
        return cls(match[1], match[2])

    def __str__(self) -> str:
        """Return the name as it is given."""
        return f"{PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision else "")


class Snapshot(NamedTuple):
    """The files of a repository, in the cache of the hub's client."""

    folder: Path
    commit: str

    @property
    def is_run(self) -> bool:
        """Whether they are a run."""
        return (self.folder / VERSION).exists()


def fetched(name: HubName) -> Snapshot:
    """Return the files of a run, or of a model that can be imported. Without a connection they are taken from
    the cache. RunError if they cannot be had."""
    files = _download(name, [*OF_A_RUN, *OF_MARIAN])
    snapshot = Snapshot(files, files.name)
    if snapshot.is_run or not (files / CONFIG).exists():
        return snapshot
    for weights in WEIGHTS:  # only one of them is read, and both are large
        if (_download(name, [*OF_A_RUN, *OF_MARIAN, weights]) / weights).exists():
            break
    return snapshot


def fetched_run(text: str) -> Path:
    """Return the folder of a run on the hub; of a Marian model, that of the run that it becomes.

    Both are in the cache. RunError if it cannot be had, or is neither.
    """
    name = HubName.parse(text)
    snapshot = fetched(name)
    if snapshot.is_run:
        return snapshot.folder
    imported = cache_folder("imported") / f"{name.repository.replace('/', '--')}@{snapshot.commit}"
    if not (imported / VERSION).exists():
        _import(name, snapshot, imported)
    return imported


def pull(text: str, output: Path) -> RunFolder:
    """Copy a run from the hub into a new folder, and check its checksums; a Marian model is imported."""
    name = HubName.parse(text)
    require_empty(output)
    snapshot = fetched(name)
    if not snapshot.is_run:
        _import(name, snapshot, output)
        return RunFolder.open(output)
    run = RunFolder.open(snapshot.folder)
    output.parent.mkdir(parents=True, exist_ok=True)
    with draft_folder(output.parent, output.name) as folder:
        draft = folder / output.name
        (draft / "weights").mkdir(parents=True)
        (draft / "text").mkdir()
        for file in run.version.checksums:  # plain names, below weights/ and text/
            (draft / file).write_bytes(run.content(file))
        for file in (VERSION, "recipe.yaml", "log.jsonl"):
            if (snapshot.folder / file).exists():
                shutil.copyfile(snapshot.folder / file, draft / file)
        draft.replace(output)
    return RunFolder.open(output)


def _import(name: HubName, snapshot: Snapshot, output: Path) -> None:
    """Make a run of a model of another tool. RunError, which lists the files, if it is not known."""
    if not (snapshot.folder / CONFIG).exists():
        found = sorted(path.name for path in snapshot.folder.iterdir())
        raise RunError(
            f"{name} is no run, and no Marian model: expected {VERSION} or {CONFIG}; of what is read, it "
            f"has {', '.join(found) or 'nothing'}"
        )
    import_marian(snapshot.folder, output, name.repository, snapshot.commit)


def _download(name: HubName, patterns: list[str]) -> Path:
    """Return the folder of a repository's files of these patterns in the cache of the hub's client."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        folder: Any = huggingface_hub.snapshot_download(
            name.repository, revision=name.revision, allow_patterns=patterns
        )
    except errors.RevisionNotFoundError as error:
        raise RunError(f"{name}: the hub has no revision {name.revision} of it") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise RunError(
            f"{name}: there is no such model on the hub, or it is closed to you: check the name, or log in "
            "with `hf auth login`"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise RunError(f"{name} cannot be fetched, and is not in the cache: {reason}") from error
    return Path(folder)
