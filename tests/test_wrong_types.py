"""Values of a wrong type in public calls: an error that says what was expected, or the obvious reading."""

import os
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from shapes import unchecked

import seq2attn
from seq2attn.attention import Attention, MultiHead
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.pooling import Pooling
from seq2attn.attention.scorers import ScaledDot
from seq2attn.errors import Seq2attnError
from seq2attn.inference.translator import Translator
from seq2attn.recipe import read

WRONG_PARTS = {
    "names": (lambda: Attention("additive", "softmax"), r"expected a scorer first, .* got 'additive'"),
    "swapped": (lambda: Attention(Softmax(), ScaledDot(4, 4)), "expected a scorer first"),
    "a class": (lambda: Attention(ScaledDot(4, 4), Softmax), "expected then a normalizer"),
    "relative": (lambda: Attention(ScaledDot(4, 4), Softmax(), relative="t5"), "expected relative positions"),
    "heads": (lambda: MultiHead(2, 4, 4, ScaledDot(2, 2)), "expected an Attention"),
    "pooling": (lambda: Pooling(ScaledDot(4, 4), 1, 4), "expected an Attention or a MultiHead"),
    "load": (lambda: seq2attn.load(3), "expected the path of a run folder, or hf://user/name, got 3"),
    "a run": (lambda: seq2attn.train("reverse_additive", 5), "expected run as the path of a folder, got 5"),
    "no run": (
        lambda: seq2attn.train("reverse_additive", ""),
        "run: expected a folder, got an empty text",
    ),
    "a number as data": (
        lambda: seq2attn.train("reverse_additive", data=5),
        r"data: expected a dict .*; got an int$",
    ),
    "a kind": (
        lambda: seq2attn.load(tiny_runs.MODEL, kind="Translator"),
        "expected kind as a class of models",
    ),
    **{
        f"the device {device!r}": (
            lambda device=device: seq2attn.load(tiny_runs.MODEL, device=device),
            "expected a device, such as auto",
        )
        for device in (None, 1.5, ["cpu"])
    },
    "a precision": (
        lambda: seq2attn.load(tiny_runs.MODEL, device="cpu", precision=["bf16"]),
        "unknown precision",
    ),
    **{
        f"the dropout {rate!r}": (
            lambda rate=rate: Attention(ScaledDot(4, 4), Softmax(), rate),
            "expected the dropout rate as",
        )
        for rate in ("x", -1, 1.0, None)
    },
    **{
        f"the heads {sizes}": (
            lambda sizes=sizes: MultiHead(*sizes, Attention(ScaledDot(2, 2), Softmax())),
            "as whole numbers, got",
        )
        for sizes in (("2", 4, 4), (2, "4", 4), (2.0, 4, 4))
    },
    "a long key": (
        lambda: read("quickstart", [f"{'a.' * 50_000}b=1"]),
        r"no recipe has a key of 100,001 characters: 'a\.a\.[a.]{0,60}\.\.\.$",
    ),
    "a long name": (
        lambda: read({"data" * 50_000: 1}),
        r"recipe  (data){15}\.\.\.: unknown key '(data){25}\.\.\.' ",
    ),
    "a hub's name": (lambda: seq2attn.load("org/name"), "org/name does not exist: expected a run folder"),
    "a recipe": (lambda: seq2attn.train(3), "expected a recipe: the name of one"),
    "overrides": (lambda: seq2attn.train("quickstart", overrides=3), "expected overrides as"),
    "an override": (lambda: seq2attn.train("quickstart", overrides=[3]), "expected overrides as"),
}
WRONG_TEXTS = {
    "align": (lambda model: model.align(["a"], ["b"]), r"expected a source text \(str\); .* got \['a'\]"),
    "align none": (lambda model: model.align("a", None), r"expected a target text \(str\), got None"),
    "log_probabilities": (lambda model: model.log_probabilities("a b", "c d"), "expected sources as a list"),
    "numbers": (lambda model: model.log_probabilities([1], [2]), "expected sources as a list"),
    "one target": (lambda model: model.log_probabilities(["a", "b"], ["c"]), "target for each of 2 sources"),
    "prefix": (lambda model: model.translate("a", prefix=3), "expected prefixes as a list of texts"),
    "prefixes": (
        lambda model: model.translate(["a"], prefix=[3]),
        r"expected prefixes .*, got 3 at prefixes\[0\]",
    ),
    "stream": (lambda model: list(model.stream(["a", 1])), r"expected lines .*, got 1 at lines\[1\]"),
    "stream a text": (lambda model: list(model.stream("abc")), "expected lines as a list of texts.* 'abc'"),
    "stream none": (lambda model: list(model.stream(None)), "expected lines as a list of texts"),
    "align layer": (lambda model: model.align("a", "b", layer="x"), "expected the number of a layer or head"),
    "encode a number": (lambda model: model.source.encode([1]), r"expected a text \(str\), got 1"),
    "encode none": (lambda model: model.source.encode(None), "expected a list of texts, got None"),
    "sample": (lambda model: model.source.sample([None], 1), r"expected a text \(str\), got None"),
    "split": (lambda model: model.source.split(None), r"expected a text \(str\), got None"),
    "decode": (lambda model: model.target.decode([1.7]), r"expected the ids of one text, .* got \[1\.7\]"),
    "path": (lambda model: model.translate("Ja.").plot(3), "expected the path of a picture.* got 3"),
    "axes": (lambda model: model.translate("Ja.").plot(ax=3), "expected ax as the axes of a .*, got 3"),
    "layer": (lambda model: model.with_alignment("last"), "expected the number of a layer or head"),
}


@pytest.mark.parametrize("name", WRONG_PARTS)
def test_wrong_parts_are_refused(name: str) -> None:
    call, message = WRONG_PARTS[name]
    with unchecked(), pytest.raises(Seq2attnError, match=message):
        call()


@pytest.mark.parametrize("name", WRONG_TEXTS)
def test_wrong_texts_are_refused(translators: dict[str, Translator], name: str) -> None:
    call, message = WRONG_TEXTS[name]
    with unchecked(), pytest.raises(Seq2attnError, match=message):
        call(translators["model"])


def test_overrides_may_be_a_dict(tmp_path: Path) -> None:
    overrides: dict[str, Any] = {"training.max_steps": 2, "data.test": None, "decoding": {"beam": 2}}
    listed = [*tiny_runs.SMALL, *tiny_runs.MODELS["lstm"]]
    merged = {**dict(text.split("=", 1) for text in listed), **overrides}
    with pytest.raises(Seq2attnError, match="expected"):  # texts of sections are no sections
        seq2attn.train("quickstart", tmp_path / "run", merged, display=tiny_runs.silent())
    small = {"data.train.0.limit": 100, "data.dev.limit": 5, "text.size": 400, "training.validate_every": 2}
    trained = seq2attn.train(
        "quickstart", tmp_path / "run", {**small, **overrides}, display=tiny_runs.silent()
    )
    assert trained.progress.step == 2 and not trained.scores and trained.model.decoding.beam == 2


def test_vocabularies_take_any_texts_and_paths(translators: dict[str, Translator], tmp_path: Path) -> None:
    vocabulary = translators["model"].source
    assert vocabulary.encode(text for text in ["a b", "c"]) == vocabulary.encode(["a b", "c"])
    vocabulary.save(str(tmp_path / "x.model"))
    assert type(vocabulary).load(str(tmp_path / "x.model")).model == vocabulary.model
    assert vocabulary.decode(torch.tensor([5, 6])) == vocabulary.decode([5, 6])  # type: ignore[arg-type]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Seq2attnError, match="pipe: cannot be read: is a pipe or a device"):
        type(vocabulary).load(tmp_path / "pipe")


def test_one_metric_needs_no_list() -> None:
    (score,) = seq2attn.score(["a b"], ["a b"], "exact")
    assert score == seq2attn.score(["a b"], ["a b"], ["exact"])[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_converted_model_says_how_to_load_it(precision: str) -> None:
    model = seq2attn.load(tiny_runs.MODEL, device="cpu", precision=precision)
    model.model.to(torch.bfloat16)
    for call in (lambda: model.translate("Ja."), lambda: model.align("Ja.", "Yes.")):
        with pytest.raises(
            Seq2attnError, match=r"converted to torch.bfloat16.* load\(run, precision=\"bf16\"\)"
        ):
            call()
