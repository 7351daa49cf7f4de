"""Models whose attention weights sentences, too: from recipes to answers."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from pydantic import ValidationError
from tiny_hierarchical import ABOVE, recurrent
from tiny_runs import silent
from torch.testing import assert_close

import seq2attn
from seq2attn.recipe import AttentionRecipe, ModelRecipe

RECIPE = """
task: summarization
data:
  languages: [turns, word]
  train: {{table: {0}/train.jsonl, columns: [turns, word]}}
  dev: {{table: {0}/dev.jsonl, columns: [turns, word]}}
  truncate: {{source: {{head: 9, tail: 3}}}}
text: {{model: word, size: 100, joint: true}}
model:
  encoder: {{kind: recurrent, embedding: 16, size: 16}}
  decoder: {1}
training: {{optimizer: adam, learning_rate: 0.01, max_steps: 3, batch_tokens: 99, validate_every: 1000}}
decoding: {{beam: 2, max_length: 6}}
"""
DECODERS = {
    "recurrent": "{kind: recurrent, order: bahdanau, embedding: 8, size: 24, attention: "
    "{score: additive, sentences: {score: additive}}, copying: true}",
    "transformer": "{kind: transformer, size: 16, layers: 2, feed_forward: 20, self_attention: {heads: 2}, "
    "cross_attention: [{heads: 2}, {heads: 2, sentences: {score: scaled_dot}}]}",
}


TURNS = [
    ["Ann", "Bob: we see", "Ann: you do not"],
    ["Bob", "Ann: hello you", "Bob: we do not see you", "Cy: bye"],
    ["Cy", "Cy: bye bye"],
    ["hello"] * 13,  # of which the head and the tail are read
] * 9  # fmt: skip


def run(path: Path, decoder: str) -> None:
    for name in ("train", "dev"):
        rows = [json.dumps({"turns": turns, "word": turns[-1].split()[-1]}) for turns in TURNS]
        (path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    recipe = path / "recipe.yaml"
    recipe.write_text(RECIPE.format(path, DECODERS[decoder]), encoding="utf-8")
    return seq2attn.train(recipe, path / "run", display=silent())


@pytest.mark.parametrize("decoder", DECODERS)
def test_from_lists_of_turns_to_answers(tmp_path, decoder):
    run(tmp_path, decoder)
    predictor = seq2attn.load(tmp_path / "run", device="cpu")
    assert predictor.model.decoder.hierarchical
    text, *others = ("\n".join(turns) for turns in TURNS)
    word = "see"
    found = predictor.summarize(text, nbest=2)
    assert found.alignment is not None and found.alignment.shape[1] == len(text.split())
    assert_close(found.weights.sum(-1), torch.ones(len(found.weights)))
    together = predictor.summarize([*others, text], nbest=2)[-1]
    assert together.text == found.text
    assert together.log_probability == pytest.approx(found.log_probability, abs=1e-5)
    source = predictor.generator.tokenizer.source_ids(found.source.ids, lambda: text)
    (forced,) = predictor.generator.forced_decoding([source], [found.target.ids], 4096)  # as in the search
    assert forced.log_probability == pytest.approx(found.log_probability, abs=1e-4)
    one = predictor.align(text, word)
    (known,) = predictor.log_probabilities([text], [word])
    assert known == pytest.approx(one.log_probability, abs=1e-5)
    (looked,) = predictor.attention_weights([text], [word])
    assert_close(looked[:1, : one.weights.shape[1]], one.weights[:1], atol=1e-5, rtol=1e-5)
    flat = predictor.align(text.replace("\n", " "), word)  # the same ids, but one sentence
    assert flat.source.ids == one.source.ids and abs(flat.log_probability - one.log_probability) > 1e-7


# ---- recipes -----------------------------------------------------------------------------------------


def faults(model: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        ModelRecipe.model_validate(model)
    return str(caught.value)


def test_a_recipe_says_where_it_makes_no_sense():
    own = {
        "encoder": tiny.transformer(self_attention={"heads": 2, **ABOVE}),
        "decoder": recurrent()["decoder"],
    }
    assert "weight the sentences of a source: no use in self-attention" in faults(own)
    linear = {"score": "linear", "normalize": "sum", "heads": 2}
    assert "add log-weights to the scores, and sum needs scores that are never negative" in faults(
        recurrent(attention=linear)
    )
    assert "Coverage follows the weights of earlier queries, word by word" in faults(
        recurrent(above={"score": "coverage"})
    )
    assert "Location depends on the positions of words" in faults(recurrent(above={"score": "location"}))
    sizes = "Dot needs queries and keys of one size, got 14 and 10"
    assert sizes in faults(recurrent(above={"score": "dot"}))
    assert AttentionRecipe().sentences is None
