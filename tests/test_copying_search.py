"""Search with copying: scores are those of forced decoding, in any batch; and the translations of it."""

import json
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from html_page import Page, static
from tiny_copying import MODELS, V, set_gate, sources, words
from torch.testing import assert_close

from seq2attn.data.batches import PairIds, collate
from seq2attn.data.sources import PairTokenizer, SourceIds
from seq2attn.inference.beam_search import beam_search
from seq2attn.inference.forced import ForcedDecoding
from seq2attn.inference.generator import Generator
from seq2attn.inference.results import Translation
from seq2attn.inference.search import Rules, greedy, sample
from seq2attn.inference.translator import Translator
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import DecodingRecipe, ModelRecipe
from seq2attn.training.objectives import AttentionLosses

RULES = Rules(tiny.BOS, tiny.EOS, (tiny.PAD, tiny.BOS))


def stepping(model: Seq2Seq) -> Any:
    return lambda token, state: model.step(token.masked_fill(token >= V, tiny.UNK), state)


@pytest.mark.parametrize("name", ["luong", "feeding", "transformer", "transformer-first"])
@pytest.mark.parametrize("way", ["greedy", "beam", "sample"])
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_search_scores_as_forced_decoding_does_in_any_batch(name, way):
    model = tiny.model(MODELS[name])
    set_gate(model, -1.0)
    lengths = (7, 3, 5, 9)
    source = sources(*lengths)

    def search(rows: list[int], width: int) -> Any:
        state = model.start(tiny.rows(source, rows, width))
        limits = torch.tensor([6] * len(rows))
        if way == "greedy":
            return [[h] for h in greedy(stepping(model), state, RULES, limits)]
        if way == "sample":
            all_seeds = [[11 * row + n for row in rows] for n in range(4)]
            samples = [sample(stepping(model), state, RULES, limits, seeds) for seeds in all_seeds]
            return [list(hypotheses) for hypotheses in zip(*samples, strict=True)]
        return beam_search(stepping(model), state, RULES, limits, 4)

    with torch.inference_mode():
        together = search([0, 1, 2, 3], 9)
        produced = set()
        for row, length in enumerate(lengths):
            (alone,) = search([row], length)
            assert [h.tokens for h in alone] == [h.tokens for h in together[row]]
            for ours, other in zip(alone, together[row], strict=True):
                assert ours.log_probability == pytest.approx(other.log_probability, abs=1e-5)
                ids = torch.tensor([[tiny.BOS, *ours.tokens]])
                tokens, target = ids.masked_fill(ids >= V, tiny.UNK), torch.tensor([*ours.tokens, tiny.EOS])
                decoded = model(tiny.rows(source, [row]), tokens)
                scores = decoded.logits[0].log_softmax(-1).gather(-1, target[:, None]).sum()
                if len(ours.tokens) < 6:
                    assert float(scores) == pytest.approx(ours.log_probability, abs=1e-4)
                produced |= {*ours.tokens}
                assert {i for i in ours.tokens if i >= V} <= {*source.copy_ids[row, :length].tolist()}
    assert any(token >= V for token in produced)


def test_a_beam_wider_than_all_possible_tokens_stays_within_the_sentence():
    """Ids that only another sentence of the batch can copy are never continuations."""
    model = tiny.model(MODELS["luong"])
    source = sources(3, 9)
    rules = Rules(tiny.BOS, tiny.EOS, tuple(i for i in range(V) if i not in (tiny.EOS, 5)), 2, 2)
    beams = beam_search(stepping(model), model.start(source), rules, torch.tensor([6, 6]), 40)
    possible = {5, *source.copy_ids[0, :3].tolist()}
    assert beams[0] and all({*h.tokens} <= possible for h in beams[0])
    rules = replace(rules, min_length=20, no_repeat_ngram=1)
    short, _ = greedy(stepping(model), model.start(source), rules, torch.tensor([30, 30]))
    assert {*short.tokens} == possible and short.log_probability > float("-inf")  # and then nothing is left


# ---- translating -------------------------------------------------------------------------------------

SOURCES = ["the zork sees a blub", "gnu runs", "the cat runs", "a dog 漢字 zork ?", "", "blub"]


def translator(name: str = "luong", gate_logit: float = -2.0, seed: int = 1) -> Translator:
    torch.manual_seed(seed)
    vocabulary = words()
    model = build(ModelRecipe.model_validate(MODELS[name]), vocabulary.size, vocabulary.size).eval()
    set_gate(model, gate_logit)
    generator = Generator(model, PairTokenizer(vocabulary, vocabulary, copying=True))
    return Translator(generator, DecodingRecipe(max_length=7, min_length=3))


def source_ids(predictor: Translator, text: str) -> SourceIds:
    """The ids of a text, with its pieces."""
    tokenizer = predictor.generator.tokenizer
    return tokenizer.source_ids(tokenizer.tokenize_source(text).ids, lambda: text)


def forced_decoding(predictor: Translator, text: str, target: Any) -> ForcedDecoding:
    """A target that is forced through the model."""
    (forced,) = predictor.generator.forced_decoding([source_ids(predictor, text)], [target], 1000)
    return forced


@pytest.mark.parametrize("name", ["luong", "transformer-first"])
@pytest.mark.parametrize(
    "settings", [{"beam": 1}, {"beam": 3, "nbest": 2}, {"sample": True, "nbest": 3}, {"min_length": 4}]
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_translations_have_words_of_their_source(name, settings):
    predictor = translator(name)
    together = predictor.translate(SOURCES, **settings)
    new = set()
    for index, (text, result) in enumerate(zip(SOURCES, together, strict=True)):
        before = ["x"] * index  # samples depend on the index of a sentence
        alone = predictor.translate([*before, text], **settings)[-1]
        for one, other in zip(alone.nbest, result.nbest, strict=True):
            assert (one.text, one.target) == (other.text, other.target)
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-5)
            assert_close((one.alignment, one.copied), (other.alignment, other.copied), atol=1e-5, rtol=1e-5)
        for one in result.nbest:
            known = {predictor.target.decode([i]) for i in range(predictor.target.size)} | {"⁇", "漢字 zork"}
            assert {*one.words} <= known | {*text.split()}
            new |= {word for word in one.words if word not in known}
            if not text:
                assert one.copied is None
                continue
            assert one.copied is not None and one.copied.shape == (len(one.words),)
            assert ((one.copied >= 0) & (one.copied <= 1)).all()
            for word, share in zip(one.words, one.copied.tolist(), strict=True):
                if word in ("zork", "blub", "gnu"):  # the vocabulary lacks them
                    assert share == pytest.approx(1, abs=1e-5)
                elif word not in text.split() and word != "漢字 zork":
                    assert share == 0
    assert new


def test_a_given_target_is_forced_with_its_names():
    predictor = translator("transformer-first", seed=5)
    said = predictor.translate("the zork sees a blub", beam=1, max_length=5)
    assert said.text == "a sees blub" and said.target.ids[2] == predictor.target.size + 4
    forced = forced_decoding(predictor, "the zork sees a blub", said.target.ids)
    assert forced.log_probability == pytest.approx(said.log_probability, abs=1e-5)
    text = "a blub sees"
    aligned = predictor.align("the zork sees a blub", text)
    assert aligned.target.ids[1] == predictor.target.size + 4 and aligned.text == text
    assert aligned.copied is not None and aligned.copied[1] == pytest.approx(1, abs=1e-5)
    (score,) = predictor.log_probabilities(["the zork sees a blub"], [text])
    assert score == pytest.approx(aligned.log_probability, abs=1e-5)
    (other,) = predictor.log_probabilities(["the zork sees a gnu"], [text])  # there it can only be <unk>
    assert other != pytest.approx(score, abs=0.1)


@pytest.mark.parametrize("name", ["luong", "transformer-first"])
def test_a_translation_has_the_probability_of_the_same_text(name):
    """After a copied word, too: search reads it as <unk>, as training does."""
    predictor, copied = translator(name), 0
    for text in SOURCES:
        if not text:
            continue
        said = predictor.translate(text, beam=1, min_length=5)
        copied += any(token >= predictor.target.size for token in said.target.ids[:-1])
        forced = forced_decoding(predictor, text, said.target.ids)
        assert said.log_probability == pytest.approx(forced.log_probability, abs=1e-5)
    assert copied


def test_the_weights_that_copy_are_shown_and_trained():
    """One attention (layer 0, head 3), unless another is named."""
    predictor = translator("transformer-first")
    text, target = "the zork sees a blub", "a blub sees"
    shown = predictor.align(text, target).weights
    assert_close(shown, predictor.align(text, target, 0, 3).weights)
    assert_close(predictor.translate(text, prefix=target).weights[:3], shown[:3], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(shown, predictor.align(text, target, 1).weights)
    assert not torch.allclose(shown, predictor.align(text, target, head=2).weights)
    assert_close(predictor.align(text, target, head=2).weights, predictor.align(text, target, 0, 2).weights)
    assert_close(
        predictor.align(text, target, 2).weights,
        torch.stack([predictor.align(text, target, 2, head).weights for head in range(5)]).mean(0),
    )
    losses = AttentionLosses({"coverage": 1.0, "guided": 1.0}, predictor.model.decoder)
    heads = losses.layer, losses.head, losses.guided_layer, losses.guided_head, losses.layers
    assert heads == (0, 3, 0, 3, [0])


def test_a_prefix_may_name_a_word_of_the_source():
    predictor = translator()
    said = predictor.translate("the zork sees", prefix="zork runs", max_length=6)
    assert said.words[:2] == ["zork", "runs"] and said.target.ids[0] == predictor.target.size + 1


def test_the_share_that_was_copied_is_bayes():
    """(1 - g) sum a / P of each token, written out."""
    predictor = translator(gate_logit=0.3)
    text, tokenizer = "the zork sees the cat", predictor.generator.tokenizer
    source = source_ids(predictor, text)
    copied = tokenizer.collate([source]).copy_ids[0].tolist()
    target = [copied[1], copied[0], copied[4], 7]
    forced = forced_decoding(predictor, text, target)
    batch = collate(tokenizer, [PairIds(source, target)])
    with torch.no_grad():
        decoded = predictor.model(batch.source, batch.target_input, [0])
    p, weights = decoded.logits[0].softmax(-1), decoded.weights[0, 0, 0]
    for step, token in enumerate([*target, predictor.target.eos]):
        mass = sum(float(a) for a, i in zip(weights[step], copied, strict=True) if i == token)
        share = (1 - float(decoded.gate[0, step])) * mass / float(p[step, token])
        assert float(forced.copied[step]) == pytest.approx(share, abs=1e-5)
    assert forced.copied[0] == pytest.approx(1) and 0 < forced.copied[1] < 1


def test_without_texts_an_unknown_piece_is_copied_as_unknown():
    predictor = translator()
    (ids,) = predictor.source.encode(["the zork"])
    source = predictor.generator.tokenizer.source_ids(ids)
    copied = predictor.generator.tokenizer.collate([source]).copy_ids.tolist()
    assert copied == [[ids[0], predictor.target.unk, predictor.target.eos]]
    assert predictor.generator.search([source], predictor.decoding)[0]


def test_results_show_the_copied_shares():
    said = translator().translate("the zork sees a blub", beam=1, max_length=5)
    assert said.copied is not None
    entry = json.loads(json.dumps(said.to_json()))
    assert entry["copied"] == [round(share, 4) for share in said.copied.double().tolist()]
    labels = [label.get_text() for label in said.plot().axes[0].get_xticklabels()]
    assert labels == [*said.source_words, "</s>", "copied"]
    page = Page(static(said._repr_html_()))
    assert "copied" in page.texts
    assert len(page.styles) == len(said.words) * (len(said.source_words) + 2)
    plain = Translation(said.source, said.target, said.text, 0.0, 0.0, said.alignment, said.end_of_sentence)
    assert plain.to_json()["copied"] is None and "copied" not in Page(static(plain._repr_html_())).texts
    assert len(plain.plot().axes[0].get_xticklabels()) == len(labels) - 1
