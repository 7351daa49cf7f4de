"""Images that cannot be read, among others that can: they are named, and results of those before are not lost."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import seq2attn.tasks.loading
from seq2attn.cli import cli
from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import ImageError
from seq2attn.inference.image_categorizer import ImageCategorizer
from seq2attn.models.vision.factory import build_image_classifier
from seq2attn.recipe import read
from seq2attn.text.word_vocabulary import Labels

PIXELS = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def model() -> ImageCategorizer:
    """A model that was not trained."""
    network = {"backbone": {"kind": "convolutional", "sizes": [4]}, "pooling": {"kind": "mean"}}
    corpora = {"train": {"sample": "digits"}, "dev": {"sample": "digits"}, "channels": "rgb"}
    ends = {"max_steps": 1, "learning_rate": 0.1}
    recipe = read({"task": "image_classification", "data": corpora, "model": network, "training": ends})
    data = recipe.data.fitted([0.0] * 3, [1.0] * 3, 1)  # type: ignore[union-attr]
    torch.manual_seed(1)
    labels = Labels(["no", "yes"])
    return ImageCategorizer(build_image_classifier(recipe.model, 3, labels.names), labels, data)  # type: ignore[arg-type]


def test_results_before_an_image_that_cannot_be_read_are_printed(
    model: ImageCategorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seq2attn.tasks.loading, "load_for", lambda *words: model)
    good = [str(tmp_path / f"{number}.png") for number in range(2)]
    for name in good:
        Image.fromarray(PIXELS).save(name)
    (tmp_path / "mine.yaml").write_text("no image")
    result = CliRunner().invoke(
        cli, ["classify", "run", *good, str(tmp_path / "mine.yaml"), "--format", "json"]
    )
    assert [json.loads(line)["image"] for line in result.stdout.splitlines()] == good
    assert isinstance(result.exception, ImageError) and str(tmp_path / "mine.yaml") in str(result.exception)


@pytest.mark.parametrize(
    ("wrong", "which"),
    [([None, PIXELS], r"images\[0\]"), ([PIXELS, PIXELS, None], r"images\[2\]"), ([None], "the image"), (None, "the image")],
)  # fmt: skip
def test_what_is_no_image_has_its_index(model: ImageCategorizer, wrong: Any, which: str) -> None:
    with pytest.raises(Seq2attnError, match=f"^{which}: expected the path of an image, .* got NoneType$"):
        model.classify(wrong)
