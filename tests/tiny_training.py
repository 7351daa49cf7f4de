"""Training without data or text: random ids, a tiny model, validations that follow a script."""

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import tiny
import torch
from torch import Tensor

from seq2attn.data.batches import Batch, BatchLoader
from seq2attn.data.sources import PairTokenizer
from seq2attn.recipe import TrainingRecipe
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.tasks.sequence_tasks import token_objective
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.training.run_folder import RunFolder, weights_of
from seq2attn.training.trainer import Trainer, UpdateStats

Scores = Callable[[int | None], dict[str, float]]

KINDS = ["feeding-additive-lstm-1-tanh", "transformer-post-sinusoidal"]
IDS = {"pad": tiny.PAD, "unk": tiny.UNK, "bos": tiny.BOS, "eos": tiny.EOS}
VOCABULARIES = [cast(Vocabulary, SimpleNamespace(size=size, **IDS)) for size in (tiny.SOURCE, tiny.TARGET)]


class Rows:
    """A corpus of given ids."""

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        self.rows = rows
        self.source_lengths, self.target_lengths = (
            np.array([len(row) for row in side], dtype=np.int32) for side in rows
        )

    def source(self, number: int) -> Any:
        return self.rows[0][number]

    def target(self, number: int) -> Any:
        return self.rows[1][number]

    def epoch(self, epoch: int, seed: int) -> Any:
        return np.arange(len(self.source_lengths))


class Sentences(Rows):
    """A corpus of random ids, in lengths that differ much."""

    def __init__(self, count: int = 23) -> None:
        generator = np.random.default_rng(1)
        super().__init__(
            [
                [generator.integers(tiny.SPECIALS, size, generator.integers(1, 12)) for _ in range(count)]
                for size in (tiny.SOURCE, tiny.TARGET)
            ]
        )

    def source_text(self, number: int) -> str:
        return ""

    target_text = source_text


def loader(batch_tokens: int = 40, count: int = 23) -> BatchLoader:
    return BatchLoader(Sentences(count), PairTokenizer(*VOCABULARIES), batch_tokens)


def trainer(
    kind: str = KINDS[0],
    total: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    group: Group = ALONE,
    **training: Any,
) -> Trainer:
    recipe = TrainingRecipe.model_validate({"max_steps": 8, "learning_rate": 0.01, **training})
    model = tiny.model(tiny.SOME[kind]).to(dtype)
    return Trainer(model, token_objective(model, recipe), recipe, torch.device(device), total, group=group)


def scripted(*values: float, metric: str = "bleu") -> Scores:
    """A validation that gives these values in turn, and then its last; the other metrics stay."""
    left = iter(values)
    last = {metric: 0.0}

    def validate(limit: int | None) -> dict[str, float]:
        last[metric] = next(left, last[metric]) if limit is None else last[metric]
        return {"loss": 1.0, "perplexity": 1.0, "bleu": 1.0, "chrf": 1.0, **last}

    return validate


def steps(run: RunFolder) -> list[int]:
    """The steps whose weights are in the folder; what version.json says is what is there."""
    names = {path.name for path in (run.path / "weights").iterdir()}
    listed = RunFolder.open(run.path).version.checksums
    assert names == {name.removeprefix("weights/") for name in listed if name.startswith("weights/")}
    return sorted(int(name[5:13]) for name in names if name.startswith("step-"))


def number(name: str) -> int:
    """The step of weights."""
    return int(name[5:13])


def sgd(
    kind: str = KINDS[0], dtype: torch.dtype = torch.float32, device: str = "cpu", **training: Any
) -> Trainer:
    """A trainer whose weights move by minus the gradient."""
    plain = {"optimizer": "sgd", "learning_rate": 1.0, "clip": None, "label_smoothing": 0.1}
    return trainer(kind, None, dtype, device, **{**plain, **training})


def batch(rows: range) -> Batch:
    return loader().batch(np.array(rows))


def moved(one: Trainer, batches: list[Batch]) -> tuple[dict[str, Tensor], UpdateStats]:
    """By how much an update moves each tensor."""
    before = weights_of(one.model)
    updated = one.update(batches, 1)
    return {name: before[name] - tensor for name, tensor in weights_of(one.model).items()}, updated


def norm(tensors: Any) -> float:
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))
