"""Where a run is: a folder, or a name on the hub, whose files are then fetched."""

from pathlib import Path

from seq2attn.pretrained.hub import PREFIX, fetched_run


def located(run: str | Path) -> Path:
    """Return the folder of a run; of hf://user/name[@revision] that in the cache, which is fetched if it is
    not there. RunError if it cannot be had, or is neither a run nor a model that can be imported."""
    text = str(run)
    if isinstance(run, Path) and run.parts[:1] == ("hf:",):  # a Path keeps one of two slashes
        text = text.replace("hf:/", PREFIX, 1)
    return fetched_run(text) if text.startswith(PREFIX) else Path(run)
