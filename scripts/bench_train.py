"""How fast models train: target tokens a second, memory, padding, and the share of the machine's matrix peak.

    python scripts/bench_train.py --quick                         # a minute: a small run beside the reference
    python scripts/bench_train.py transformer additive --precision fp32,bf16 --reference --json speed.json
    python scripts/bench_train.py big --lengths 30,30 --batch-tokens 8192 --device cuda --precision bf16

An update is what training does: a batch from the feed, forward, loss, backward, AdamW. The reference is a
plain PyTorch loop of the same sizes on the same batches: nn.Transformer, or nn.LSTM with nn.LSTMCell for
input feeding, F.cross_entropy on all logits, AdamW. (It ties its embeddings where ours does. Its Transformer
does not drop attention weights, which would keep PyTorch from its fused attention.)

Share of the peak: the model's operations, divided by the time and by the speed of a large matrix product in
the same precision, measured before and after. They are counted from the model's sizes and the real tokens
(`operations`), since torch's FlopCounterMode sees neither the CPU's fused LSTM nor its fused attention.
Padding, and whatever is computed twice or for nothing, thus count against the share.

Where other work has the cores, --clock cpu measures everything by the processor time that a process has had.
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
from bench_models import MODELS, MatrixPeak, Measured, Sample, Synthetic, positive, precisions, several
from torch import Tensor, nn

from seq2attn.data import Examples
from seq2attn.data.batch_plan import Corpus, Indices
from seq2attn.data.batches import Batch, BatchLoader
from seq2attn.recipe import ModelRecipe, RecurrentDecoderRecipe, RecurrentEncoderRecipe
from seq2attn.recipe import TransformerDecoderRecipe as TransformerRecipe
from seq2attn.runtime.devices import autocast, pick_device
from seq2attn.tasks.sequence_tasks import SequenceTask
from seq2attn.training.loop import Trainer

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
    """What is measured in a process of its own."""

    model: str
    precision: str
    by: str  # OURS or REFERENCE
    device: torch.device
    threads: int
    clock: str  # of bench_models.CLOCKS
    batch_tokens: int
    updates: int  # in a turn
    lengths: tuple[int, int] | None  # of source and target, in ids; None: text
    pieces: Path | None


# ---- operations --------------------------------------------------------------------------------------


def operations(model: ModelRecipe, rows: int, source: Tensor, target: Tensor) -> float:
    """Floating-point operations of an update by the model's matrix products, 2 for each multiply-add.

    rows: of the embeddings; source, target: lengths of the sentences, ends included. Forward once, backward
    twice as much. A causal query looks at itself and what is before it.
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
        total += len(source) * 2 * C * H  # the state's start
        total += S * C * H + pairs * (H + C)  # keys once; scores and contexts
        if decoder.attention is not None and decoder.attention.score.name == "additive":
            total += T * H * H  # of queries, too
        total += T * (4 * H * (decoder.embedding + fed + H) + (C + H) * decoder.output_size)
    elif isinstance(decoder, TransformerRecipe):
        D, causal = decoder.size, float((target * (target + 1)).sum()) / 2
        layer = T * (6 * D * D + 2 * D * decoder.feed_forward) + S * 2 * D * D + 2 * D * (causal + pairs)
        total += decoder.layers * layer
    return 3 * 2 * total


# ---- the reference -----------------------------------------------------------------------------------


class PlainTransformer(nn.Module):
    """nn.Transformer between a shared table and itself."""

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
        self.register_buffer("places", torch.cat([angles.sin(), angles.cos()], -1))

    def embed(self, ids: Tensor) -> Tensor:
        """Vectors with their places."""
        x = self.table(ids) * self.table.embedding_dim**0.5 + cast(Tensor, self.places)[: ids.shape[1]]
        return cast(Tensor, self.dropout(x))

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, T, V)."""
        length = batch.target_input.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=batch.target_input.device).triu(1)
        nothing = ~batch.source.mask
        x = self.transformer(
            self.embed(batch.source.tokens),
            self.embed(batch.target_input),
            tgt_mask=causal,
            src_key_padding_mask=nothing,
            memory_key_padding_mask=nothing,
            tgt_is_causal=True,
        )
        return F.linear(x, self.table.weight)


class PlainRecurrent(nn.Module):
    """nn.LSTM with Luong's attention; with input feeding, step by step, and Bahdanau's score."""

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
        outputs, (last, _) = self.encoder(packed)
        states, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
        states, words = self.dropout(states), self.words(self.target(batch.target_input))
        h, c = self.start(last.transpose(0, 1).flatten(1)).tanh().chunk(2, -1)
        keys, hidden = self.key(states), ~batch.source.mask
        if isinstance(self.cell, nn.LSTM):
            asked, _ = self.cell(words, (h[None].contiguous(), c[None].contiguous()))
            return self.said(self.read(asked, asked @ keys.mT, states, hidden))
        reads, read = [], torch.zeros_like(h)
        for word in words.unbind(1):
            h, c = self.cell(torch.cat([word, read], -1), (h, c))
            scores = self.energy((self.query(h)[:, None] + keys).tanh()).mT
            reads.append(self.read(h[:, None], scores, states, hidden))
            read = reads[-1].squeeze(1)
        return self.said(torch.cat(reads, 1))

    def read(self, asked: Tensor, scores: Tensor, states: Tensor, hidden: Tensor) -> Tensor:
        """The attentional vector."""
        weights = scores.float().masked_fill(hidden[:, None], -math.inf).softmax(-1).to(states.dtype)
        return cast(Tensor, self.combine(torch.cat([weights @ states, asked], -1)).tanh())

    def said(self, reads: Tensor) -> Tensor:
        """Logits, all at once."""
        return cast(Tensor, self.output(self.dropout(reads)))


class Reference:
    """The plain loop's update."""

    def __init__(self, task: SequenceTask, device: torch.device) -> None:
        self.recipe, self.pad, self.device = task.recipe.training, task.tokenizer.target.pad, device
        model = task.recipe.model
        kind = PlainRecurrent if isinstance(model.decoder, RecurrentDecoderRecipe) else PlainTransformer
        self.model = kind(model, task.tokenizer.target.size, self.pad).to(device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.recipe.learning_rate)

    def update(self, batches: list[Batch], step: int) -> None:
        """As Learner.update, of one batch."""
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
    """What learns, and what from."""
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
    """What measures some updates, warmed up."""
    task, loader, trainer = learning(case)
    plan, clock = loader.epoch(0), bench_models.CLOCKS[case.clock]
    peak, wasted = MatrixPeak(case.device, case.precision, clock), padding(loader.examples, plan)

    def measure(turn: int) -> Sample:
        numbers = [plan[place % len(plan)] for place in range(turn * case.updates, (turn + 1) * case.updates)]
        speed = [peak()]
        begun, worked = clock(), time.process_time()
        batches = []
        for step, some in enumerate(numbers, turn * case.updates + 1):
            batches.append(loader.batch(some, 0))
            trainer.update([batches[-1]], step)
        bench_models.synchronize(case.device)
        seconds, worked = clock() - begun, time.process_time() - worked
        speed.append(peak())
        rows, lengths = (
            task.tokenizer.target.size,
            [(b.source.mask.sum(1), b.target_mask.sum(1)) for b in batches],
        )
        counted = sum(operations(task.recipe.model, rows, *some) for some in lengths)
        return {
            "tokens_per_second": sum(batch.num_targets for batch in batches) / seconds,
            "seconds_per_update": seconds / case.updates,
            "cpu_seconds_per_update": worked / case.updates,
            "peak": statistics.mean(speed),
            "share_of_peak": counted / seconds / statistics.mean(speed),
            "padding": wasted,
        }

    measure(0)  # what is made once, and memory that is then there
    return measure


def padding(examples: Corpus, plan: list[Indices]) -> float:
    """The share of an epoch's source and target tokens that is padding."""
    real = padded = 0
    for some in plan:
        for lengths in (examples.source_lengths[some] + 1, examples.target_lengths[some] + 1):
            real, padded = real + int(lengths.sum()), padded + int(lengths.max()) * len(lengths)
    return 1 - real / padded


# ---- what comes out ----------------------------------------------------------------------------------


def described(case: Case, found: Measured, beside: Measured | None) -> dict[str, Any]:
    """A case with all that was measured of it; the ratio to what was measured beside it, turn by turn."""
    values = {name: [sample[name] for sample in found.samples] for name in found.samples[0]}
    told: dict[str, Any] = {"model": case.model, "precision": case.precision, "by": case.by}
    told |= {"padding": values.pop("padding")[0], "memory": found.memory, **values}
    if beside is not None:
        pairs = zip(found.samples, beside.samples, strict=True)
        told["ratio"] = [ours["tokens_per_second"] / theirs["tokens_per_second"] for ours, theirs in pairs]
    return told


def row(told: dict[str, Any]) -> list[str]:
    """A line of the table."""
    spread = bench_models.spread
    return [
        told["model"],
        told["precision"],
        told["by"],
        spread(told["tokens_per_second"]),
        spread(told["seconds_per_update"], ".3f"),
        spread(told["cpu_seconds_per_update"], ".3f"),
        f"{told['memory'] / 1e6:,.0f} MB",
        f"{told['padding']:.1%}",
        spread(told["share_of_peak"], ".0%"),
        spread(told["ratio"], ".2f") if "ratio" in told else "",
    ]


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; the first three")
    parser.add_argument(
        "--precision", type=precisions, default="fp32", help="fp32, bf16, fp16, or several: fp32,bf16"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    parser.add_argument("--clock", choices=bench_models.CLOCKS, default="wall")
    parser.add_argument("--repeat", type=positive, default=5, help="turns")
    parser.add_argument("--updates", type=positive, default=4, help="in each turn")
    parser.add_argument("--batch-tokens", type=positive, default=4096)
    parser.add_argument(
        "--lengths", type=several, help="source,target: random ids; 20,20 where there is no Multi30k"
    )
    parser.add_argument("--reference", action="store_true", help="a plain PyTorch loop beside each")
    parser.add_argument("--json", type=Path, help="write everything that was measured to a file")
    parser.add_argument("--quick", action="store_true", help="transformer, --reference, 1,024 random tokens")
    asked = parser.parse_args()
    if asked.quick:
        asked.reference, asked.updates, asked.batch_tokens, asked.lengths = True, 3, 1024, [20, 20]
        asked.models = asked.models or ["transformer"]
    asked.models = asked.models or ["additive", "luong", "transformer"]
    if unknown := set(asked.models) - MODELS.keys():
        parser.error(f"unknown model {', '.join(unknown)}: expected {', '.join(MODELS)}")
    if asked.lengths is None and bench_models.corpus() != "multi30k":
        asked.lengths = [20, 20]
    if asked.lengths and len(asked.lengths) != 2:
        parser.error("--lengths: expected two, of source and target, as 20,20")
    return asked


def main() -> None:
    """Measure, and print a table in Markdown."""
    asked = arguments()
    device = pick_device(asked.device)
    lengths = (asked.lengths[0], asked.lengths[1]) if asked.lengths else None
    with tempfile.TemporaryDirectory() as folder:
        pieces = bench_models.learn_pieces(Path(folder)) if lengths is None else None
        fixed = (device, asked.threads, asked.clock, asked.batch_tokens, asked.updates, lengths, pieces)
        bys = [OURS, REFERENCE] if asked.reference else [OURS]
        cases = [
            Case(model, precision, by, *fixed)
            for model in asked.models
            for precision in asked.precision
            for by in bys
        ]
        measured = bench_models.in_turns(cases, prepare, device, asked.repeat)
    told = []
    for number, (case, found) in enumerate(zip(cases, measured, strict=True)):
        beside = measured[number + 1] if asked.reference and case.by == OURS else None
        told.append(described(case, found, beside))
    data = f"lengths:{lengths[0]},{lengths[1]}" if lengths else bench_models.corpus()
    what = f"data:{data}|batch-tokens:{asked.batch_tokens}|repeat:{asked.repeat}x{asked.updates}"
    signature = f"{what}|clock:{asked.clock}|{bench_models.signature(device, asked.threads)}"
    print(bench_models.table(HEADS, [row(one) for one in told]))
    print(f"\nMedian [least, most]. {signature}")
    if asked.json:
        content = {"signature": signature, "measured": told}
        asked.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
