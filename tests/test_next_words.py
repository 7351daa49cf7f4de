"""The words by which a translation may go on: their probabilities are the model's, and choosing one works."""

from typing import Any

import pytest
import torch
from tiny_runs import MODEL

from seq2attn.data.sources import SourceIds
from seq2attn.errors import Seq2attnError
from seq2attn.inference.next_words import _Boundaries
from seq2attn.tasks.loading import load

TEXT = "Ich weiß nicht, wo er ist."


@pytest.fixture(scope="module")
def model() -> Any:
    return load(MODEL, device="cpu")


def by_forward_passes(model: Any, text: str, prefix: list[int], word: list[int]) -> float:
    """The probability of a word's pieces and of its end, given that the prefix's last word has ended."""
    target, generator = model.target, model.generator
    ends = torch.tensor([name.startswith("▁") for name in target.names])
    ends[target.eos] = True
    source = generator.tokenizer.collate([SourceIds(model.source.encode([text])[0])])
    with torch.no_grad():
        read = torch.tensor([[target.bos, *prefix, *word]])
        steps = generator.model(source, read).logits[0].double().softmax(-1)[len(prefix) :]
    first = steps[0] if not prefix else steps[0] * ends / steps[0][ends].sum()
    following = [first, *steps[1:]]
    if not word:
        return float(first[target.eos])
    product = torch.stack([following[place][piece] for place, piece in enumerate(word)]).prod()
    return float(product * following[-1][ends].sum())


def test_words_have_the_probabilities_of_their_pieces_and_of_their_end(model: Any) -> None:
    for prefix in ("", "I don't", "I don't know "):
        words = model.next_words(TEXT, prefix, 12)
        ids = model.target.encode([prefix])[0]
        assert len(words) == 12 and [*words] == sorted(words, key=lambda word: -word.probability)
        checked = 0
        for word in words:
            pieces = model.target.encode([word.prefix])[0]
            if word.text and pieces[: len(ids)] == ids:
                expected = by_forward_passes(model, TEXT, ids, pieces[len(ids) :])
                assert word.probability >= expected * 0.999  # other pieces may spell it, too
                checked += word.probability == pytest.approx(expected, rel=1e-3)
        assert checked >= 8, prefix
        assert 0.5 < sum(word.probability for word in words) <= 1 + 1e-5


def test_the_words_of_a_translation_are_the_most_probable_ones_and_its_end_is_one(model: Any) -> None:
    result = model.translate("Tom ist nicht hier.", beam=1, alignment=False)
    prefix = ""
    for word in result.words:
        best = model.next_words("Tom ist nicht hier.", prefix)[0]
        assert best.text == word and best.prefix == f"{prefix}{word} "
        prefix = best.prefix
    end = model.next_words("Tom ist nicht hier.", prefix)[0]
    assert end.text == "" and end.probability > 0.9 and end.prefix == result.text


def test_a_chosen_word_begins_the_rest(model: Any) -> None:
    for word in model.next_words(TEXT, "I ", 4):
        again = model.translate(TEXT, prefix=word.prefix, beam=2, alignment=False)
        assert again.words[:2] == ["I", word.text]


def test_a_word_of_a_script_without_spaces_ends_before_any_piece() -> None:
    class Target:
        names, words, bos, eos = ["<s>", "</s>", "▁Tom", "ate", "猫", "▁犬"], "auto", 0, 1

    found = _Boundaries.of(Target(), ["们"], torch.device("cpu"))  # type: ignore[arg-type]
    assert found.begins.tolist() == [False, True, True, False, False, True, False]
    assert found.alone.tolist() == [True, False, False, False, True, True, True]


def test_bad_requests_are_refused(model: Any) -> None:
    assert model.next_words(" ") == []
    for options in ({"count": 0}, {"count": "3"}, {"prefix": 3}):
        with pytest.raises(Seq2attnError, match="expected a"):
            model.next_words(TEXT, **options)


@pytest.mark.parametrize("name", ["translate", "next_words"])
def test_a_prefix_is_at_most_as_long_as_an_output_may_be(model: Any, name: str) -> None:
    most = model.decoding.max_length
    with pytest.raises(Seq2attnError, match=rf"pieces, and outputs at most {most} \(decoding.max_length\)"):
        getattr(model, name)(TEXT, prefix="word " * (most + 1))
