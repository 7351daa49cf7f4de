"""Whole runs: exact resume of real processes that were killed, and numbers that agree wherever they are printed."""

import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import tiny_runs
import torch
from click.testing import CliRunner
from rich.console import Console
from tiny_runs import log, weights_hash
from tiny_training import number
from torch.testing import assert_close

import seq2attn
from seq2attn.attention.scorers import Additive
from seq2attn.cli import cli
from seq2attn.inference.search import require_numbers
from seq2attn.inference.translator import Translator
from seq2attn.recipe import RecipeError, read
from seq2attn.runs.dry_run import check
from seq2attn.runs.evaluation import held_out, signature
from seq2attn.runs.training_run import average_run
from seq2attn.tasks.loading import learn, reopen
from seq2attn.tasks.task import reference_texts
from seq2attn.training.display import Display
from seq2attn.training.loop import TrainingError
from seq2attn.training.run_folder import RunError, RunFolder, Version
from seq2attn.training.trainer import Trainer

# ---- what a run leaves ------------------------------------------------------------------------------


def test_a_run_is_complete(runs: dict[str, Path]) -> None:
    for kind, run in runs.items():
        names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
        texts = {"text/source.model", "text/target.model"}
        weights = {f"weights/step-{step:08d}.safetensors" for step in (24, 36, 48)}
        best = f"weights/{RunFolder.open(run).version.best}"
        assert names == {
            "recipe.yaml",
            "version.json",
            "log.jsonl",
            "training_state.pt",
            best,
            *texts,
            *weights,
        }
        kept, given = (
            RunFolder.open(run).recipe,
            read("quickstart", [*tiny_runs.SMALL, *tiny_runs.MODELS[kind]]),
        )
        assert kept == given.fitted_as(kept).model_copy(update={"name": "quickstart"})


def test_the_seed_decides(tmp_path: Path, runs: dict[str, Path]) -> None:
    settings = [*tiny_runs.MODELS["lstm"], "data.test=null", "data.dev.limit=2", *tiny_runs.READY]
    settings += ["training.max_steps=3", "training.validate_every=3"]
    made = [tiny_runs.train(tmp_path / str(n), *settings, f"seed={n // 2}").run for n in (2, 3, 4)]
    assert weights_hash(made[0]) == weights_hash(made[1])
    assert weights_hash(made[0]) != weights_hash(made[2])


def test_resuming_needs_the_weights_of_the_run(tmp_path: Path) -> None:
    """Else it would train, and end at the first weights that it saves or loads."""
    settings = [*tiny_runs.MODELS["lstm"], *tiny_runs.READY, "data.test=null", "data.dev.limit=2"]
    settings += ["training={max_steps: 2, validate_every: 2}"]
    run = tiny_runs.train(tmp_path / "run", *settings).run
    shutil.move(run / "weights", tmp_path / "weights")
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    with pytest.raises(
        RunError, match=rf"^{run}/weights/step-00000002.safetensors is missing: .* incomplete"
    ):
        tiny_runs.train(run, *settings, "training.max_steps=4", resume=True)
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before
    shutil.move(tmp_path / "weights", run / "weights")
    assert tiny_runs.train(run, *settings, "training.max_steps=4", resume=True).progress.step == 4


def test_a_copy_without_the_empty_folder_of_weights_is_resumed(tmp_path: Path) -> None:
    """Some programs copy no empty folders."""
    run = RunFolder.create(tmp_path / "run", read("quickstart"), Version())
    (run.path / "weights").rmdir()
    run.require_weights()
    assert (run.path / "weights").is_dir()


@pytest.mark.parametrize(
    "mode",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)
def test_modes_of_the_caller_change_no_weights(tmp_path: Path, mode: Callable[[], Any]) -> None:
    settings = [*tiny_runs.MODELS["lstm"], *tiny_runs.READY, "data.test=null", "data.dev.limit=2"]
    settings += ["training={max_steps: 2, validate_every: 2}"]
    plain = tiny_runs.train(tmp_path / "plain", *settings, device="cpu")
    with mode():
        within = tiny_runs.train(tmp_path / "within", *settings, device="cpu")
    assert tiny_runs.weights_hash(within.run) == tiny_runs.weights_hash(plain.run)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_a_run_has_a_place_and_may_be_deterministic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["training.deterministic=true", "training.max_steps=1", "data.test=null", "data.dev.limit=2"]
    during: list[bool] = []
    monkeypatch.setattr(
        Display, "__call__", lambda self, record: during.append(torch.are_deterministic_algorithms_enabled())
    )
    trained = tiny_runs.train(None, *tiny_runs.MODELS["lstm"], *tiny_runs.READY, *settings)
    assert during == [True, True]  # an update and a validation
    assert not torch.are_deterministic_algorithms_enabled()
    assert trained.run == Path("runs/quickstart")
    assert seq2attn.load("runs/quickstart").translate("Ja.")


@pytest.mark.parametrize("before", [(False, False), (True, True), (True, False)])
def test_torchs_algorithms_are_afterwards_as_they_were(tmp_path: Path, before: tuple[bool, bool]) -> None:
    """Even if training fails: who trains in a notebook goes on in it."""
    settings = ["training.deterministic=true", "text.size=999999", "data.train.limit=50"]
    try:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        with pytest.raises(seq2attn.Seq2attnError, match="largest possible size"):
            tiny_runs.train(tmp_path / "run", *settings)
        assert torch.are_deterministic_algorithms_enabled() == before[0]
        assert torch.is_deterministic_algorithms_warn_only_enabled() == before[1]
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "seq2attn.layers.token_loss._cross_entropy",
            r"^before the first update: out of memory in validation, in the batch with the dev examples "
            r"\[\d+(, \d+)*\] \(source by target "
            r"\(\d+, \d+\) by \(\d+, \d+\)\)\. Lower training\.batch_tokens \(now 200\)\. Nothing is saved$",
        ),
        (
            "seq2attn.tasks.sequence_tasks.Translator.stream_share",
            r"out of memory in validation, decoding\. Lower decoding\.batch_tokens \(now 123\)\. "
            r"Nothing is saved$",
        ),
    ],
)
def test_memory_that_ends_in_validation_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, message: str
) -> None:
    for error, expected in (
        (torch.OutOfMemoryError("CUDA out of memory"), TrainingError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), TrainingError),
        (RuntimeError("something else"), RuntimeError),
    ):

        def fail(*given: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(place, fail)
        settings = ["data.test=null", "data.dev.limit=5", "decoding.batch_tokens=123", *tiny_runs.READY]
        with pytest.raises(expected, match=message if expected is TrainingError else "^something else$"):
            tiny_runs.train(tmp_path / str(error), *tiny_runs.MODELS["lstm"], *settings)


@pytest.mark.parametrize(
    ("after", "place", "message"),
    [
        (
            0,
            "scores",
            "before the first update: the loss is nan in validation. Lower training.learning_rate, ",
        ),
        (2, "scores", "after step 2: the loss is nan in validation. Lower training.learning_rate, "),
        (0, "stream", "before the first update: probabilities are nan in validation, decoding. Lower "),
    ],
)
def test_numbers_that_are_none_in_validation_are_the_trainings_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, place: str, message: str
) -> None:
    """No weights are damaged, and others would not help."""
    plain, updates = Additive.forward, list[int]()
    monkeypatch.setattr(Trainer, "update", both(Trainer.update, lambda: updates.append(1)))

    def scores(self: Additive, *given: Any) -> torch.Tensor:
        return plain(self, *given) * (1.0 if self.training or len(updates) < after else math.nan)

    def stream(*given: Any) -> None:
        require_numbers(np.array(math.nan))

    target = (Additive, "forward", scores) if place == "scores" else (Translator, "stream_share", stream)
    monkeypatch.setattr(*target)
    settings = ["data.test=null", "data.dev.limit=5", *tiny_runs.READY, "training.validate_every=2"]
    with pytest.raises(TrainingError) as error:
        tiny_runs.train(tmp_path / "run", *tiny_runs.MODELS["lstm"], *settings)
    assert str(error.value).startswith(message) and "checkpoint" not in str(error.value)
    assert "if a scorer, a loss or another part is your own, look there first. " in str(error.value)


def both(first: Callable[..., Any], then: Callable[[], object]) -> Callable[..., Any]:
    """A function that calls one function, then another."""

    def call(*given: Any) -> Any:
        result = first(*given)
        then()
        return result

    return call


def test_a_run_is_not_overwritten(runs: dict[str, Path]) -> None:
    with pytest.raises(
        RunError, match=r"exists and is not overwritten: continue it with resume=True, or .* run="
    ):
        tiny_runs.train(runs["lstm"])
    with pytest.raises(RunError, match="nowhere does not exist"):
        tiny_runs.train(Path("nowhere"), resume=True)


def test_overrides_are_for_files() -> None:
    with pytest.raises(RecipeError, match="a Recipe cannot have overrides: give them to `read`"):
        seq2attn.train(read("quickstart"), overrides=["seed=3"])


def test_the_best_weights_are_loaded_at_the_end(tmp_path: Path) -> None:
    trained = tiny_runs.train(
        tmp_path / "run", *tiny_runs.MODELS["lstm"], "training.learning_rate=5.0", "training.metric=loss",
        "training.validate_every=4", "training.max_steps=12", "data.test=null", *tiny_runs.READY,
    )  # fmt: skip
    folder = RunFolder.open(trained.run)
    assert folder.version.best != folder.version.last
    best = folder.load_weights("best")
    assert all(torch.equal(trained.model.model.state_dict()[name], tensor) for name, tensor in best.items())
    assert trained.scores == []
    assert re.fullmatch(r"Trained\('.*': \d+ updates(, interrupted)?\)", repr(trained))


def test_given_vocabularies_are_taken(tmp_path: Path) -> None:
    joint = tiny_runs.MODEL / "text" / "source.model"
    recipe = read("quickstart", [f"text={{joint: true, files: [{joint}, {joint}]}}"])
    assert learn(recipe).files() == {"text/joint.model": joint.read_bytes()}
    assert [*learn(read("quickstart", tiny_runs.READY)).files().values()] == [
        (tiny_runs.MODEL / "text" / f"{side}.model").read_bytes() for side in ("source", "target")
    ]


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [*tiny_runs.MODELS["lstm"], *tiny_runs.READY, "training.tensorboard=true", "data.test=null"]
    settings += ["training.max_steps=2", "data.dev.limit=2"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        missing = r"training.tensorboard needs TensorBoard: pip install tensorboard"
        with pytest.raises(RunError, match=missing):
            tiny_runs.train(tmp_path / "without", *settings)
        assert not (tmp_path / "without").exists()
        with pytest.raises(RunError, match=missing):
            next(check(read("quickstart", settings)))
    pytest.importorskip("tensorboard")
    settings += ["training.attention_losses={coverage: 0.5, entropy: 0.1}", "training.validate_every=2"]
    run = tiny_runs.train(tmp_path / "with", *settings).run
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    updates = [record for record in log(run) if "norm" in record]
    for name in ("loss", "coverage", "entropy", "norm", "learning_rate"):
        shown = [(event.step, event.value) for event in board.Scalars(f"training/{name}")]
        assert shown == [(one["step"], pytest.approx(one[name], rel=1e-5)) for one in updates]
    assert {"dev/loss", "dev/perplexity", "dev/bleu", "dev/chrf"} < {*board.Tags()["scalars"]}


# ---- averages ---------------------------------------------------------------------------------------


def test_the_average_of_a_run(tmp_path: Path, runs: dict[str, Path]) -> None:
    run = shutil.copytree(runs["lstm"], tmp_path / "run")
    folder = average_run(run, 2)
    assert folder.version.average == "average-2.safetensors"
    last = [folder.load_weights(f"step-{step:08d}.safetensors") for step in (36, 48)]
    for name, tensor in folder.load_weights("average").items():
        assert_close(tensor, (last[0][name] + last[1][name]) / 2)
    assert log(run)[-1]["average"] == 2
    assert seq2attn.load(run, "average").translate("Guten Tag!", nbest=2)


def test_the_best_weights_are_not_among_the_last(runs: dict[str, Path], tmp_path: Path) -> None:
    """They are kept however old they are."""
    run = tiny_runs.train(
        tmp_path / "run", *tiny_runs.MODELS["lstm"], *tiny_runs.READY,
        "training={max_steps: 4, validate_every: 1, keep_last: 1, metric: loss, learning_rate: 3.0}",
    ).run  # fmt: skip
    version = RunFolder.open(run).version
    assert version.best != version.last and len(version.scores) == 2
    with pytest.raises(RunError, match=r"cannot average the last 2 weights: .* keeps 1; train with"):
        average_run(run, 2)


@pytest.mark.parametrize("count", [0, -1, 5])
def test_an_average_of_what_is_not_there(runs: dict[str, Path], count: int) -> None:
    with pytest.raises(
        RunError, match=rf"cannot average the last {count} weights: .* keeps \d; train with training.k"
    ):
        average_run(runs["lstm"], count)


# ---- train, translate, score: one number ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model", "transformer"])
def test_training_translating_and_scoring_agree(
    tmp_path: Path, runs: dict[str, Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Sockeye's test of this name: whoever computes a score computes the same score."""
    run = shutil.copytree({**runs, "model": tiny_runs.MODEL}[kind], tmp_path / "run")
    shown = StringIO()
    recipe = RunFolder.open(run).recipe
    if kind == "transformer":
        trained = seq2attn.train(recipe, run, resume=True, display=Display(Console(file=shown)))
        printed = [score.value for score in trained.scores]
    else:
        printed = None

    def command(*words: str) -> str:
        result = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    examples = held_out(reopen(RunFolder.open(run)), "test")
    rows = range(len(examples))
    sources, references = [examples.source_text(row) for row in rows], reference_texts(examples, rows)
    (tmp_path / "in.de").write_text("".join(f"{line}\n" for line in sources))
    (tmp_path / "gold.en").write_text("".join(f"{line}\n" for line in references))
    said = command("translate", str(run), str(tmp_path / "in.de"))
    (tmp_path / "out.en").write_text(said)
    texts = said.splitlines()
    direct = [
        sacrebleu.corpus_bleu(texts, [references]).score,
        sacrebleu.corpus_chrf(texts, [references]).score,
        sacrebleu.corpus_ter(texts, [references]).score,
    ]
    files = ["--references", str(tmp_path / "gold.en"), "--format", "json"]
    scored = [
        command("score", str(run), "--format", "json"),
        command("score", str(run), "--source", str(tmp_path / "in.de"), *files),
        command("score", "--hypotheses", str(tmp_path / "out.en"), *files),
    ]
    numbers = [[score["value"] for score in json.loads(one)["scores"]] for one in scored]
    assert numbers == [pytest.approx(direct)] * 3
    assert printed in (None, pytest.approx(direct))
    assert kind == "transformer" or direct[0] > 3  # a number that says something

    best = RunFolder.open(run).version
    dev = json.loads(command("score", str(run), "--data", "dev", "--beam", "1", "--format", "json"))["scores"]
    record = next(one for one in log(run) if "bleu" in one and one.get("step") == number(best.best))
    assert [score["value"] for score in dev[:2]] == pytest.approx([record["bleu"], record["chrf"]])
    assert best.scores[best.best] == pytest.approx([record["bleu"], -record["loss"]])


def test_a_score_says_how_it_was_made(runs: dict[str, Path]) -> None:
    model = seq2attn.load(runs["lstm"])
    tail = f"seed:1|seq2attn:{seq2attn.__version__}"
    assert (
        signature(runs["lstm"], model) == f"recipe:quickstart|checkpoint:best|beam:5|length:simple^1|{tail}"
    )
    model = model.configured({"sample": True, "temperature": 0.5, "length_penalty": 0.6})
    expected = f"recipe:quickstart|checkpoint:last|sample:0.5|length:simple^0.6|{tail}"
    assert signature(runs["lstm"], model, "last") == expected
    model = model.configured({"sample": False, "beam": 7, "coverage_penalty": 0.2})
    expected = f"recipe:quickstart|checkpoint:best|beam:7|length:simple^0.6|coverage:0.2|{tail}"
    assert signature(runs["lstm"], model) == expected


def test_a_run_without_a_test_set(tmp_path: Path, runs: dict[str, Path]) -> None:
    run = shutil.copytree(runs["lstm"], tmp_path / "run")
    (run / "recipe.yaml").write_text(
        re.sub(r"  test:\n(    .*\n)+", "  test: null\n", (run / "recipe.yaml").read_text())
    )
    RunFolder.open(run).accept_recipe()
    with pytest.raises(
        RunError, match="the recipe names no test set: score its dev set with --data dev, or give f"
    ):
        held_out(reopen(RunFolder.open(run)), "test")


def test_a_recipe_that_fails_early_leaves_no_folder(tmp_path: Path) -> None:
    """So that the mended recipe can be trained in the same place."""
    overrides = ["data.train.limit=50", "text.size=999999"]
    with pytest.raises(seq2attn.Seq2attnError, match="largest possible size"):
        seq2attn.train("quickstart", tmp_path / "run", overrides)
    assert not (tmp_path / "run").exists()
