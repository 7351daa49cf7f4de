"""Attention losses in training: coverage, guidance by gold alignments, reinforcement."""

import gzip
import os
import signal
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from rich.console import Console
from tiny_runs import log, silent, weights_hash
from tiny_training import KINDS, batch, loader, moved, scripted, sgd, trainer
from torch import Tensor

import seq2attn.runs.training_run
import seq2attn.tasks.sequence_tasks
import seq2attn.training.loop
import seq2attn.training.objectives
from seq2attn.alignment.word_alignment import Gold, Link, error_rate, parse_pharaoh
from seq2attn.attention.attention import Past
from seq2attn.attention.normalizers import Softmax
from seq2attn.data import Report, known_alignment
from seq2attn.data.batches import Batch
from seq2attn.data.synthetic import make
from seq2attn.errors import Seq2attnError
from seq2attn.recipe import TaskCorpus, TrainingRecipe, read
from seq2attn.runs.evaluation import held_out
from seq2attn.runs.training_run import Trained
from seq2attn.tasks.loading import reopen
from seq2attn.tasks.sequence_tasks import token_objective
from seq2attn.training.display import Display
from seq2attn.training.loop import fit
from seq2attn.training.objectives import AttentionLosses
from seq2attn.training.run_folder import RunFolder, Version, tensors_of
from seq2attn.training.trainer import Trainer


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", read("quickstart"), Version())


# ---- what attention is taught ------------------------------------------------------------------------

LOSSES = {"coverage": 1.0, "doubly_stochastic": 0.5, "guided": 0.05, "entropy": 0.1}


def linked(rows: range) -> Batch:
    """A batch with a gold alignment: target token t is aligned with source token t, if there is one."""
    some = batch(rows)
    links = torch.eye(some.target.shape[1], some.source.tokens.shape[1], dtype=torch.bool)
    return some._replace(links=links & some.source.mask[:, None] & some.target_mask[..., None])


@pytest.mark.parametrize("kind", KINDS)
def test_what_attention_is_taught_does_not_depend_on_how_an_update_is_cut(kind: str) -> None:
    pieces = [range(1), range(1, 4), range(4, 11), range(11, 16)]
    one, whole = moved(sgd(kind, torch.float64, attention_losses=LOSSES), [linked(range(16))])
    four, parts = moved(sgd(kind, torch.float64, attention_losses=LOSSES), [linked(rows) for rows in pieces])
    assert whole.parts == pytest.approx(parts.parts) and whole.parts.keys() == LOSSES.keys()
    assert all(value > 0 for value in whole.parts.values())
    plain, without = moved(sgd(kind, torch.float64), [linked(range(16))])
    assert without.parts == {} and without.loss == pytest.approx(whole.loss)
    for name, gradient in one.items():
        torch.testing.assert_close(four[name], gradient, rtol=0, atol=1e-13)
    assert any(not torch.allclose(plain[name], gradient) for name, gradient in one.items())


def test_the_taught_gradient_is_that_of_the_mean_over_all_tokens() -> None:
    one, some = sgd(dtype=torch.float64, attention_losses={"coverage": 0.7}), batch(range(16))
    decoded = one.model.train()(some.source, some.target_input, [0])
    gold = some.target.masked_fill(~some.target_mask, -100)
    loss = F.cross_entropy(decoded.logits.flatten(0, 1), gold.flatten(), label_smoothing=0.1)
    looked = decoded.weights[:, 0, 0] * some.target_mask[..., None]
    again = torch.minimum(looked, looked.cumsum(1) - looked).sum() / some.target_mask.sum()
    parameters = dict(one.model.named_parameters())
    gradients = torch.autograd.grad(loss + 0.7 * again, [*parameters.values()])
    steps, updated = moved(one, [some])
    assert updated.parts == pytest.approx({"coverage": again.item()})
    for name, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(steps[name], gradient, rtol=0, atol=1e-13)


def test_what_attention_is_taught_is_reported_and_logged(run: RunFolder) -> None:
    shown: list[dict[str, Any]] = []
    one = trainer(max_steps=4, log_every=2, attention_losses={"coverage": 1.0})
    fit(run, one, loader(), scripted(1.0), shown.append)
    assert all(record["coverage"] > 0 for record in shown if "norm" in record)
    logged = [record["coverage"] for record in log(run.path) if "norm" in record]
    assert logged == [record["coverage"] for record in shown if record["step"] in (2, 4) and "norm" in record]


def test_coverage_is_learnt() -> None:
    one, some = trainer(learning_rate=0.05, attention_losses={"coverage": 30.0}), batch(range(8))
    first, *_, last = [one.update([some], step).parts["coverage"] for step in range(1, 40)]
    assert last < 0.8 * first


class Drawing(Softmax):
    """Draws in training: a stand-in for any normalizer that does."""

    def sample(self, weights: Tensor, past: Past) -> Tensor | None:
        if not self.training:
            return None
        drawn = torch.multinomial(weights.detach().flatten(0, -2) + 1e-30, 1)
        return torch.zeros_like(weights).flatten(0, -2).scatter(-1, drawn, 1.0).view_as(weights)


def test_reinforcement_resumes_with_its_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: list[Any]
) -> None:
    monkeypatch.setattr(
        seq2attn.tasks.sequence_tasks,
        "AttentionLosses",
        lambda factors, decoder, *a: AttentionLosses(factors, drawing(decoder), *a),
    )

    def drawing(decoder: Any) -> Any:
        decoder.attention.normalize = Drawing()
        return decoder

    def once(run: RunFolder, report: Any) -> Trainer:
        losses = {"reinforce": 0.3, "entropy": 0.01}
        one = trainer(max_steps=6, validate_every=3, accumulate=2, log_every=1, attention_losses=losses)
        torch.manual_seed(5)
        fit(run, one, loader(), scripted(1.0), report)
        return one

    whole = RunFolder.create(tmp_path / "whole", read("quickstart"), Version())
    expected = once(whole, lambda record: None)
    parts = RunFolder.create(tmp_path / "parts", read("quickstart"), Version())
    stopped = once(
        parts, lambda record: os.kill(os.getpid(), signal.SIGTERM) if record["step"] == 2 else None
    )
    assert stopped.objective.state() is not None
    resumed = once(RunFolder.open(parts.path), lambda record: None)
    assert expected.objective.state() == resumed.objective.state() != stopped.objective.state()
    assert log(parts.path) == log(whole.path)
    for name, tensor in tensors_of(expected.model).items():
        assert torch.equal(tensor, tensors_of(resumed.model)[name])


def test_guided_without_gold_alignments_is_an_error() -> None:
    with pytest.raises(Seq2attnError, match="needs gold alignments, and the training data have none"):
        trainer(attention_losses={"guided": 1.0}).update([batch(range(3))], 1)


def test_hard_attention_is_reinforced_from_the_second_update_on() -> None:
    """The real thing, in both of its moods: a draw is reinforced, an expectation is not."""
    for rate, reinforced in ((0.0, True), (1 - 1e-12, False)):
        attention = {"score": "additive", "normalize": {"name": "hard", "soft_rate": rate}}
        decoder = {**tiny.recurrent_decoder("luong"), "attention": attention}
        recipe = TrainingRecipe.model_validate({"max_steps": 2, "attention_losses": {"reinforce": 1.0}})
        model = tiny.model({"encoder": tiny.recurrent_encoder(), "decoder": decoder})
        one = Trainer(model, token_objective(model, recipe), recipe, torch.device("cpu"), None)
        first, second = (one.update([batch(range(5))], step).parts["reinforce"] for step in (1, 2))
        assert first == 0 and (second != 0) == reinforced


# ---- guided by gold alignments -------------------------------------------------------------------------

MADE = "symbols: 8, lengths: [3, 6]"
GUIDED = [
    *(f"data.{role}={{task: sort, {MADE}, count: 60}}" for role in ("dev", "test")),
    "text={model: char, size: 40, byte_fallback: false}",  # c2 is three pieces
    "model.encoder={kind: recurrent, embedding: 32, size: 16}",
    "model.decoder.size=32",
    "training={max_steps: 120, validate_every: 60, log_every: 1, batch_tokens: 200, learning_rate: 0.01, "
    "metric: loss, metrics: exact}",
]
LEARNT = [f"data.train={{task: sort, {MADE}, count: 1000}}"]
TAUGHT = [
    f"data.train={{task: sort, {MADE}, count: 1000, alignments: true}}",
    "training.attention_losses={guided: 0.5}",
]


def aligns(trained: Trained) -> float:
    """The alignment error rate of a run on the test set of its task."""
    examples = held_out(reopen(RunFolder.open(trained.run)), "test")
    pairs = [(examples.source_text(row), examples.target_text(row)) for row in range(len(examples))]
    gold = []
    for source, _ in pairs:
        links = frozenset(Link(place, word) for word, place in enumerate(known_alignment("sort", source)))
        gold.append(Gold(links, links))
    return error_rate([parse_pharaoh(trained.model.align(*pair).pharaoh()) for pair in pairs], gold)


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory, stores: None) -> Trained:
    path = tmp_path_factory.mktemp("guided") / "run"
    return seq2attn.runs.training_run.train("sort_additive", path, [*GUIDED, *TAUGHT], display=silent())


def test_guided_attention_aligns(guided: Trained, tmp_path: Path) -> None:
    """The alignment is learnt long before the output, and is not learnt without guidance."""
    unguided = seq2attn.runs.training_run.train(
        "sort_additive", tmp_path / "run", [*GUIDED, *LEARNT], display=silent()
    )
    assert aligns(guided) < 0.15 < 0.6 < aligns(unguided)
    losses = [record["guided"] for record in log(guided.run) if "guided" in record]
    assert len(losses) == 120 and np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])
    assert not any("guided" in record for record in log(tmp_path / "run"))


def test_guided_training_resumes_exactly(guided: Trained, tmp_path: Path, handlers: list[Any]) -> None:
    class Stopping(Display):
        def __call__(self, record: dict[str, Any]) -> None:
            if "norm" in record and record["step"] % 50 == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    options: dict[str, Any] = {"display": Stopping(Console(file=StringIO()))}
    stops = 0
    while seq2attn.runs.training_run.train(
        "sort_additive", tmp_path / "run", [*GUIDED, *TAUGHT], resume=bool(stops), **options
    ).progress.interrupted:
        stops += 1
    assert stops == 2
    assert weights_hash(tmp_path / "run") == weights_hash(guided.run)
    assert log(tmp_path / "run") == log(guided.run)


def test_files_that_say_what_a_task_says_teach_the_same(guided: Trained, tmp_path: Path) -> None:
    corpus = TaskCorpus.model_validate(
        {"task": "sort", "symbols": 8, "lengths": (3, 6), "count": 1000, "alignments": True}
    )
    made = list(make(corpus, "train", Report()))
    columns = {
        "de": [pair.source for pair in made],
        "en": [pair.target for pair in made],
        "pharaoh": [" ".join(map(str, pair.links or ())) for pair in made],
    }
    for name, lines in columns.items():
        with gzip.open(tmp_path / f"{name}.gz", "wt", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    files = f"files: [{tmp_path}/de.gz, {tmp_path}/en.gz], alignments: {tmp_path}/pharaoh.gz"
    overrides = [*GUIDED, f"data.train={{{files}}}", *TAUGHT[1:]]
    trained = seq2attn.runs.training_run.train("sort_additive", tmp_path / "run", overrides, display=silent())
    assert weights_hash(trained.run) == weights_hash(guided.run)
    assert RunFolder.open(trained.run).version.data == RunFolder.open(guided.run).version.data
