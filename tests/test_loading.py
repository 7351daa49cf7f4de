"""Loading models: weights, devices, precision, and what a predictor refuses."""

import copy
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from tiny_translator import KINDS, SENTENCES
from torch.testing import assert_close

import seq2attn
from seq2attn.errors import Seq2attnError
from seq2attn.inference.translator import Translator
from seq2attn.runtime.devices import pick_device
from seq2attn.tasks.loading import load
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.training.run_folder import RunError


@pytest.fixture(scope="module", params=KINDS)
def translator(request: pytest.FixtureRequest, translators: dict[str, Translator]) -> Translator:
    return translators[request.param]


@pytest.fixture
def model(translators: dict[str, Translator]) -> Translator:
    """The one that says something."""
    return translators["model"]


def test_the_one_line_form(model: Translator) -> None:
    for given in (tiny_runs.MODEL, str(tiny_runs.MODEL), model):
        assert str(seq2attn.translate(SENTENCES[0], model=given)) == "Tom isn't here."
    assert [str(said) for said in seq2attn.translate(SENTENCES[:1], model)] == ["Tom isn't here."]


def test_weights_are_chosen_by_name(runs: dict[str, Path]) -> None:
    last = load(runs["lstm"], "last").model.state_dict()
    named = load(runs["lstm"], "step-00000048.safetensors").model.state_dict()
    assert_close(last, named, rtol=0, atol=0)
    first = load(runs["lstm"], "step-00000024.safetensors").model.state_dict()
    assert any(not torch.equal(first[name], tensor) for name, tensor in last.items())
    with pytest.raises(RunError, match="no weights 'average'; there are: step-"):
        load(runs["lstm"], "average")


@pytest.mark.parametrize("device", ["cuda", "cuda:99"])
def test_a_device_that_cannot_be_used(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(
        Seq2attnError, match=rf"device '{device}' cannot be used here \(.*\); try auto or cpu"
    ):
        load(tiny_runs.MODEL, device=device)


@pytest.mark.parametrize("device", ["gpu", "nowhere", "GPU:0"])
def test_an_unknown_device(device: str) -> None:
    with pytest.raises(Seq2attnError) as caught:
        pick_device(device)
    assert str(caught.value) == f"unknown device '{device}': expected cpu, cuda, cuda:1, mps or auto"


NO_TEXTS: list[tuple[Any, str]] = [
    (None, "None"), (5, "5"), (b"EU", "b'EU'"), ({"a": 1}, "{'a': 1}"), ({"a"}, "{'a'}"),
    (["a"] * 5000 + [None], "None at texts[5000]"), ([b"a"], "b'a' at texts[0]"),
    ([["a", "b"]], "['a', 'b'] at texts[0]"), ([{"a": 1}], "{'a': 1} at texts[0]"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "came"), NO_TEXTS, ids=[came for _, came in NO_TEXTS])
def test_what_is_no_text_is_refused(model: Translator, wrong: Any, came: str) -> None:
    with pytest.raises(Seq2attnError) as caught:
        model.translate(wrong)
    assert str(caught.value) == f"expected a text or a list of texts (str), got {came}"


@pytest.mark.parametrize("method", ["summarize", "tag", "classify"])
def test_what_another_task_does_is_refused_by_what_this_one_does(model: Translator, method: str) -> None:
    expected = f"this model was trained for translation, not to {method}: use its method translate"
    with pytest.raises(Seq2attnError, match=expected):
        getattr(model, method)("Ja.")
    assert not hasattr(model, method)
    with pytest.raises(AttributeError, match="'Translator' object has no attribute 'nonsense'"):
        getattr(model, "nonsense")  # noqa: B009 - a type checker knows that it is not there
    assert copy.copy(model).target is model.target


def test_the_best_device_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "ones", lambda *size, device: torch.zeros(1))  # as if it could be used
    for there, name in ((("cuda", "mps"), "cuda"), (("mps",), "mps"), ((), "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: "cuda" in there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=there: "mps" in there)
        assert pick_device() == torch.device(name)
    assert pick_device("cpu") == torch.device("cpu")


def test_half_precision_says_nearly_the_same(model: Translator) -> None:
    half = load(tiny_runs.MODEL, device="cpu", precision="bf16")
    (exact,) = model.log_probabilities(SENTENCES[:1], ["Tom isn't here."])
    (rough,) = half.log_probabilities(SENTENCES[:1], ["Tom isn't here."])
    assert exact != rough == pytest.approx(exact, abs=0.1)
    with pytest.raises(Seq2attnError, match="unknown precision 'bf61': expected fp32, bf16 or fp16"):
        load(tiny_runs.MODEL, precision="bf61")


def test_a_joint_vocabulary_is_one(translators: dict[str, Translator]) -> None:
    source, target = translators["transformer"].source, translators["transformer"].target
    assert source.pieces(range(source.size)) == target.pieces(range(target.size))
    assert (source.normalize("ﬁn！"), target.normalize("ﬁn！")) == ("fin!", "ﬁn！")
    assert isinstance(translators["lstm"].source, Vocabulary)
    assert translators["lstm"].source.model != translators["lstm"].target.model


def test_the_class_is_checked(runs: dict[str, Path]) -> None:
    assert type(seq2attn.load(runs["lstm"], kind=seq2attn.Translator)) is seq2attn.Translator
    with pytest.raises(
        seq2attn.Seq2attnError, match="was trained for translation: expected a Recognizer, got a Translator"
    ):
        seq2attn.load(runs["lstm"], kind=seq2attn.Recognizer)
