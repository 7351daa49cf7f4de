"""Measure how fast a run translates: by torch, by CTranslate2 itself, and by the engine ctranslate2.

    OMP_NUM_THREADS=1 python scripts/bench_engines.py RUN LINES [--batches 1 16 64] [--rounds 5]

The contenders take turns, round by round, so that other work on the machine affects all of them.
CTranslate2 itself gets pieces and returns pieces; the others go from text to text. Rates are medians over
the rounds, by wall time and by CPU time, which says more if the machine is not idle.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_models import processor

import seq2attn

Translate = Callable[[list[str]], object]


def contenders(run: Path, quantize: str | None, beam: int) -> dict[str, Translate]:
    """Return functions that translate a batch, by the name of the contender."""
    own = seq2attn.load(run, device="cpu").configured({"beam": beam, "nbest": 1})
    engine = seq2attn.load(run, device="cpu", engine="ctranslate2", quantize=quantize)
    engine = engine.configured({"beam": beam, "nbest": 1})
    made: Any = engine.generator.engine
    names = engine.source.names

    def raw(texts: list[str]) -> object:
        pieces = [[names[number] for number in ids] for ids in engine.source.encode(texts)]
        return made.translator.translate_batch(pieces, beam_size=beam, max_input_length=0)

    return {
        "torch": lambda texts: list(own.stream_chunks([texts])),
        "torch, with alignments": lambda texts: list(own.stream_chunks([texts], alignment=True)),
        "CTranslate2 itself": raw,
        made.name: lambda texts: list(engine.stream_chunks([texts], exact=False)),
        f"{made.name}, with scores": lambda texts: list(engine.stream_chunks([texts])),
        f"{made.name}, with alignments": lambda texts: list(engine.stream_chunks([texts], alignment=True)),
    }


def measured(translate: Translate, batches: list[list[str]]) -> tuple[float, float]:
    """Return the wall and the CPU seconds of all batches."""
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        translate(batch)
    return time.perf_counter() - wall, time.process_time() - cpu


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("lines", type=Path, help="a file of sentences")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--sentences", type=int, default=256)
    parser.add_argument("--single", type=int, default=50, help="sentences with batch 1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--quantize", choices=["int8"])
    return parser.parse_args()


def main() -> None:
    """Measure, and print a table in Markdown."""
    options = arguments()
    lines = options.lines.read_text(encoding="utf-8").splitlines()
    functions = contenders(options.run, options.quantize, options.beam)
    print(f"{processor()}, {torch.get_num_threads()} threads, beam {options.beam}\n")
    print("| batch | contender | sentences/s | by CPU second |\n|---|---|---|---|")
    for size in options.batches:
        texts = sorted(lines[: options.single if size == 1 else options.sentences], key=len, reverse=True)
        batches = [texts[start : start + size] for start in range(0, len(texts), size)]
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
        for translate in functions.values():
            translate(batches[-1])
        for _ in range(options.rounds):
            for name, translate in functions.items():
                times[name].append(measured(translate, batches))
        for name, rounds in times.items():
            wall, cpu = (len(texts) / statistics.median(clock) for clock in zip(*rounds, strict=True))
            print(f"| {size} | {name} | {wall:,.1f} | {cpu:,.1f} |")


if __name__ == "__main__":
    main()
