"""Routes of images, of tags and of labels: results are those of the models, in JSON and as files."""

import io
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_serving import base64, client, image_predictors, label_predictors, png

pytest.importorskip("fastapi")

from seq2attn.images.decoding import ImageReader
from seq2attn.serving.image_works import TooLargeError, decoded
from seq2attn.serving.limits import Limits

KEYS = {"caption": "captions", "detect": "images", "segment": "images", "classify": "categories"}
FILES = [png(20, 30), png(24, 18, seed=2), png(9, 9, 4, seed=3)]


@pytest.fixture(scope="module")
def served() -> Iterator[Any]:
    with client(image_predictors(), Limits(images=4, pixels=40 * 40)) as opened:
        yield opened


def pixels(content: bytes) -> Any:
    return Image.open(io.BytesIO(content))


@pytest.mark.filterwarnings("ignore::seq2attn.errors.LengthWarning")
@pytest.mark.parametrize("command", KEYS)
def test_files_and_base64_give_the_results_of_the_model(served: Any, command: str) -> None:
    files = [("image", (f"{n}.png", content, "image/png")) for n, content in enumerate(FILES)]
    options = {"threshold": "0"} if command == "detect" else {}
    as_files = served.post(f"/v1/{command}", files=files, data=options)
    assert as_files.status_code == 200, as_files.text
    body: dict[str, Any] = {"images": [base64(content) for content in FILES]}
    as_json = served.post(f"/v1/{command}", json={**body, **({"threshold": 0} if options else {})})
    entries = as_files.json()[KEYS[command]]
    assert entries == as_json.json()[KEYS[command]] and len(entries) == 3
    model: Any = image_predictors()[command]
    named = {name: float(value) for name, value in options.items()}
    for entry, content in zip(entries, FILES, strict=True):
        result = getattr(model, command)(pixels(content), **named)
        if command == "caption":
            assert entry["text"] == result.text and entry["score"] == pytest.approx(result.score, abs=1e-5)
        elif command == "segment":
            mask = np.array(Image.open(io.BytesIO(b64decode(entry["mask"]))))
            assert (mask == result.mask).all() and entry["shares"] == result.to_json()["shares"]
        elif command == "detect":
            assert [one["label"] for one in entry["objects"]] == [one.label for one in result.objects]
            assert entry["objects"] and (entry["height"], entry["width"]) == result.pixels.shape[:2]
        else:
            assert entry["label"] == result.label
            assert entry["probabilities"] == pytest.approx(result.to_json()["probabilities"], abs=1e-3)


@pytest.mark.filterwarnings("ignore::seq2attn.errors.LengthWarning")
@pytest.mark.parametrize("command", KEYS)
def test_maps_show_where_the_model_looks(served: Any, command: str) -> None:
    body = {"image": base64(FILES[1]), "maps": True}
    (entry,) = served.post(f"/v1/{command}", json=body).json()[KEYS[command]]
    model: Any = image_predictors()[command]
    names = [one["name"] for one in entry["maps"]]
    veils = [np.array(pixels(b64decode(one["image"]))) for one in entry["maps"]]
    if command == "caption":
        caption = model.caption(pixels(FILES[1]))
        maps, read = [*zip(caption.words, caption.alignment, strict=True)], caption.pixels
        assert names == caption.words
    else:
        found = model.maps(pixels(FILES[1]))
        maps, read = [(name, found[name].weights[0].mean(0)) for name in names], found.pixels
    assert (np.array(pixels(b64decode(entry["seen"]))).reshape(read.shape) == read).all()
    for (_, weights), veil in zip(maps, veils, strict=True):
        assert veil.ndim == 3 and veil.shape[2] == 4
        if veil.shape[:2] == weights.shape:  # else the mean of all places that ask
            opacity = veil[..., 3]
            assert (
                opacity.flatten()[int(weights.argmax())] == opacity.max() == (255 if weights.max() > 0 else 0)
            )
    assert names or command in ("segment", "detect")


@pytest.mark.filterwarnings("ignore::seq2attn.errors.LengthWarning")
def test_captions_begin_with_a_prefix_and_their_maps_are_of_its_words_too(served: Any) -> None:
    body = {"image": base64(FILES[1]), "prefix": "Tom is", "maps": True}
    (entry,) = served.post("/v1/caption", json=body).json()["captions"]
    model: Any = image_predictors()["caption"]
    result = model.caption(pixels(FILES[1]), prefix="Tom is")
    assert entry["text"] == result.text and result.text.startswith("Tom is")
    assert [one["name"] for one in entry["maps"]] == result.words
    with client({"caption": model}, Limits(timeout=0.05), started=False) as idle:  # before it waits
        answer = idle.post("/v1/caption", json={**body, "prefix": "Tom " * 7})
    assert answer.status_code == 422 and "outputs at most 6" in answer.json()["error"]


def test_images_are_generated_by_seed_and_number(served: Any) -> None:
    answer = served.post("/v1/generate", json={"count": 3, "seed": 5, "label": "bee"}).json()
    model: Any = image_predictors()["generate"]
    for entry, image in zip(answer["images"], model.generate(3, 5, "bee"), strict=True):
        shown = np.array(Image.open(io.BytesIO(b64decode(entry["image"]))))
        assert (shown == image.pixels[:, :, 0]).all() and entry["label"] == "bee"
    assert "unknown class" in served.post("/v1/generate", json={"label": "emu"}).json()["error"]


def test_words_are_tagged_and_texts_labelled() -> None:
    models = label_predictors()
    with client(models) as served:
        texts = ["Anna went to Rome .", "", "to to Anna"]
        for command, key in (("tag", "annotations"), ("classify", "categories")):
            answer = served.post(f"/v1/{command}", json={"texts": texts, "weights": True})
            assert answer.status_code == 200, answer.text
            for entry, result in zip(
                answer.json()[key], getattr(models[command], command)(texts), strict=True
            ):
                told = result.to_json()
                assert {name: entry[name] for name in told if name != "probabilities"} == {
                    name: value for name, value in told.items() if name != "probabilities"
                }
                assert ("weights" in entry) == (result.weights is not None)
        assert (
            "classify reads texts"
            in served.post("/v1/classify", json={"image": base64(FILES[0])}).json()["error"]
        )


def test_images_that_the_model_refuses_are_refused_before_they_wait() -> None:
    content = png(40, 30)
    assert decoded(content, ImageReader("grey", most=1200), 5000).shape == (40, 30, 1)
    for most, limit in ((1199, 5000), (None, 1199), (5000, 1199)):
        with pytest.raises(TooLargeError, match="30 x 40: expected at most 1,199 pixels"):
            decoded(content, ImageReader("grey", most=most), limit)
