"""Texts that are longer than a model can read: found before training, cut with a warning afterwards."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from tiny_cli import fails

import seq2attn
from seq2attn.data import DataError
from seq2attn.errors import Seq2attnError
from seq2attn.inference import recognizer as recognizers
from seq2attn.inference.recognizer import Recognizer
from seq2attn.inference.shortening import LONG_TOKEN, shortened
from seq2attn.inference.translator import Translator
from seq2attn.runs.dry_run import check
from seq2attn.runtime.devices import OutOfMemoryError

TAGGER = tiny_runs.MODEL.parents[1] / "model_0.2" / "tagger" / "run"
LEARNED = [
    *tiny_runs.MODELS["transformer"],
    "data.filter.max_length=29",
    "decoding={min_length: 0, max_length: 29}",
]


def learned(encoder: int, decoder: int) -> list[str]:
    """Overrides with so many learned positions."""
    parts = {"encoder": encoder, "decoder": decoder}
    return [
        *LEARNED,
        *(f"model.{part}.positions={{name: learned, length: {n}}}" for part, n in parts.items()),
    ]


@pytest.fixture
def long_dev(tmp_path: Path) -> Any:
    """An override: a dev set whose example 1 has a source or a target of 41 pieces or more."""

    def corpus(side: str) -> str:
        texts = {"source": ["Ja.", "Ja."], "target": ["Yes.", "Yes."]}
        texts[side][1] = "x y " * 40
        for name, lines in texts.items():
            (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return f"data.dev={{files: [{tmp_path}/source, {tmp_path}/target]}}"

    return corpus


@pytest.mark.parametrize(("side", "part"), [("source", "encoder"), ("target", "decoder")])
def test_a_dev_set_that_the_model_cannot_read_is_refused_before_training(
    tmp_path: Path, long_dev: Any, side: str, part: str
) -> None:
    overrides = [*learned(30, 30), long_dev(side)]
    message = (
        rf"data\.dev: example 1 has a {side} of length \d+, and with its learned positions the {part} can read "
        rf"29: raise model\.{part}\.positions\.length"
    )
    with pytest.raises(DataError, match=message):
        tiny_runs.train(tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match=message):
        list(check(seq2attn.recipe.read("quickstart", [*tiny_runs.SMALL, *overrides]), device="cpu"))
    other = {"encoder": learned(200, 30), "decoder": learned(30, 200)}[part]
    trained = tiny_runs.train(tmp_path / "run", *other, long_dev(side), "training.max_steps=2")
    assert trained.progress.step == 2


@pytest.mark.parametrize("max_source", [11, 44, 45, 1024])
def test_one_text_that_is_too_long_is_cut_and_takes_no_other_along(tmp_path: Path, max_source: int) -> None:
    model = tiny_runs.train(tmp_path / "run", *learned(45, 45), "training.max_steps=2").model
    model = replace(model, decoding=model.decoding.model_copy(update={"max_source": max_source}))
    limit = min(44, max_source)
    reason = "decoding.max_source" if max_source <= 44 else "the encoder's positions"
    with pytest.warns(UserWarning, match=rf"sentence 2 has [\d,]+ pieces and .* to {limit} \({reason}\)"):
        results = model.translate(["Ja.", "Das ist ein Haus. " * 9, "Nein."], max_length=500)
    assert len(results[1].source.ids) == limit and len(results) == 3
    assert max(len(result.target.ids) for result in results) <= 44
    assert str(results[0]) == str(model.translate("Ja.", max_length=500))
    with pytest.warns(UserWarning, match="sentence 1 has"):  # given targets, too
        assert model.align("Das ist ein Haus. " * 9, "Yes.").alignment is not None
    long, end = (
        "This is a house. " * 20,
        r"has \d+ pieces, and the decoder has positions for 44: give a shorter one",
    )
    assert len(model.translate("Ja.", max_length=500, min_length=44).target.ids) == 44
    with pytest.raises(Seq2attnError, match="min_length is 45, and the decoder has positions for 44 pieces"):
        model.translate("Ja.", max_length=500, min_length=45)
    for beam in (1, 3):
        with pytest.raises(Seq2attnError, match=f"^the prefix of sentence 2 {end}"):
            model.translate(["Ja.", "Ja."], prefix=["", long], beam=beam)
    with pytest.raises(Seq2attnError, match=f"^the target of sentence 1 {end}"):
        model.align("Ja.", long)
    with pytest.raises(Seq2attnError, match=f"^the target of sentence 2 {end}"):
        model.log_probabilities(["Ja.", "Ja."], ["Yes.", long])


@pytest.mark.parametrize(
    "text", ["a " * 5000, "a\u3000\n" * 5000, "a" * 20_000, ("a" * 300 + " ") * 200, " " * 20_000 + "a " * 99]
)
def test_a_shortened_text_begins_as_the_text(text: str) -> None:
    cut = shortened(text, 50)
    assert text.startswith(cut) and len("".join(cut.split())) <= 50 * LONG_TOKEN < len(text)
    if text.split()[0] == "a":
        assert cut.split() == text.split()[:51]


@pytest.mark.parametrize(
    "text",
    ["", "a b", "a " * 49, "a" * 50 * LONG_TOKEN + " " * 99, " " * 70_000 + "a b", "a" + "\n" * 9999 + "b"],
)
def test_a_text_that_is_not_too_long_is_whole(text: str) -> None:
    assert shortened(text, 50) == text


def test_a_huge_text_is_cut_before_it_is_tokenized(
    translators: dict[str, Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = translators["model"], list[int]()
    split = type(model.source).split
    monkeypatch.setattr(
        type(model.source), "split", lambda self, text: (seen.append(len(text)), split(self, text))[1]
    )
    with pytest.warns(UserWarning, match=r"has 4,000,000 characters and was truncated to 1,024 pieces"):
        huge = model.translate("Ja. " * 1_000_000, max_length=3, beam=1, alignment=False)
    whole = split(model.source, "Ja. " * 2000)
    assert huge.source.ids == whole.ids[:1024] and max(seen) < 100_000


def test_a_tagger_reads_the_beginning_of_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Recognizer = seq2attn.load(TAGGER, device="cpu")
    monkeypatch.setattr(recognizers, "BATCH_WORDS", 20)
    words = [f"Word{number}" for number in range(30)]
    (expected,) = model.tag([words[:20]])
    with pytest.warns(UserWarning, match=r"only the beginning of 'Word0 .*at most 20 words"):
        listed, short = model.tag([words, words[:3]])
    assert listed.tags == expected.tags + ["O"] * 10 and listed.entities == expected.entities
    assert [word.text for word in listed.words] == words and len(short.words) == 3
    with pytest.warns(UserWarning, match="only the beginning"):
        text = model.tag(" ".join(words))
    assert [word.text for word in text.words] == words[:20] and text.tags == expected.tags
    if text.weights is not None:
        assert text.weights.shape == listed.weights.shape == (20, 20)
        assert listed.plot() is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(model.tag(" ".join(words[:20])).words) == 20


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_runs_out_is_a_clear_error(
    translators: dict[str, Translator], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*given: object, **options: object) -> None:
        raise error

    tagger = seq2attn.load(TAGGER, device="cpu")
    monkeypatch.setattr(translators["model"].model, "start", fail, raising=False)
    with pytest.raises(OutOfMemoryError, match=r"^out of memory: lower decoding\.batch_tokens \(now \d+\)"):
        translators["model"].translate("Ja.")
    monkeypatch.setattr(translators["model"].model, "forward", fail)
    for use in (Translator.align, Translator.log_probabilities, Translator.attention_weights):
        texts = ("Ja.", "Yes.") if use is Translator.align else (["Ja."], ["Yes."])
        with pytest.raises(
            OutOfMemoryError, match=r"^out of memory: lower decoding\.batch_tokens \(now \d+\)"
        ):
            use(translators["model"], *texts)
    monkeypatch.setattr(tagger.model, "forward", fail)
    with pytest.raises(Seq2attnError, match=r"^out of memory: lower the length of the longest sentence"):
        tagger.tag("Ja.")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_runs_out_in_a_command_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    def fail(*given: object) -> None:
        raise error

    monkeypatch.setattr(Translator, "draw", fail)
    status, message = fails("heatmap", str(tiny_runs.MODEL), "Ja.", "-o", f"{tmp_path}/h.png")
    assert (status, message) == (
        1,
        "seq2attn: out of memory: give shorter texts or smaller images, or fewer at once\n",
    )
