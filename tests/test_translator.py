"""Strings in, translations out: exact scores and alignments, whatever else is in the batch."""

import copy
import inspect
import random
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_runs
import torch
from torch.testing import assert_close

import seq2attn
from seq2attn.data.sources import PairTokenizer, Source, SourceIds
from seq2attn.errors import Seq2attnError
from seq2attn.inference.generator import AlignmentHead, Generator
from seq2attn.inference.results import Translation
from seq2attn.inference.search import Hypothesis
from seq2attn.inference.translator import Translator
from seq2attn.recipe import DecodingRecipe
from seq2attn.runtime.devices import pick_device
from seq2attn.tasks.loading import load
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.training.run_folder import RunError

SENTENCES = [
    "Tom ist nicht hier.",
    "Ja.",
    "Das Buch, das du mir gestern gegeben hast, ist wirklich gut.",
    "Wo ist mein Buch?",
    "",
    "Ich weiß nicht, warum Tom nicht kommt.",
    "Wir haben Zeit.",
]
KINDS = ["model", "lstm", "transformer"]
DRAWN: dict[str, Any] = {"sample": True, "nbest": 9, "temperature": 0.5}  # texts of many kinds


@pytest.fixture(scope="module")
def translators(runs: dict[str, Path]) -> dict[str, Translator]:
    return {kind: load(run, device="cpu") for kind, run in {"model": tiny_runs.MODEL, **runs}.items()}


@pytest.fixture(scope="module", params=KINDS)
def translator(request: pytest.FixtureRequest, translators: dict[str, Translator]) -> Translator:
    return translators[request.param]


@pytest.fixture
def model(translators: dict[str, Translator]) -> Translator:
    """The one that says something."""
    return translators["model"]


def several(translator: Translator, texts: list[str], **settings: Any) -> list[Translation]:
    return translator.translate(texts, **settings)


def one(translator: Translator, text: str = SENTENCES[0], **settings: Any) -> Translation:
    return translator.translate(text, **settings)


def assert_same(found: Translation, expected: Translation) -> None:
    """The same translation, its other hypotheses included."""
    for a, b in zip(found.nbest, expected.nbest, strict=True):
        assert (a.text, a.target, a.source) == (b.text, b.target, b.source)
        assert (a.score, a.log_probability) == pytest.approx((b.score, b.log_probability), abs=1e-5)
        assert_close((a.alignment, a.weights, a.end_of_sentence), (b.alignment, b.weights, b.end_of_sentence))


def retold(translator: Translator, said: Translation) -> bool:
    """Whether the text is cut into the pieces of which it was made."""
    return bool(said.source.ids) and said.target.ids == translator.target.encode([said.text])[0]


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
        (Translator.translate, Sequence[str] | Sequence[Sequence[str]]),  # a summarizer's turns
        (seq2attn.translate, Sequence[str]),
    ],
)
def test_types_know_what_comes_out(function: Callable[..., Any], several: Any) -> None:
    """An overload that lacks a setting would refuse it to whoever checks types."""
    signatures = [inspect.signature(one) for one in typing.get_overloads(function)]
    types = [(one.parameters["text"].annotation, one.return_annotation) for one in signatures]
    assert types == [(str, Translation), (several, list[Translation])]
    for signature in signatures:
        others, own = (
            [parameter for name, parameter in one.parameters.items() if name != "text"]
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
        UserWarning, match=rf"sentence 1 has [\d,]+ pieces and was cut to {most:,} \(decoding.max_s"
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


# ---- settings ---------------------------------------------------------------------------------------


def test_nbest_is_the_best_of_the_beam(translator: Translator) -> None:
    said = one(translator, SENTENCES[2], beam=6, nbest=4)
    assert_same(Translation(**{**vars(said), "others": ()}), one(translator, SENTENCES[2], beam=6))
    assert len({tuple(other.target.ids) for other in said.nbest}) == 4
    assert [other.score for other in said.nbest] == sorted(
        (other.score for other in said.nbest), reverse=True
    )
    assert len(one(translator, SENTENCES[2], nbest=8).nbest) == 8  # the beam grows with it


def test_a_wider_beam_finds_no_worse(model: Translator) -> None:
    greedy, wide = several(model, SENTENCES, beam=1), several(model, SENTENCES, beam=20)
    assert sum(said.score for said in wide) > sum(said.score for said in greedy)


@pytest.mark.parametrize(
    ("normalization", "norm"), [("simple", 5**0.7), ("gnmt", (10 / 6) ** 0.7), ("none", 1)]
)
def test_scores_are_normalised_for_length(
    translators: dict[str, Translator], normalization: str, norm: float
) -> None:
    said = one(
        normalised(translators["model"], normalization), min_length=4, max_length=4, length_penalty=0.7
    )
    assert len(said.tokens) == 4
    assert said.score == pytest.approx(said.log_probability / norm)


def normalised(translator: Translator, normalization: str) -> Translator:
    decoding = translator.decoding.model_copy(update={"length_normalization": normalization})
    return replace(translator, decoding=decoding)


def test_lengths(translator: Translator) -> None:
    for said in several(translator, SENTENCES, min_length=6, max_length=7):
        assert not said.source.ids or 6 <= len(said.tokens) <= 7


def test_no_ngram_twice(translator: Translator) -> None:
    for said in several(translator, SENTENCES, min_length=12, max_length=12, no_repeat_ngram=2):
        pairs = [*zip(said.target.ids, said.target.ids[1:], strict=False)]
        assert len(pairs) == len({*pairs})


def test_a_prefix_is_how_it_begins(model: Translator) -> None:
    for settings in ({"beam": 1}, {"beam": 3}, {"sample": True}):
        assert one(model, prefix="I think", **settings).text.startswith("I think")
    said = several(model, SENTENCES[:3], prefix=["We", "", "You"])
    assert said[0].text.startswith("We")
    assert said[2].text.startswith("You")
    assert_same(said[1], one(model, SENTENCES[1]))
    whole = one(model)
    assert_same(one(model, prefix=whole.text), whole)  # the best there is begins with itself
    with pytest.raises(Seq2attnError, match="expected a prefix for each of 3 texts, got 1"):
        model.translate(SENTENCES[:3], prefix=["We"])


def test_an_unknown_word_becomes_the_word_looked_at_most(translators: dict[str, Translator]) -> None:
    model = load(tiny_runs.MODEL, device="cpu")
    with torch.no_grad():
        model.model.decoder.output.bias[model.target.unk] = 50.0
    settings: dict[str, Any] = {"beam": 1, "max_length": 1}
    assert one(model, **settings).text == "⁇"
    said = one(model, replace_unknown=True, alignment=False, **settings)
    assert said.alignment is not None
    looked = said.source_words[int(said.alignment[0].argmax())]
    assert (said.text, said.words) == (looked, [looked])


def test_a_text_has_single_spaces_whatever_pieces_are_said(
    model: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SentencePiece decodes them to ' ⁇  is ⁇ ' and 'is  '; the words are those of the text."""
    unknown, space = model.target.unk, model.target.encode(["⁇"])[0][0]
    is_ = model.target.encode(["is"])[0]
    said = [[unknown], [unknown, *is_, unknown], [*is_, space, space], [*is_, space, space, *is_], [space]]
    texts = ["⁇", "⁇ is ⁇", "is", "is is", ""]
    for ids, text in zip(said, texts, strict=True):
        hypothesis = Hypothesis(ids, -1.0, -0.5)
        monkeypatch.setattr(model.generator, "search", lambda *a, h=hypothesis: [[h]])
        found = one(model)
        assert (found.text, " ".join(found.words)) == (text, text)
        assert (found.score, found.log_probability) == (-0.5, -1.0)
        assert found.weights is not None
        assert len(found.weights) == len(ids)


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_what_was_not_looked_at_costs(translators: dict[str, Translator], kind: str) -> None:
    """beta sum log min(c, 1) over the source and its end, of the last layer's weights, in every search."""
    translator = translators[kind]
    all_settings: list[dict[str, Any]] = [{}, {"beam": 1}, {"sample": True}]
    for settings in all_settings:
        penalties = []
        for said in several(translator, SENTENCES, coverage_penalty=0.3, **settings):
            if said.source.ids:
                (forced,) = translator.generator.forced_decoding(
                    [SourceIds(said.source.ids)], [said.target.ids], 4096, AlignmentHead(-1)
                )
                assert forced.weights is not None
                penalty = 0.3 * forced.weights.sum(0).clamp(1e-6, 1).log().sum().item()
                bare = said.log_probability / (len(said.tokens) + 1)
                assert said.score == pytest.approx(bare + penalty, abs=1e-4)
                penalties.append(penalty)
        assert min(penalties) < -0.1


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_sampling_the_likeliest_is_greedy(translator: Translator, settings: dict[str, Any]) -> None:
    drawn = several(translator, SENTENCES, sample=True, **settings)
    for said, expected in zip(drawn, several(translator, SENTENCES, beam=1), strict=True):
        assert_same(said, expected)


def test_a_seed_decides_what_is_drawn(translator: Translator) -> None:
    samples = [several(translator, SENTENCES, sample=True, nbest=2, seed=seed) for seed in (3, 3, 4)]
    texts = [[other.text for said in some for other in said.nbest] for some in samples]
    assert texts[0] == texts[1] != texts[2]
    assert all(said.score >= other.score for some in samples for said in some for other in said.others)
    assert len({said.text for said in several(translator, SENTENCES[:1] * 5, sample=True)}) > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam": 0}, r"beam: expected at least 1, got 0"),
        ({"beam": "3"}, r"beam: expected a whole number, got '3'"),
        ({"nbest": "3"}, r"nbest: expected a whole number, got '3'"),
        ({"nbest": 5, "beam": 2}, r"nbest: 5 outputs need a beam of at least 5, got 2"),
        ({"temperature": 0.0, "sample": True}, r"temperature: expected more than 0, got 0.0"),
        ({"top_p": 1.5, "sample": True}, r"top_p: expected at most 1, got 1.5"),
        ({"top_k": -1, "sample": True}, r"top_k: expected at least 0, got -1"),
        ({"min_length": 9, "max_length": 3}, r"min_length: 9 is more than max_length 3"),
        ({"top_k": 3, "temperature": 2.0}, r"temperature, top_k would do nothing: set sample, too"),
        ({"batch_tokens": 0}, r"batch_tokens: expected at least 1, got 0"),
    ],
)
def test_wrong_settings_are_said(model: Translator, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(Seq2attnError, match=rf"^decoding: {message}$"):
        model.translate("Ja.", **settings)


# ---- one sentence's result is its own ---------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"beam": 1}, {"nbest": 3}, {"sample": True, "nbest": 2, "top_p": 0.9}]
)
def test_neither_batch_size_nor_chunks_change_a_result(
    translator: Translator, settings: dict[str, Any]
) -> None:
    expected = several(translator, SENTENCES, batch_tokens=4000, **settings)
    for said, wanted in zip(
        several(translator, SENTENCES, batch_tokens=50, **settings), expected, strict=True
    ):
        assert_same(said, wanted)
    decoding = translator.settings(settings)
    for chunk in (1, 3):
        streamed = translator.stream(SENTENCES, decoding, alignment=True, chunk=chunk)
        for said, wanted in zip(streamed, expected, strict=True):
            assert_same(said, wanted)


def test_order_does_not_change_a_result(translator: Translator) -> None:
    expected = dict(zip(SENTENCES, several(translator, SENTENCES, nbest=2), strict=True))
    order = random.Random(1).sample(SENTENCES, len(SENTENCES))
    for text, said in zip(order, several(translator, order, nbest=2), strict=True):
        assert_same(said, expected[text])


def test_a_stream_reads_no_further_than_it_must(model: Translator) -> None:
    read = []

    def lines() -> Iterator[str]:
        for number in range(100):
            read.append(number)
            yield "Ja."

    stream = model.stream(lines(), model.settings({"beam": 1}), chunk=3)
    assert not read
    next(stream)
    assert len(read) == 3
    for _ in range(3):
        next(stream)
    assert len(read) == 6


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
    with pytest.raises(Seq2attnError, match="the model has 1 attention layers, 0 to 0; got layer 1"):
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
    with pytest.raises(Seq2attnError, match=r"this model has no attention .* so it cannot be aligned"):
        translator.align("Ja.", "Yes.")
    for fails in (said[0].pharaoh, said[0].plot):
        with pytest.raises(Seq2attnError, match="its model has no attention"):
            fails()
    with pytest.raises(Seq2attnError, match="its model has no attention"):
        translator.translate("Ja.", replace_unknown=True)
    with pytest.raises(
        Seq2attnError,
        match=r"no attention \(order .*\), so a coverage penalty has nothing to count: set .* 0",
    ):
        translator.translate("Ja.", coverage_penalty=0.2)


# ---- loading ----------------------------------------------------------------------------------------


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


NO_TEXTS: list[Any] = [None, 5, b"EU", ["a", None], [["a", "b"]], {"a": 1}, {"a"}, [b"a"], [{"a": 1}]]


@pytest.mark.parametrize("wrong", NO_TEXTS, ids=str)
def test_what_is_no_text_is_refused(model: Translator, wrong: Any) -> None:
    with pytest.raises(Seq2attnError) as caught:
        model.translate(wrong)
    assert str(caught.value) == f"expected a text or a list of texts (str), got {wrong!r}"


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
    assert translators["transformer"].source is translators["transformer"].target
    assert isinstance(translators["lstm"].source, Vocabulary)
    assert translators["lstm"].source.model != translators["lstm"].target.model
