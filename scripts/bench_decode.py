"""Measure the speed of decoding: sentences and tokens a second, latency, memory, time to start.

    python scripts/bench_decode.py transformer additive --beams 1,5 --batches 1,16,64 --json speed.json
    python scripts/bench_decode.py --run runs/multi30k_transformer   # a trained model, its own lengths
    python scripts/bench_decode.py --run runs/multi30k_additive --engine torch onnx onnx:int8
    python scripts/bench_decode.py --starts                          # only the time that starting takes

Models have random weights, and each translation is forced to have --length pieces (0: the model's own
length), so that all do the same work. Engines are for trained models, of their own length: ctranslate2 leaves
texts of a given length to torch. Sentences are from the test set of Multi30k, or from the sample that ships,
sorted by length. Each call, from text to text and without alignments, translates one batch. p50 and p95 are
percentiles of the time of a call; with batches of 1, of the latency of a sentence. The time to the first
translation is that of `seq2attn translate` on one line, from start to end of the process, with a small saved
Transformer (or with the run).
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
from bench_models import MODELS, Measured, Sample, positive, positives, precisions

from seq2attn.inference.translator import Translator
from seq2attn.runtime.devices import pick_device
from seq2attn.tasks.loading import load, reopen
from seq2attn.tasks.sequence_tasks import TranslationTask
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.training.run_folder import RunFolder, Version, weights_name, weights_of
from seq2attn.version import __version__

CASE = ("model", "engine", "precision", "beam", "batch")
HEADS = (*CASE, "sentences/s", "tokens/s", "p50", "p95", "memory")


class Case(NamedTuple):
    """A measurement, which gets a process of its own."""

    model: str  # a name in MODELS, or a run folder
    precision: str
    beam: int
    batch: int  # sentences in a call
    device: torch.device
    threads: int
    clock: str  # a name in bench_models.CLOCKS
    sentences: int  # in a turn
    length: int  # of every translation, in pieces; 0: the model's own
    pieces: Path | None
    engine: str = "torch"  # or ctranslate2, onnx; with a precision of its own: onnx:int8


# ---- models ------------------------------------------------------------------------------------------


def translator(case: Case) -> Translator:
    """Return the model of a run, or one with random weights that generates only pieces of its vocabulary."""
    if case.pieces is None:
        name, _, quantize = case.engine.partition(":")
        loaded: Translator = load(
            case.model, "best", str(case.device), case.precision, engine=name, quantize=quantize or None
        )
        return loaded
    torch.manual_seed(1)
    task = bench_models.task(case.model, case.pieces)
    model = task.build()
    with (
        torch.no_grad()
    ):  # embeddings may have more rows than the vocabulary: they take their time, and are never chosen
        model.decoder.output.bias[Vocabulary.load(case.pieces).size :] = -1e9
    return task.predictor(model, case.device, case.precision)


def texts(pieces: Path | None, run: str) -> list[str]:
    """Return the sources of a run's test (or dev) set, or of the test set that is available."""
    if pieces is None:
        from seq2attn.runs.evaluation import held_out

        task = reopen(RunFolder.open(run))
        examples = held_out(task, "test" if task.recipe.data.test else "dev")
    else:
        examples = bench_models.task("transformer", pieces).examples("test")
    return [examples.source_text(number) for number in range(len(examples))]


def save(pieces: Path, run: Path) -> None:
    """Write a run folder like training does, with a small untrained Transformer."""
    task = TranslationTask(bench_models.recipe("transformer", pieces), [Vocabulary.load(pieces)])
    folder = RunFolder.create(run, task.recipe, Version(seq2attn=__version__), task.files())
    torch.manual_seed(1)
    name = weights_name(1)
    folder.save_weights(name, weights_of(task.build()))
    folder.version.best = folder.version.last = name
    folder.commit()


# ---- measuring ---------------------------------------------------------------------------------------


def prepare(case: Case) -> Callable[[int], Sample]:
    """Return a function that translates the sentences of a turn; warm up before."""
    torch.set_num_threads(case.threads)
    model, clock = translator(case), bench_models.CLOCKS[case.clock]
    changes = {"beam": case.beam, "nbest": 1, "batch_tokens": 10**6}  # a call is a batch
    if case.length:
        changes |= {"min_length": case.length, "max_length": case.length}
    model = model.configured(changes)
    sentences = list(islice(cycle(texts(case.pieces, case.model)), case.sentences))
    sentences.sort(key=lambda text: len(model.source.encode([text])[0]))
    batches = [sentences[begin : begin + case.batch] for begin in range(0, len(sentences), case.batch)]

    def measure(turn: int) -> Sample:
        seconds, translations = [], []
        for batch in batches:
            begun = clock()
            translations += model.stream_chunks([batch], exact=False)
            bench_models.synchronize(case.device)
            seconds.append(clock() - begun)
        tokens = sum(len(translation.target.ids) + 1 for translation in translations)
        return {
            "sentences_per_second": len(sentences) / sum(seconds),
            "tokens_per_second": tokens / sum(seconds),
            "p50": float(np.percentile(seconds, 50)),
            "p95": float(np.percentile(seconds, 95)),
        }

    for batch in batches[:2] + batches[-1:]:
        list(model.stream_chunks([batch], exact=False))
    return measure


def starts(folder: Path, run: str | None, pieces: Path | None, repeat: int) -> dict[str, list[float]]:
    """Return the seconds that starting takes, in turns: Python, the import, the help, a first translation."""
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


# ---- results -----------------------------------------------------------------------------------------


def described(case: Case, measured: Measured) -> dict[str, Any]:
    """Return a case with its measurements, as JSON has it."""
    record: dict[str, Any] = {name: getattr(case, name) for name in CASE}
    record |= {name: [sample[name] for sample in measured.samples] for name in measured.samples[0]}
    return {**record, "memory": measured.memory}


def row(record: dict[str, Any]) -> list[str]:
    """Return a row of the table."""
    spread = bench_models.spread
    return [
        *(str(record[name]) for name in CASE),
        spread(record["sentences_per_second"], ",.1f"),
        spread(record["tokens_per_second"]),
        *(f"{statistics.median(record[name]) * 1000:,.0f} ms" for name in ("p50", "p95")),
        f"{record['memory'] / 1e6:,.0f} MB",
    ]


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help=f"{', '.join(MODELS)}; default: the first three"
    )
    parser.add_argument("--run", help="a run folder instead")
    parser.add_argument(
        "--precision", type=precisions, default="fp32", help="fp32, bf16, fp16, or a list: fp32,bf16"
    )
    parser.add_argument(
        "--engine",
        nargs="+",
        default=["torch"],
        help="torch, ctranslate2, onnx, or several; with weights of 8 bits: onnx:int8",
    )
    parser.add_argument("--beams", type=positives, default="1,5")
    parser.add_argument("--batches", type=positives, default="1,16,64", help="sentences in a call")
    parser.add_argument("--length", type=int, help="pieces of every translation; 0 = the model's own length")
    parser.add_argument("--sentences", type=positive, default=128, help="in each turn")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    parser.add_argument("--clock", choices=bench_models.CLOCKS, default="wall")
    parser.add_argument("--repeat", type=positive, default=5, help="turns")
    parser.add_argument("--json", type=Path, help="write all measurements to this file")
    parser.add_argument("--starts", action="store_true", help="only the time that starting takes")
    options = parser.parse_args(words)
    if options.run and options.models:
        parser.error("give models or --run")
    if not options.run and options.engine != ["torch"]:
        parser.error("engines are for trained runs: give --run")
    options.models = [options.run] if options.run else options.models or ["additive", "luong", "transformer"]
    if not options.run and (unknown := set(options.models) - MODELS.keys()):
        parser.error(f"unknown model {', '.join(unknown)}: expected {', '.join(MODELS)}")
    options.length = (0 if options.run else 16) if options.length is None else options.length
    return options


def main() -> None:
    """Measure, and print two tables in Markdown."""
    options = arguments()
    device, repeat = pick_device(options.device), options.repeat
    with tempfile.TemporaryDirectory() as folder:
        pieces = None if options.run else bench_models.learn_pieces(Path(folder))
        fixed = (device, options.threads, options.clock, options.sentences, options.length, pieces)
        cases = [
            Case(model, precision, beam, batch, *fixed, engine)
            for model in options.models
            for engine in options.engine
            for precision in options.precision
            for beam in options.beams
            for batch in options.batches
        ]
        measured = [] if options.starts else bench_models.in_turns(cases, prepare, device, repeat)
        seconds = starts(Path(folder), options.run, pieces, repeat)
    records = [described(case, samples) for case, samples in zip(cases, measured, strict=bool(measured))]
    data = "run" if options.run else bench_models.corpus()
    what = f"data:{data}|sentences:{options.sentences}|length:{options.length or 'free'}|repeat:{repeat}"
    signature = f"{what}|clock:{options.clock}|{bench_models.signature(device, options.threads)}"
    if records:
        print(bench_models.table(HEADS, [row(record) for record in records]), "\n")
    rows = [[name, f"{min(times):.2f}", bench_models.spread(times, ".2f")] for name, times in seconds.items()]
    print(bench_models.table(("start", "best, s", "median, s"), rows))
    print(f"\nMedian [least, most]. {signature}")
    if options.json:
        content = {"signature": signature, "measured": records, "starts": seconds}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
