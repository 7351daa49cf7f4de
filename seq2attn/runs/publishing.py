"""Put a run on the Hugging Face hub, with a card that says what it is, what it scored and how to use it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seq2attn.data import Role
from seq2attn.inference.predictor import Predictor
from seq2attn.metrics import Score
from seq2attn.pretrained.hub import VERSION, HubName
from seq2attn.pretrained.marian import CARD
from seq2attn.recipe import AnyRecipe
from seq2attn.recipe.yaml_source import dump
from seq2attn.runs.evaluation import score_run
from seq2attn.runtime.drafts import draft_folder
from seq2attn.tasks.registry import TASKS
from seq2attn.tasks.task import TextTask
from seq2attn.training.run_folder import RunError, RunFolder
from seq2attn.training.version_file import write_version

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")  # an identifier of the hub: apache-2.0, cc-by-4.0


def push(
    run: str | Path, name: str, license: str, private: bool = False, score_on: Role | None = None
) -> str:
    """Upload a run's recipe, vocabularies, best weights and a card; return its address.

    The training state, the log and the other weights stay here, and so does what version.json says of this
    machine.

    license: the hub's identifier of the licence of the weights; score_on: the data set that the model is
    scored on, for the card.

    Raises:
        RunError: the run is damaged, the name or the licence is none, or the hub refuses the upload.
    """
    import huggingface_hub
    from huggingface_hub import errors

    folder, target = RunFolder.open(run), HubName.parse(name)
    if target.revision is not None:
        raise RunError(f"{name}: a run is pushed to the main branch: leave @{target.revision} out")
    if not _LICENSE.fullmatch(license):
        raise RunError(f"expected a licence as the hub names it (apache-2.0, cc-by-4.0), got {license!r}")
    scores: Sequence[Score] = ()
    settings = ""
    if score_on is not None:
        scored = score_run(run, role=score_on)
        scores, settings = [*scored.evaluation.scores.values()], scored.signature
    text = card(folder, target, license, scores, settings, score_on)
    with draft_folder(folder.path.absolute().parent, "push") as draft:
        _stage(folder, draft / "run", text)
        try:
            api = huggingface_hub.HfApi()
            api.create_repo(target.repository, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=target.repository, folder_path=draft / "run", commit_message="seq2attn push"
            )
        except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
            reason = str(error).strip().split("\n")[0]
            raise RunError(f"{target} cannot be uploaded (log in with `hf auth login`): {reason}") from error
    return str(target)


def _stage(folder: RunFolder, draft: Path, text: str) -> None:
    """Write the files that are uploaded: those of a run with its best weights alone."""
    content = folder.version
    kept = {name: checksum for name, checksum in content.checksums.items() if not name.startswith("weights/")}
    best = f"weights/{content.best}"
    if best not in content.checksums:
        raise RunError(f"{folder.path} has no best weights to push")
    public = RunFolder.open(folder.path).version
    public.checksums = {**kept, best: content.checksums[best]}
    public.scores = {name: score for name, score in content.scores.items() if name == content.best}
    public.last, public.average, public.log, public.environment = content.best, "", (0, ""), {}
    for name in public.checksums:
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).write_bytes(folder.content(name))
    (draft / "recipe.yaml").write_bytes((folder.path / "recipe.yaml").read_bytes())
    (draft / VERSION).write_bytes(write_version(public))
    (draft / CARD).write_text(text, encoding="utf-8")
    RunFolder.open(draft).recipe  # noqa: B018 - raises if the recipe is not that of the run


def card(
    folder: RunFolder,
    target: HubName,
    license: str,
    scores: Sequence[Score] = (),
    settings: str = "",
    score_on: str | None = None,
) -> str:
    """Return the card of a run: the hub's keys as YAML, then text. Scores stand with their signatures."""
    recipe = folder.recipe
    command = Predictor.commands[recipe.task]
    task = TASKS[recipe.task]
    tag = task.hub_name or recipe.task.replace("_", "-")
    head: dict[str, Any] = {"library_name": "seq2attn", "license": license, "pipeline_tag": tag}
    languages = [code for code in getattr(recipe.data, "languages", ()) if re.fullmatch("[a-z]{2,3}", code)]
    head |= {"language": languages} if languages else {}
    head |= {"datasets": datasets} if (datasets := _datasets(recipe)) else {}
    head |= _index(target, tag, scores, settings, score_on) if scores else {}
    lines = [f"| {score.number} | `{score.signature}\\|{settings}` |" for score in scores]
    table = [f"## Scores ({score_on} set)", "", "| score | signature |", "|---|---|", *lines, ""]
    origin = [f"Weights of {recipe.origin.name} ({recipe.origin.kind}).", ""] if recipe.origin else []
    example = 'echo "..." | ' if issubclass(task, TextTask) else ""
    name = recipe.name.replace("\n", " ")
    return "\n".join(
        [
            "---",
            dump({key: value for key, value in head.items() if value is not None}).strip(),
            "---",
            "",
            f"# {name}",
            "",
            f"A model for {recipe.task.replace('_', ' ')}, trained with seq2attn.",
            "",
            *origin,
            "```console",
            f"$ {example}seq2attn {command} {target}",
            "```",
            "",
            *(table if lines else []),
            "## Recipe",
            "",
            "```yaml",
            dump({"model": recipe.model.model_dump(mode="json")}).strip(),
            "```",
            "",
        ]
    )


def _datasets(recipe: AnyRecipe) -> list[str]:
    """Return the names of the training data that are on the hub."""
    names = [getattr(corpus, "dataset", None) for corpus in recipe.data.train]
    return list(dict.fromkeys(name for name in names if name and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)
                              and name not in ("parquet", "json", "csv", "text", "arrow")))  # fmt: skip


def _index(
    target: HubName, tag: str | None, scores: Sequence[Score], settings: str, score_on: str | None
) -> Mapping[str, Any]:
    """Return the scores as the hub's `model-index`."""
    metrics = [
        {"type": score.name.lower(), "value": round(score.value, 2), "name": score.name,
         "args": {"signature": f"{score.signature}|{settings}"}}
        for score in scores
    ]  # fmt: skip
    dataset = {"name": f"{score_on} set of the recipe", "type": "recipe", "split": score_on}
    result = {"task": {"type": tag}, "dataset": dataset, "metrics": metrics}
    return {"model-index": [{"name": target.repository.split("/")[1], "results": [result]}]}
