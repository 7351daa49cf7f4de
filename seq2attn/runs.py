"""Whole runs: from a recipe to a scored model."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from seq2attn import __version__
from seq2attn.batches import Feed
from seq2attn.checkpoint import RunError, RunFolder, Version, put_weights, vacant
from seq2attn.data import Examples, Role, prepare, training_text
from seq2attn.display import Display
from seq2attn.losses import cross_entropy
from seq2attn.metrics import METRICS, SLOW, References, Score, score
from seq2attn.models import Seq2Seq, build, out_of_memory, pick_device
from seq2attn.recipe import LocatedFault, Recipe, RecipeError, read, write
from seq2attn.text import Vocabulary, train_vocabulary
from seq2attn.training import (
    Learner,
    Progress,
    Report,
    TrainingError,
    Validate,
    average_last,
    fit,
    total_steps,
)
from seq2attn.translator import Translator, load, vocabularies

Vocabularies = tuple[Vocabulary, Vocabulary]

# What may change when a run goes on: how long it lasts.
MAY_CHANGE = ("max_steps", "max_epochs", "max_minutes", "early_stopping")


class Trained(NamedTuple):
    """What training leaves: the model with its best weights, and what it scores."""

    run: Path
    progress: Progress
    model: Translator
    scores: list[Score]  # on the test set; empty if the recipe names none, or training was interrupted


def train(
    recipe: str | Path | Recipe,
    run: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    device: str = "auto",
    display: Display | None = None,
) -> Trained:
    """Train what a recipe says, in a new run folder (`runs/NAME` by default), or go on with `resume`.

    overrides: as on the command line, ["training.max_epochs=3"]. Ends with the best weights loaded, scored on
    the test set where the recipe names one. A second call with resume=True goes on exactly where the first
    stopped, whatever stopped it.
    """
    if not isinstance(recipe, Recipe):
        recipe = read(recipe, [overrides] if isinstance(overrides, str) else overrides)
    elif overrides:
        raise RecipeError(
            [LocatedFault("recipe", 0, "", "a Recipe is read already: give overrides to `read`")]
        )
    path = Path(run or Path("runs") / recipe.name)
    folder = _begun(path, recipe) if resume else None
    if folder is None:
        vacant(path)
    place = pick_device(device)
    with _settled(recipe), display or Display() as shown:
        learned = [] if folder else learn_vocabularies(recipe)
        sides = vocabularies(folder) if folder else (learned[0], learned[-1])
        training, dev = examples(recipe, sides, "train", shown), examples(recipe, sides, "dev", shown)
        if recipe.data.test is not None:
            examples(recipe, sides, "test", shown)  # what cannot be read is found now, not at the end
        folder = _same_data(folder, training) if folder else _new(path, recipe, learned, training)
        model = build(recipe.model, sides[0].size, sides[1].size)
        settings = recipe.training
        feed = Feed(training, *sides, settings.batch_tokens, recipe.seed, recipe.text.sampling)
        learner = Learner(model, settings, place, total_steps(settings, feed))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        shown.say(f"{len(training):,} pairs, {parameters:,} parameters, on {place}")
        progress = fit(
            folder, learner, feed, validator(recipe, model, sides, dev, place), _report(shown, folder, recipe)
        )
        translator = Translator(model, *sides, recipe.decoding, place)
        if progress.interrupted:
            return Trained(path, progress, translator, [])
        put_weights(model, folder.load_weights("best"))
        shown.say(f"best: {folder.version.best}")
        if recipe.data.test is None:
            return Trained(path, progress, translator, [])
        pairs = held_out(path, translator, "test")
        scores = score_pairs(translator, *pairs, settings.metrics)
        return Trained(path, progress, translator, scores)


def examples(recipe: Recipe, sides: Vocabularies, role: Role, display: Display) -> Examples:
    """The tokenised examples of train, dev or test; what was left out is said."""
    data = recipe.data
    corpora = data.train if role == "train" else [getattr(data, role)]
    found = prepare(corpora, data, sides, role)
    if str(found.report):
        display.say(f"data.{role}: {found.report}")
    return found


def validator(
    recipe: Recipe, model: Seq2Seq, sides: Vocabularies, dev: Examples, device: torch.device
) -> Validate:
    """The scores of a model on the dev set: loss and perplexity per token, and the recipe's metrics."""
    metric, metrics = recipe.training.metric, [name for name in recipe.training.metrics if name not in SLOW]
    measured: list[str] = list(dict.fromkeys([*metrics, *([] if metric == "loss" else [metric])]))
    feed = Feed(dev, *sides, recipe.training.batch_tokens)
    decoding = recipe.decoding.model_copy(
        update={"beam": recipe.decoding.validation_beam, "nbest": 1, "sample": False}
    )
    translator = Translator(model, *sides, decoding, device)

    @torch.inference_mode()
    def validate(limit: int | None) -> dict[str, float]:
        model.eval()
        batches, nll, tokens = feed.once()[:limit], 0.0, 0
        for numbers in batches:
            batch = feed.batch(numbers)
            shapes = f"source by target {tuple(batch.source.shape)} by {tuple(batch.reads.shape)}"
            doing = f"in the batch with the dev examples {numbers[:8].tolist()} ({shapes})"
            with _naming(doing, f"training.batch_tokens (now {recipe.training.batch_tokens})"):
                batch = batch.to(device)
                logits = model(batch.source, batch.source_mask, batch.reads).logits
                nll += float(cross_entropy(logits, batch.gold, batch.gold_mask).nll)
            tokens += int(batch.gold_mask.sum())
        rows = [row for numbers in batches for row in numbers.tolist()]
        sources = [dev.source_text(row) for row in rows]
        with _naming("translating", f"decoding.batch_tokens (now {decoding.batch_tokens})"):
            texts = [found.text for found in translator.stream(sources, decoding)]
        references = [dev.target_text(row) for row in rows]
        loss = nll / tokens
        scores = {name: METRICS[name](texts, references, bootstrap=0).value for name in measured}
        return {"loss": loss, "perplexity": math.exp(min(loss, 700)), **scores}

    return validate


def held_out(run: str | Path, translator: Translator, role: Role) -> tuple[list[str], list[str]]:
    """Sources and references of a run's dev or test set."""
    recipe = RunFolder.open(run).recipe
    corpus = recipe.data.dev if role == "dev" else recipe.data.test
    if corpus is None:
        raise RunError("the recipe names no test set: score its dev set with --data dev, or give files")
    held = prepare([corpus], recipe.data, (translator.source, translator.target), role)
    rows = range(len(held))
    return [held.source_text(row) for row in rows], [held.target_text(row) for row in rows]


def score_pairs(
    translator: Translator, sources: Sequence[str], references: References, metrics: Sequence[str]
) -> list[Score]:
    """The metrics of a model's translations, with bootstrap intervals."""
    texts = [found.text for found in translator.stream(sources, translator.decoding)]
    return score(texts, references, metrics)


def signature(run: str | Path, translator: Translator, checkpoint: str = "best") -> str:
    """How a score was made, beside the metric's own signature."""
    recipe, decoding = RunFolder.open(run).recipe, translator.decoding
    how = f"sample:{decoding.temperature}" if decoding.sample else f"beam:{decoding.beam}"
    length = f"{decoding.length_normalization}^{decoding.length_penalty:g}"
    coverage = f"|coverage:{decoding.coverage_penalty:g}" if decoding.coverage_penalty else ""
    return (
        f"recipe:{recipe.name}|checkpoint:{checkpoint}|{how}|length:{length}{coverage}"
        f"|seed:{recipe.seed}|seq2attn:{__version__}"
    )


def average_run(run: str | Path, count: int, device: str = "auto") -> RunFolder:
    """Average the last `count` kept weights of a run into weights/average-N.safetensors."""
    folder = RunFolder.open(run)
    there = len(folder.last_weights(count))
    if count < 1 or there < count:
        raise RunError(
            f"cannot average the last {count} weights: {folder.path} keeps {there}; "
            "train with training.keep_last at least as large"
        )
    translator, recipe = load(run, "last", device), folder.recipe
    sides = (translator.source, translator.target)
    dev = examples(recipe, sides, "dev", Display())
    learner = Learner(translator.model, recipe.training, translator.device, None)
    validate = validator(recipe, translator.model, sides, dev, translator.device)
    average_last(folder, learner, count, validate, Display())
    return folder


def _new(path: Path, recipe: Recipe, learned: list[Vocabulary], training: Examples) -> RunFolder:
    """A run's folder, made when all that can be wrong with its data has been found."""
    names = ["joint"] if recipe.text.joint else ["source", "target"]
    models = {f"text/{name}.model": one.model for name, one in zip(names, learned, strict=True)}
    version = Version(seq2attn=__version__, data=training.fingerprint)
    return RunFolder.create(path, recipe, version, models)


def _begun(path: Path, recipe: Recipe) -> RunFolder:
    """The folder of a run that goes on; its recipe may have changed in how long it lasts."""
    folder = RunFolder.open(path)
    was, now = folder.recipe.model_dump(mode="json"), recipe.model_dump(mode="json")
    for one in (was, now):
        for key in MAY_CHANGE:
            one["training"].pop(key)
    changed = [key for key in now if was[key] != now[key]]
    if changed:
        raise RunError(
            f"{path} was begun with another recipe: {', '.join(changed)} differ from its recipe.yaml. "
            f"Go on with `seq2attn train {path}/recipe.yaml --run {path} --resume`, or train in a new folder"
        )
    write(recipe, path / "recipe.yaml")  # it may last longer now
    return folder


def _same_data(folder: RunFolder, training: Examples) -> RunFolder:
    """A run goes on with the data that it began with."""
    if folder.version.data != training.fingerprint:
        raise RunError(
            f"the training data are not those with which {folder.path} was begun (fingerprint "
            f"{training.fingerprint}, then {folder.version.data}): restore them, or train in a new folder"
        )
    return folder


@contextlib.contextmanager
def _settled(recipe: Recipe) -> Iterator[None]:
    """Everything random is settled before anything is built; torch's algorithms are then as they were."""
    torch.manual_seed(recipe.seed)
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    if recipe.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


@contextlib.contextmanager
def _naming(doing: str, lower: str) -> Iterator[None]:
    """Say where validation was when memory ended, and what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory in validation, {doing}. What was saved before is kept. Lower {lower}"
        ) from error


def learn_vocabularies(recipe: Recipe) -> list[Vocabulary]:
    """Source and target vocabulary as the recipe wants them; one if they are joint."""
    text = recipe.text
    if text.files is not None:
        files = text.files[:1] if text.joint else text.files
        return [Vocabulary.load(Path(file), text.words) for file in files]
    languages: list[tuple[int, ...]] = [(0, 1)] if text.joint else [(0,), (1,)]
    return [
        train_vocabulary(
            training_text(recipe.data, sides),
            model=text.models[sides[0]],
            size=text.size,
            byte_fallback=text.byte_fallback,
            character_coverage=text.character_coverage,
            lowercase=text.lowercase,
            nfkc=text.nfkc,
            words=text.words,
            seed=recipe.seed,
        )
        for sides in languages
    ]


def _report(display: Display, folder: RunFolder, recipe: Recipe) -> Report:
    """Records go to the terminal, and to TensorBoard where the recipe wants it."""
    board = _board(folder.path) if recipe.training.tensorboard else None

    def report(record: dict[str, Any]) -> None:
        display(record)
        if board is not None and "step" in record:
            board(record)

    return report


def _board(path: Path) -> Callable[[dict[str, Any]], None]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RunError(
            "training.tensorboard needs it installed: pip install seq2attn[tensorboard]"
        ) from error
    writer = SummaryWriter(str(path / "tensorboard"))

    def write(record: dict[str, Any]) -> None:
        kind = "training" if "norm" in record else "dev"
        for name in ("loss", *record.get("taught", ()), "norm", "learning_rate", "perplexity", *METRICS):
            if name in record:
                writer.add_scalar(f"{kind}/{name}", record[name], record["step"])

    return write
