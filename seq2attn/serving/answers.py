"""Results as the JSON that clients get."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.alignment.aligned_pair import AlignedPair
from seq2attn.images.decoding import Pixels
from seq2attn.inference.captions import Caption
from seq2attn.inference.found_objects import FoundObjects
from seq2attn.inference.image_categorizer import ImageCategory
from seq2attn.inference.image_generator import GeneratedImage
from seq2attn.inference.label_results import Annotation, Category
from seq2attn.inference.results import Translation
from seq2attn.inference.segmentations import Segmentation
from seq2attn.views.masks import mask_png
from seq2attn.views.sheets import png

_COLOUR = (255, 96, 0)  # of maps


def written(result: Translation, cut: bool, alignment: bool, weights: bool) -> dict[str, Any]:
    """Return a translation or a summary.

    cut: whether only the beginning of the source was read; alignment: with the words of both texts; weights:
    also with the attention of each word.
    """
    entry: dict[str, Any] = {"text": result.text, **_scores(result), "cut": cut}
    if alignment and result.alignment is not None:
        linked: list[list[int]] = [[] for _ in result.words]
        for link in result.links():
            linked[link.target].append(link.source)
        probabilities = [] if result.probabilities is None else rounded(result.probabilities)
        entry["words"] = [
            {"text": word, "probability": probability, "sources": sources}
            for word, probability, sources in zip(result.words, probabilities, linked, strict=True)
        ]
        entry["source_words"] = result.source_words
        entry["alignment"] = result.pharaoh()
        if weights:
            entry["weights"], entry["end_of_sentence"] = (
                rounded(result.alignment),
                rounded(result.end_of_sentence),
            )
    return {**entry, **_alternatives(result)}


def joined(texts: Sequence[tuple[str, str]], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the result of a text whose sentences were translated one by one. texts: see `in_sentences`."""
    text = "".join(result["text"] + after for (_, after), result in zip(texts, results, strict=True))
    return {"text": text, **_limits(results), "sentences": [*results]}


def marked(text: str, results: Sequence[Translation], cut: Sequence[bool]) -> dict[str, Any]:
    """Return a translation with markup. cut: of each sentence, whether only its beginning was read."""
    limits = [{"cut": one, "truncated": result.truncated} for one, result in zip(cut, results, strict=True)]
    return {"text": text, **_limits(limits)}


def _limits(results: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """Return whether any sentence was longer than the model reads, or its result has the largest length."""
    return {name: any(result[name] for result in results) for name in ("cut", "truncated")}


def aligned(result: AlignedPair, threshold: float | None) -> dict[str, Any]:
    """Return links between the words of a pair."""
    links = result.links(threshold)
    return {**result.to_json(links), "alignment": " ".join(map(str, links))}


def labelled(result: Annotation | Category, cut: bool) -> dict[str, Any]:
    """Return tags, or a label."""
    weights = {} if result.weights is None else {"weights": rounded(result.weights)}
    words = {"words": [word.text for word in result.words]}
    return {**words, **result.to_json(), **weights, "cut": cut}


def captioned(result: Caption) -> dict[str, Any]:
    """Return a text that was written from an image."""
    entry: dict[str, Any] = {"text": result.text, **_scores(result)}
    if result.alignment is not None:
        entry["words"] = result.words
        entry["weights"] = rounded(result.alignment)
    return {**entry, **_alternatives(result)}


def found(result: FoundObjects) -> dict[str, Any]:
    """Return the objects in an image."""
    height, width = result.pixels.shape[:2]
    return {"width": width, "height": height, "objects": result.to_json()["objects"]}


def segmented(result: Segmentation, mask: bool) -> dict[str, Any]:
    """Return the classes of pixels; with `mask`, as a PNG file with a palette."""
    entry = _unnamed(result.to_json())
    entry["classes"] = [
        {"name": name, "color": list(color)}
        for name, color in zip(result.classes, result.colors, strict=True)
    ]
    return {**entry, "mask": _base64(mask_png(result.mask, result.colors))} if mask else entry


def labelled_image(result: ImageCategory) -> dict[str, Any]:
    """Return the label of an image."""
    return _unnamed(result.to_json())


def looked_at(pixels: Pixels, maps: Sequence[tuple[str, Tensor]]) -> dict[str, Any]:
    """Return an image as the model reads it, and maps over it, whose opacity is the weight, as PNG files."""
    return {
        "seen": _base64(png(pixels)),
        "maps": [
            {"name": name, "image": _base64(png(_veil(weights.float().numpy())))} for name, weights in maps
        ],
    }


def _veil(weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return pixels (rows, columns, 4) of one colour: the largest weight is opaque, 0 or less clear."""
    opacity = weights.clip(0) / max(float(weights.max(initial=0)), 1e-12)
    colour = np.broadcast_to(np.array(_COLOUR, np.uint8), (*weights.shape, 3))
    return np.concatenate([colour, (255 * opacity).astype(np.uint8)[..., None]], -1)


def generated(result: GeneratedImage) -> dict[str, Any]:
    """Return a new image, as a PNG file."""
    return {"name": result.name, "label": result.label, "image": _base64(png(result.pixels))}


def rounded(weights: Tensor | None) -> Any:
    """Return weights as nested lists, with four digits."""
    return None if weights is None else weights.double().round(decimals=4).tolist()


def _scores(result: Translation | Caption) -> dict[str, Any]:
    return {
        "score": round(result.score, 6),
        "log_probability": round(result.log_probability, 6),
        "truncated": result.truncated,
    }


def _alternatives(result: Translation | Caption) -> dict[str, Any]:
    """Return the next best results, if there are any."""
    others = [{"text": other.text, **_scores(other)} for other in result.others]
    return {"alternatives": others} if others else {}


def _unnamed(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of a result without the name of the image's file: there is none."""
    return {name: value for name, value in entry.items() if name != "image"}


def _base64(content: bytes) -> str:
    return b64encode(content).decode("ascii")
