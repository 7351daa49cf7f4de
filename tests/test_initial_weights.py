"""`init`: a training starts from the weights of another run."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
import torch
from PIL import Image
from tiny_graphs import ROWS
from tiny_runs import recording, said
from torch import nn

import seq2attn
from seq2attn.models.tagger_factory import build_tagger
from seq2attn.models.vision.factory import build_image_classifier
from seq2attn.recipe import RECIPES, ClassifierRecipe, TaggerRecipe
from seq2attn.recipe.root import InitRecipe
from seq2attn.recipe.vision_model import ImageClassifierRecipe
from seq2attn.runs.dry_run import check
from seq2attn.runs.training_run import Trained
from seq2attn.tasks.image_tasks import ImageClassificationTask
from seq2attn.tasks.labelling_tasks import LabellingTask
from seq2attn.training.display import Display
from seq2attn.training.run_folder import RunError, RunFolder

# The network of the run that is given.
MODEL = f"model={json.dumps(RunFolder.open(tiny_runs.MODEL).recipe.model.model_dump(mode='json'))}"
STILL = (
    "training={optimizer: adam, learning_rate: 1e-30, schedule: constant, max_steps: 1, validate_every: 1}"
)


# ---- texts ----------------------------------------------------------------------------------------------


def from_run(run: Path) -> list[str]:
    """What a recipe sets to start from a run, and to leave its vocabulary as it is there."""
    return [MODEL, "text={}", f"init={run}", "data.test=null", "data.dev.limit=3"]


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A trained run."""
    return Path(shutil.copytree(tiny_runs.MODEL, tmp_path / "given"))


def test_training_starts_from_the_best_weights_of_a_run(tmp_path: Path, given: Path) -> None:
    display = recording()
    run = tiny_runs.train(tmp_path / "run", *from_run(given), STILL, display=display).run
    expected, folder = RunFolder.open(given).load_weights("best"), RunFolder.open(run)
    weights = folder.load_weights("last")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    assert f"{len(expected)} tensors from {given}: decoder, encoder" in said(display)
    assert "new tensors" not in said(display) and f"tensors of {given} left" not in said(display)
    best = RunFolder.open(given).version.best
    assert folder.version.origin == {
        "init": str(given),
        "weights": best,
        "sha256": RunFolder.open(given).version.checksums[f"weights/{best}"],
    }


def test_a_resumed_training_does_not_start_again(tmp_path: Path, given: Path) -> None:
    """It ends with the weights of one that was not stopped, also if the other run is gone by then."""
    options = [*from_run(given), "training.validate_every=2"]
    tiny_runs.train(tmp_path / "whole", *options, "training.max_steps=4")
    tiny_runs.train(tmp_path / "parts", *options, "training.max_steps=2")
    shutil.move(given / "weights", tmp_path / "gone")
    display = recording()
    tiny_runs.train(tmp_path / "parts", *options, "training.max_steps=4", resume=True, display=display)
    assert tiny_runs.weights_hash(tmp_path / "parts") == tiny_runs.weights_hash(tmp_path / "whole")
    assert "tensors from" not in said(display)


def test_a_run_that_was_killed_before_it_began_starts_when_it_is_resumed(tmp_path: Path, given: Path) -> None:
    options = [*from_run(given), "training={max_steps: 1, learning_rate: 1e-30}"]
    run = tiny_runs.train(tmp_path / "run", *options).run
    first = tiny_runs.weights_hash(run)
    folder = RunFolder.open(run)  # as if it had been killed when there was only the folder
    for name in ("training_state.pt", "log.jsonl", *(f"weights/{name}" for name in folder.weights)):
        (run / name).unlink()
    folder.version.checksums = {
        name: sum_ for name, sum_ in folder.version.checksums.items() if "weights" not in name
    }
    folder.version.best = folder.version.last = ""
    folder.version.scores.clear()
    folder.version.log = (0, "")
    folder.commit()
    tiny_runs.train(run, *options, resume=True)
    assert tiny_runs.weights_hash(run) == first


def test_another_vocabulary_is_refused_before_data_are_read(
    tmp_path: Path, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [MODEL, f"init={given}", "text={model: char}", "data.train.0.limit=20"]
    monkeypatch.setattr("seq2attn.runs.training_run.read_examples", None)
    expected = (
        rf"it is that of {given}, .* another: text.model is 'char', there 'unigram'. Leave out text, or"
    )
    with pytest.raises(RunError, match=expected):
        tiny_runs.train(tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["missing", "no run", "damaged", "without weights"])
def test_a_run_that_cannot_be_read_is_an_error_before_training(
    tmp_path: Path, given: Path, kind: str
) -> None:
    options = from_run(given)
    if kind == "missing":
        options[2] = f"init={tmp_path}/nowhere"
    elif kind == "no run":
        (given / "version.json").unlink()
    elif kind == "damaged":
        file = given / "weights" / RunFolder.open(given).version.best
        file.write_bytes(file.read_bytes()[:-1] + b"\7")
    else:
        folder = RunFolder.open(given)
        folder.version.checksums = {
            name: sum_ for name, sum_ in folder.version.checksums.items() if "weights" not in name
        }
        folder.commit()
    expected = {
        "missing": "init: .*nowhere does not exist: expected a run folder",
        "no run": "init: .* has no version.json",
        "damaged": "init: .* is damaged",
        "without weights": "init: .* none yet",
    }
    with pytest.raises(RunError, match=expected[kind]):
        tiny_runs.train(tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_every_recipe_can_start_from_a_run() -> None:
    assert all("init" in recipe.model_fields for recipe in RECIPES.values())


# ---- images ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two colours, and of three."""
    path, random = tmp_path_factory.mktemp("colours"), np.random.default_rng(2)
    colours = {"blue": (20, 40, 220), "green": (30, 200, 60), "red": (210, 30, 50)}
    for name, labels in (("two", ["blue", "red"]), ("three", [*colours])):
        for label in labels:
            (path / name / label).mkdir(parents=True)
            for number in range(3):
                pixels = np.array(colours[label]) + random.integers(-20, 20, (16, 16, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                    path / name / label / f"{number}.png"
                )
    return path


def sections(folder: Path, labels: str = "two", **graph: Any) -> dict[str, Any]:
    corpus = {"folder": str(folder / labels)}
    rows = [dict(row, size=8) if "size" in row else row for row in ROWS[:4]]
    return {
        "task": "image_classification",
        "data": {"train": corpus, "dev": corpus},
        "model": {"backbone": {"kind": "graph", "rows": rows, **graph}},
        "training": {"batch_images": 6, "max_steps": 1, "learning_rate": 1e-30, "schedule": "constant"},
    }


def train(sections: dict[str, Any], run: Path, *overrides: str, display: Display | None = None) -> Trained:
    return seq2attn.train(sections, run, overrides, device="cpu", display=display or tiny_runs.silent())


@pytest.fixture(scope="module")
def plain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(sections(folder), tmp_path_factory.mktemp("runs") / "plain").run


def test_an_inserted_row_is_new_and_all_others_are_taken(tmp_path: Path, folder: Path, plain: Path) -> None:
    display, edit = recording(), {"after": "c2", "module": "nonlocal"}
    edited = sections(folder, insert=edit)
    run = train(edited, tmp_path / "run", f"init={plain}", display=display).run
    first, weights = (RunFolder.open(path).load_weights("last") for path in (plain, run))
    trained = {name for name in first if "running" not in name and "tracked" not in name}
    assert all(torch.allclose(weights[name], first[name], atol=1e-20) for name in trained)
    new = len(weights) - len(first)
    assert f"{len(first)} tensors from {plain}: backbone.rows.c2, backbone.rows.p2" in said(display)
    assert f"{new} new tensors: backbone.rows.c2_nonlocal" in said(display)


def test_running_statistics_of_frozen_norms_stay(tmp_path: Path, folder: Path, plain: Path) -> None:
    init = {"run": str(plain), "freeze": ["backbone.rows.c2"]}
    run = train({**sections(folder), "init": init}, tmp_path / "run", "training.max_steps=3").run
    first, weights = (RunFolder.open(path).load_weights("last") for path in (plain, run))
    still = {name for name in first if torch.equal(first[name], weights[name])}
    assert {name for name in first if name.startswith("backbone.rows.c2.")} <= still
    assert any("running" in name for name in still) and any("running" in name for name in {*first} - still)


def test_a_row_that_was_left_out_is_left(tmp_path: Path, folder: Path, plain: Path) -> None:
    """A report of `check` says it, too."""
    replaced = {**sections(folder, replace={"rows": ["c2"], "module": "se"}), "init": str(plain)}
    lines = [text for heading, text in check(seq2attn.recipe.read(replaced)) if heading == "init"]
    assert [line.partition(":")[0].lstrip("0123456789 ") for line in lines] == [
        f"tensors from {plain}", "new tensors", f"tensors of {plain} left"
    ]  # fmt: skip
    assert "new tensors: backbone.rows.c2.blocks" in lines[1]
    assert lines[2].endswith("backbone.rows.c2.beside, backbone.rows.c2.bottlenecks, backbone.rows.c2.join, "
                             "backbone.rows.c2.narrow")  # fmt: skip


def test_tensors_with_other_shapes_are_an_error_that_lists_them(
    tmp_path: Path, folder: Path, plain: Path
) -> None:
    wider = sections(folder)
    wider["model"]["backbone"]["rows"][1] = dict(ROWS[1], size=12)
    expected = (
        r"init: tensors of .*plain have other shapes: backbone.rows.p2.unit.conv.weight is \(8, 8, 3, 3\) "
        r"there, \(12, 8, 3, 3\) here; backbone.rows.p2.unit.norm.weight is \(8,\) there, \(12,\) here"
    )
    with pytest.raises(RunError, match=expected):
        train(wider, tmp_path / "run", f"init={plain}")


def test_with_other_labels_what_has_a_row_for_each_starts_anew(
    tmp_path: Path, folder: Path, plain: Path
) -> None:
    display = recording()
    run = train(sections(folder, "three"), tmp_path / "run", f"init={plain}", display=display).run
    assert "2 new tensors: output (the labels are others than there)" in said(display)
    assert RunFolder.open(run).load_weights("last")["output.weight"].shape == (3, 8)


def test_runs_without_a_common_name_are_an_error(tmp_path: Path, folder: Path, plain: Path) -> None:
    """Of an image task and a text task: no vocabulary is at stake, but nothing fits."""
    text = seq2attn.recipe.read(sections(folder)).model_copy(update={"init": InitRecipe(run=str(plain))})
    from seq2attn.runs.initial_weights import InitialWeights
    from seq2attn.tasks.loading import learn

    with pytest.raises(RunError, match="has backbone, output, and the model 0: no name is the same"):
        InitialWeights(plain).give(nn.Sequential(nn.Linear(2, 2)), learn(text))


# ---- what depends on the labels -------------------------------------------------------------------------

TAGGERS: dict[str, dict[str, Any]] = {
    "linear": {"head": {"kind": "linear"}},
    "crf": {"head": {"kind": "crf"}, "label_attention": {}},
    "spans": {"head": {"kind": "spans"}},
}


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def image_classifier(labels: Sequence[str]) -> nn.Module:
    recipe = ImageClassifierRecipe.model_validate({"backbone": {"kind": "convolutional", "sizes": [4]}})
    return build_image_classifier(recipe, 1, labels)


@pytest.mark.parametrize("kind", [*TAGGERS, "classifier", "image"])
def test_a_task_knows_which_tensors_have_a_row_for_each_label(kind: str) -> None:
    sizes, prefixes = [], LabellingTask.label_tensors
    for labels in (["O", "B-A", "I-A"], ["O", "B-A", "I-A", "B-B", "I-B"]):
        if kind == "image":
            prefixes = ImageClassificationTask.label_tensors
            sizes.append(shapes(image_classifier(labels)))
        else:
            recipe: Any = ClassifierRecipe() if kind == "classifier" else TaggerRecipe(**TAGGERS[kind])
            scheme = None if kind == "classifier" else "bio"
            sizes.append(shapes(build_tagger(recipe, 9, 9, labels, scheme)))
    few, many = sizes
    assert few.keys() == many.keys()
    assert all(name.startswith(prefixes) for name in few if few[name] != many[name])
    assert any(few[name] != many[name] for name in few)
