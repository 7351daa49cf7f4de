"""The outputs of systems for the same inputs: of runs, and of files of texts."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from seq2attn.alignment.word_alignment import Link, entropies
from seq2attn.data import Role, training_text
from seq2attn.errors import Seq2attnError
from seq2attn.inference.translator import TextPredictor
from seq2attn.metrics import DEFAULT, METRICS
from seq2attn.metrics.alignments import GoldFile
from seq2attn.metrics.attention_measures import LookedAt
from seq2attn.metrics.base import by_translator
from seq2attn.runs.evaluation import GivenTexts, checked_texts, chosen_metrics, held_out
from seq2attn.tasks.loading import load_with_task, require_same_task
from seq2attn.tasks.task import Outputs, Task, TextTask, reference_texts


class ComparisonError(Seq2attnError):
    """Systems that cannot be compared."""


class System(NamedTuple):
    """A system: one or more runs, such as trainings with other seeds; or files, with a text a line."""

    name: str
    paths: Sequence[Path]


class Decoding(NamedTuple):
    """What runs decode, and how."""

    role: Role = "test"
    options: Mapping[str, Any] = MappingProxyType({})  # decoding options that replace the recipe's
    checkpoint: str = "best"
    device: str = "auto"
    attention: bool = False  # also read the references, to see where runs with attention look


class Collected(NamedTuple):
    """The outputs of all runs of all systems, in their order, and what they are compared with."""

    outputs: list[Sequence[Any]]
    references: Any  # in the form that metrics take
    sources: Sequence[str] | None  # None: the inputs are no texts, or not known
    metrics: Sequence[str]  # the recipe's of the first run, or those of translations
    training: Iterable[str] | None  # target texts of the first run's training data, if they are texts
    attention: Sequence[
        LookedAt | None
    ] = ()  # of each run to the references; None: it has none, or is a file

    @property
    def measures(self) -> str:
        """What the outputs are, as METRICS name it."""
        return METRICS[self.metrics[0]].measures


class _Run(NamedTuple):
    """What a run gives to a comparison."""

    task: Task[Any]
    outputs: Outputs
    sources: Sequence[str] | None
    attention: LookedAt | None = None


def collect(
    systems: Sequence[System],
    files: Mapping[Path, Sequence[str]],
    metrics: Sequence[str] = (),
    given: GivenTexts | None = None,
    decoding: Decoding | None = None,
    gold: GoldFile | None = None,
) -> Collected:
    """Return the outputs of systems.

    files: the texts of the paths that are files; all others are runs.
    given: sources (which may be empty if there are only files) and references; None: those of the runs' data.
    gold: links between sources and first references, which are to fit both.
    ComparisonError for systems of other tasks or data, and for files of another length.
    """
    paths = [path for system in systems for path in system.paths]
    runs = [path for path in dict.fromkeys(paths) if path not in files]
    first = runs[0] if runs else None
    if first is None and given is None:
        raise ComparisonError("files need references; or name a run whose test set they are outputs for")
    require_same_task(runs)
    chosen = metrics or DEFAULT if first is None else chosen_metrics(first, metrics)
    found: dict[Path, _Run] = {}
    for path in runs:
        found[path] = _run(path, given, decoding or Decoding(), gold)
        _require_alike(runs[0], found[runs[0]], path, found[path])
    references: Any = [list(texts) for _, texts in given.references] if given else []
    sources = given.sources if given else None
    if first is not None:
        references, sources = found[first].outputs.references, found[first].sources
    outputs = [found[path].outputs.hypotheses if path in found else files[path] for path in paths]
    _require_lengths(paths, outputs)
    if METRICS[chosen[0]].measures == "texts":
        references = by_translator(outputs[0], references)
    training = None if first is None else _training_text(found[first].task)
    attention = [found[path].attention if path in found else None for path in paths]
    return Collected(outputs, references, sources or None, chosen, training, attention)


def _run(path: Path, given: GivenTexts | None, decoding: Decoding, gold: GoldFile | None) -> _Run:
    """Return the outputs of a run on its data, or on given sources."""
    task, predictor = load_with_task(path, decoding.checkpoint, decoding.device)
    predictor = predictor.configured(decoding.options)
    if given is not None:
        inputs, references = checked_texts(task, predictor, given)
        _require_fitting(gold, inputs, references)
        run = _Run(task, Outputs(task.output_texts(predictor, inputs), references), inputs)
    else:
        examples: Any = held_out(task, decoding.role)
        rows, sources = range(len(examples)), None
        if isinstance(task, TextTask):
            sources = task.inputs(examples, rows)
            _require_fitting(gold, sources, reference_texts(examples, rows))
        run = _Run(task, task.outputs(predictor, examples), sources)
    return run._replace(attention=_attention(predictor, run) if decoding.attention else None)


def _require_fitting(gold: GoldFile | None, sources: Sequence[str], references: Any) -> None:
    """Raise AlignmentError unless gold links, if there are any, are between words of these texts."""
    if gold is not None:
        targets = by_translator(sources, references)[0]
        gold.of([(source, target or "") for source, target in zip(sources, targets, strict=True)])


def _attention(predictor: Any, run: _Run) -> LookedAt | None:
    """Return where a run looks as it reads the references; None if it does not write texts by attention."""
    writes = isinstance(predictor, TextPredictor) and predictor.model.decoder.attention_layers > 0
    if not writes or run.sources is None:
        return None
    references = by_translator(run.outputs.hypotheses, run.outputs.references)[0]
    pairs = zip(run.sources, (text or "" for text in references), strict=True)
    entropy, sizes, links = list[float](), list[int](), list[list[Link]]()
    for pair in predictor.align_pairs(pairs):
        of_words = entropies(pair.alignment)
        entropy.append(float(of_words.sum()))
        sizes.append(len(of_words))
        links.append(pair.links())
    return LookedAt(entropy, sizes, links)


def _require_alike(path: Path, first: _Run, other_path: Path, other: _Run) -> None:
    """Raise ComparisonError for runs of other data."""
    if isinstance(first.task, TextTask):
        equal = (first.sources, first.outputs.references) == (other.sources, other.outputs.references)
    else:
        data = first.task.recipe.data, other.task.recipe.data
        equal = (data[0].test, data[0].dev) == (data[1].test, data[1].dev)
    if not equal:
        raise ComparisonError(
            f"{path} and {other_path} have other test data: give source and references, for both to read"
        )


def _require_lengths(paths: Sequence[Path], outputs: Sequence[Sequence[Any]]) -> None:
    """Raise ComparisonError if a file has another number of outputs than the first system."""
    for path, own in zip(paths, outputs, strict=True):
        if len(own) != len(outputs[0]):
            raise ComparisonError(
                f"{paths[0]} has {len(outputs[0]):,} outputs and {path} {len(own):,}: output n of one and of "
                "the other are for the same input"
            )


def _training_text(task: Task[Any]) -> Iterable[str] | None:
    """Return the target texts of a task's training data; None if they are no texts."""
    recipe = task.recipe
    if not isinstance(task, TextTask) or METRICS[recipe.training.metrics[0]].measures != "texts":
        return None
    return training_text(recipe.data, (1,), recipe.text.words)
