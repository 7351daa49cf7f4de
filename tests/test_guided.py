"""Guided attention from end to end: links in the data, a loss on one head, a loaded model that aligns by it."""

import itertools
from pathlib import Path

import pytest
import tiny_runs
from torch.testing import assert_close

import seq2attn.runs.training_run
from seq2attn import load
from seq2attn.alignment.word_alignment import Gold, Link, error_rate
from seq2attn.data import Report, known_alignment, pairs
from seq2attn.inference.translator import Translator
from seq2attn.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

SIDE = "kind: transformer, size: 32, feed_forward: 64, dropout: 0.0, self_attention: {heads: 4}"
LETTERS = "task: copy, symbols: 8, lengths: [3, 6]"
SMALL = [
    f"data.train={{{LETTERS}, count: 2000, alignments: true}}",
    *(f"data.{role}={{{LETTERS}, count: 60}}" for role in ("dev", "test")),
    f"model.encoder={{{SIDE}, layers: 1}}",
    f"model.decoder={{{SIDE}, layers: 3, cross_attention: {{heads: 4}}}}",
]


def trained(folder: Path, steps: int, losses: str, *others: str) -> Translator:
    """A loaded Transformer that has learnt to copy, with guided attention."""
    training = [
        f"training={{max_steps: {steps}, validate_every: {steps}, batch_tokens: 300, learning_rate: 0.005, "
        "metric: loss, metrics: exact}",
        f"training.attention_losses={losses}",
    ]
    seq2attn.runs.training_run.train(
        "copy_additive", folder, [*SMALL, *training, *others], display=tiny_runs.silent()
    )
    return load(folder, device="cpu")


def test_a_guided_transformer_aligns_by_the_head_that_was_trained(tmp_path: Path, stores: None) -> None:
    model = trained(tmp_path / "run", 150, "{guided: 0.5, layer: -1, head: 2}")
    assert (model.alignment_layer, model.alignment_head) == (2, 2)
    corpus = RunFolder.open(tmp_path / "run").recipe.data.test
    assert corpus is not None
    test = list(pairs(corpus, ("x", "y"), Report(), "test"))
    links = [frozenset(itertools.starmap(Link, _known(pair.source))) for pair in test]

    def wrong(layer: int | None = None, head: int | None = None) -> float:
        alignments = [model.align(pair.source, pair.target, layer, head).links() for pair in test]
        return error_rate(alignments, [Gold(gold, gold) for gold in links])

    assert wrong() == wrong(2, 2) < 0.03
    assert all(wrong(2, head) > 0.06 for head in (0, 1, 3))  # they were not guided
    result = model.translate(test[0].source)  # translations are aligned by it, too
    assert_close(result.weights, model.align(test[0].source, result.text, 2, 2).weights)


def _known(text: str) -> list[tuple[int, int]]:
    return [(source, target) for target, source in enumerate(known_alignment("copy", text))]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ("{guided: 0.5}", (1, 0)),  # the default: the first head of the layer before the last
        ("{guided: 0.5, layer: 0, coverage: 1.0}", (0, 0)),
    ],
)
def test_a_loaded_model_aligns_by_what_was_guided(
    tmp_path: Path, stores: None, losses: str, expected: tuple[int, int]
) -> None:
    model = trained(tmp_path / "run", 1, losses)
    assert (model.alignment_layer, model.alignment_head) == expected
    assert_close(model.align("a b", "a b").weights, model.align("a b", "a b", *expected).weights)


@pytest.mark.parametrize(
    ("copying", "expected"), [("{layer: 2, head: 3}", (2, 3)), ("{layer: 0}", (0, None))]
)
def test_a_model_that_copies_is_guided_where_it_copies(
    tmp_path: Path, stores: None, copying: str, expected: tuple[int, int | None]
) -> None:
    model = trained(tmp_path / "run", 1, "{guided: 0.5}", f"model.decoder.copying={copying}")
    assert (model.alignment_layer, model.alignment_head) == expected
