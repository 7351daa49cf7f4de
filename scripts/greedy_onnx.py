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


def main(folder: Path) -> None:
    """Translate standard input, line by line."""
    notes = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    source, target = (
        sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.model"))
        for side in ("source", "target")
    )
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
