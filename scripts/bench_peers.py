"""Compare the speed of seq2attn with other toolkits: training and decoding, in one interleaved run.

    SEQ2ATTN_DATA=... python scripts/bench_peers.py --joeynmt PATH/bin/python --eole ... --transformers ...

Each toolkit has a virtual environment of its own (see scripts/peers/README.md); one that is not given is left
out. Data, vocabularies and configurations are written to the work folder. Every measurement is a process of
its own, which warms up before its clocks start. The contenders take turns, round by round, so that other work
on the machine affects all of them. Rates are given by wall time and by CPU time, which says more if the
machine is not idle.
"""

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import sentencepiece
import torch
from bench_models import processor
from peers.measuring import Job

from seq2attn.runtime.devices import emulates_bf16

HERE = Path(__file__).parent / "peers"
SPECIALS = ["<unk>", "<pad>", "<s>", "</s>"]
OURS = "seq2attn"


class Contender(NamedTuple):
    """A toolkit, with its settings, in a comparison."""

    name: str
    environment: str  # the virtual environment that runs it
    runner: str
    model: str = ""  # empty: the job's
    precision: str = "float32"
    engine: str = "torch"  # of seq2attn

    def of(self, job: Job) -> Job:
        """Return a job with the model, the precision and the engine of this contender."""
        return replace(job, model=self.model or job.model, precision=self.precision, engine=self.engine)


class Work(NamedTuple):
    """A job, and the contenders that do it."""

    name: str
    unit: str  # of the rates
    job: Job
    contenders: list[Contender]


class Rates(NamedTuple):
    """The rates of a contender in each round."""

    wall: list[float]
    cpu: list[float]


SELF = Contender(OURS, OURS, "run_seq2attn.py")
SELF_BF16 = Contender(f"{OURS} bf16", OURS, "run_seq2attn.py", precision="bfloat16")
ENGINES = {
    f"onnx{quantized}": Contender(f"{OURS} onnx{quantized}", OURS, "run_seq2attn.py", "", precision, "onnx")
    for quantized, precision in (("", "float32"), (":int8", "int8"))
}
JOEYNMT = Contender("JoeyNMT", "joeynmt", "run_joeynmt.py")
EOLE = Contender("Eole", "eole", "run_eole.py")
MARIAN = Contender("Transformers MarianMT", "transformers", "run_marian.py")
CONVERTED = [
    Contender(f"CTranslate2 {precision}", "transformers", "run_marian.py", "ctranslate2", precision)
    for precision in ("float32", "int8")
]

NOTES = {
    "all": "Transformer of 7.6 M parameters: 3+3 layers, 256 wide, 4 heads, feed-forward 1024, one matrix "
    "for all embeddings and the output. LSTM: 1 x 512 with additive attention and input feeding, encoder "
    "2 x 256, embeddings 256. The same joint BPE of 8,000 pieces, Multi30k en-de, fp32 unless stated, "
    "dropout 0.1 (LSTM: 0.2, embeddings 0.1), label smoothing 0.1, Adam, gradients clipped at 1. "
    "Target tokens are counted without padding, with </s>.",
    "decoding": "Random weights; every sentence takes {steps} steps (</s> is forbidden before), so that all "
    "do the same work. From text to text; sentences sorted by length, longest first.",
    OURS: "Batches of sentences of similar length, at most 4,096 tokens on the longer side with padding. "
    "The last step of decoding generates </s>; alignments are off. LSTM: source and target embeddings are "
    "two matrices.",
    f"{OURS} bf16": "The same with `precision: bf16`: weights and their updates stay float32. None of the "
    "others has an option for training in bf16 on a CPU. Left out where the processor has no bf16.",
    f"{OURS} onnx": "The same search, with ONNX Runtime for the model.",
    f"{OURS} onnx:int8": "Likewise, with weights of 8 bits.",
    "JoeyNMT": "Its own `train`, and the `predict` of its `translate`. Batches are made from shuffled "
    "sentences, not sorted by length: at least 4,096 tokens on the longer side with padding. It tokenizes "
    "during training. LSTM: source and target embeddings are one matrix.",
    "Eole": "Its own `train`, and the engine of its `predict`. Batches are sorted by length, 4,096 tokens "
    "with padding. It tokenizes everything before the clocks start. Decoding: the weights after one update.",
    "Transformers MarianMT": "A plain training loop with batches as seq2attn's, tokenized before, and "
    "cross-entropy on all logits. Decoding with `generate`. Post-norm layers, as in Marian.",
    "CTranslate2 float32": "The weights of Transformers MarianMT; one worker with all the threads.",
    "CTranslate2 int8": "The same weights in int8.",
}


def prepare(data: Path, work: Path) -> None:
    """Unpack Multi30k, train the vocabulary, and write the configuration of each toolkit."""
    work.mkdir(parents=True, exist_ok=True)
    names = {"train": "train", "val": "val", "test": "test_2016_flickr"}
    for name, compressed in names.items():
        for side in ("en", "de"):
            lines = gzip.decompress((data / "multi30k" / f"{compressed}.{side}.gz").read_bytes())
            (work / f"{name}.{side}").write_bytes(lines)
    model = work / "joint.model"
    if not model.exists():
        sentencepiece.SentencePieceTrainer.train(
            input=f"{work}/train.en,{work}/train.de",
            model_prefix=str(work / "joint"),
            model_type="bpe",
            vocab_size=8000,
            character_coverage=1.0,
            unk_id=0,
            pad_id=1,
            bos_id=2,
            eos_id=3,
            minloglevel=2,
        )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    vocabulary = [pieces.id_to_piece(index) for index in range(len(pieces))]
    (work / "joeynmt.vocab").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    counts = "".join(f"{piece}\t1\n" for piece in vocabulary if piece not in SPECIALS)
    (work / "eole.vocab").write_text(counts, encoding="utf-8")
    sources = (work / "test.en").read_text(encoding="utf-8").splitlines()
    ordered = sorted(sources, key=lambda line: -len(pieces.encode(line)))
    (work / "sorted.en").write_text("\n".join(ordered) + "\n", encoding="utf-8")
    (work / "joeynmt").mkdir(exist_ok=True)
    for name in ("seq2attn", "joeynmt", "eole"):
        shared, parts = HERE / f"{name}.yaml", sorted(HERE.glob(f"{name}_*.yaml"))
        for files in [[shared, part] for part in parts] or [[shared]]:
            text = "".join(file.read_text(encoding="utf-8") for file in files)
            written = Template(text).substitute(WORK=work.resolve())
            (work / files[-1].name).write_text(written, encoding="utf-8")


def works(options: argparse.Namespace) -> list[Work]:
    """Return all comparisons, in the order of the table."""
    job = Job(
        folder=str(options.work.resolve()),
        kind="train",
        threads=options.threads,
        warmup=options.warmup,
        updates=options.updates,
        sentences=options.sentences,
    )
    engines = [ENGINES[name] for name in options.engine if name != "torch"]
    own = [SELF] if emulates_bf16(torch.device("cpu")) else [SELF, SELF_BF16]
    decoders = [*own, MARIAN, *CONVERTED, JOEYNMT, EOLE]
    comparisons = [
        Work("train transformer", "target tokens/s", job, [*own, JOEYNMT, EOLE, MARIAN]),
        Work("train lstm", "target tokens/s", replace(job, model="lstm"), [*own, JOEYNMT]),
    ]
    for batch in (64, 16, 1):
        count = options.sentences if batch > 1 else options.single
        decoding = replace(job, kind="decode", batch=batch, sentences=count)
        comparisons.append(Work(f"decode beam 5 batch {batch}", "sentences/s", decoding, decoders))
        if engines:
            name, lstm = f"decode lstm beam 5 batch {batch}", replace(decoding, model="lstm")
            comparisons.append(Work(name, "sentences/s", lstm, [SELF, *engines, JOEYNMT]))
    return [work for work in comparisons if f" {options.only} " in f" {work.name} " or not options.only]


def measure(python: str, runner: str, job: Job) -> dict[str, Any]:
    """Run a job in a process of its own, and return its report."""
    environment = {
        **os.environ,
        **{f"{library}_NUM_THREADS": str(job.threads) for library in ("OMP", "MKL", "OPENBLAS")},
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    process = subprocess.run(
        [python, str(HERE / runner), json.dumps(asdict(job))],
        env=environment,
        capture_output=True,
        text=True,
    )
    lines = [line for line in process.stdout.splitlines() if line.startswith('{"tokens"')]
    if process.returncode or not lines:
        raise RuntimeError(f"{runner} ended with status {process.returncode}:\n{process.stderr[-2000:]}")
    report: dict[str, Any] = json.loads(lines[-1])
    return report


def compare(work: Work, pythons: dict[str, str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Return the reports of all available contenders, by name. One that fails is left out, with a message."""
    reports: dict[str, list[dict[str, Any]]] = {
        contender.name: [] for contender in work.contenders if contender.environment in pythons
    }
    for number in range(1, rounds + 1):
        for contender in work.contenders:
            name = contender.name
            if name not in reports:
                continue
            try:
                report = measure(pythons[contender.environment], contender.runner, contender.of(work.job))
            except (RuntimeError, OSError) as error:
                print(f"{work.name}: {name} is left out: {error}", file=sys.stderr)
                del reports[name]
                continue
            reports[name].append(report)
            rate = rates(work, [report]).wall[0]
            print(f"{work.name}, round {number}: {name} {rate:,.1f} {work.unit}", file=sys.stderr)
    return reports


def rates(work: Work, reports: Sequence[dict[str, Any]]) -> Rates:
    """Return tokens a second in training, sentences a second in decoding."""
    counted = "tokens" if work.job.kind == "train" else "parts"
    clocks = ([report[counted] / report[clock] for report in reports] for clock in ("seconds", "cpu_seconds"))
    return Rates(*clocks)


def summary(work: Work, reports: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each contender: medians over the rounds. Ratios of speed are taken in each round."""
    ours = rates(work, reports.get(OURS, []))
    rows = []
    for name, of_contender in reports.items():
        reached = rates(work, of_contender)
        ratios = {
            f"{clock}_ratio": statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
            for clock, mine, theirs in zip(Rates._fields, ours, reached, strict=True)
            if name != OURS and mine
        }
        rows.append(
            {
                "work": work.name,
                "contender": name,
                "unit": work.unit,
                "wall": statistics.median(reached.wall),
                "wall_range": [min(reached.wall), max(reached.wall)],
                "cpu": statistics.median(reached.cpu),
                "tokens_each": statistics.median(
                    report["tokens"] / report["parts"] for report in of_contender
                ),
                "peak_memory": statistics.median(report["peak_memory"] for report in of_contender),
                "versions": of_contender[0]["versions"],
                **ratios,
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]], steps: int) -> str:
    """Return a table in Markdown, with notes on all contenders."""
    lines = [
        "| work | contender | median [range] | by CPU second | seq2attn is faster by | by CPU time "
        "| tokens an update, a sentence | peak memory |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        low, high = row["wall_range"]
        digits = 0 if row["wall"] >= 100 else 1
        ratios = [f"{row[key]:.2f}x" if key in row else "" for key in ("wall_ratio", "cpu_ratio")]
        cells = [
            row["work"],
            row["contender"],
            f"{row['wall']:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}] {row['unit']}",
            f"{row['cpu']:,.{digits}f}",
            *ratios,
            f"{row['tokens_each']:,.0f}",
            f"{row['peak_memory'] / 1e6:,.0f} MB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    shown = ["all", "decoding", *dict.fromkeys(row["contender"] for row in rows)]
    notes = [f"- {name}: {NOTES[name].format(steps=steps)}" for name in shown]
    return "\n".join([*lines, "", *notes])


def machine(rows: Sequence[dict[str, Any]], threads: int) -> str:
    """Return date, machine and versions of the measurement."""
    versions = {name: number for row in rows for name, number in row["versions"].items()}
    made = ", ".join(f"{name} {number}" for name, number in versions.items())
    load = f"load of the last 15 minutes {os.getloadavg()[2]:.1f}"
    return f"{date.today()}, {processor()}, {os.cpu_count()} cores, {threads} threads, {load}; {made}"


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("joeynmt", "eole", "transformers"):
        parser.add_argument(f"--{name}", metavar="PYTHON", help="the interpreter of its environment")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/peers"), help="the work folder; default: runs/peers"
    )
    parser.add_argument(
        "--engine",
        nargs="+",
        choices=["torch", *ENGINES],
        default=["torch"],
        help="our engines, which also decode with the LSTM; not ctranslate2, which leaves texts of a given "
        "length to torch: bench_engines.py measures it, beside CTranslate2 itself",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--warmup", type=int, default=3, help="updates before the clocks start")
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--single", type=int, default=100, help="sentences with batch 1")
    parser.add_argument(
        "--only", default="", help="comparisons with this in their name: train, lstm, batch 64"
    )
    return parser.parse_args()


def main() -> None:
    """Measure, and print a table in Markdown and all rows in JSON."""
    options = arguments()
    data, chosen = Path(os.environ.get("SEQ2ATTN_DATA", "")), works(options)
    if not (data / "multi30k").is_dir():
        sys.exit("set SEQ2ATTN_DATA to the folder with multi30k/ in it")
    if not chosen or options.rounds < 1:
        sys.exit(f"nothing to measure with --only {options.only!r} and --rounds {options.rounds}")
    prepare(data, options.work)
    pythons = {OURS: sys.executable}
    for name in ("joeynmt", "eole", "transformers"):
        given = getattr(options, name)
        if given:
            pythons[name] = given
        else:
            print(f"{name} is left out: give its interpreter with --{name}", file=sys.stderr)
    rows, steps = [], Job("", "").steps
    for work in chosen:
        rows += summary(work, compare(work, pythons, options.rounds))
    print(f"{machine(rows, options.threads)}\n\n{table(rows, steps)}\n")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
