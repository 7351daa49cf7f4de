"""Folders of engines have the ids of pieces that are not those of SentencePiece, and tags."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import MODEL
from tiny_translator import SENTENCES

from seq2attn.data.sources import PairTokenizer
from seq2attn.inference.engines.exported_folder import finish, notes_of
from seq2attn.tasks.loading import load
from seq2attn.text.given_ids import Numbering
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.training.run_folder import RunFolder

SCRIPT = Path(__file__).parent.parent / "scripts" / "greedy_onnx.py"


def renumbered(vocabulary: Vocabulary, tags: Any) -> Vocabulary:
    """A vocabulary whose ids are in another order, and which has tags."""
    names = [*reversed(vocabulary.names), *(("<2en>", "<2de>") if tags != "marked" else (">>en<<",))]
    ids = {piece: number for number, piece in enumerate(names)}
    return Vocabulary(vocabulary.model, vocabulary.words, Numbering(ids, None, tags))


@pytest.mark.parametrize("tags", [("<2en>", "<2de>"), "marked"])
def test_a_program_of_ones_own_reads_and_writes_the_same_ids(tags: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model: Any = load(MODEL, device="cpu")
    source, target = (renumbered(one, tags) for one in (model.source, model.target))
    model.generator.tokenizer = PairTokenizer(source, target)
    finish(tmp_path, "onnx", RunFolder.open(MODEL).recipe, model.generator, {})
    pieces = runpy.run_path(str(SCRIPT))["Pieces"]
    found = notes_of(tmp_path)["tags"]
    of_source, of_target = (pieces(tmp_path, side, found) for side in ("source", "target"))
    texts = [*SENTENCES, "<2de> Wo ist Tom?", ">>en<< Wo ist Tom?", ">>fr<<Tom", "Tom <2en>", "<<>>"]
    assert [of_source.encode(text) for text in texts] == source.encode(texts)
    for text in texts:
        (ids,) = target.encode([text])
        assert of_target.decode(ids) == target.decode(ids)
