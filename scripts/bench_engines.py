"""Measure how fast a run translates: by torch, by engines, and by CTranslate2 itself.

    OMP_NUM_THREADS=1 python scripts/bench_engines.py RUN LINES [--engines ctranslate2 ctranslate2:int8]
        [--batches 1 16 64] [--rounds 5]

The contenders take turns, round by round, so that other work on the machine affects all of them, and the
last column is the median of the ratios within rounds, by CPU time. CTranslate2 itself gets pieces and returns
pieces; the others go from text to text. Conversion is not measured.
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


def contenders(run: Path, engines: list[str], beam: int) -> dict[str, Translate]:
    """Return functions that translate a batch, by the name of the contender; the first is torch.

    engines: names, or names and precisions: ctranslate2:int8.
    """
    own = seq2attn.load(run, device="cpu").configured({"beam": beam, "nbest": 1})
    found: dict[str, Translate] = {
        "torch": lambda texts: list(own.stream_chunks([texts])),
        "torch, with alignments": lambda texts: list(own.stream_chunks([texts], alignment=True)),
    }
    for engine in engines:
        found |= _of_engine(run, *engine.partition(":")[::2], beam)
    return found


def _of_engine(run: Path, name: str, quantize: str, beam: int) -> dict[str, Translate]:
    """Return the contenders of one engine."""
    one = seq2attn.load(run, device="cpu", engine=name, quantize=quantize or None)
    one = one.configured({"beam": beam, "nbest": 1})
    made: Any = one.generator.engine
    names = one.source.names

    def raw(texts: list[str]) -> object:
        pieces = [[names[number] for number in ids] for ids in one.source.encode(texts)]
        return made.translator.translate_batch(pieces, beam_size=beam, max_input_length=0)

    found: dict[str, Translate] = {
        made.name: lambda texts: list(one.stream_chunks([texts], exact=False)),
        f"{made.name}, with scores": lambda texts: list(one.stream_chunks([texts])),
        f"{made.name}, with alignments": lambda texts: list(one.stream_chunks([texts], alignment=True)),
    }
    if name == "ctranslate2":
        found[f"CTranslate2 itself, {quantize or 'float32'}"] = raw
    return found


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
    parser.add_argument("--engines", nargs="+", default=["ctranslate2", "ctranslate2:int8"])
    return parser.parse_args()


def main() -> None:
    """Measure, and print a table in Markdown."""
    options = arguments()
    lines = options.lines.read_text(encoding="utf-8").splitlines()
    functions = contenders(options.run, options.engines, options.beam)
    print(f"{processor()}, {torch.get_num_threads()} threads, beam {options.beam}\n")
    print("| batch | contender | sentences/s | by CPU second | times torch |\n|---|---|---|---|---|")
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
            ratios = [own[1] / other[1] for own, other in zip(times["torch"], rounds, strict=True)]
            print(f"| {size} | {name} | {wall:,.1f} | {cpu:,.1f} | {statistics.median(ratios):.2f} |")


if __name__ == "__main__":
    main()
