"""Strings in, translations out: exact scores and alignments, whatever else is in the batch."""

import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tiny
import torch
from tiny_translator import DRAWN, KINDS, SENTENCES, assert_same, one, retold, several
from torch.testing import assert_close

import seq2attn
from seq2attn.data.sources import PairTokenizer, Source
from seq2attn.errors import Seq2attnError
from seq2attn.inference.generator import Generator
from seq2attn.inference.marked_text import MarkedTranslation
from seq2attn.inference.results import Translation
from seq2attn.inference.translator import TextPredictor, Translator
from seq2attn.recipe import DecodingRecipe


@pytest.fixture(scope="module", params=KINDS)
def translator(request: pytest.FixtureRequest, translators: dict[str, Translator]) -> Translator:
    return translators[request.param]


@pytest.fixture
def model(translators: dict[str, Translator]) -> Translator:
    """The one that says something."""
    return translators["model"]


# ---- what goes in and what comes out ----------------------------------------------------------------


def test_one_in_one_out_a_list_in_a_list_out(model: Translator) -> None:
    assert one(model).text == "Tom isn't here."
    for texts in (SENTENCES[:1], tuple(SENTENCES[:1])):
        found = model.translate(texts)
        assert isinstance(found, list)
        assert [said.text for said in found] == ["Tom isn't here."]
    assert model.translate([]) == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 forgets overloads")
@pytest.mark.parametrize(
    ("function", "several"),
    [
        (TextPredictor._generate, Sequence[str] | Sequence[Sequence[str]]),  # a summarizer's turns
        (seq2attn.translate, Sequence[str]),
    ],
)
def test_types_know_what_comes_out(function: Callable[..., Any], several: Any) -> None:
    """An overload that lacks a setting would refuse it to whoever checks types."""
    overloads = [inspect.signature(one) for one in typing.get_overloads(function)]
    marked = [one.return_annotation for one in overloads if "markup" in one.parameters]
    assert marked == ([MarkedTranslation, list[MarkedTranslation]] if marked else [])
    signatures = [one for one in overloads if "markup" not in one.parameters]
    types = [(one.parameters["text"].annotation, one.return_annotation) for one in signatures]
    assert types == [(str, Translation), (several, list[Translation])]
    for signature in signatures:
        others, own = (
            [parameter for name, parameter in one.parameters.items() if name not in ("text", "markup")]
            for one in (signature, inspect.signature(function))
        )
        assert others == own


@pytest.mark.parametrize("blank", ["", "   ", "\u200b", "\n", "\u3000"])
def test_a_blank_sentence_gives_an_empty_translation(translators: dict[str, Translator], blank: str) -> None:
    alone = one(translators["lstm"], blank, nbest=2)
    assert (alone.text, alone.words, alone.score, alone.nbest) == ("", [], 0.0, (alone,))
    assert alone.alignment is not None
    assert alone.alignment.shape == (0, 0)
    between = several(translators["lstm"], ["Guten Tag!", blank, "Danke!"])
    assert [bool(said.words) for said in between] == [True, False, True]
    for said, text in zip(between, ["Guten Tag!", blank, "Danke!"], strict=True):
        assert_same(said, one(translators["lstm"], text))


def test_a_very_long_sentence(translator: Translator) -> None:
    most = translator.decoding.max_source
    with pytest.warns(
        UserWarning, match=rf"sentence 1 has [\d,]+ pieces and was truncated to {most:,} \(decoding.max_s"
    ):
        said = one(translator, "Das ist ein Haus. " * 400, max_length=9)
    assert len(said.tokens) <= 9
    assert len(said.source_tokens) == most
    assert said.weights is not None
    assert said.weights.shape == (len(said.tokens), len(said.source_tokens) + 1)
    assert said.source_words[:5] == ["Das", "ist", "ein", "Haus.", "Das"]


def test_a_translation_knows_both_sides(model: Translator) -> None:
    said = one(model, "Wo ist mein Buch?")
    assert said.source_words == ["Wo", "ist", "mein", "Buch?"]
    assert said.words == said.text.split()
    assert said.target.ids == model.target.encode([said.text])[0]
    assert said.alignment is not None
    assert said.alignment.shape == (len(said.words), 4)


# ---- scores and alignments --------------------------------------------------------------------------


def test_the_score_is_that_of_the_forced_text(translator: Translator) -> None:
    agreed = 0
    for said in [*several(translator, SENTENCES, nbest=3), *several(translator, SENTENCES, **DRAWN)]:
        source = " ".join(said.source_words)
        for other in said.nbest:
            (log_probability,) = translator.log_probabilities([source], [other.text])
            if retold(translator, other):
                aligned = translator.align(source, other.text)
                assert aligned.score == pytest.approx(other.score, abs=1e-4)
                assert log_probability == pytest.approx(other.log_probability, abs=1e-4)
                assert_close(
                    (aligned.alignment, aligned.weights), (other.alignment, other.weights), atol=1e-5, rtol=0
                )
                agreed += 1
    assert agreed > 1


def test_log_probabilities_are_those_of_the_model(translator: Translator) -> None:
    source, target = SENTENCES[2], "The book is good."
    ids = translator.target.encode([target])[0]
    tokens = torch.tensor([[*translator.source.encode([source])[0], translator.source.eos]])
    with torch.no_grad():
        reads = torch.tensor([[translator.target.bos, *ids]])
        sources = Source(tokens, torch.ones_like(tokens, dtype=torch.bool))
        logits = translator.model.eval()(sources, reads).logits[0]
    expected = sum(
        float(row.log_softmax(-1)[i]) for row, i in zip(logits, [*ids, translator.target.eos], strict=True)
    )
    together = translator.log_probabilities([SENTENCES[1], source, source], ["Yes.", target, ""])
    assert together[1] == pytest.approx(expected, abs=1e-4)
    assert together[0] == pytest.approx(translator.log_probabilities([SENTENCES[1]], ["Yes."])[0], abs=1e-5)


def test_rows_sum_to_one(translator: Translator) -> None:
    for said in [*several(translator, SENTENCES), translator.align(SENTENCES[2], "The book is good.")]:
        assert said.alignment is not None and said.end_of_sentence is not None and said.weights is not None
        assert said.alignment.shape == (len(said.words), len(said.source_words))
        assert_close(said.alignment.sum(1) + said.end_of_sentence, torch.ones(len(said.words)))
        assert_close(said.weights.sum(1), torch.ones(len(said.tokens)))
        assert said.weights.dtype == torch.float32


def test_alignment_can_be_left_out(model: Translator) -> None:
    said = one(model, alignment=False)
    assert (said.alignment, said.weights) == (None, None)
    assert said.text == one(model).text
    with pytest.raises(Seq2attnError, match="alignment=False"):
        said.pharaoh()


def test_nothing_can_be_aligned_with_nothing(translator: Translator) -> None:
    for source, target in (("", ""), ("Ja.", ""), ("", "Yes.")):
        said = translator.align(source, target)
        assert said.alignment is not None
        assert said.alignment.shape == (len(said.words), len(said.source_words))
        assert said.log_probability < 0


def test_layers_and_heads(translators: dict[str, Translator]) -> None:
    translator = translators["transformer"]

    def weights(layer: int | None = None, head: int | None = None) -> torch.Tensor:
        found = translator.align(SENTENCES[2], "The book is good.", layer, head).weights
        assert found is not None
        return found

    all_heads = [[weights(layer, head) for head in range(2)] for layer in range(3)]
    flat = [one.flatten() for heads in all_heads for one in heads]
    assert len({tuple(one.tolist()) for one in flat}) == 6  # all differ
    for layer in range(3):
        assert_close(weights(layer), (all_heads[layer][0] + all_heads[layer][1]) / 2)
    assert_close(weights(-1, -1), all_heads[2][1])
    assert_close(weights(), weights(1))  # the layer before the last
    translator = translator.with_alignment(2, 1)
    assert (translator.alignment_layer, translator.alignment_head) == (2, 1)
    assert_close(weights(), all_heads[2][1])
    assert_close(weights(0, 0), all_heads[0][0])
    found = [other for said in several(translator, SENTENCES, **DRAWN) for other in said.nbest]
    alike = [said for said in found if retold(translator, said)]
    assert alike
    for said in alike:
        assert_close(said.weights, translator.align(" ".join(said.source_words), said.text, 2, 1).weights)


def test_layers_and_heads_that_are_not_there(translators: dict[str, Translator]) -> None:
    with pytest.raises(Seq2attnError, match="the model has 3 attention layers, 0 to 2; got layer 3"):
        translators["transformer"].align("Ja.", "Yes.", layer=3)
    with pytest.raises(Seq2attnError, match="the layer has 2 heads, 0 to 1; got head -3"):
        translators["transformer"].align("Ja.", "Yes.", head=-3)
    with pytest.raises(Seq2attnError, match="the model has 1 attention layer, number 0; got layer 1"):
        translators["lstm"].align("Ja.", "Yes.", layer=1)


@pytest.mark.parametrize("order", ["cho", "sutskever"])
def test_a_model_without_attention_translates(translators: dict[str, Translator], order: str) -> None:
    from seq2attn.models.seq2seq_factory import build
    from seq2attn.recipe import ModelRecipe

    torch.manual_seed(1)
    recipe = {"encoder": tiny.recurrent_encoder(), "decoder": tiny.recurrent_decoder(order)}
    source, target = translators["model"].source, translators["model"].target
    model = build(ModelRecipe.model_validate(recipe), source.size, target.size)
    translator = Translator(Generator(model, PairTokenizer(source, target)), DecodingRecipe())
    said = several(translator, SENTENCES, nbest=2, max_length=9)
    assert [bool(one.tokens) for one in said] == [bool(text) for text in SENTENCES]
    assert said[0].alignment is None
    assert translator.log_probabilities(["Ja."], ["Yes."])[0] < 0
    with pytest.raises(Seq2attnError, match="decoder has no attention to the source: it cannot be"):
        translator.align("Ja.", "Yes.")
    for fails in (said[0].pharaoh, said[0].plot):
        with pytest.raises(Seq2attnError, match="its model has no attention"):
            fails()
    with pytest.raises(Seq2attnError, match="its model has no attention"):
        translator.translate("Ja.", replace_unknown=True)
    with pytest.raises(
        Seq2attnError,
        match=r"decoder has no attention to the source, so it has no coverage to penalize: set .* 0",
    ):
        translator.translate("Ja.", coverage_penalty=0.2)
