"""A server within the test's process: tiny models, and a client."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import tiny_runs
from PIL import Image

from seq2attn.inference.predictor import Predictor
from seq2attn.serving.counters import Counters
from seq2attn.serving.limits import Limits
from seq2attn.serving.pairs import Pair
from seq2attn.serving.served_model import ServedModel
from seq2attn.serving.serving import Serving
from seq2attn.tasks.loading import load

LIMITS = Limits()
SENTENCES = [
    "Tom ist nicht hier.",
    "Wo ist Tom?",
    "Ich habe Hunger.",
    "Das ist ein Haus.",
    "Ich wei\u00df nicht, wo er gestern mit seinem Freund gewesen ist.",
    "Hilfe!",
    "",
    "Kommst du heute Abend mit uns ins Kino?",
]


@cache
def translator() -> Any:
    """The model that says something sensible."""
    return load(tiny_runs.MODEL, device="cpu")


@cache
def summarizer() -> Any:
    """The same model, for summaries."""
    from seq2attn.inference.translator import Summarizer

    return Summarizer(translator().generator, translator().decoding, translator().alignment)


def serving(
    predictors: Mapping[str, Predictor] | None = None,
    limits: Limits = LIMITS,
    languages: tuple[str, str] = ("de", "en"),
    **options: Any,
) -> Serving:
    """The state of a server with these predictors, by their names; if none are given, the translator."""
    counters = Counters()
    models = {
        name: ServedModel(
            name,
            predictor,
            limits,
            counters,
            "0123456789ab",
            [Pair(*languages)] if predictor.task == "translation" else (),
        )
        for name, predictor in (predictors or {"de-en": translator()}).items()
    }
    return Serving(models, limits, counters, **options)


@contextmanager
def client(
    predictors: Mapping[str, Predictor] | None = None,
    limits: Limits = LIMITS,
    started: bool = True,
    **options: Any,
) -> Iterator[Any]:
    """A client of such a server. Its models compute nothing if it is not started."""
    from fastapi.testclient import TestClient

    from seq2attn.serving.app import make_app

    state = serving(predictors, limits, **options)
    opened = TestClient(make_app(state), raise_server_exceptions=False)
    opened.serving = state  # type: ignore[attr-defined]
    with opened if started else nullcontext():
        yield opened


def png(*shape: int, seed: int = 1) -> bytes:
    """The content of a PNG file with noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(pixels).save(buffer := BytesIO(), "PNG")
    return buffer.getvalue()


def base64(content: bytes) -> str:
    return b64encode(content).decode()


@cache
def without_attention() -> Any:
    """An untrained translator whose decoder has no attention."""
    import tiny_recurrent
    import torch

    from seq2attn.recipe import RECIPES
    from seq2attn.tasks.registry import TASKS
    from seq2attn.text.vocabulary import Vocabulary

    torch.manual_seed(1)
    text = tiny_runs.MODEL / "text"
    vocabularies = [Vocabulary.load(text / f"{side}.model") for side in ("source", "target")]
    corpus = {"files": ["a", "b"]}
    sections = {
        "name": "plain",
        "data": {"languages": ["de", "en"], "train": corpus, "dev": corpus},
        "model": tiny_recurrent.model(None, order="cho"),
        "training": {"max_steps": 1},
        "decoding": {"max_length": 6},
    }
    task = TASKS["translation"](RECIPES["translation"].model_validate(sections), vocabularies)
    return task.predictor(task.build().eval(), torch.device("cpu"))


@cache
def image_predictors() -> dict[str, Predictor]:
    """Untrained models of all tasks of images, by their commands."""
    import tiny_adversarial
    import tiny_detector
    import torch

    from seq2attn.inference.detector import Detector
    from seq2attn.inference.image_generator import ImageGenerator
    from seq2attn.recipe import RECIPES
    from seq2attn.recipe.box_data import DetectionDataRecipe
    from seq2attn.recipe.image_generation import GenerationDataRecipe
    from seq2attn.tasks.registry import TASKS
    from seq2attn.text.vocabulary import Vocabulary
    from seq2attn.text.word_vocabulary import Labels

    torch.manual_seed(1)
    data = {
        "train": {"table": "x.jsonl"},
        "dev": {"table": "x.jsonl"},
        "normalize": {"mean": [0.4], "std": [0.3]},
    }
    grey = {**data, "channels": "grey"}
    backbone = {"kind": "convolutional", "sizes": [4, 6]}
    words = Vocabulary.load(tiny_runs.MODEL / "text" / "target.model")
    sections: dict[str, tuple[dict[str, Any], Any]] = {
        "classify": ({"task": "image_classification", "model": {"backbone": backbone}}, Labels(["cat", "dog"])),
        "segment": ({"task": "segmentation", "model": {"kind": "unet", "base": 4, "levels": 2}}, None),
        "caption": (
            {
                "task": "image_to_text",
                "decoding": {"max_length": 6},
                "model": {
                    "encoder": {"backbone": backbone, "size": 12},
                    "decoder": {"kind": "recurrent", "embedding": 8, "size": 12, "order": "bahdanau", "attention": {"score": "additive"}},
                },
            },
            words,
        ),
    }  # fmt: skip
    predictors: dict[str, Predictor] = {}
    for command, (section, coder) in sections.items():
        classes = {"classes": ["sky", "road"]} if command == "segment" else {}
        steps = {"learning_rate": 0.1, "max_steps": 1}
        whole = {"name": command, **section, "data": {**grey, **classes}, "training": steps}
        recipe = RECIPES[section["task"]].model_validate(whole)
        task = TASKS[recipe.task](recipe, *([] if coder is None else [coder]))
        predictors[command] = task.predictor(task.build().eval(), torch.device("cpu"))
    boxes = DetectionDataRecipe.model_validate(grey)
    predictors["detect"] = Detector(tiny_detector.detector("points").eval(), boxes)
    made = GenerationDataRecipe.model_validate(
        {**data, "normalize": None, "channels": "grey", "size": [8, 8]}
    )
    predictors["generate"] = ImageGenerator(tiny_adversarial.pair(), made)
    return predictors


@cache
def label_predictors() -> dict[str, Predictor]:
    """An untrained tagger and an untrained classifier."""
    import torch

    from seq2attn.inference.recognizer import Categorizer, Recognizer
    from seq2attn.models.tagger_factory import build_tagger
    from seq2attn.recipe import ClassifierRecipe, TaggerRecipe
    from seq2attn.text.word_vocabulary import Labels, WordVocabulary

    torch.manual_seed(1)
    words = WordVocabulary.learn(["Anna went to Rome ."])
    sizes = len(words.words) + 2, len(words.characters) + 2
    small = {"embedding": {"size": 7, "characters": {"kind": "lstm", "embedding": 5, "size": 3}}}
    tags, labels = Labels(["O", "B-PER", "I-PER"], "bio"), Labels(["ham", "spam"])
    attention = {**small, "attention": {"score": "additive"}}
    tagger = build_tagger(TaggerRecipe.model_validate(attention), *sizes, tags.names, "bio")
    classifier = build_tagger(ClassifierRecipe.model_validate(small), *sizes, labels.names, None)
    return {
        "tag": Recognizer(tagger.eval(), words, tags),  # type: ignore[arg-type]
        "classify": Categorizer(classifier.eval(), words, labels),  # type: ignore[arg-type]
    }
