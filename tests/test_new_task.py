"""A task from a test file alone: one class and one line, beside its recipe, its predictor and its command.

It counts the words of a text. Its results are numbers, so it has a loss, an evaluation and a metric of its own, and
no sequence or label anywhere.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import click
import numpy as np
import pytest
import tiny_runs
import torch
from click.testing import CliRunner
from pydantic import Field
from torch import Tensor, nn

import seq2attn
from seq2attn.attention import Attention
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.pooling import Pooling
from seq2attn.attention.scorers import SCORERS
from seq2attn.cli import cli
from seq2attn.cli.options import RUN
from seq2attn.data.batch_plan import Batches, Indices
from seq2attn.data.sources import pad
from seq2attn.inference.predictor import Predictor, WrongTaskError
from seq2attn.metrics import METRICS, Metric, Score
from seq2attn.metrics.base import by_hypothesis
from seq2attn.recipe import (
    RECIPES,
    AnyRecipe,
    AttentionRecipe,
    DataRecipe,
    LearningRecipe,
    Section,
    TextRecipe,
)
from seq2attn.runs.dry_run import check
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.tasks.loading import load_for
from seq2attn.tasks.registry import TASKS
from seq2attn.tasks.task import Evaluation, TextTask, Units
from seq2attn.text import Vocabulary, train_vocabulary
from seq2attn.training.objectives import Losses

# ---- the recipe ------------------------------------------------------------------------------------------


class CounterRecipe(Section):
    size: int = Field(8, description="Width of the states.")
    attention: AttentionRecipe = Field(AttentionRecipe(), description="Pools the states.")


class CountingTraining(LearningRecipe):
    metric: Literal["loss", "distance"] = Field("distance", description="What makes weights the best.")
    metrics: list[Literal["distance"]] = Field(["distance"], description="What is measured.")

    @classmethod
    def measurable(cls) -> tuple[str, ...]:
        return ("distance",)


class CountingRecipe(AnyRecipe):
    task: Literal["counting"] = Field(description="The task.")
    data: DataRecipe = Field(description="Texts, and how many words they have.")
    text: TextRecipe = Field(TextRecipe(size=60, byte_fallback=False), description="How texts become pieces.")
    model: CounterRecipe = Field(CounterRecipe(), description="The network.")
    training: CountingTraining = Field(description="How it is trained.")

    @property
    def attention_path(self) -> str:
        return "model.attention"


# ---- data, model, loss -----------------------------------------------------------------------------------


class Numbers:
    """Numbers as ids: the number itself."""

    fingerprint = "numbers"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[int(text)] for text in texts]


class CountBatch(NamedTuple):
    tokens: Tensor
    mask: Tensor
    counts: Tensor
    num_targets: int
    shape: str

    def to(self, device: torch.device) -> "CountBatch":
        return self._replace(
            tokens=self.tokens.to(device), mask=self.mask.to(device), counts=self.counts.to(device)
        )


class CountLoader(Batches):
    def batch(self, indices: Indices, epoch: int | None = None) -> CountBatch:
        rows = indices.tolist()
        tokens, mask = pad([self.examples.source(row) for row in rows], 0)
        counts = torch.tensor([float(self.examples.target(row)[0]) for row in rows])
        return CountBatch(tokens, mask, counts, len(rows), f"texts by pieces {tuple(tokens.shape)}")


class Counter(nn.Module):
    def __init__(self, vocabulary: int, recipe: CounterRecipe) -> None:
        super().__init__()
        score = recipe.attention.score.make(SCORERS, recipe.size, recipe.size)
        attention = Attention(score, recipe.attention.normalize.make(NORMALIZERS, recipe.size, 1))
        self.embedding = nn.Embedding(vocabulary, recipe.size)
        self.pooling = Pooling(attention, 1, recipe.size)
        self.output = nn.Linear(recipe.size, 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        pooled = self.pooling(self.embedding(tokens), mask).context.flatten(1)
        return self.output(pooled).squeeze(-1) * mask.sum(1)


class SquaredError:
    def forward(self, model: Counter, batch: CountBatch) -> Tensor:
        return model(batch.tokens, batch.mask)

    def loss(self, answer: Tensor, batch: CountBatch) -> Losses:
        squares = (answer - batch.counts).square().sum()
        return Losses(squares, squares.detach(), squares.detach())

    def updated(self, group: Group = ALONE) -> None: ...

    def state(self) -> None: ...

    def restore(self, state: None) -> None: ...


# ---- predictor, metric, command, task --------------------------------------------------------------------


class WordCounter(Predictor):
    task, command = "counting", "count"

    def __init__(self, model: Counter, vocabulary: Vocabulary, device: torch.device) -> None:
        self.model, self.vocabulary, self.device = model.to(device), vocabulary, device

    def stream(self, lines: Iterable[str]) -> Iterator[float]:
        self.model.eval()
        for line in lines:
            tokens, mask = pad(self.vocabulary.encode([line]), 0)
            yield self.model(tokens.to(self.device), mask.to(self.device)).item()

    def count(self, text: str) -> float:
        return next(self.stream([text]))


def distance(hypotheses: Sequence[str], references: Any, bootstrap: int = 0, seed: int = 1) -> Score:
    """The mean distance of numbers."""
    numbers = [float(golds[0]) for golds in by_hypothesis(hypotheses, references)]
    return Score("distance", float(np.abs(np.array(hypotheses, float) - numbers).mean()), "of:numbers")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(RECIPES, "counting", CountingRecipe)
    monkeypatch.setitem(METRICS, "distance", Metric(distance, "numbers", lower_is_better=True))
    monkeypatch.setitem(TASKS, "counting", CountingTask)  # the one line
    monkeypatch.setitem(Predictor.commands, "counting", "count")

    @cli.command()
    @RUN
    @click.argument("text")
    def count(run: Path, text: str) -> None:
        """Count words."""
        click.echo(f"{load_for('count', run, device='cpu').count(text):.1f}")

    yield
    cli.commands.pop("count")


class CountingTask(TextTask[CountingRecipe]):
    """The one class."""

    units = Units("texts", "words a text", "texts")

    def __init__(self, recipe: CountingRecipe, vocabulary: Vocabulary) -> None:
        self.recipe, self.pieces = recipe, vocabulary

    @classmethod
    def learn(cls, recipe: CountingRecipe) -> "CountingTask":
        texts = [line.split("\t")[0] for line in Path(recipe.data.train[0].table).read_text().splitlines()]
        return cls(recipe, train_vocabulary(texts, model="word", size=recipe.text.size))

    @classmethod
    def open(cls, recipe: CountingRecipe, folder: Any) -> "CountingTask":
        return cls(recipe, Vocabulary(folder.content("text/pieces.model")))

    def files(self) -> dict[str, bytes]:
        return {"text/pieces.model": self.pieces.model}

    @property
    def vocabulary(self) -> str:
        return f"{self.pieces.size} pieces"

    @property
    def coders(self) -> Any:
        return self.pieces, Numbers()

    def loader(self, examples: Any, training: bool = False, group: Group = ALONE) -> CountLoader:
        return CountLoader(examples, self.recipe.training.batch_tokens, self.recipe.seed)

    def build(self) -> Counter:
        return Counter(self.pieces.size, self.recipe.model)

    def objective(self, model: Counter, training: bool = False) -> SquaredError:
        return SquaredError()

    def predictor(
        self, model: Counter, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> WordCounter:
        return WordCounter(model, self.pieces, device)

    def evaluate(
        self,
        predictor: Any,
        examples: Any,
        metrics: Sequence[str],
        rows: Sequence[int] | None = None,
        bootstrap: int = 1000,
        group: Group = ALONE,
    ) -> Evaluation:
        """Of numbers, not of texts."""
        rows = range(len(examples)) if rows is None else rows
        found = list(predictor.stream([examples.source_text(row) for row in rows]))
        score = distance([str(number) for number in found], [str(examples.target(row)[0]) for row in rows])
        return Evaluation({"distance": score})


# ---- what it then does -----------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    words = ["tom", "sees", "a", "small", "house", "today", "and", "mary", "sings"]
    lines = [" ".join(words[(i + j) % 9] for j in range(1 + i % 7)) + f"\t{1 + i % 7}\n" for i in range(80)]
    (tmp_path / "texts.tsv").write_text("".join(lines), encoding="utf-8")
    table = "{table: texts.tsv, columns: [0, 1]}"
    path = tmp_path / "counting.yaml"
    path.write_text(
        f"task: counting\ndata: {{languages: [text, count], train: {table}, dev: {table}, test: {table}}}\n"
        "training: {max_steps: 120, validate_every: 60, learning_rate: 0.03, batch_tokens: 200, "
        "schedule: {name: constant, warmup: 0}}\n",
        encoding="utf-8",
    )
    return path


def test_a_new_task_trains_and_its_command_uses_it(recipe: Path, tmp_path: Path) -> None:
    trained = seq2attn.train(recipe, tmp_path / "run", display=tiny_runs.silent(), device="cpu")
    assert [score.name for score in trained.scores] == ["distance"] and trained.scores[0].value < 0.5
    assert repr(seq2attn.load(tmp_path / "run", device="cpu")).startswith("WordCounter(")
    assert trained.model.count("tom sees a small house") == pytest.approx(5, abs=1)
    used = CliRunner().invoke(cli, ["count", str(tmp_path / "run"), "mary sings"], catch_exceptions=False)
    assert float(used.output) == pytest.approx(2, abs=1)
    with pytest.raises(WrongTaskError, match="trained for counting, not to translate: use its method count"):
        trained.model.translate("tom")
    with pytest.raises(
        seq2attn.Seq2attnError, match="was trained for counting: use `seq2attn count`, not tag"
    ):
        load_for("tag", tmp_path / "run")


def test_a_new_task_resumes(recipe: Path, tmp_path: Path) -> None:
    for run, parts in (("whole", [120]), ("parts", [50, 120])):
        for number, steps in enumerate(parts):
            seq2attn.train(
                recipe, tmp_path / run, [f"training.max_steps={steps}", "training.save_every=10"],
                resume=number > 0, display=tiny_runs.silent(), device="cpu",
            )  # fmt: skip
    assert tiny_runs.weights_hash(tmp_path / "whole") == tiny_runs.weights_hash(tmp_path / "parts")


def test_a_new_task_is_checked(recipe: Path) -> None:
    lines = "\n".join(map(": ".join, check(seq2attn.recipe.read(recipe), device="cpu")))
    for line in (
        r"recipe: counting: no fault", r"vocabulary: \d+ pieces", r"data.train: 1.0 words a text; 80 examples",
        r"training: [\d,]+ texts/s on cpu", r"decoding: 8 examples in",
    ):  # fmt: skip
        assert re.search(line, lines), (line, lines)


def test_a_new_task_is_scored(recipe: Path, tmp_path: Path) -> None:
    trained = seq2attn.train(recipe, tmp_path / "run", display=tiny_runs.silent(), device="cpu")
    scored = CliRunner().invoke(
        cli, ["score", str(tmp_path / "run"), "--device", "cpu"], catch_exceptions=False
    )
    assert scored.exit_code == 0, scored.output
    assert scored.output.splitlines()[0] == str(trained.scores[0])
    assert "recipe:counting|checkpoint:best|seed:1|" in scored.output


def test_a_new_task_is_benched(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variant is trained here: a process of its own would not know this file."""
    from seq2attn.runs import attention_bench, comparison

    def train(path: Any, overrides: Sequence[str], folder: Path) -> int:
        seq2attn.train(path, folder, overrides, display=tiny_runs.silent(), device="cpu")
        return 1

    monkeypatch.setattr(comparison, "_train", train)
    rows = attention_bench.compare(
        recipe,
        attention_bench.variants(seq2attn.recipe.read(recipe), ["scaled_dot", "dot"]),
        tmp_path / "bench",
        overrides=["training.max_steps=10"],
        report=lambda line: None,
    )
    assert [(row.name, row.failed) for row in rows] == [("scaled_dot", ""), ("dot", "")]
    assert all(math.isfinite(row.scores["distance"][0]) and row.numbers["decoding_speed"] for row in rows)


def test_a_recipe_of_a_new_task_is_checked_like_any(recipe: Path) -> None:
    with pytest.raises(seq2attn.Seq2attnError) as caught:
        seq2attn.recipe.read(recipe, ["model.sise=3", "training.metric=bleu"])
    assert "unknown key 'sise' (did you mean size?" in str(caught.value)
    assert "unknown 'bleu'" in str(caught.value)


def test_a_task_is_named_in_few_places() -> None:
    """Its recipe (section and registry), its predictor, its line in TASKS; and in nothing else."""
    package = Path(seq2attn.__file__).parent
    places = {
        str(path.relative_to(package)): len(re.findall(r"""["']summarization["']""", text))
        for path in sorted(package.rglob("*.py"))
        if re.search(r"""["']summarization["']""", text := path.read_text(encoding="utf-8"))
    }
    assert places == {
        "inference/translator.py": 1,
        "recipe/registry.py": 1,
        "recipe/roots.py": 2,
        "tasks/registry.py": 1,
    }
