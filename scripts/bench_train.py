"""Measure the speed of training: target tokens a second, memory, padding, share of the machine's matrix peak.

    python scripts/bench_train.py --quick                         # a minute: a small model and the reference
    python scripts/bench_train.py transformer additive --precision fp32,bf16 --reference --json speed.json
    python scripts/bench_train.py big --lengths 30,30 --batch-tokens 8192 --device cuda --precision bf16

An update is that of training: a batch from the loader, forward, loss, backward, AdamW. The reference is a
plain PyTorch loop with the same sizes on the same batches: nn.Transformer, or nn.LSTM with nn.LSTMCell for
input feeding, F.cross_entropy on all logits, AdamW. (It ties its embeddings where seq2attn does. Its
Transformer has no dropout of attention weights, which would prevent PyTorch's fused attention.)

The share of the peak is the model's operations divided by the time and by the speed of a large matrix product
in the same precision, measured before and after. Operations are counted from the sizes of the model and the
real tokens (`operations`), because torch's FlopCounterMode misses the fused LSTM and fused attention of the
CPU. So padding, and everything that is computed twice or in vain, lowers the share.

If other work uses the cores, --clock cpu measures everything in CPU time of the process.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import bench_models
import torch
import torch.nn.functional as F
from bench_models import MODELS, MatrixPeak, Measured, Sample, Synthetic, positive, positives, precisions
from torch import Tensor, nn

from seq2attn.data import Examples
from seq2attn.data.batch_plan import Corpus, Indices
from seq2attn.data.batches import Batch, BatchLoader
from seq2attn.recipe import ModelRecipe, RecurrentDecoderRecipe, RecurrentEncoderRecipe
from seq2attn.recipe import TransformerDecoderRecipe as TransformerRecipe
from seq2attn.runtime.devices import autocast, pick_device
from seq2attn.tasks.sequence_tasks import SequenceTask
from seq2attn.training.trainer import Trainer

OURS, REFERENCE = "seq2attn", "reference"
HEADS = (
    "model",
    "precision",
    "by",
    "target tokens/s",
    "s/update",
    "CPU s/update",
    "memory",
    "padding",
    "of the peak",
    "ours/reference",
)


class Case(NamedTuple):
    """A measurement, which gets a process of its own."""

    model: str
    precision: str
    by: str  # OURS or REFERENCE
    device: torch.device
    threads: int
    clock: str  # a name in bench_models.CLOCKS
    batch_tokens: int
    updates: int  # in a turn
    lengths: tuple[int, int] | None  # of source and target, in random ids; None: text
    pieces: Path | None


# ---- operations --------------------------------------------------------------------------------------


def operations(model: ModelRecipe, rows: int, source: Tensor, target: Tensor) -> float:
    """Return the floating-point operations of an update by the model's matrix products, 2 for a multiply-add.

    rows: of the embeddings; source, target (B,): lengths of the sentences, </s> included. The backward pass
    has twice the operations of the forward pass. A causal query attends to its own position and those before
    it.
    """
    S, T, pairs = float(source.sum()), float(target.sum()), float((source * target).sum())
    encoder, decoder = model.encoder, model.decoder
    total = T * decoder.output_size * rows
    if isinstance(encoder, RecurrentEncoderRecipe):
        directions = 2 if encoder.bidirectional else 1
        total += S * directions * 4 * encoder.size * (encoder.embedding + encoder.size)
    else:
        D = encoder.size
        layer = S * (4 * D * D + 2 * D * encoder.feed_forward) + 2 * D * float((source * source).sum())
        total += encoder.layers * layer
    if isinstance(decoder, RecurrentDecoderRecipe):
        H, C, fed = decoder.size, encoder.output_size, decoder.output_size * decoder.input_feeding
        total += len(source) * 2 * C * H  # the initial state
        total += S * C * H + pairs * (H + C)  # keys once; scores and contexts
        if decoder.attention is not None and decoder.attention.score.name == "additive":
            total += T * H * H  # projection of queries
        total += T * (4 * H * (decoder.embedding + fed + H) + (C + H) * decoder.output_size)
    elif isinstance(decoder, TransformerRecipe):
        D, causal = decoder.size, float((target * (target + 1)).sum()) / 2
        layer = T * (6 * D * D + 2 * D * decoder.feed_forward) + S * 2 * D * D + 2 * D * (causal + pairs)
        total += decoder.layers * layer
    return 3 * 2 * total


# ---- the reference -----------------------------------------------------------------------------------


class PlainTransformer(nn.Module):
    """nn.Transformer with one matrix for all embeddings and the output."""

    def __init__(self, recipe: ModelRecipe, rows: int, pad: int) -> None:
        super().__init__()
        side = cast(TransformerRecipe, recipe.decoder)
        heads, layers = side.self_attentions[0].heads, side.layers
        sizes = (side.size, heads, layers, layers, side.feed_forward, side.dropout)
        self.transformer = nn.Transformer(*sizes, batch_first=True, norm_first=True)
        for part in self.modules():
            if isinstance(part, nn.MultiheadAttention):
                part.dropout = 0.0
        self.table, self.dropout, self.pad = nn.Embedding(rows, side.size), nn.Dropout(side.dropout), pad
        nn.init.normal_(self.table.weight, std=side.size**-0.5)
        angles = torch.arange(512)[:, None] * 1e4 ** (-torch.arange(0, side.size, 2) / side.size)
        self.register_buffer("positions", torch.cat([angles.sin(), angles.cos()], -1))

    def embed(self, ids: Tensor) -> Tensor:
        """Return embeddings with positions."""
        x = self.table(ids) * self.table.embedding_dim**0.5 + cast(Tensor, self.positions)[: ids.shape[1]]
        return cast(Tensor, self.dropout(x))

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, T, V)."""
        length = batch.target_input.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=batch.target_input.device).triu(1)
        padding = ~batch.source.mask
        x = self.transformer(
            self.embed(batch.source.tokens),
            self.embed(batch.target_input),
            tgt_mask=causal,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return F.linear(x, self.table.weight)


class PlainRecurrent(nn.Module):
    """nn.LSTM with Luong's attention; with input feeding, step by step with Bahdanau's score."""

    def __init__(self, recipe: ModelRecipe, rows: int, pad: int) -> None:
        super().__init__()
        side = cast(RecurrentDecoderRecipe, recipe.decoder)
        E, H, fed = side.embedding, side.size, side.size if side.input_feeding else 0
        self.source, self.target = nn.Embedding(rows, E), nn.Embedding(rows, E)
        self.encoder = nn.LSTM(E, H // 2, batch_first=True, bidirectional=True)
        self.start = nn.Linear(H, 2 * H)
        self.cell = nn.LSTMCell(E + fed, H) if fed else nn.LSTM(E, H, batch_first=True)
        self.key, self.query, self.energy = (nn.Linear(H, size, bias=False) for size in (H, H, 1))
        self.combine, self.output = nn.Linear(2 * H, H, bias=False), nn.Linear(H, rows)
        self.words, self.dropout = nn.Dropout(side.embedding_dropout), nn.Dropout(side.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, T, V)."""
        lengths = batch.source.mask.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            self.words(self.source(batch.source.tokens)), lengths, batch_first=True, enforce_sorted=False
        )
        encoded, (last, _) = self.encoder(packed)
        states, _ = nn.utils.rnn.pad_packed_sequence(encoded, batch_first=True)
        states, words = self.dropout(states), self.words(self.target(batch.target_input))
        h, c = self.start(last.transpose(0, 1).flatten(1)).tanh().chunk(2, -1)
        keys, padding = self.key(states), ~batch.source.mask
        if isinstance(self.cell, nn.LSTM):
            queries, _ = self.cell(words, (h[None].contiguous(), c[None].contiguous()))
            return self.logits(self.attend(queries, queries @ keys.mT, states, padding))
        outputs, attentional = [], torch.zeros_like(h)
        for word in words.unbind(1):
            h, c = self.cell(torch.cat([word, attentional], -1), (h, c))
            scores = self.energy((self.query(h)[:, None] + keys).tanh()).mT
            outputs.append(self.attend(h[:, None], scores, states, padding))
            attentional = outputs[-1].squeeze(1)
        return self.logits(torch.cat(outputs, 1))

    def attend(self, query: Tensor, scores: Tensor, states: Tensor, padding: Tensor) -> Tensor:
        """Return the attentional vectors (B, T, H)."""
        weights = scores.float().masked_fill(padding[:, None], -math.inf).softmax(-1).to(states.dtype)
        return cast(Tensor, self.combine(torch.cat([weights @ states, query], -1)).tanh())

    def logits(self, attentional: Tensor) -> Tensor:
        """Return the logits (B, T, V) of all steps at once."""
        return cast(Tensor, self.output(self.dropout(attentional)))


class Reference:
    """The trainer of the plain PyTorch loop."""

    def __init__(self, task: SequenceTask, device: torch.device) -> None:
        self.recipe, self.pad, self.device = task.recipe.training, task.tokenizer.target.pad, device
        model = task.recipe.model
        kind = PlainRecurrent if isinstance(model.decoder, RecurrentDecoderRecipe) else PlainTransformer
        self.model = kind(model, task.tokenizer.target.size, self.pad).to(device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.recipe.learning_rate)

    def update(self, batches: list[Batch], step: int) -> None:
        """Make an update from one batch, like Trainer.update."""
        batch = batches[0].to(self.device)
        with autocast(self.device, self.recipe.precision):
            logits = self.model(batch).flatten(0, 1)
            loss = F.cross_entropy(
                logits,
                batch.target.flatten(),
                ignore_index=self.pad,
                label_smoothing=self.recipe.label_smoothing,
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss.item()


# ---- measuring ---------------------------------------------------------------------------------------


def learning(case: Case) -> tuple[SequenceTask, BatchLoader, Trainer | Reference]:
    """Return the task of a case, its batches and its trainer."""
    torch.set_num_threads(case.threads)
    torch.manual_seed(1)
    training = {"batch_tokens": case.batch_tokens, "precision": case.precision}
    task = bench_models.task(case.model, case.pieces, **training)
    if case.lengths is None:
        examples = task.examples("train")
    else:
        examples = cast(Examples, Synthetic(*case.lengths, task.tokenizer.source.size))
    loader = task.loader(examples, training=True)
    if case.by == REFERENCE:
        return task, loader, Reference(task, case.device)
    model = task.build()
    trainer = Trainer(model, task.objective(model, True), task.recipe.training, case.device, None)
    return task, loader, trainer


def prepare(case: Case) -> Callable[[int], Sample]:
    """Return a function that measures the updates of a turn; warm up before."""
    task, loader, trainer = learning(case)
    plan, clock = loader.epoch(0), bench_models.CLOCKS[case.clock]
    peak, wasted = MatrixPeak(case.device, case.precision, clock), padding(loader.examples, plan)

    def measure(turn: int) -> Sample:
        steps = range(turn * case.updates, (turn + 1) * case.updates)
        speed = [peak()]
        begun, worked = clock(), time.process_time()
        batches = []
        for step in steps:
            batches.append(loader.batch(plan[step % len(plan)], 0))
            trainer.update([batches[-1]], step + 1)
        bench_models.synchronize(case.device)
        seconds, worked = clock() - begun, time.process_time() - worked
        speed.append(peak())
        lengths = [(batch.source.mask.sum(1), batch.target_mask.sum(1)) for batch in batches]
        rows = task.tokenizer.target.size
        counted = sum(operations(task.recipe.model, rows, source, target) for source, target in lengths)
        return {
            "tokens_per_second": sum(batch.num_targets for batch in batches) / seconds,
            "seconds_per_update": seconds / case.updates,
            "cpu_seconds_per_update": worked / case.updates,
            "peak": statistics.mean(speed),
            "share_of_peak": counted / seconds / statistics.mean(speed),
            "padding": wasted,
        }

    measure(0)  # allocates memory, and does what is done once
    return measure


def padding(examples: Corpus, plan: list[Indices]) -> float:
    """Return the share of padding in the source and target tokens of an epoch."""
    real = padded = 0
    for indices in plan:
        for lengths in (examples.source_lengths[indices] + 1, examples.target_lengths[indices] + 1):
            real, padded = real + int(lengths.sum()), padded + int(lengths.max()) * len(lengths)
    return 1 - real / padded


# ---- results -----------------------------------------------------------------------------------------


def described(case: Case, measured: Measured, reference: Measured | None) -> dict[str, Any]:
    """Return a case with its measurements, and its ratio to the reference, turn by turn."""
    values = {name: [sample[name] for sample in measured.samples] for name in measured.samples[0]}
    record: dict[str, Any] = {"model": case.model, "precision": case.precision, "by": case.by}
    record |= {"padding": values.pop("padding")[0], "memory": measured.memory, **values}
    if reference is not None:
        pairs = zip(measured.samples, reference.samples, strict=True)
        record["ratio"] = [ours["tokens_per_second"] / theirs["tokens_per_second"] for ours, theirs in pairs]
    return record


def row(record: dict[str, Any]) -> list[str]:
    """Return a row of the table."""
    spread = bench_models.spread
    return [
        record["model"],
        record["precision"],
        record["by"],
        spread(record["tokens_per_second"]),
        spread(record["seconds_per_update"], ".3f"),
        spread(record["cpu_seconds_per_update"], ".3f"),
        f"{record['memory'] / 1e6:,.0f} MB",
        f"{record['padding']:.1%}",
        spread(record["share_of_peak"], ".0%"),
        spread(record["ratio"], ".2f") if "ratio" in record else "",
    ]


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help=f"{', '.join(MODELS)}; default: the first three"
    )
    parser.add_argument(
        "--precision", type=precisions, default="fp32", help="fp32, bf16, fp16, or a list: fp32,bf16"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    parser.add_argument("--clock", choices=bench_models.CLOCKS, default="wall")
    parser.add_argument("--repeat", type=positive, default=5, help="turns")
    parser.add_argument("--updates", type=positive, default=4, help="in each turn")
    parser.add_argument("--batch-tokens", type=positive, default=4096)
    parser.add_argument(
        "--lengths", type=positives, help="source,target: random ids; default without Multi30k: 20,20"
    )
    parser.add_argument("--reference", action="store_true", help="also measure a plain PyTorch loop")
    parser.add_argument("--json", type=Path, help="write all measurements to this file")
    parser.add_argument("--quick", action="store_true", help="transformer, --reference, 1,024 random tokens")
    options = parser.parse_args()
    if options.quick:
        options.reference, options.updates, options.batch_tokens, options.lengths = True, 3, 1024, [20, 20]
        options.models = options.models or ["transformer"]
    options.models = options.models or ["additive", "luong", "transformer"]
    if unknown := set(options.models) - MODELS.keys():
        parser.error(f"unknown model {', '.join(unknown)}: expected {', '.join(MODELS)}")
    if options.lengths is None and bench_models.corpus() != "multi30k":
        options.lengths = [20, 20]
    if options.lengths and len(options.lengths) != 2:
        parser.error("--lengths: expected two numbers, of source and target, as in 20,20")
    return options


def main() -> None:
    """Measure, and print a table in Markdown."""
    options = arguments()
    device = pick_device(options.device)
    lengths = (options.lengths[0], options.lengths[1]) if options.lengths else None
    with tempfile.TemporaryDirectory() as folder:
        pieces = bench_models.learn_pieces(Path(folder)) if lengths is None else None
        fixed = (
            device,
            options.threads,
            options.clock,
            options.batch_tokens,
            options.updates,
            lengths,
            pieces,
        )
        bys = [OURS, REFERENCE] if options.reference else [OURS]
        cases = [
            Case(model, precision, by, *fixed)
            for model in options.models
            for precision in options.precision
            for by in bys
        ]
        measured = bench_models.in_turns(cases, prepare, device, options.repeat)
    records = []
    for index, case in enumerate(cases):
        reference = measured[index + 1] if options.reference and case.by == OURS else None
        records.append(described(case, measured[index], reference))
    data = f"lengths:{lengths[0]},{lengths[1]}" if lengths else bench_models.corpus()
    what = f"data:{data}|batch-tokens:{options.batch_tokens}|repeat:{options.repeat}x{options.updates}"
    signature = f"{what}|clock:{options.clock}|{bench_models.signature(device, options.threads)}"
    print(bench_models.table(HEADS, [row(record) for record in records]))
    print(f"\nMedian [least, most]. {signature}")
    if options.json:
        content = {"signature": signature, "measured": records}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
