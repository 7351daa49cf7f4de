"""What holds for every predictor: its own method and no other task's, nothing set after it is made, no loss."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import seq2attn
from seq2attn.inference.captioner import Captioner
from seq2attn.inference.detector import Detector
from seq2attn.inference.image_categorizer import ImageCategorizer
from seq2attn.inference.image_generator import ImageGenerator
from seq2attn.inference.predictor import Predictor, WrongTaskError
from seq2attn.inference.recognizer import Categorizer, Recognizer
from seq2attn.inference.segmenter import Segmenter
from seq2attn.inference.translator import Summarizer, TextPredictor, Translator
from seq2attn.tasks.registry import TASKS
from seq2attn.tasks.sequence_tasks import SummarizationTask
from seq2attn.training import label_objectives, objectives

OLD = Path(__file__).parent / "model_0.2"
PREDICTORS = [
    Translator,
    Summarizer,
    Recognizer,
    Categorizer,
    ImageCategorizer,
    Captioner,
    Detector,
    Segmenter,
    ImageGenerator,
]


@pytest.fixture(scope="module")
def translator() -> Translator:
    return seq2attn.load(OLD / "run", device="cpu")


def test_every_task_has_a_predictor_and_a_command() -> None:
    assert {kind.task: kind.command for kind in PREDICTORS} == {
        task: Predictor.commands[task] for task in TASKS
    }


@pytest.mark.parametrize("kind", PREDICTORS)
def test_a_predictor_has_its_own_command_and_refuses_the_others(kind: type[Predictor]) -> None:
    predictor = kind.__new__(kind)
    assert callable(getattr(kind, kind.command))
    others = {other.command for other in PREDICTORS} - {kind.command}
    for command in others:
        assert not hasattr(kind, command)
        with pytest.raises(WrongTaskError) as caught:
            getattr(predictor, command)
        assert str(caught.value) == (
            f"this model was trained for {kind.task}, not to {command}: use its method {kind.command}"
        )


def test_a_summarizer_is_no_translator(translator: Translator) -> None:
    summarizer = Summarizer(translator.generator, translator.decoding)
    assert not isinstance(summarizer, Translator)
    assert summarizer.summarize("Wo ist Tom?").text == translator.translate("Wo ist Tom?").text
    with pytest.raises(WrongTaskError, match="use its method summarize"):
        summarizer.translate("Wo ist Tom?")
    with pytest.raises(seq2attn.Seq2attnError, match="trained for summarization, not to translate"):
        seq2attn.translate("Wo ist Tom?", summarizer)  # type: ignore[arg-type]
    assert SummarizationTask.predictor_class is Summarizer


def test_nothing_is_set_on_a_text_predictor(translator: Translator) -> None:
    other = translator.configured({"beam": 2})
    assert (other.decoding.beam, translator.decoding.beam) == (2, 5) and other.model is translator.model
    for field in dataclasses.fields(TextPredictor):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(translator, field.name, None)


def test_an_unknown_option_is_an_error_with_a_guess(translator: Translator) -> None:
    with pytest.raises(seq2attn.Seq2attnError, match=r"unknown option 'beem' \(did you mean beam\?"):
        translator.translate("Wo ist Tom?", beem=3)  # type: ignore[call-overload]


@pytest.mark.parametrize("run", ["run", "transformer/run", "tagger/run"])
def test_loading_builds_no_loss(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def built(*arguments: Any) -> None:
        raise AssertionError("a loss was built")

    for module, names in (
        (objectives, ("AttentionLosses", "TokenObjective")),
        (label_objectives, ("LabelObjective",)),
    ):
        for name in names:
            monkeypatch.setattr(getattr(module, name), "__init__", built)
    assert seq2attn.load(OLD / run, device="cpu").model is not None
