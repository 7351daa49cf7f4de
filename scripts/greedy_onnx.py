"""Translate lines greedily with a model that `seq2attn export RUN onnx -o DIR` has written.

    python scripts/greedy_onnx.py DIR < in.de

Needs numpy, onnxruntime and sentencepiece, and neither torch nor seq2attn: a start for programs of your own.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import sentencepiece


class Pieces:
    """A SentencePiece model, and the ids of its pieces if they are not its own (SIDE.ids.json)."""

    def __init__(self, folder: Path, side: str, tags: Any) -> None:
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.model"))
        given = folder / f"{side}.ids.json"
        self.ids = json.loads(given.read_text(encoding="utf-8")) if given.exists() else None
        self.names, self.tags = [*(self.ids or ())], tags

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, which may begin with a tag."""
        if self.ids is None:
            return list(self.model.encode(text))
        if self.tags == "marked":  # any >>text<< is a tag
            tag = text[: text.find("<<") + 2] if text.startswith(">>") and "<<" in text else ""
        else:
            tag = max((tag for tag in self.tags if text.startswith(tag)), key=len, default="")
        pieces = [*([tag] if tag else []), *self.model.encode(text[len(tag) :], out_type=str)]
        return [self.ids.get(piece, self.ids["<unk>"]) for piece in pieces]

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""
        if self.ids is None:
            return str(self.model.decode(ids))
        return str(self.model.decode([self.names[number] for number in ids]))


def main(folder: Path) -> None:
    """Translate standard input, line by line."""
    notes = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    source, target = (Pieces(folder, side, notes.get("tags", ())) for side in ("source", "target"))
    encoder, step = (
        onnxruntime.InferenceSession(str(folder / f"{name}.onnx")) for name in ("encoder", "step")
    )
    for line in sys.stdin:
        ids = [*source.encode(line.rstrip("\n")), notes["source_eos"]]
        print(target.decode(greedy(encoder, step, notes, ids, limit=3 * len(ids) + 10)) if ids[1:] else "")


def greedy(encoder: Any, step: Any, notes: dict[str, Any], ids: list[int], limit: int) -> list[int]:
    """Return the ids of the target of a source, without </s>: the most probable piece at every step."""
    tokens = np.array([ids], dtype=np.int64)
    names = [*notes["state"], *notes["memory"]]
    inputs = {"tokens": tokens, "mask": np.ones_like(tokens, dtype=bool)}
    values = dict(zip(names, encoder.run(names, inputs), strict=True))
    target, token = list[int](), int(notes["bos"])
    outputs = ["logits", *(f"next.{name}" for name in notes["state"])]
    while len(target) < limit:
        logits, *after = step.run(outputs, {"token": np.array([token], dtype=np.int64), **values})
        logits[:, notes["never"]] = -np.inf
        values.update(zip(notes["state"], after, strict=True))
        token = int(logits.argmax())
        if token == notes["eos"]:
            break
        target.append(token)
    return target


if __name__ == "__main__":
    main(Path(sys.argv[1]))
