"""Decoding options of a translator, and the independence of its results from batches and order."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import tiny_runs
import torch
from tiny_translator import KINDS, SENTENCES, assert_same, one, several

from seq2attn.data.sources import SourceIds
from seq2attn.errors import Seq2attnError
from seq2attn.inference.generator import AlignmentHead
from seq2attn.inference.results import Translation
from seq2attn.inference.search import Hypothesis
from seq2attn.inference.translator import Translator
from seq2attn.tasks.loading import load


@pytest.fixture(scope="module", params=KINDS)
def translator(request: pytest.FixtureRequest, translators: dict[str, Translator]) -> Translator:
    return translators[request.param]


@pytest.fixture
def model(translators: dict[str, Translator]) -> Translator:
    """The one that says something."""
    return translators["model"]


# ---- settings ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_after_a_prefix_ends_its_word(translators: dict[str, Translator], kind: str) -> None:
    model = translators[kind]
    for settings in ({"beam": 1}, {"beam": 3}, {"sample": True, "seed": 3, "temperature": 4.0}):
        found = several(model, SENTENCES, prefix=["To ", "To\n", *["Wh "] * (len(SENTENCES) - 2)], **settings)
        firsts = [said.text.split(" ")[0] for said in found if said.source.ids]
        assert set(firsts[:2]) == {"To"} and set(firsts[2:]) == {"Wh"}
    said = several(model, SENTENCES[:1], prefix=" ")
    assert_same(said[0], one(model))


def test_a_prefix_without_a_space_may_go_on(model: Translator) -> None:
    firsts = [said.words[0] for said in several(model, SENTENCES[:3], prefix="No")]
    assert all(word.startswith("No") for word in firsts) and set(firsts) - {"No"}


def test_a_prefix_that_the_vocabulary_lacks_is_said(model: Translator) -> None:
    with pytest.warns(UserWarning, match=r"^the prefix '\u8a9e' has .*vocabulary lacks, which are \u2047 in"):
        assert one(model, prefix="\u8a9e").text.startswith("\u2047")
    with pytest.warns(UserWarning, match=r"^the prefix '\u8a9e' and 1 others have"):
        several(model, SENTENCES[:2], prefix=["\u8a9e", "\u8a9e"])


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
        monkeypatch.setattr(model.generator, "_by_torch", lambda *a, h=hypothesis: {0: [h]})
        found = one(model)
        assert (found.text, " ".join(found.words)) == (text, text)
        assert (found.score, found.log_probability) == (-0.5, -1.0)
        assert found.weights is not None
        assert len(found.weights) == len(ids)


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
@pytest.mark.usefixtures("unchecked_shapes")
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
        ({"temperature": 0.0, "sample": True}, r"temperature: expected at least 1e-06, got 0.0"),
        ({"top_p": 1.5, "sample": True}, r"top_p: expected at most 1, got 1.5"),
        ({"top_k": -1, "sample": True}, r"top_k: expected at least 0, got -1"),
        ({"min_length": 9, "max_length": 3}, r"min_length: 9 is more than max_length 3"),
        ({"top_k": 3, "temperature": 2.0}, r"temperature, top_k has no effect: set sample, too"),
        ({"seed": 3}, r"seed has no effect: set sample, too"),
        ({"sample": True, "beam": 4}, r"beam has no effect: nbest is the number of samples"),
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
@pytest.mark.usefixtures("unchecked_shapes")
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
