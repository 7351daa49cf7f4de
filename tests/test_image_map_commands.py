"""Maps of images by the command line, as JSON, and in a notebook."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_cli import MODEL, fails, run
from tiny_runs import silent
from torch.testing import assert_close

import seq2attn
from seq2attn.cli.heatmap import heatmap
from seq2attn.inference.predictor import MAPS
from seq2attn.runs.training_run import train

PIXELS = np.random.default_rng(3).integers(0, 256, (18, 24, 1), np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates, and an image beside it."""
    path = tmp_path_factory.mktemp("digits")
    network = ["model.backbone={kind: convolutional, sizes: [4, 8], blocks: [{block: cbam, at: after}]}"]
    rows = [f"data.{role}.limit=20" for role in ("train.0", "dev", "test")]
    short = ["training.max_steps=2", "training.max_epochs=null", "training.validate_every=2"]
    train(
        "digits",
        path / "run",
        [*network, *rows, *short, "model.pooling={kind: attention}"],
        display=silent(),
    )
    Image.fromarray(PIXELS[..., 0]).save(path / "owl.png")
    return path


def test_the_command_draws_an_image(trained: Path, tmp_path: Path) -> None:
    words = [str(trained / "run"), str(trained / "owl.png")]
    path = tmp_path / "map.svg"
    label, written = run("heatmap", *words, "-o", str(path)).stdout.splitlines()
    assert label in map(str, range(10)) and written == str(path)
    assert re.findall(r">(pooling|Grad-CAM|stage)", path.read_text()) == ["pooling"]
    run("heatmap", *words, "-o", str(path), "--map", "gradcam", "--target", "4", "--scale", "fixed")
    assert ">Grad-CAM of 4<" in path.read_text()
    run("heatmap", *words, "-o", str(tmp_path / "all.png"), "--map", "all")
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


def test_json_has_the_numbers(trained: Path, tmp_path: Path) -> None:
    image, path = trained / "owl.png", tmp_path / "maps.json"
    run("heatmap", str(trained / "run"), str(image), "-o", str(path), "--map", "all")
    report = json.loads(path.read_text())
    maps = seq2attn.load(trained / "run", device="cpu").maps(image)
    assert report["image"] == str(image) and report["label"] in report["probabilities"]
    assert [entry["name"] for entry in report["maps"]] == [*maps]
    for entry in report["maps"]:
        map = maps[entry["name"]]
        assert (entry["kind"], tuple(entry["grid"])) == (map.kind, map.grid)
        assert_close(torch.tensor(entry["weights"]), map.weights[0], atol=1e-5, rtol=1e-4)


def test_the_command_says_what_is_wrong(trained: Path, tmp_path: Path) -> None:
    words, out = [str(trained / "run"), str(trained / "owl.png")], ["-o", str(tmp_path / "map.png")]
    for more, message in [
        (["--layer", "1", *out], "layer: only for models of texts: leave it out"),
        (["--self", "--pieces", *out], "pieces, self_attention: only for models of texts: leave them out"),
        (["--beam", "2", *out], "beam: only for models that write text"),
        (["--target", "cat", *out], "unknown label 'cat': this model has 1, 2"),
        (["-o", str(tmp_path / "map.gif")], ".png, .svg or .pdf"),
        (["-o", str(tmp_path / "missing" / "map.json")], "there is no folder"),
    ]:
        status, error = fails("heatmap", *words, *more)
        assert (status, message in error) == (1, True), error
    status, error = fails("heatmap", words[0], str(tmp_path / "none.png"), *out)
    assert (status, "none.png: cannot be read" in error) == (1, True)
    for query in ("3", "a,b", "1,2,3"):
        status, error = fails("heatmap", *words, "--query", query)
        assert (status, "expected two numbers, as in 14,9" in error) == (2, True)


def test_options_of_images_are_refused_by_models_of_texts(tmp_path: Path) -> None:
    out = ["-o", str(tmp_path / "map.png")]
    for more, message in [
        (["--map", "all"], "map: only for models of images"),
        (["--query", "1,2", "--at", "stage 1"], "at, query: only for models of images"),
        (["--scale", "range"], "the scale range is only for models of images"),
    ]:
        status, error = fails("heatmap", MODEL, "Ja.", *more, *out)
        assert (status, message in error) == (1, True), error


def test_the_command_has_every_map() -> None:
    (option,) = (parameter for parameter in heatmap.params if parameter.name == "kind")
    assert tuple(option.type.choices) == MAPS


class _Sources(HTMLParser):
    """The attributes of the images of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))


def test_a_result_shows_its_image(trained: Path, tmp_path: Path) -> None:
    result = seq2attn.load(trained / "run", device="cpu").classify(trained / "owl.png")
    page = _Sources()
    page.feed(result._repr_html_())
    (image,) = page.images
    content = base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), PIXELS[..., 0])
    assert (image["alt"], image["width"], image["height"]) == (result.label, "96", "72")
    figure = result.plot(tmp_path / "result.png")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0].startswith(f"{result.label}, probability 0.") and titles[1].startswith("pooling\n")
    assert (tmp_path / "result.png").read_bytes().startswith(b"\x89PNG")
