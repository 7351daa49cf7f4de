"""How fast models translate: sentences and tokens a second, latency, memory, and when the first one is there.

    python scripts/bench_decode.py transformer additive --beams 1,5 --batches 1,16,64 --json speed.json
    python scripts/bench_decode.py --run runs/multi30k_transformer   # a trained model, lengths as they come
    python scripts/bench_decode.py --starts                          # only what starting takes

Models have random weights, and each translation is forced to --length pieces (0: as they come), so that all
do the same work. Sentences are those of Multi30k's test set, or of the sample that ships, sorted by length;
each call of Translator.translate, from text to text and without alignments, gets one batch of them. p50 and
p95 are of those calls: with batches of 1, the latency of a sentence. The time to the first translation is
that of `seq2attn translate` on one line, from the start of the process to its end, with a small Transformer
that has been saved (or with the run).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import bench_models
import numpy as np
import torch
from bench_models import MODELS, Measured, Sample, positive, precisions, several

from seq2attn.inference.translator import Translator
from seq2attn.runtime.devices import pick_device
from seq2attn.tasks.loading import load, reopen
from seq2attn.tasks.sequence_tasks import TranslationTask
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.training.run_folder import RunFolder, Version, weights_name, weights_of
from seq2attn.version import __version__

HEADS = (
    "model",
    "precision",
    "beam",
    "batch",
    "sentences/s",
    "tokens/s",
    "p50",
    "p95",
    "memory",
)


class Case(NamedTuple):
    """What is measured in a process of its own."""

    model: str  # of MODELS, or a run's folder
    precision: str
    beam: int
    batch: int  # sentences of a call
    device: torch.device
    threads: int
    clock: str  # of bench_models.CLOCKS
    sentences: int  # of a turn
    length: int  # of every translation, in pieces; 0: as they come
    pieces: Path | None


# ---- models ------------------------------------------------------------------------------------------


def translator(case: Case) -> Translator:
    """A run's model, or one with random weights that writes only pieces of its vocabulary."""
    if case.pieces is None:
        loaded: Translator = load(case.model, device=str(case.device), precision=case.precision)
        return loaded
    torch.manual_seed(1)
    task = bench_models.task(case.model, case.pieces)
    model = task.build()
    with torch.no_grad():  # a larger table's other rows cost their time, and are never chosen
        model.decoder.output.bias[Vocabulary.load(case.pieces).size :] = -1e9
    return task.predictor(model, case.device, case.precision)


def texts(pieces: Path | None, run: str) -> list[str]:
    """The sources of a run's test (or dev) set, or of the text that there is."""
    if pieces is None:
        from seq2attn.runs.evaluation import held_out

        task = reopen(RunFolder.open(run))
        examples = held_out(task, "test" if task.recipe.data.test else "dev")
    else:
        examples = bench_models.task("transformer", pieces).examples("test")
    return [examples.source_text(number) for number in range(len(examples))]


def save(pieces: Path, run: Path) -> None:
    """A run's folder as training makes it, with a small Transformer that has learnt nothing."""
    task = TranslationTask(bench_models.recipe("transformer", pieces), [Vocabulary.load(pieces)])
    folder = RunFolder.create(run, task.recipe, Version(seq2attn=__version__), task.files())
    torch.manual_seed(1)
    name = weights_name(1)
    folder.save_weights(name, weights_of(task.build()))
    folder.version.best = folder.version.last = name
    folder.commit()


# ---- measuring ---------------------------------------------------------------------------------------


def prepare(case: Case) -> Callable[[int], Sample]:
    """What translates sentences for a turn, warmed up."""
    torch.set_num_threads(case.threads)
    model, clock = translator(case), bench_models.CLOCKS[case.clock]
    changes = {"beam": case.beam, "nbest": 1, "batch_tokens": 10**6}  # a call is a batch
    if case.length:
        changes |= {"min_length": case.length, "max_length": case.length}
    model = model.configured(changes)
    some = list(islice(cycle(texts(case.pieces, case.model)), case.sentences))
    some.sort(key=lambda text: len(model.source.encode([text])[0]))
    batches = [some[begin : begin + case.batch] for begin in range(0, len(some), case.batch)]

    def measure(turn: int) -> Sample:
        seconds, written = [], []
        for batch in batches:
            begun = clock()
            written += model.translate(batch, alignment=False)
            bench_models.synchronize(case.device)
            seconds.append(clock() - begun)
        tokens = sum(len(one.target.ids) + 1 for one in written)
        return {
            "sentences_per_second": len(some) / sum(seconds),
            "tokens_per_second": tokens / sum(seconds),
            "p50": float(np.percentile(seconds, 50)),
            "p95": float(np.percentile(seconds, 95)),
        }

    for batch in batches[:2] + batches[-1:]:
        model.translate(batch, alignment=False)
    return measure


def starts(folder: Path, run: str | None, pieces: Path | None, repeat: int) -> dict[str, list[float]]:
    """Seconds of what starts, in turns: Python alone, the import, the help, a first translation."""
    if run is None and pieces is not None:
        run = str(folder / "run")
        save(pieces, Path(run))
    command = [sys.executable, "-m", "seq2attn"]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import seq2attn": [sys.executable, "-c", "import seq2attn"],
        "seq2attn --help": [*command, "--help"],
        "first translation": [*command, "translate", str(run)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeat):
        for name, words in commands.items():
            begun = time.perf_counter()
            subprocess.run(words, input="Ein Mann liest.\n", text=True, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - begun)
    return seconds


# ---- what comes out ----------------------------------------------------------------------------------


def described(case: Case, found: Measured) -> dict[str, Any]:
    """A case with all that was measured of it."""
    told: dict[str, Any] = {name: getattr(case, name) for name in ("model", "precision", "beam", "batch")}
    told |= {name: [sample[name] for sample in found.samples] for name in found.samples[0]}
    return {**told, "memory": found.memory}


def row(told: dict[str, Any]) -> list[str]:
    """A line of the table."""
    spread = bench_models.spread
    return [
        *(str(told[name]) for name in ("model", "precision", "beam", "batch")),
        spread(told["sentences_per_second"], ",.1f"),
        spread(told["tokens_per_second"]),
        *(f"{statistics.median(told[name]) * 1000:,.0f} ms" for name in ("p50", "p95")),
        f"{told['memory'] / 1e6:,.0f} MB",
    ]


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; the first three")
    parser.add_argument("--run", help="a run's folder instead")
    parser.add_argument(
        "--precision", type=precisions, default="fp32", help="fp32, bf16, fp16, or several: fp32,bf16"
    )
    parser.add_argument("--beams", type=several, default="1,5")
    parser.add_argument("--batches", type=several, default="1,16,64", help="sentences of a call")
    parser.add_argument("--length", type=int, help="of every translation, in pieces; 0 = as they come")
    parser.add_argument("--sentences", type=positive, default=128, help="in each turn")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    parser.add_argument("--clock", choices=bench_models.CLOCKS, default="wall")
    parser.add_argument("--repeat", type=positive, default=5, help="turns")
    parser.add_argument("--json", type=Path, help="write everything that was measured to a file")
    parser.add_argument("--starts", action="store_true", help="only what starting takes")
    asked = parser.parse_args(words)
    if asked.run and asked.models:
        parser.error("give models or --run")
    asked.models = [asked.run] if asked.run else asked.models or ["additive", "luong", "transformer"]
    if not asked.run and (unknown := set(asked.models) - MODELS.keys()):
        parser.error(f"unknown model {', '.join(unknown)}: expected {', '.join(MODELS)}")
    asked.length = (0 if asked.run else 16) if asked.length is None else asked.length
    return asked


def main() -> None:
    """Measure, and print two tables in Markdown."""
    asked = arguments()
    device, repeat = pick_device(asked.device), asked.repeat
    with tempfile.TemporaryDirectory() as folder:
        pieces = None if asked.run else bench_models.learn_pieces(Path(folder))
        fixed = (device, asked.threads, asked.clock, asked.sentences, asked.length, pieces)
        cases = [
            Case(model, precision, beam, batch, *fixed)
            for model in asked.models
            for precision in asked.precision
            for beam in asked.beams
            for batch in asked.batches
        ]
        measured = [] if asked.starts else bench_models.in_turns(cases, prepare, device, repeat)
        seconds = starts(Path(folder), asked.run, pieces, repeat)
    told = [described(case, found) for case, found in zip(cases, measured, strict=bool(measured))]
    data = "run" if asked.run else bench_models.corpus()
    what = f"data:{data}|sentences:{asked.sentences}|length:{asked.length or 'free'}|repeat:{repeat}"
    signature = f"{what}|clock:{asked.clock}|{bench_models.signature(device, asked.threads)}"
    if told:
        print(bench_models.table(HEADS, [row(one) for one in told]), "\n")
    begun = [[name, f"{min(some):.2f}", bench_models.spread(some, ".2f")] for name, some in seconds.items()]
    print(bench_models.table(("start", "best, s", "median, s"), begun))
    print(f"\nMedian [least, most]. {signature}")
    if asked.json:
        content = {"signature": signature, "measured": told, "starts": seconds}
        asked.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
