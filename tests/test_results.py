"""A translation knows its words, its links, its picture and its rivals, and says so when it has no alignment."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from html_page import Page, static
from torch.testing import assert_close

from seq2attn.alignment.word_alignment import by_words, parse_pharaoh
from seq2attn.errors import Seq2attnError
from seq2attn.inference.label_results import Annotation, Category, Entity
from seq2attn.inference.results import Translation
from seq2attn.text.vocabulary import Tokens
from seq2attn.text.word_vocabulary import Word
from seq2attn.views.heatmaps import PlotError

UNKNOWN = 1
SOURCE = Tokens([7, 8, 9, 4], ["▁Ich", "▁hung", "ere", "."], ["Ich", "hungere", "."], [0, 1, 1, 2])
TARGET = Tokens([5, 6, 7, 8, 9], ["▁I", "▁am", "▁hung", "ry", "."], ["I", "am", "hungry."], [0, 1, 2, 2, 2])
PIECES = torch.tensor(
    [
        [0.7, 0.1, 0.1, 0.0, 0.1],
        [0.1, 0.3, 0.3, 0.0, 0.3],
        [0.0, 0.4, 0.5, 0.0, 0.1],
        [0.1, 0.5, 0.2, 0.1, 0.1],
        [0.0, 0.0, 0.0, 0.2, 0.8],
    ]
)


def translation(text: str = "I am hungry.", score: float = -0.25) -> Translation:
    words = by_words(PIECES, TARGET.word_of, SOURCE.word_of, source_eos=True)
    return Translation(SOURCE, TARGET, text, score, 6 * score, *words, PIECES)


def unaligned(text: str = "I am hungry.") -> Translation:
    return Translation(SOURCE, TARGET, text, -0.25, -1.5)


def test_names_not_positions() -> None:
    result = translation()
    assert str(result) == result.text == "I am hungry."
    assert (result.words, result.source_words) == (TARGET.words, SOURCE.words)
    assert (result.tokens, result.source_tokens) == (TARGET.pieces, SOURCE.pieces)
    assert repr(result) == "Translation('I am hungry.', score=-0.250)"
    assert result.alignment is not None and result.end_of_sentence is not None
    assert_close(result.alignment.sum(1) + result.end_of_sentence, torch.ones(3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.text = "other"  # type: ignore[misc]


def test_the_others_come_after_the_best() -> None:
    best, second, third = hypotheses = [translation(t, s) for t, s in (("a", -1.0), ("b", -2.0), ("c", -3.0))]
    result = best.among(hypotheses)
    assert result.others == (second, third)
    assert [one.text for one in result.nbest] == ["a", "b", "c"]
    assert result.nbest[0] is result and best.nbest == (best,)


def test_pharaoh_links_words() -> None:
    assert translation().pharaoh() == "0-0 1-1 1-2"
    assert translation().pharaoh(threshold=0.6) == "0-0"
    assert parse_pharaoh(translation().pharaoh())[2] == (1, 2)


def test_links_are_those_of_pharaoh() -> None:
    for threshold in (None, 0.0, 0.6):
        assert translation().links(threshold) == parse_pharaoh(translation().pharaoh(threshold))
    with pytest.raises(Seq2attnError, match="this translation has no alignment"):
        unaligned().links()


def test_unknown_words_are_copied_from_where_they_looked() -> None:
    source = Tokens([7, 8, 9], ["▁in", "▁Wladiwostok", "▁Wien"], ["in", "Wladiwostok", "Wien"], [0, 1, 2])
    words = ["I", "⁇", "⁇", "x⁇", "I"]
    target = Tokens([5, UNKNOWN, UNKNOWN, 6, 5], ["▁I", "<unk>", "<unk>", "x⁇", "▁I"], words, [0, 1, 2, 3, 4])
    looked = torch.tensor([[0.9, 0, 0], [0.1, 0.2, 0.3], [0.1, 0.3, 0.2], [0.9, 0, 0], [0.9, 0, 0]])
    result = Translation(source, target, "I ⁇  ⁇ x⁇ I", 0.0, 0.0, looked, 1 - looked.sum(1)).known(UNKNOWN)
    assert result.text == "I Wien Wladiwostok x⁇ I"
    assert result.words == ["I", "Wien", "Wladiwostok", "x⁇", "I"]
    assert result.tokens == target.pieces
    blind = dataclasses.replace(result, target=target, text="I ⁇  ⁇ x⁇ I", alignment=torch.zeros(5, 3))
    assert blind.known(UNKNOWN).text == "I ⁇ ⁇ x⁇ I"
    assert translation().known(UNKNOWN).text == "I am hungry."
    spaced = Tokens([5, UNKNOWN], ["▁a▁b", "<unk>"], ["a b", "⁇"], [0, 1])
    result = Translation(source, spaced, "a  b ⁇", 0.0, 0.0, torch.eye(2, 3))
    assert result.known(UNKNOWN).text == "a b Wladiwostok" and result.words == ["a b", "⁇"]
    with pytest.raises(Seq2attnError, match="expected the words of the text, got 'a b', which is not in 'c'"):
        dataclasses.replace(result, text="c").known(UNKNOWN)


def test_a_blank_sentence_has_an_empty_translation() -> None:
    empty = Translation.empty(Tokens([], [], [], []))
    assert (str(empty), empty.score, empty.words, empty.pharaoh()) == ("", 0.0, [], "")
    assert empty.to_json()["alignment"] == [] and empty._repr_png_() is None
    assert "<table" not in static(empty._repr_html_())


def test_json_holds_everything_and_comes_back() -> None:
    entry = translation().to_json()
    assert json.loads(json.dumps(entry)) == entry
    assert entry["text"] == "I am hungry." and entry["score"] == -0.25 and entry["log_probability"] == -1.5
    assert entry["words"] == TARGET.words and entry["source_words"] == SOURCE.words
    assert entry["alignment"][1] == [0.1, 0.6, 0.0]
    assert entry["alignment"][2] == [0.0333, 0.5333, 0.1] and entry["end_of_sentence"] == [0.1, 0.3, 0.3333]
    assert "nbest" not in entry and unaligned().to_json()["alignment"] is None
    several = translation("a").among([translation("b")]).to_json()
    assert [one["text"] for one in several["nbest"]] == ["a", "b"]


def test_the_picture_is_by_words_or_by_pieces(tmp_path: Path) -> None:
    words = translation().plot(tmp_path / "map.svg", title="Ich hungere.").axes[0]
    assert [label.get_text() for label in words.get_xticklabels()] == [*SOURCE.words, "</s>"]
    assert [label.get_text() for label in words.get_yticklabels()] == TARGET.words
    assert words.get_title(loc="left") == "Ich hungere." and (tmp_path / "map.svg").exists()
    pieces = translation().plot(pieces=True).axes[0]
    assert [label.get_text() for label in pieces.get_xticklabels()] == [*SOURCE.pieces, "</s>"]
    assert [label.get_text() for label in pieces.get_yticklabels()] == TARGET.pieces
    drawn = [np.asarray(mesh.get_array()) for mesh in pieces.collections]
    np.testing.assert_array_equal(np.concatenate(drawn, 1), PIECES.double())


def test_notebooks_show_a_table_and_a_picture() -> None:
    best = translation("<b>R&D</b> 日本")
    result = best.among([best, translation("worse & longer", -2.0)])
    page = Page(static(result._repr_html_()))
    assert page.texts[0] == "<b>R&D</b> 日本"  # escaped: it comes back as text
    assert page.texts[1] == "score -0.250 · log-probability -1.500"
    assert page.texts[2:] == [*SOURCE.words, "</s>", *TARGET.words, "worse & longer", " ", "-2.000"]
    assert [style[-5:-1] for style in page.styles[4:8]] == ["0.10", "0.60", "0.00", "0.30"]
    png = result._repr_png_()
    assert png is not None and png.startswith(b"\x89PNG")


def test_notebooks_show_labels_and_entities() -> None:
    words = [Word("Bo", 0, 2), Word("<b>", 3, 6), Word("Oslo", 7, 11)]
    entities = [Entity("LOC", "Oslo", 7, 11, 0.98, 2, 2), Entity("PER", "Bo", 0, 2, 0.5, 0, 0)]
    annotation = Annotation("Bo <b> Oslo", words, ["B-PER", "O", "B-LOC"], entities)
    assert Page(static(annotation._repr_html_())).texts == ["Bo ", "PER 0.50", " <b> ", "Oslo ", "LOC 0.98"]
    assert Page(static(Annotation("a < b", [], [], [])._repr_html_())).texts == ["a < b"]
    weights = torch.tensor([[0.25, 0.25, 0.5]])
    category = Category("Bo <b> Oslo", words, "en", {"de": 0.1, "en": 0.9}, weights)
    page = Page(static(category._repr_html_()))
    assert page.texts == ["Bo <b> Oslo", "en", " ", "en 0.900, de 0.100", "Bo", "<b>", "Oslo", "en"]
    assert [style[-5:-1] for style in page.styles] == ["0.25", "0.25", "0.50"]


def test_notebooks_get_no_picture_that_cannot_be_drawn() -> None:
    many = Tokens([3] * 1100, ["▁W"] * 1100, ["W"] * 1100, list(range(1100)))
    long = Translation(many, TARGET, "x", 0.0, 0.0, torch.full((3, 1100), 0.05))
    assert long._repr_png_() is None and len(long._repr_html_()) > 100_000
    longer = dataclasses.replace(long, alignment=torch.zeros(1100, 1100))
    assert len(longer._repr_html_()) < 500


def test_long_sentences_have_upright_heads() -> None:
    source = Tokens([3] * 20, ["▁Wörter"] * 20, ["Wörter"] * 20, list(range(20)))
    long = Translation(source, TARGET, "x", 0.0, 0.0, torch.full((3, 20), 0.05))
    assert static(long._repr_html_()).count("vertical-rl") == 20  # and no </s>: its source has none
    assert "vertical-rl" not in static(translation()._repr_html_())


def test_without_alignment_a_translation_is_its_text() -> None:
    page = Page(unaligned("a < b")._repr_html_())
    assert page.texts == ["a < b", "score -0.250 · log-probability -1.500"]
    assert unaligned()._repr_png_() is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: unaligned().plot(),
        lambda: unaligned().plot(pieces=True),
        lambda: unaligned().pharaoh(),
        lambda: unaligned().known(UNKNOWN),
    ],
)
def test_without_alignment_the_error_says_why_and_what_to_do(call: Callable[[], object]) -> None:
    message = "no alignment: its model has no attention, or .* alignment=False; use a model with attention"
    with pytest.raises(Seq2attnError, match=message):
        call()


def test_an_empty_translation_has_no_picture() -> None:
    with pytest.raises(PlotError, match="nothing to draw"):
        Translation.empty(Tokens([], [], [], [])).plot()


def test_no_break_spaces_stay_where_unknown_words_are_replaced() -> None:
    source = Tokens([5], ["x"], ["Haus"], [0])
    target = Tokens([UNKNOWN, 6], ["?", "y"], ["⁇", "a\u00a0b"], [0, 1])
    weights = torch.ones(2, 1)
    result = Translation(source, target, "⁇ a\u00a0b", 0.0, 0.0, weights, torch.zeros(2)).known(UNKNOWN)
    assert (result.text, result.words) == ("Haus a\u00a0b", ["Haus", "a\u00a0b"])
