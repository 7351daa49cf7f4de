"""Chats and their summaries, and a recipe for them."""

import json
import random
from pathlib import Path
from typing import Any

import tiny_runs

import seq2attn

NAMES = ["Anna", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus"]
THINGS = ["a book", "the blue car", "some cold milk", "an old hat", "two red apples"]
RECIPE = """
task: summarization
data:
  train: {table: train.jsonl, columns: [turns, summary]}
  dev: {table: dev.jsonl, columns: [turns, summary]}
  truncate: {source: {head: 30, tail: 13}, target: 20}
text: {model: word, size: 45, joint: true}
model:
  encoder: {kind: recurrent, embedding: 12, size: 11}
  decoder:
    kind: recurrent
    embedding: 12
    size: 14
    order: luong
    attention: {score: {name: coverage, size: 7}}
    copying: true
    readout_size: 12
  tied: all
training:
  {optimizer: adam, learning_rate: 0.02, batch_tokens: 400, max_steps: 24, validate_every: 12, schedule: {name: constant, warmup: 0}, log_every: 5,
    attention_losses: {coverage: 0.3}}
decoding: {beam: 3, no_repeat_ngram: 3, min_length: 4, max_length: 12}
"""


def dialogues(generator: random.Random, count: int, references: int) -> list[dict[str, Any]]:
    """Who asks for what: turns of chat, and as many summaries as wanted."""
    made = []
    for _ in range(count):
        asks, gives = generator.sample(NAMES, 2)
        thing = generator.choice(THINGS)
        chat = [f"{generator.choice(NAMES)}: nice day today" for _ in range(generator.randint(0, 5))]
        turns = [f"{asks}: can you bring {thing} ?", f"{gives}: yes of course", *chat]
        said = [
            f"{asks} asks {gives} for {thing} .",
            f"{gives} will bring {thing} .",
            f"{asks} wants {thing} .",
        ]
        summary: Any = said[0] if references == 1 else said[: 1 + len(made) % references]
        made.append({"turns": turns if len(made) % 2 else "\r\n".join(turns), "summary": summary})
    return made


def write_corpus(folder: Path) -> Path:
    """Write training data and a dev set, and the recipe for them; return its path."""
    generator = random.Random(1)
    for role, count, references in (("train", 150, 1), ("dev", 17, 3)):
        rows = dialogues(generator, count, references)
        (folder / f"{role}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "chats.yaml").write_text(RECIPE, "utf-8")
    return folder / "chats.yaml"


def train(path: Path, recipe: Path | str, *overrides: str, **options: Any) -> Path:
    return seq2attn.train(
        recipe, path, overrides, display=tiny_runs.silent(), device="cpu", **options
    ).run  # fmt: skip
