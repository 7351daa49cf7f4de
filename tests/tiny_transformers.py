"""Transformers of many variants with random weights, and those that CTranslate2 does not have."""

from pathlib import Path
from typing import Any

import tiny_runs
import torch

from seq2attn.inference.translator import TextPredictor
from seq2attn.recipe import ModelRecipe, read
from seq2attn.tasks.sequence_tasks import TranslationTask
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.training.run_folder import RunFolder, Version, weights_of

HEADS = {"heads": 4}


def stack(causal: bool = False, **options: Any) -> dict[str, Any]:
    sizes = {"kind": "transformer", "size": 16, "layers": 2, "feed_forward": 24, "self_attention": HEADS}
    return {**sizes, **({"cross_attention": HEADS} if causal else {}), **options}


def both(**options: Any) -> dict[str, Any]:
    return {"encoder": stack(**options), "decoder": stack(causal=True, **options)}


def attentions(section: dict[str, Any]) -> dict[str, Any]:
    return {
        "encoder": stack(self_attention=section),
        "decoder": stack(causal=True, self_attention=section, cross_attention=section),
    }


VARIANTS: dict[str, dict[str, Any]] = {
    "pre": both(),
    "post": both(norm="post"),
    "pre and post, silu": {"encoder": stack(activation="silu"), "decoder": stack(causal=True, norm="post")},
    "learned, gelu": both(positions={"name": "learned", "length": 60}, activation="gelu"),
    "rotary": both(positions={"name": "rotary", "base": 100.0}),
    "rotary half": both(positions={"name": "rotary", "layout": "half"}),
    "t5": both(positions={"name": "t5", "buckets": 6, "max_distance": 9}),
    "t5 dot": both(positions="t5", self_attention={"heads": 4, "score": "dot"}),
    "shaw": both(positions={"name": "shaw", "reach": 3}),
    "shaw without values": both(positions={"name": "shaw", "reach": 2, "values": False}),
    "alibi": {"encoder": stack(), "decoder": stack(causal=True, positions="alibi")},
    "none": both(positions="none"),
    "dot": attentions({"heads": 4, "score": "dot"}),
    "key heads": {
        "encoder": stack(self_attention={"heads": 4, "key_heads": 2}),
        "decoder": stack(
            causal=True,
            self_attention=[{"heads": 4, "key_heads": 1}, HEADS],
            cross_attention={"heads": 4, "key_heads": 2},
        ),
    },
    "sizes": {
        "encoder": stack(size=24, layers=1, self_attention={"heads": 2}),
        "decoder": stack(causal=True, layers=3),
    },
    "tied": {**both(), "tied": "decoder"},
}

REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "recurrent encoder": (
        {"encoder": {"kind": "recurrent"}, "decoder": stack(causal=True)},
        ["model.encoder.kind"],
    ),
    "recurrent decoder": (
        {
            "encoder": stack(),
            "decoder": {"kind": "recurrent", "order": "luong", "attention": {"score": "additive"}},
        },
        ["model.decoder.kind"],
    ),
    "scorer": (
        attentions({"heads": 4, "score": "additive"}),
        ["model.encoder.self_attention.score", "model.decoder.self_attention.score"],
    ),
    "normalizer": (
        attentions({"heads": 4, "normalize": "sparsemax"}),
        ["model.encoder.self_attention.normalize"],
    ),
    "temperature": (
        attentions({"heads": 4, "normalize": {"name": "softmax", "temperature": 2.0}}),
        ["model.decoder.cross_attention.normalize"],
    ),
    "talking": (attentions({"heads": 4, "talking": True}), ["model.decoder.cross_attention.talking"]),
    "norm of queries": (
        attentions({"heads": 4, "query_key_norm": True}),
        ["model.decoder.cross_attention.query_key_norm"],
    ),
    "window": (
        both(self_attention={"heads": 4, "window": 3, "sinks": 1}),
        ["model.encoder.self_attention.window", "model.decoder.self_attention.sinks"],
    ),
    "sentences": (
        {"encoder": stack(), "decoder": stack(causal=True, cross_attention={"heads": 4, "sentences": {}})},
        ["model.decoder.cross_attention.sentences"],
    ),
    "copying": (
        {"encoder": stack(), "decoder": stack(causal=True, copying=True)},
        ["model.decoder.copying"],
    ),
    "heads of layers": (
        {"encoder": stack(self_attention=[{"heads": 4}, {"heads": 2}]), "decoder": stack(causal=True)},
        ["model.encoder.self_attention.heads"],
    ),
    "heads of attentions": (
        {"encoder": stack(), "decoder": stack(causal=True, cross_attention={"heads": 2})},
        ["model.decoder.cross_attention.heads"],
    ),
    "alibi of an encoder": (both(positions="alibi"), ["model.encoder.positions"]),
    "shaw with dot": (
        both(positions="shaw", self_attention={"heads": 4, "score": "dot"}),
        ["model.encoder.self_attention.score", "model.decoder.self_attention.score"],
    ),
}


def load_vocabularies() -> list[Vocabulary]:
    return [Vocabulary.load(tiny_runs.MODEL / "text" / f"{side}.model") for side in ("source", "target")]


def task_of(model: dict[str, Any], vocabularies: list[Vocabulary]) -> TranslationTask:
    recipe = read("quickstart", ["data.dev.limit=15", "data.test.limit=15"]).model_copy(
        update={"model": ModelRecipe.model_validate(model)}
    )
    return TranslationTask(recipe, vocabularies)  # type: ignore[arg-type]


def random_model(
    model: dict[str, Any], vocabularies: list[Vocabulary]
) -> tuple[TranslationTask, TextPredictor]:
    """A model with random weights, whose hypotheses differ and end by themselves."""
    task = task_of(model, vocabularies)
    torch.manual_seed(7)
    built, target = task.build().eval(), task.tokenizer.target
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if name.endswith("bias") and parameter.dim() == 1:
                parameter.normal_(0, 0.05)
            elif parameter.dim() > 1 and "embedding" not in name and "output" not in name:
                parameter.mul_(1.7)
        built.decoder.output.weight.mul_(1.5)
        built.decoder.output.bias[target.eos] += 4.5
        built.decoder.output.bias[[target.pad, target.bos]] = -40  # else only torch counts them
    return task, task.predictor(built, torch.device("cpu")).configured({"max_length": 30})


def make_run(path: Path, model: dict[str, Any], vocabularies: list[Vocabulary]) -> Path:
    """Make the run of a Transformer with random weights."""
    task, predictor = random_model(model, vocabularies)
    decoding = task.recipe.decoding.model_copy(update={"max_length": 30})
    recipe = task.recipe.model_copy(update={"decoding": decoding})
    folder = RunFolder.create(path, recipe, Version(), task.files())
    folder.save_weights("step-00000001.safetensors", weights_of(predictor.model))
    folder.version.best = folder.version.last = "step-00000001.safetensors"
    folder.commit()
    return folder.path
