"""Copying from end to end: a tiny model learns to copy words that it has never met."""

import random
from pathlib import Path

from tiny_runs import silent

import seq2attn

FILLERS = ["please", "now", "then", "hello", "there", "maybe", "today", "later"]


def fresh(generator: random.Random) -> str:
    return "".join(generator.choices("bdfgklmnprstvz", k=6))


def calls(generator: random.Random, count: int) -> list[tuple[str, str]]:
    """The name to call is the word after `ask`; no name occurs twice."""
    pairs = []
    for _ in range(count):
        left, right = (generator.choices(FILLERS, k=generator.randint(0, 4)) for _ in range(2))
        name, other = fresh(generator), fresh(generator)
        called, rest = ["ask", name], ["not", other]
        parts = [*left, *called, "and", *rest] if generator.random() < 0.5 else [*left, *rest, "but", *called]
        pairs.append((" ".join([*parts, *right]), f"call {name} now"))
    return pairs


def learn(folder: Path, decoder: str, *overrides: str) -> tuple[float, seq2attn.Translator]:
    """The share of names right in a test set of fresh ones, and the model."""
    generator = random.Random(1)
    rows = {"train": calls(generator, 3000), "dev": calls(generator, 20), "test": calls(generator, 200)}
    for role, pairs in rows.items():
        lines = "".join(f"{source}\t{target}\n" for source, target in pairs)
        (folder / f"{role}.tsv").write_text(lines, encoding="utf-8")
    (folder / "calls.yaml").write_text(
        f"""
data:
  languages: [en, en]
  train: {{table: train.tsv}}
  dev: {{table: dev.tsv}}
text: {{model: word, size: {4 + len(FILLERS) + 6}, joint: true}}
model:
  encoder: {{kind: recurrent, embedding: 24, size: 24}}
  decoder: {decoder}
training:
  {{optimizer: adam, learning_rate: 0.01, batch_tokens: 1000, max_epochs: 3, validate_every: 1000, metric: loss,
    metrics: exact}}
decoding: {{beam: 2, max_length: 8}}
""",
        encoding="utf-8",
    )
    trained = seq2attn.train(folder / "calls.yaml", folder / "run", overrides, display=silent(), device="cpu")
    model = seq2attn.load(trained.run, device="cpu")
    known = " ".join(text for pair in rows["train"] for text in pair).split()
    names = [target.split()[1] for _, target in rows["test"]]
    assert not {*names} & {*known}
    said = model.translate([source for source, _ in rows["test"]])
    right = [one.words[1:2] == [name] for one, name in zip(said, names, strict=True)]
    return sum(right) / len(right), model


RECURRENT = (
    "{kind: recurrent, embedding: 24, size: 48, order: luong, attention: {score: additive}, copying: %s}"
)


def test_unknown_words_are_copied(tmp_path):
    right, model = learn(tmp_path, RECURRENT % "true")
    assert right >= 0.95
    said = model.translate("hello not gnurz but ask qwxyz maybe")
    assert said.text == "call qwxyz now"
    assert said.copied[1] > 0.99 > 0.5 > said.copied[0]
    assert model.align("ask qwxyz and not gnurz", "call qwxyz now").copied[1] > 0.99


def test_without_copying_unknown_words_cannot_be_produced(tmp_path):
    right, model = learn(tmp_path, RECURRENT % "false", "training.max_epochs=1")
    assert right == 0
    assert model.translate("ask qwxyz and not gnurz").copied is None
