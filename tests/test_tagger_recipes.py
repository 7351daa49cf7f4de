"""From recipes to taggers: options reach their layers, and parts that do not go together are refused."""

import itertools
from typing import Any

import pytest
import tiny_words
import torch
from pydantic import ValidationError
from tiny_taggers import TEXT
from tiny_words import LABELS

from seq2attn.attention.compatibility import incompatibilities
from seq2attn.attention.heads import Window
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.scorers import SCORERS
from seq2attn.errors import Seq2attnError
from seq2attn.models.tagger_factory import build_tagger
from seq2attn.models.taggers import Tagger
from seq2attn.recipe import ClassifierRecipe, TaggerRecipe


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def faults(recipe: type, **sections: Any) -> list[str]:
    with pytest.raises(ValidationError) as error:
        recipe.model_validate(sections)
    return [f"{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.value.errors()]


def test_the_defaults_are_a_bilstm_crf_with_characters():
    with torch.device("meta"):
        model = build_tagger(TaggerRecipe(), 101, 31, LABELS, "bio")
    assert isinstance(model, Tagger) and model.crf is not None and model.attention is None
    encoder = model.encoder
    assert (encoder.size, encoder.embedding.size, encoder.embedding.character_encoder.size) == (400, 150, 50)
    assert (encoder.dropout.rate, encoder.embedding.dropout.rate) == (0.5, 0.5)


def test_the_recipe_reaches_the_network():
    attention = {"window": 2, "sinks": 1, "exclude_self": True, "join": "gate", "dropout": 0.1}
    words = {"size": 7, "frozen": True, "word_dropout": 0.2, "dropout": 0.3, "variational": True}
    model = tiny_words.tagger(
        attention=attention,
        embedding={**words, "characters": {"kind": "cnn", "window": 4, "dropout": 0.4}},
        encoder={**tiny_words.TRANSFORMER, "positions": {"name": "learned", "length": 11}},
        head={"kind": "linear"},
    )
    part, self_attention = model.encoder.embedding, model.attention
    assert (self_attention.window, self_attention.exclude_self, self_attention.gate is None) == (
        Window(2, 1),
        True,
        False,
    )
    assert self_attention.attention.dropout == 0.1 and model.crf is None
    assert (part.word_dropout, part.dropout.rate, part.dropout.variational) == (0.2, 0.3, True)
    assert (part.character_encoder.convolution.kernel_size, part.character_encoder.dropout.rate) == (
        (4,),
        0.4,
    )
    assert part.positions.table.num_embeddings == 11 and not part.table.weight.requires_grad
    biases = [p for name, p in model.encoder.named_parameters() if name.endswith("outer.bias")]
    assert len(biases) == 2 and all((bias == 0).all() for bias in biases)  # as Transformers are initialised


def test_given_vectors_reach_the_table():
    vectors = torch.randn(tiny_words.WORDS, 7)
    recipe = TaggerRecipe.model_validate(tiny_words.TINY)
    model = build_tagger(recipe, tiny_words.WORDS, tiny_words.CHARACTERS, LABELS, "bio", vectors)
    assert torch.equal(model.encoder.embedding.table.weight, vectors)


PAIRS = list(itertools.product(SCORERS, NORMALIZERS))


def fit(role: str) -> list[tuple[str, str]]:
    return [(s, n) for s, n in PAIRS if not list(incompatibilities(SCORERS[s], NORMALIZERS[n], role))]


@pytest.mark.parametrize(("score", "normalize"), fit("self-attention"), ids="-".join)
@pytest.mark.parametrize("heads", [1, 2])
def test_words_may_attend_by_every_part_that_the_recipe_takes(score, normalize, heads):
    section = {"score": score, "normalize": normalize, "heads": heads}
    model = tiny_words.tagger(attention=section, label_attention=section)
    output = model(tiny_words.batch(*TEXT), need_weights=True)
    assert output.scores.isfinite().all() and output.weights.shape == (5, heads, 7, 7)
    output.scores.sum().backward()


@pytest.mark.parametrize(("score", "normalize"), fit("pooling"), ids="-".join)
def test_sentences_and_spans_may_be_pooled_by_every_part_that_the_recipe_takes(score, normalize):
    section = {"score": score, "normalize": normalize}
    classifier = tiny_words.classifier(pooling={"kind": "attention", "queries": 3, **section})
    output = classifier(tiny_words.batch(*TEXT), need_weights=True)
    assert output.scores.isfinite().all() and output.weights.shape == (5, 3, 7)
    spans = tiny_words.tagger(head={"kind": "spans", "attention": section})
    assert spans(tiny_words.batch(*TEXT)).scores.isfinite().all()


def test_the_recipe_refuses_what_the_networks_refuse():
    assert len(fit("self-attention")) < len(PAIRS)
    for score, normalize in set(PAIRS) - set(fit("self-attention")):
        lines = faults(TaggerRecipe, attention={"score": score, "normalize": normalize})
        assert any(line.startswith(("attention.score: ", "attention.normalize: ")) for line in lines)


@pytest.mark.parametrize(
    ("recipe", "sections", "fault"),
    [
        (TaggerRecipe, {"attention": {"heads": 3}}, "attention.heads: 3 heads do not divide the size 400"),
        (
            TaggerRecipe,
            {"attention": {"query_key_norm": True}},
            "attention.query_key_norm: a single head has no projections to normalize: set heads, or use cosine",
        ),
        (
            TaggerRecipe,
            {"label_attention": {"score": "dot", "size": 3}},
            "label_attention.score: Dot needs queries and keys of one size, got 400 and 3; ",
        ),
        (
            TaggerRecipe,
            {"label_attention": {"window": 3}},
            "label_attention.window: only self-attention can have a window",
        ),
        (
            TaggerRecipe,
            {"head": {"kind": "spans"}, "attention": {}},
            "attention: is for labels of words, and the head spans has its own attention: set head.attention",
        ),
        (
            TaggerRecipe,
            {"head": {"kind": "spans", "attention": {"heads": 2}}},
            "head.attention.heads: attention over a span has a single head: set heads to 1",
        ),
        (
            TaggerRecipe,
            {"embedding": {"join": "gate", "characters": None}},
            "embedding.join: a gate mixes words and characters: set characters, or use concat",
        ),
        (
            TaggerRecipe,
            {"encoder": {"kind": "transformer", "word_dropout": 0.1}},
            "encoder.word_dropout: belongs to the embedding here: set model.embedding.word_dropout",
        ),
        (
            TaggerRecipe,
            {"head": {"kind": "crv"}},
            "head.kind: unknown 'crv' (did you mean crf? one of linear, crf, spans)",
        ),
        (
            ClassifierRecipe,
            {"pooling": {"kind": "attention", "penalty": 0.1}},
            "pooling.penalty: compares queries, and there is only one: set queries, or penalty to 0",
        ),
        (ClassifierRecipe, {"pooling": {"kind": "mean", "queries": 2}}, "pooling.queries: unknown key"),
    ],
)
def test_what_does_not_go_together_is_said(recipe, sections, fault):
    assert [line for line in faults(recipe, **sections) if line.startswith(fault)]


def test_tags_need_a_scheme():
    with pytest.raises(
        Seq2attnError, match="words are labelled with tags of a scheme: expected its name, got"
    ):
        build_tagger(TaggerRecipe(), 11, 7, LABELS, None)
