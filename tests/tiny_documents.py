"""Documents of sentences or turns, with references: a corpus for tests."""

import itertools
import json
from pathlib import Path
from typing import Any

from seq2attn.data import Examples, Role, prepare
from seq2attn.recipe import DataRecipe
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.vocabulary_training import train_vocabulary

ROWS: list[dict[str, Any]] = [
    {"article": ["It rained.", "Tom had\nno hat. ", "He sneezed."], "highlights": ["Tom got wet .", "Rain fell ."]},
    {"article": ["Only one."], "highlights": ["One .", "One .", "One is there ."]},
    {"article": "Ann: Hi\r\nBob: Hello\r\rAnn: Bye", "highlights": "They met\r\nand parted ."},
    {"article": [], "highlights": ["Nothing .", ""]},
]  # fmt: skip
SOURCES = ["It rained.\nTom had no hat. \nHe sneezed.", "Only one.", "Ann: Hi\nBob: Hello\n\nAnn: Bye", ""]
TARGETS = [
    ["Tom got wet .", "Rain fell ."],
    ["One .", "One .", "One is there ."],
    ["They met\nand parted ."],
    ["Nothing .", ""],
]


def vocabularies() -> tuple[Vocabulary, Vocabulary]:
    """Train small vocabularies of the documents: of source and target."""
    source, target = (text for text in (SOURCES * 9, list(itertools.chain(*TARGETS)) * 9))
    return train_vocabulary(source, size=293, model="bpe"), train_vocabulary(target, size=283, model="bpe")


def lines(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"table": str(path), "columns": ["article", "highlights"]}


def recipe(corpus: dict[str, Any], **options: Any) -> DataRecipe:
    return DataRecipe.model_validate(
        {"languages": ["doc", "sum"], "train": [corpus], "dev": corpus, **options}
    )


def prepared(
    corpus: dict[str, Any], sides: tuple[Vocabulary, Vocabulary], role: Role = "train", **options: Any
) -> Examples:
    data = recipe(corpus, **options)
    return prepare(data.train if role == "train" else [data.dev], data, sides, role)


def texts(examples: Examples) -> list[tuple[str, str]]:
    return [(examples.source_text(n), examples.target_text(n)) for n in range(len(examples))]
