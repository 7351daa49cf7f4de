"""Image classification from recipe to result: training, resuming, checking, scoring and labelling images."""

import json
import os
import signal
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_cli
import tiny_runs
import torch
from PIL import Image
from rich.console import Console
from torch.testing import assert_close

import seq2attn
from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import ImageError
from seq2attn.inference.image_categorizer import ImageCategorizer
from seq2attn.metrics.images import class_report, top, wilson
from seq2attn.models.vision.classifier import ImageClassifier
from seq2attn.runs.dry_run import check
from seq2attn.runs.training_run import Trained
from seq2attn.training.display import Display
from seq2attn.training.run_folder import RunFolder

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 60), "red": (210, 30, 50)}
POOLING = {"kind": "attention", "queries": 2, "penalty": 0.25}
NETWORK = {"backbone": {"kind": "convolutional", "sizes": [4, 6]}, "pooling": POOLING}
STEPS = {"optimizer": "adam", "learning_rate": 0.02, "schedule": "constant", "log_every": 1}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of coloured images with noise: of one size (same.jsonl), and of several (train, dev, test.jsonl)."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(8)
    for table, count in (("same", 22), ("train", 30), ("dev", 9), ("test", 13)):
        rows = []
        for number in range(count):
            label = "red" if number % 4 == 3 else [*COLOURS][number % 3]  # red is the most frequent
            height, width = (8, 8) if table == "same" else random.integers(8, 17, size=2).tolist()
            noise = random.integers(-20, 20, (height, width, 3))
            pixels = (np.array(COLOURS[label]) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{table}{number}.png")
            rows.append({"image": f"{table}{number}.png", "label": label})
        (folder / f"{table}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe(images: Path, train: str = "train", **data: Any) -> dict[str, Any]:
    tables = {role: {"table": str(images / f"{role}.jsonl")} for role in ("train", "dev", "test")}
    tables["train"] = {"table": str(images / f"{train}.jsonl")}
    return {
        "name": "colours",
        "task": "image_classification",
        "data": {**tables, **data},
        "model": NETWORK,
        "training": {**STEPS, "batch_images": 8, "max_epochs": 6, "validate_every": 8},
    }


def train(sections: dict[str, Any], run: Path, *overrides: str, **options: Any) -> Trained:
    return seq2attn.train(
        sections, run, list(overrides), **{"display": tiny_runs.silent(), "device": "cpu", **options}
    )


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, of images of several sizes."""
    return train(recipe(images), tmp_path_factory.mktemp("runs") / "colours").run


@pytest.fixture(scope="module")
def model(run: Path) -> ImageCategorizer:
    return seq2attn.load(run, device="cpu", kind=ImageCategorizer)


# ---- training --------------------------------------------------------------------------------------------


def test_images_that_are_far_larger_than_those_of_the_training_are_refused(
    run: Path, model: ImageCategorizer
) -> None:
    data = RunFolder.open(run).recipe.data
    assert data.size is None and data.max_pixels == 2**22  # 64 times 16 x 16 are less
    large = np.zeros((2100, 2000), np.uint8)
    for act in (model.classify, model.maps):
        with pytest.raises(
            Seq2attnError, match=r"is 2,000 x 2,100, .* at most 4,194,304 pixels \(data.max_pixels\)"
        ):
            act(large)
    unfitted = data.model_copy(update={"max_pixels": None})
    assert unfitted.fitted([0.5] * 3, [0.5] * 3, 10**6).max_pixels == 64 * 10**6
    sized = unfitted.model_copy(update={"size": 8}).fitted([0.5] * 3, [0.5] * 3, 10**6)
    assert sized.max_pixels is None and sized.reader(limited=True).read(large).shape == (8, 8, 3)
    assert data.reader().most is None  # what is trained on is read as it is


def test_memory_that_runs_out_names_a_setting_of_images(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = ImageClassifier.forward

    def failing(model: ImageClassifier, *given: Any, **options: Any) -> Any:
        if model.training:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, *given, **options)

    monkeypatch.setattr(ImageClassifier, "forward", failing)
    with pytest.raises(Seq2attnError, match=r"Lower training.batch_images .* or lower data.size"):
        train(recipe(images), tmp_path / "run")


class Stopping(Display):
    """Sends itself a signal at some steps, in the middle of epochs."""

    def __init__(self) -> None:
        super().__init__(Console(file=StringIO()))

    def __call__(self, record: dict[str, Any]) -> None:
        if "norm" in record and record["step"] in (2, 5):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def changed(images: Path) -> dict[str, Any]:
    """A recipe with everything random: order, augmentation, mixup, dropout, stochastic depth."""
    augment = ["flip", {"name": "crop", "padding": 2}, "affine", "erase", "mixup"]
    sections = recipe(images, "same", augment=augment, size=8)
    sections["model"] = {"backbone": {"kind": "resnet", "depth": 8, "drop_path": 0.4}, "dropout": 0.2}
    sections["training"] = {**STEPS, "batch_images": 8, "max_epochs": 3, "validate_every": 4, "ema": 0.9}
    return sections


@pytest.fixture(scope="module")
def uninterrupted(changed: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained = train(changed, tmp_path_factory.mktemp("whole") / "run", "data.workers=0")
    assert trained.progress.step == 9  # three an epoch
    return trained.run


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_training_that_was_stopped_ends_with_the_same_weights(
    workers: int, changed: dict[str, Any], uninterrupted: Path, tmp_path: Path
) -> None:
    run, stops = tmp_path / "run", 0
    options: dict[str, Any] = {"display": Stopping()}
    while train(changed, run, f"data.workers={workers}", **options).progress.interrupted:
        options["resume"], stops = True, stops + 1
    assert stops == 2
    assert tiny_runs.weights_hash(run) == tiny_runs.weights_hash(uninterrupted)
    assert tiny_runs.log(run) == tiny_runs.log(uninterrupted)


def test_the_dev_set_may_be_the_last_of_the_training_images(images: Path) -> None:
    table, sections = {"table": str(images / "train.jsonl")}, recipe(images)
    sections["data"] |= {"train": {**table, "limit": 20}, "dev": {**table, "skip": 20, "limit": 7}}
    task = seq2attn.tasks.loading.learn(seq2attn.recipe.read(sections))
    training, dev = task.examples("train"), task.examples("dev")
    assert [len(training), len(dev)] == [20, 7]
    assert training.name(19).endswith("train19.png") and dev.name(0).endswith("train20.png")


def test_progress_counts_images(images: Path, tmp_path: Path) -> None:
    display, records = (
        Display(Console(file=(file := StringIO()), force_terminal=True, width=150)),
        list[Any](),
    )
    options: dict[str, Any] = {"display": display, "callbacks": [records.append]}
    train(recipe(images), tmp_path / "run", "training.max_steps=4", **options)
    assert " images/s  loss" in file.getvalue() and "tokens" not in file.getvalue()
    assert [record["tokens"] for record in records if "tokens" in record][-1] == 30  # an epoch


# ---- check -----------------------------------------------------------------------------------------------


def test_check_reports_data_speed_and_memory(images: Path) -> None:
    lines = "\n".join(map(": ".join, check(seq2attn.recipe.read(recipe(images)), device="cpu")))
    for line in (
        "vocabulary: 3 labels",
        "pixels an image; 30 examples read",
        "labels: red 15, green 8, blue 7",
        " images/s on cpu",
    ):
        assert line in lines, lines
    assert (
        "data.normalize mean 0." in lines and "decoding: 8 examples" in lines and "MiB at the peak" in lines
    )


FAULTS = {
    "model.backbone.depth=21": "model.backbone.depth: expected",
    "model.backbone.blocks=[{block: cbamm}]": "unknown 'cbamm' (did you mean cbam?",
    "model.backbone.blocks=[{block: se, stages: [4]}]": "there are 3 stages, and none with number 4",
    "model.backbone.blocks=[{block: se, ratoi: 4}]": "unknown key 'ratoi' (did you mean ratio?",
    "model.pooling={kind: attention, penalty: 1}": "model.pooling.penalty: compares queries",
    "data.augment=[mixup, flip]": "mixup comes last",
    "data.normalize={mean: [0.5], std: [0.5]}": "data.normalize.mean: expected a list of 3, a number for each channel of rgb, got 1",
    "training.metric=bleu": "training.metric: unknown 'bleu' (one of loss, top-1, top-5)",
    "text={size: 100}": "text: ",
    "training.batch_tokens=100": "unknown key 'batch_tokens'",
}


@pytest.mark.parametrize("override", sorted(FAULTS))
def test_a_fault_of_a_recipe_is_named(override: str) -> None:
    sections = {
        "task": "image_classification",
        "data": {"train": {"sample": "digits"}, "dev": {"sample": "digits"}},
        "model": {"backbone": {"kind": "resnet", "depth": 8}},
        "training": {"max_epochs": 1},
    }
    with pytest.raises(Seq2attnError) as caught:
        seq2attn.recipe.read(sections, [override])
    assert FAULTS[override] in str(caught.value)


# ---- scores ----------------------------------------------------------------------------------------------

RANKED = ["a\tb\tc", "b\ta\tc", "b\tc\ta", "c\tb\ta", "c\ta\tb"]
GOLD = ["a", "a", "a", "b", "c"]


def test_top_k_and_the_table_of_classes() -> None:
    assert [top(RANKED, GOLD, bootstrap=0, k=k).value for k in (1, 2, 3)] == [40.0, 80.0, 100.0]
    scored = top(RANKED, GOLD, k=1)
    assert scored.name == "top-1" and scored.low is not None and scored.low < 40 < scored.high
    report = class_report(RANKED, GOLD)
    assert [(row.label, row.images, row.accuracy, row.most_frequent_error) for row in report.rows] == [
        ("a", 3, pytest.approx(100 / 3), "b (2)"),
        ("b", 1, 0.0, "c (1)"),
        ("c", 1, 100.0, ""),
    ]
    assert wilson(1, 3) == pytest.approx((0.0615, 0.7923), abs=1e-4)  # as statsmodels has it
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4) and wilson(0, 10)[0] == 0.0
    assert "33.33%  [6.1, 79.2]" in str(report) and report.to_json()[0]["high"] == pytest.approx(
        79.23, abs=0.01
    )


def test_score_prints_intervals_classes_and_the_majority(
    run: Path, model: ImageCategorizer, images: Path
) -> None:
    rows = [json.loads(line) for line in (images / "test.jsonl").read_text().splitlines()]
    results = model.classify([images / row["image"] for row in rows])
    right = [result.label == row["label"] for result, row in zip(results, rows, strict=True)]
    value, majority = 100 * np.mean(right), 100 * np.mean([row["label"] == "red" for row in rows])
    assert value > majority
    lines = tiny_cli.run("score", str(run), "--device", "cpu").output.splitlines()
    assert lines[0].startswith(f"majority: top-1 = {majority:.1f} [")
    assert any(line.startswith(f"top-1 = {value:.1f} [") for line in lines)
    assert any(line.startswith("class  images  accuracy") for line in lines)
    assert lines[-1].startswith("recipe:colours|checkpoint:best|")
    report = json.loads(tiny_cli.run("score", str(run), "--device", "cpu", "--format", "json").output)
    assert [score["name"] for score in report["scores"]] == ["top-1", "top-5"]
    assert report["scores"][0]["value"] == pytest.approx(value) and report["scores"][0]["low"] <= value
    assert {row["label"]: row["images"] for row in report["classes"]} == {
        label: sum(row["label"] == label for row in rows) for label in COLOURS
    }
    assert [score["value"] for score in report["baselines"]["majority"]] == pytest.approx([majority, 100])


def test_files_are_scored_by_their_labels(run: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "files").write_text("".join(f"{images}/dev{number}.png\n" for number in range(3)))
    (tmp_path / "labels").write_text("blue\ngreen\nred\n")
    words = [
        "--source",
        str(tmp_path / "files"),
        "--references",
        str(tmp_path / "labels"),
        "--metric",
        "top-1",
    ]
    assert "top-1 = " in tiny_cli.run("score", str(run), *words).output
    status, error = tiny_cli.fails("score", str(run), "--metric", "accuracy")
    assert status == 1 and "accuracy is a metric of labelled texts" in error


# ---- labelling images ------------------------------------------------------------------------------------


def test_classify_takes_files(run: Path, images: Path) -> None:
    files = [str(images / f"test{number}.png") for number in (2, 0, 1)]
    lines = [line.split("\t") for line in tiny_cli.run("classify", str(run), *files).output.splitlines()]
    assert [line[2] for line in lines] == files and {line[0] for line in lines} <= {*COLOURS}
    rows = tiny_cli.run("classify", str(run), *files, "--format", "json").output.splitlines()
    for row, (label, probability, file) in zip(map(json.loads, rows), lines, strict=True):
        assert [row["image"], row["label"], f"{row['probabilities'][label]:.3f}"] == [
            file,
            label,
            probability,
        ]
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=2e-4)


def test_an_image_may_be_a_file_or_pixels(model: ImageCategorizer, images: Path) -> None:
    path = images / "test3.png"
    with Image.open(path) as opened:
        pixels = np.asarray(opened)
        forms = [path, str(path), opened.copy(), pixels]
    results = model.classify(forms)
    assert [result.name for result in results] == [str(path), str(path), "", ""]
    assert len({result.probability for result in results}) == 1
    alone = model.classify(pixels)
    assert alone.label == str(alone) == results[0].label and alone.ranked[0] == alone.label
    assert model.classify([]) == [] and "classify" not in repr(alone)


def test_an_image_in_a_batch_is_as_it_is_alone(model: ImageCategorizer, images: Path) -> None:
    """Also among larger ones, which it is padded to; and its weights lie on its own grid."""
    files = [images / f"test{number}.png" for number in range(13)]
    for file, together in zip(files, model.classify(files), strict=True):
        alone = model.classify(file)
        assert alone.probabilities == pytest.approx(together.probabilities, abs=1e-5)
        rows, columns, _ = alone.pixels.shape
        assert alone.weights is not None and together.weights is not None
        assert alone.weights.shape == (2, -(-rows // 2), -(-columns // 2))
        assert_close(alone.weights, together.weights, rtol=0, atol=1e-5)
        assert_close(together.weights.sum((1, 2)), torch.ones(2))
    assert model.classify(files[0], weights=False).weights is None


def test_what_is_no_image_is_named(run: Path, model: ImageCategorizer, images: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "half.png").write_bytes((images / "test0.png").read_bytes()[:90])
    for name, reason in (
        ("absent.png", "cannot be read (No such file"), ("text.png", "expected an image"), ("half.png", "damaged")
    ):  # fmt: skip
        with pytest.raises(ImageError, match=name) as caught:
            model.classify([images / "test0.png", tmp_path / name])
        assert reason in str(caught.value)
        status, error = tiny_cli.fails("classify", str(run), str(tmp_path / name))
        assert status and name in error
    for given in (3, None, {"image": 1}):
        with pytest.raises(Seq2attnError, match=f"the path of an image.* got {type(given).__name__}"):
            model.classify(given)
    with pytest.raises(ImageError, match="expected 8-bit pixels"):
        model.classify(np.zeros((4, 4, 3)))
    status, error = tiny_cli.fails("classify", str(run))
    assert status == 2 and "give their files" in error


def test_a_run_is_loaded_as_what_it_is(run: Path, model: ImageCategorizer) -> None:
    assert model.labels.names == [*COLOURS] and RunFolder.open(run).recipe.data.normalize is not None
    with pytest.raises(AttributeError, match="not to translate: use its method classify"):
        model.translate("a")
    with pytest.raises(Seq2attnError, match="expected a Translator, got an ImageCategorizer"):
        seq2attn.load(run, device="cpu", kind=seq2attn.Translator)
    status, error = tiny_cli.fails("tag", str(run))
    assert status == 1 and "use `seq2attn classify`" in error
