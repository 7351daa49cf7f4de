"""Generation of images from recipe to sheet: training, resuming, checking, scoring, generating, heat maps."""

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
from tiny_adversarial import CLASSES, SAGAN, pair
from torch.testing import assert_close

import seq2attn
from seq2attn.data.image_plan import BatchLimits
from seq2attn.data.latent_batches import LatentBatchLoader, between, latent_vectors
from seq2attn.errors import Seq2attnError
from seq2attn.inference.image_generator import GeneratedImage, ImageGenerator
from seq2attn.models.vision.adversarial_layers import Form
from seq2attn.models.vision.factory import DISCRIMINATORS, GENERATORS
from seq2attn.runs.dry_run import check
from seq2attn.tasks.image_generation import ImageGenerationTask
from seq2attn.tasks.loading import learn
from seq2attn.training.display import Display
from seq2attn.training.run_folder import RunFolder
from seq2attn.training.samples import sample
from seq2attn.views.sheets import sheet

COLOURS = {"blue": (20, 40, 220), "red": (210, 30, 50)}
PLAYERS = {
    "generator": {"sizes": [6, 4], "blocks": [SAGAN]},
    "discriminator": {"sizes": [4, 6], "blocks": [SAGAN]},
}
STEPS = {"batch_images": 8, "max_steps": 6, "validate_every": 3, "log_every": 1, "sheet": 6}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of coloured images of 8 x 8, with noise."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(8)
    for table, count in (("train", 24), ("dev", 9), ("test", 12)):
        rows = []
        for number in range(count):
            label = [*COLOURS][number % 2]
            pixels = np.array(COLOURS[label]) + random.integers(-20, 20, (8, 8, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{table}{number}.png")
            rows.append({"image": f"{table}{number}.png", "label": label})
        (folder / f"{table}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe(images: Path, **training: Any) -> dict[str, Any]:
    tables = {role: {"table": str(images / f"{role}.jsonl")} for role in ("train", "dev", "test")}
    return {
        "name": "colours",
        "task": "image_generation",
        "data": {**tables, "size": 8, "augment": "flip"},
        "model": {"latent": 5, "conditional": True, **PLAYERS},
        "training": STEPS | training,
    }


def train(sections: dict[str, Any], run: Path, *overrides: str, **options: Any) -> Any:
    return seq2attn.train(
        sections, run, list(overrides), **{"display": tiny_runs.silent(), "device": "cpu", **options}
    )


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe(images), tmp_path_factory.mktemp("runs") / "colours").run


@pytest.fixture(scope="module")
def model(run: Path) -> ImageGenerator:
    return seq2attn.load(run, device="cpu", kind=ImageGenerator)


# ---- training --------------------------------------------------------------------------------------------


class Stopping(Display):
    """Sends itself a signal at some steps, between the turns of the generator, and in the middle of epochs."""

    def __init__(self) -> None:
        super().__init__(Console(file=StringIO()))

    def __call__(self, record: dict[str, Any]) -> None:
        if "norm" in record and record["step"] in (2, 5):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_training_that_was_stopped_ends_with_the_same_weights(images: Path, tmp_path: Path) -> None:
    """Latent vectors, spectral norms, moving average and both optimizers continue exactly."""
    sections = recipe(images, ema=0.9, discriminator_steps=2, accumulate=2, batch_images=4, max_steps=8)
    whole = train(sections, tmp_path / "whole", "data.workers=0").run
    run, stops, options = tmp_path / "parts", 0, dict[str, Any](display=Stopping())
    while train(sections, run, "data.workers=1", **options).progress.interrupted:
        options["resume"], stops = True, stops + 1
    assert stops == 2
    assert tiny_runs.weights_hash(run) == tiny_runs.weights_hash(whole)
    assert tiny_runs.log(run) == tiny_runs.log(whole)
    assert [*(path.name for path in sorted((run / "samples").iterdir()))] == [
        f"step-0000000{step}.png" for step in (3, 6, 8)
    ]


def test_a_run_has_a_sheet_of_the_same_images_of_each_validation(run: Path, model: ImageGenerator) -> None:
    pixels = sample(RunFolder.open(run), 6)
    last = seq2attn.load(run, "last", device="cpu", kind=ImageGenerator).generate(6, seed=1)
    assert pixels is not None and np.array_equal(pixels, sheet([image.pixels for image in last]))
    assert (
        not np.array_equal(pixels, sample(RunFolder.open(run), 3)) and sample(RunFolder.open(run), 4) is None
    )
    records = tiny_runs.log(run)
    assert {"loss", "real", "fake", "generator"} <= records[0].keys()
    (validation, _) = [record for record in records if "norm" not in record]
    assert validation.keys() == {"step", "loss", "frechet", "kernel", "sample-precision", "sample-recall"}


def test_what_belongs_to_an_image_does_not_depend_on_its_batch(images: Path) -> None:
    task = learn(seq2attn.recipe.read(recipe(images)))
    examples = task.examples("train")
    loader = LatentBatchLoader(examples, task.labels, task.recipe.data.scaled(), BatchLimits(8), 5)
    whole = loader.batch(np.arange(7), epoch=2)
    for row in range(7):
        alone = loader.batch(np.arange(row, row + 1), epoch=2)
        for part, same in zip(whole, alone, strict=True):
            assert torch.equal(part[row : row + 1], same)
    assert whole.images.min() >= -1 and whole.images.max() <= 1 and whole.images.min() < -0.5
    assert whole.latents.shape == (7, 2, 5)
    for other in (
        loader.batch(np.arange(7), epoch=3),
        loader.batch(np.arange(7)),
        loader.batch(np.arange(7, 14), 2),
    ):
        assert not torch.isclose(whole.latents, other.latents).any()


def test_check_reports_and_tries(images: Path) -> None:
    lines = "\n".join(map(": ".join, check(seq2attn.recipe.read(recipe(images)), device="cpu")))
    for line in ("vocabulary: 2 classes", "classes: blue 12, red 12", "features: pixels, averaged to 8x8",
                 " images/s on cpu", "decoding: 8 examples"):  # fmt: skip
        assert line in lines, lines


def test_batch_norm_under_a_gradient_penalty_is_warned_of(images: Path) -> None:
    for norm, loss, count in (("batch", "wgan_gp", 1), ("group", "wgan_gp", 0), ("batch", "hinge", 0)):
        settings = [f"model.discriminator.norm={norm}", f"training.loss={loss}"]
        warnings = [*ImageGenerationTask.warnings(seq2attn.recipe.read(recipe(images), settings))]
        assert sum("with batch norm a score depends" in line for line in warnings) == count


FAULTS = {
    "data.size=null": "data.size: generated images have one size",
    "data.size=10": "model.generator.sizes: 2 sizes are for images of a multiple of 4 pixels, and data.size is 10x10",
    "data.normalize={mean: [0, 0, 0], std: [1, 1, 1]}": "data.normalize: generated pixels are from -1 to 1",
    "data.augment=[mixup]": "data.augment: the model would learn to generate mixed images",
    "model.generator.norm=none": "model.generator.norm: in a conditional model the norm brings in the class",
    "model.generator.blocks=[{block: se, grid: 5}]": "expected the height of a grid of this network, 2, 4, 8; got 5",
    "model.discriminator.blocks=[{block: se, grid: 8}]": "of this network, 4, 2; got 8",
    "model.generator.blocks=[{block: se, grid: 4, ratoi: 2}]": "unknown key 'ratoi' (did you mean ratio?",
    "model.generator.blocks=[{block: danet, size: 9, grid: 4}]": "this grid has 6 channels",
    "training.metric=top-1": "training.metric: unknown 'top-1' (one of loss, frechet, kernel",
    "training.metrics=[class-entropy]": "training.features: class-entropy needs a classifier",
    "training.features=absent": "training.features: no such folder",
    "training.loss=wgan": "unknown 'wgan'",
}


@pytest.mark.parametrize("override", sorted(FAULTS))
def test_a_fault_of_a_recipe_is_named(override: str, images: Path) -> None:
    with pytest.raises(Seq2attnError) as caught:
        seq2attn.recipe.read(recipe(images), [override])
    assert FAULTS[override] in str(caught.value)


# ---- networks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(GENERATORS))
@pytest.mark.parametrize(("side", "sizes"), [(28, [4, 3]), (32, [6, 4, 3]), (64, [6, 5, 4, 3])])
def test_a_generator_makes_what_a_discriminator_reads(kind: str, side: int, sizes: list[int]) -> None:
    form = Form(sizes, 3, side, 2 * side, "batch", True, 3)
    generator = GENERATORS[kind](7, form).eval()
    discriminator = DISCRIMINATORS[kind](form._replace(sizes=sizes[::-1], norm="none")).eval()
    latents, labels = torch.randn(2, 7), torch.tensor([0, 2])
    images = generator(latents, labels)
    assert images.shape == (2, 3, side, 2 * side) and images.abs().max() <= 1
    assert form.base == (side // 2 ** len(sizes), side // 2 ** (len(sizes) - 1))
    assert discriminator(images, labels).shape == (2,)
    assert_close(
        generator(latents[1:], labels[1:]), images[1:], rtol=0, atol=1e-5
    )  # of its batch it knows nothing
    with pytest.raises(Seq2attnError, match="it needs the label of each image"):
        discriminator(images)


def test_both_players_learn_of_the_class() -> None:
    model = pair()
    with torch.no_grad():
        for part in model.generator.modules():
            if isinstance(part, torch.nn.Embedding):
                part.weight.normal_()
    latents, images = torch.randn(1, 5).expand(2, 5), torch.rand(1, 1, 8, 8).expand(2, 1, 8, 8)
    one, other = model.generator(latents, torch.tensor([0, 1]))
    assert not torch.allclose(one, other)
    scores, head = model.discriminator(images, torch.tensor([0, 1])), model.discriminator.head
    difference = head.embedding.weight[1] - head.embedding.weight[0]
    assert_close(scores[1] - scores[0], difference @ model.discriminator.vectors(images)[0])


# ---- generating ------------------------------------------------------------------------------------------


def test_an_image_is_a_function_of_seed_and_number(model: ImageGenerator) -> None:
    images = model.generate(70, seed=5)  # more than a batch
    again = model.generate(3, seed=5)
    assert [str(image) for image in again] == [f"seed 5, image {n}, {[*COLOURS][n % 2]}" for n in range(3)]
    for one, other in zip(images, again, strict=False):
        assert np.array_equal(one.latent, other.latent)
        assert (
            np.abs(one.pixels.astype(int) - other.pixels).max() <= 1
        )  # a rounding in batches of other sizes
    assert images[0].pixels.shape == (8, 8, 3) and images[0].pixels.dtype == np.uint8
    assert not np.array_equal(images[0].latent, model.generate(1, seed=6)[0].latent)
    assert {image.label for image in model.generate(4, label="red")} == {"red"}
    assert all(np.abs(image.latent).max() <= 0.3 for image in model.generate(20, truncation=0.3))
    assert images[0].to_json()["label"] == "blue" and "<img" in images[:2]._repr_html_()


def test_truncated_numbers_are_those_of_the_normal_distribution_that_are_not_beyond() -> None:
    numbers = latent_vectors(1, range(400), 50, truncation=1.0).flatten()
    assert numbers.abs().max() <= 1
    assert numbers.var().item() == pytest.approx(0.2911, abs=0.01)  # 1 - 2 phi(1) / (2 Phi(1) - 1)


def test_between_two_latent_vectors_lies_an_arc(model: ImageGenerator) -> None:
    start, end = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    arc = between(start, end, torch.tensor([0.0, 1 / 3, 1.0]))
    assert_close(arc, torch.tensor([[2.0, 0.0], [3**0.5, 1.0], [0.0, 2.0]]))
    assert_close(between(start, 2 * start, torch.tensor([0.5])), torch.tensor([[3.0, 0.0]]))
    images = model.interpolate(2, 3, seed=4)
    ends = model.generate(4, seed=4)
    assert [image.label for image in images] == ["blue"] * 3 + ["red"] * 3
    for image, number in zip((images[0], images[2], images[3], images[5]), range(4), strict=True):
        np.testing.assert_allclose(image.latent, ends[number].latent, atol=1e-6)


def test_what_cannot_be_generated_is_named(run: Path, model: ImageGenerator, tmp_path: Path) -> None:
    for call, fault in (
        (lambda: model.generate(0), "expected count from 1"), (lambda: model.generate(1.5), "the number of images"),
        (lambda: model.generate(seed=-1), "a seed from 0 on"), (lambda: model.generate(truncation=0.0), "at least 0.01"),
        (lambda: model.generate(label="green"), "unknown class 'green': this model has blue, red"),
        (lambda: model.interpolate(2, 1), "expected columns from 2"),
        (lambda: model.classify("a.png"), "not to classify: use its method generate"),
        (lambda: ImageGenerator(pair(classes=False), seq2attn.recipe.read(recipe_of(run)).data).generate(label="ant"),
         "without classes"),
    ):  # fmt: skip
        with pytest.raises(Seq2attnError, match=fault):
            call()
    with pytest.raises(Seq2attnError, match=r"ends in \.png, got 'x\.jpg'"):
        model.generate(1)[0].save(tmp_path / "x.jpg")
    status, error = tiny_cli.fails("generate", str(run), "-o", "sheet.jpg")
    assert status == 2 and "ends in .png" in error


def recipe_of(run: Path) -> Path:
    return run / "recipe.yaml"


def test_generate_writes_sheets_and_files(run: Path, model: ImageGenerator, tmp_path: Path) -> None:
    file, folder = tmp_path / "sheet.png", tmp_path / "each"
    folder.mkdir()
    given = ["generate", str(run), "--seed", "3", "--device", "cpu"]
    one_sheet = [*given, "--columns", "4", "-o", str(file)]
    assert tiny_cli.run(*one_sheet, "--count", "6", "--class", "red").output == f"{file}\n"
    expected = sheet([image.pixels for image in model.generate(6, 3, "red")], 4)
    assert np.array_equal(np.asarray(Image.open(file)), expected)
    assert expected.shape == (2 * 58 + 2, 4 * 58 + 2, 3)  # each pixel is a square of 7 x 7
    tiny_cli.run(*one_sheet, "--count", "8", "--interpolate")
    expected = sheet([image.pixels for image in model.interpolate(2, 4, 3)], 4)
    assert np.array_equal(np.asarray(Image.open(file)), expected)
    status, message = tiny_cli.fails(*one_sheet, "--count", "3", "--interpolate")
    assert status == 2 and "as a multiple of --columns, 4; got 3" in message
    printed = tiny_cli.run(*given, "-o", str(folder), "--count", "2", "--format", "json").output
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [(line["file"], line["label"]) for line in lines] == [
        (str(folder / f"{number}.png"), label) for number, label in enumerate(["blue", "red"])
    ]
    for line in lines:
        Path(line["file"]).unlink()
    tiny_cli.run(*given, "-o", str(folder), "--count", "11")
    assert sorted(path.name for path in folder.iterdir()) == [f"{number:02}.png" for number in range(11)]


def test_heat_maps_show_where_both_players_look(
    run: Path, model: ImageGenerator, images: Path, tmp_path: Path
) -> None:
    maps, name = model.maps(3), "grid 4, nonlocal: affinity"
    assert [*maps] == [f"generator, {name}", f"discriminator, {name}"]
    for map in maps.values():
        assert map.grid == (4, 4) and map.keys == (2, 2)
        assert_close(map.weights.sum(-1), torch.ones(1, 1, 16))
    assert np.array_equal(maps.pixels, model.generate(1, 3)[0].pixels)
    real = model.maps(images / "test0.png")
    assert [*real] == [f"discriminator, {name}"]
    file, numbers = tmp_path / "map.png", tmp_path / "map.json"
    shown = tiny_cli.run(
        "heatmap", str(run), "--seed", "3", "--query", "5,2", "-o", str(file), "--device", "cpu"
    )
    assert shown.output == f"seed 3, image 0, blue\n{file}\n" and file.read_bytes()[:4] == b"\x89PNG"
    tiny_cli.run("heatmap", str(run), str(images / "test0.png"), "-o", str(numbers), "--device", "cpu")
    assert [part["keys"] for part in json.loads(numbers.read_text())["maps"]] == [[2, 2]]
    assert isinstance(model.plot(2, file), GeneratedImage)
    plain = ImageGenerator(pair(blocks=False), seq2attn.recipe.read(recipe_of(run)).data)
    with pytest.raises(Seq2attnError, match="this model has no attention"):
        plain.maps(1)
    status, error = tiny_cli.fails("heatmap", str(run))
    assert status == 2 and "--seed" in error
    status, error = tiny_cli.fails("heatmap", str(tiny_runs.MODEL), "--seed", "1")
    assert status == 1 and "--seed is for models that generate images" in error


# ---- scores ----------------------------------------------------------------------------------------------


def test_scores_stand_beside_their_floor(run: Path) -> None:
    lines = tiny_cli.run("score", str(run), "--device", "cpu").output.splitlines()
    for name in ("training images", "noise of 0.1"):
        assert any(line.startswith(f"{name}: FD(pixels8x8) = ") for line in lines), lines
    assert any(line.startswith("FD(pixels8x8) = ") for line in lines)
    assert "features:pixels8x8|n:12|real:12" in "\n".join(lines)
    report = json.loads(tiny_cli.run("score", str(run), "--device", "cpu", "--format", "json").output)
    own, floor = report["scores"][0], report["baselines"]["training images"][0]
    assert floor["value"] < own["value"]
    again = json.loads(tiny_cli.run("score", str(run), "--device", "cpu", "--format", "json").output)
    assert again == report


def test_features_are_those_of_a_classifier_that_is_named(run: Path, images: Path, tmp_path: Path) -> None:
    sections = recipe(images) | {"name": "eye", "task": "image_classification"}
    sections["model"] = {"backbone": {"kind": "convolutional", "sizes": [4]}}
    sections["training"] = {"batch_images": 8, "max_steps": 6}
    eye = train(sections, tmp_path / "eye").run
    version = RunFolder.open(eye).version
    name = f"eye@{version.checksums[f'weights/{version.best}'][:6]}"
    words = ["score", str(run), "--features", str(eye), "--device", "cpu", "--metric", "frechet", "--metric"]
    output = tiny_cli.run(*words, "class-entropy").output
    assert f"FD({name}) = " in output and f"class-entropy({name}) = " in output and "FID" not in output
    status, error = tiny_cli.fails("score", str(run), "--features", str(run))
    assert status == 1 and "features are those of image_classification" in error
    status, error = tiny_cli.fails("score", str(eye), "--features", str(eye))
    assert status == 1 and "--features are for models that generate images" in error


def test_classes_are_the_names_that_a_network_was_built_with() -> None:
    assert pair().labels == [*CLASSES] and pair(classes=False).labels == []
