"""`look` of taggers and classifiers: all attention weights and hidden states of a text as tensors."""

from typing import Any

import pytest
import tiny_taggers
import tiny_words
import torch
from torch.testing import assert_close

from seq2attn.errors import Seq2attnError
from seq2attn.inference.label_activations import LabelActivations
from seq2attn.inference.recognizer import Categorizer, Recognizer
from seq2attn.models.tagger_factory import build_tagger
from seq2attn.recipe import ClassifierRecipe, TaggerRecipe
from seq2attn.text.word_vocabulary import Labels, WordVocabulary

TEXT = "Bo went to Oslo ."
WORDS, SPANS = 5, 5 + 4 + 3  # spans of at most three words


def model_of(kind: str, name: str) -> Any:
    """A predictor with random weights."""
    words = WordVocabulary.learn([TEXT])
    sizes = words.size, len(words.characters) + 2
    torch.manual_seed(1)
    if kind == "tagger":
        options, labels = tiny_taggers.TAGGERS[name], Labels(tiny_words.LABELS, "bio")
        recipe = TaggerRecipe.model_validate({**tiny_words.TINY, **options})
        return Recognizer(build_tagger(recipe, *sizes, labels.names, "bio"), words, labels)
    labels = Labels(["ham", "spam"])
    section = ClassifierRecipe.model_validate({**tiny_words.TINY, **tiny_taggers.CLASSIFIERS[name]})
    return Categorizer(build_tagger(section, *sizes, labels.names, None), words, labels)


@pytest.mark.parametrize(
    ("kind", "name", "attention", "layers"),
    [
        ("tagger", "crf", None, 0),
        ("tagger", "transformer", None, 2),
        ("tagger", "heads", (1, 5, WORDS, WORDS), 0),
        ("tagger", "pooling", (1, 3, WORDS, WORDS), 0),
        ("tagger", "spans", (1, 1, SPANS, WORDS), 0),
        ("classifier", "hops", (1, 3, 1, WORDS), 0),
        ("classifier", "max", (1, 1, 1, WORDS), 2),
    ],
)
def test_all_that_a_model_has_is_there(
    kind: str, name: str, attention: tuple[int, ...] | None, layers: int
) -> None:
    model = model_of(kind, name)
    seen = model.look(TEXT)
    assert seen.words == TEXT.split() and len(seen.labels) == seen.scores.shape[-1]
    assert seen.labels == (["O", *model.model.types] if name == "spans" else model.labels.names)
    assert (None if seen.attention is None else tuple(seen.attention.shape)) == attention
    assert [layer.shape[2:] for layer in seen.encoder_attention] == [(WORDS, WORDS)] * layers
    assert len(seen.encoder_states) == 2 + layers
    assert {states.shape[:2] for states in seen.encoder_states} == {(1, WORDS)}
    assert (None if seen.spans is None else len(seen.spans)) == (SPANS if name == "spans" else None)
    for weights in (*seen.encoder_attention, *([] if attention is None else [seen.attention])):
        assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))
    assert not any(part.requires_grad for part in seen.encoder_states)


def test_it_is_what_the_results_are_made_of() -> None:
    tagger, classifier = model_of("tagger", "all"), model_of("classifier", "hops")
    seen = tagger.look(TEXT)
    assert_close(seen.attention[0].mean(0), tagger.tag(TEXT).weights)
    assert seen.label_attention.shape == (1, 2, WORDS, len(seen.labels))
    probabilities = classifier.look(TEXT).scores[0].softmax(0)
    assert_close(probabilities.tolist(), list(classifier.classify(TEXT).probabilities.values()))
    with pytest.raises(Seq2attnError, match="got a blank one"):
        tagger.look(" ")


@pytest.mark.parametrize(("kind", "name"), [("tagger", "transformer"), ("classifier", "hops")])
def test_gradients_are_those_of_the_scores(kind: str, name: str) -> None:
    """Input x gradient of a score that is linear in the final states, by hand."""
    model = model_of(kind, name)
    seen: LabelActivations = model.look(TEXT, gradients=True)
    score = seen.scores.flatten()[0]
    first, last = torch.autograd.grad(score, [seen.encoder_states[0], seen.encoder_states[-1]])
    assert first.shape == seen.encoder_states[0].shape and first.abs().sum() > 0
    if kind == "tagger":
        assert_close(last[0, 0], model.model.output.weight[0])
        assert not last[0, 1:].any()  # a score of a word is of its own state
    assert_close(seen.scores.detach(), model.look(TEXT).scores)
