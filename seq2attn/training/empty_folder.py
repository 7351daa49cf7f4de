"""The place of a new run folder: whether something is there, and whether a folder can be made."""

import tempfile
from pathlib import Path

from seq2attn.errors import for_caller
from seq2attn.runtime.files import DRAFT
from seq2attn.training.version_file import RunError


def require_empty(path: Path) -> None:
    """Raise RunError if a new run cannot be made at a path: because something is there, or because a folder
    cannot be made."""
    try:
        if path.is_dir() and any(path.iterdir()):
            fault = "is no run folder and not empty:"
            if (path / "version.json").exists():
                resume = for_caller("--resume", "resume=True")
                fault = f"exists and is not overwritten: continue it with {resume}, or"
            raise RunError(f"{path} {fault} choose another with {_run()}")
        inside = path.parent if path.is_dir() else path
        above = next(folder for folder in (inside, *inside.parents) if folder.exists())
        if not above.is_dir():
            fault = "is a file" if above == path else f"cannot be made: {above} is a file"
            raise RunError(f"{path} {fault}; choose another folder with {_run()}")
        Path(tempfile.mkdtemp(dir=above, prefix=DRAFT)).rmdir()
    except OSError as error:
        raise unmakeable(path, error) from error


def unmakeable(path: Path, error: OSError) -> RunError:
    """Return the error for a run folder that the system does not make."""
    return RunError(f"{path} cannot be made: {error.strerror}; choose another folder with {_run()}")


def afresh(path: Path) -> str:
    """Return what to do if the training of a run cannot be resumed, for messages."""
    return "train " + for_caller(
        f"with --run {path}-again, without --resume", f"with run='{path}-again', without resume"
    )


def _run() -> str:
    return for_caller("--run", "run=")
