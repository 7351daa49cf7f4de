"""What a page of the viewer shows of taggers, classifiers and networks of images, none of them trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pages
import tiny_words
import torch
from numpy.testing import assert_allclose

from seq2attn.attention.blocks import Map
from seq2attn.errors import Seq2attnError
from seq2attn.inference.image_maps import ImageMaps, image_maps
from seq2attn.inference.recognizer import Categorizer, Recognizer
from seq2attn.inference.viewing import map_of_image
from seq2attn.models.tagger_factory import build_tagger
from seq2attn.models.vision.factory import build_image_classifier
from seq2attn.recipe import ClassifierRecipe, TaggerRecipe
from seq2attn.recipe.vision_model import ImageClassifierRecipe
from seq2attn.text.word_vocabulary import Labels, WordVocabulary
from seq2attn.views.viewer.packing import unpacked

TEXT = "Bo went to Oslo."
ATTENTION = {"attention": {"heads": 2, "score": "scaled_dot"}, "encoder": tiny_words.TRANSFORMER}
POOLING = {"pooling": {"kind": "attention", "queries": 3}, "encoder": tiny_words.TRANSFORMER}


def recognizer() -> Recognizer:
    words, labels = WordVocabulary.learn([TEXT]), Labels(tiny_words.LABELS, "bio")
    recipe = TaggerRecipe.model_validate({**tiny_words.TINY, **ATTENTION})
    torch.manual_seed(1)
    network = build_tagger(recipe, words.size, len(words.characters) + 2, tiny_words.LABELS, "bio")
    return Recognizer(network, words, labels)


def categorizer() -> Categorizer:
    words, labels = WordVocabulary.learn([TEXT]), Labels(["ham", "spam"])
    recipe = ClassifierRecipe.model_validate({**tiny_words.TINY, **POOLING})
    torch.manual_seed(1)
    return Categorizer(
        build_tagger(recipe, words.size, len(words.characters) + 2, labels.names, None), words, labels
    )


def test_a_page_shows_the_heads_of_a_tagger(tmp_path: Path) -> None:
    model = recognizer()
    result = model.tag(TEXT)
    (entry,) = model.view(TEXT, tmp_path / "page.html", self_attention=True).items[0].entries
    own, encoder = entry.outputs[0].groups
    assert entry.source.words == [word.text for word in result.words] and own.rows == result.rows
    assert_allclose(own.layers[0].weights.mean(0), result.weights, atol=1e-6)
    assert [layer.weights.shape for layer in encoder.layers] == [(2, 5, 5)] * 2
    tiny_pages.validated((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert tiny_pages.data_of(result._repr_html_()) == tiny_pages.validated(result.view().html())
    with pytest.raises(Seq2attnError, match="a target is for models that write text"):
        model.view(TEXT, target="O")


def test_a_page_shows_the_queries_and_labels_of_a_classifier() -> None:
    model = categorizer()
    result = model.classify(TEXT)
    (entry,) = model.view(TEXT).items[0].entries
    (output,) = entry.outputs
    assert output.text.startswith(f"{result.label} 0.") and dict(output.steps[0].top) == result.probabilities
    assert_allclose(output.groups[0].layers[0].weights[:, 0], result.weights, atol=1e-6)
    assert tiny_pages.data_of(result._repr_html_()) == tiny_pages.validated(result.view().html())
    plain = model.classify(TEXT, weights=False)
    with pytest.raises(Seq2attnError, match="this annotation has no weights"):
        plain.view()
    assert plain._repr_html_().startswith("<div")


def test_a_page_has_every_map_of_an_image() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (18, 24, 1), np.uint8)
    blocks = [{"block": name, "at": "after"} for name in ("cbam", "cam", "pam")]
    recipe = {
        "backbone": {"kind": "convolutional", "sizes": [4], "blocks": blocks},
        "pooling": {"kind": "attention"},
    }
    torch.manual_seed(7)
    network = build_image_classifier(ImageClassifierRecipe.model_validate(recipe), 1, ["cat", "owl"]).eval()
    given = torch.tensor(pixels).permute(2, 0, 1)[None] / 128.0 - 1
    maps = ImageMaps(pixels, "owl", image_maps(network, given).maps, "owl")
    page = tiny_pages.page(maps.entry("owl.png")).html()
    (entry,) = tiny_pages.validated(page)["items"][0]["of"]
    shown = {one["name"]: one for one in entry["outputs"][0]["maps"]}
    assert [*shown] == [*maps] and entry["image"]["name"] == "owl.png"
    assert {one["kind"] for one in shown.values()} == {"place", "channel", "matrix"}
    for name, map in maps.items():
        low, high = shown[name]["range"]
        if map.kind in ("affinity", "place"):
            expected = map.weights[0] if map.kind == "affinity" else map.weights[0].mean(0).reshape(1, 1, -1)
            assert_allclose(unpacked(shown[name]), expected, atol=(high - low) / 500 + 1e-6)
            assert shown[name].get("queries") == ([*map.grid] if map.keys else None)


@pytest.mark.parametrize(
    ("kind", "shape"), [("channel", (1, 3, 1, 1)), ("branch", (1, 4, 3)), ("channels", (1, 3, 3))]
)
def test_maps_of_channels_are_bars_or_a_matrix(kind: Any, shape: tuple[int, ...]) -> None:
    made = map_of_image("name", Map(kind, torch.rand(shape), (1, 1)), False)
    expected = {
        "channel": ("channel", (1, 1, 3)),
        "branch": ("channel", (1, 4, 3)),
        "channels": ("matrix", (1, 3, 3)),
    }
    assert (made.kind, np.shape(made.weights)) == expected[kind]


def test_of_very_many_places_the_mean_of_all_that_ask_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    affinity = Map("affinity", torch.rand(1, 2, 6, 4), (2, 3), (2, 2))
    assert map_of_image("name", affinity, False).queries == (2, 3)
    monkeypatch.setattr("seq2attn.inference.viewing._AFFINITIES", 40)
    made = map_of_image("name", affinity, False)
    assert made.queries is None
    assert_allclose(made.weights, affinity.weights[0].mean(1, keepdim=True))
