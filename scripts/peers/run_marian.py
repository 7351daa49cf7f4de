"""Run MarianMT of Transformers, in a plain training loop and with `generate`, and CTranslate2 with the same
weights.
"""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import ctranslate2
import torch
import torch.nn.functional as F
import transformers
from ctranslate2.converters.transformers import MarianMTLoader
from measuring import Clocks, Job, run
from sentencepiece import SentencePieceProcessor
from torch.nn.utils.rnn import pad_sequence
from transformers import MarianConfig, MarianMTModel

BUDGET = 4096  # tokens of a batch on its longer side, with padding


class Pieces:
    """The joint vocabulary in Marian's order: padding is the last piece."""

    def __init__(self, job: Job) -> None:
        self.processor = SentencePieceProcessor(model_file=str(job.path / "joint.model"))
        vocabulary = [self.processor.id_to_piece(index) for index in range(len(self.processor))]
        self.names = [name for name in vocabulary if name != "<pad>"] + ["<pad>"]
        self.ids = {name: index for index, name in enumerate(self.names)}
        self.pad, self.eos = self.ids["<pad>"], self.ids["</s>"]

    def tokenize(self, texts: list[str]) -> list[list[str]]:
        """Return the pieces of each sentence, with </s>."""
        return [[*pieces, "</s>"] for pieces in self.processor.encode(texts, out_type=str)]

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the ids of each sentence."""
        return [[self.ids[piece] for piece in pieces] for pieces in self.tokenize(texts)]

    def padded(self, rows: list[list[int]]) -> torch.Tensor:
        """Pad rows to a tensor (B, longest)."""
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=self.pad)


def build(job: Job, pieces: Pieces) -> Any:
    """Return a model with random weights, the same at every call."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(1)
    sides = {"layers": 3, "attention_heads": 4, "ffn_dim": 1024}
    configuration = MarianConfig(
        vocab_size=len(pieces.names),
        d_model=256,
        **{f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sides.items()},
        dropout=0.1,
        activation_function="relu",
        scale_embedding=True,
        max_position_embeddings=512,
        pad_token_id=pieces.pad,
        eos_token_id=pieces.eos,
        decoder_start_token_id=pieces.pad,
        forced_eos_token_id=None,
        bos_token_id=None,
    )
    return MarianMTModel(configuration)


def batches(job: Job, pieces: Pieces) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Yield batches of pairs of similar length, in random order, without end."""
    sides = [
        pieces.encode((job.path / f"train.{side}").read_text(encoding="utf-8").splitlines())
        for side in ("en", "de")
    ]
    pairs = sorted(zip(*sides, strict=True), key=lambda pair: (max(map(len, pair)), len(pair[1])))
    plan: list[list[tuple[list[int], list[int]]]] = [[]]
    for pair in pairs:  # the last is the longest
        if (len(plan[-1]) + 1) * max(map(len, pair)) > BUDGET:
            plan.append([])
        plan[-1].append(pair)
    generator = random.Random(1)
    for _ in itertools.count():
        yield from generator.sample(plan, len(plan))


def train(job: Job) -> None:
    """Train in a plain loop."""
    pieces = Pieces(job)
    model = build(job, pieces).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
    plan, clocks = batches(job, pieces), Clocks(job, transformers, torch)
    while True:
        batch = next(plan)
        source, target = (pieces.padded([pair[side] for pair in batch]) for side in (0, 1))
        decoder_input = torch.cat([target.new_full((len(target), 1), pieces.pad), target[:, :-1]], 1)
        logits = model(
            input_ids=source,
            attention_mask=source != pieces.pad,
            decoder_input_ids=decoder_input,
            use_cache=False,
        ).logits
        options = {"ignore_index": pieces.pad, "label_smoothing": 0.1}
        F.cross_entropy(logits.flatten(0, 1), target.flatten(), **options).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clocks.updated(int((target != pieces.pad).sum()))


def decode(job: Job) -> None:
    """Translate with `generate`, or with CTranslate2 for the model ctranslate2."""
    pieces = Pieces(job)
    model = build(job, pieces).eval()
    if job.model == "ctranslate2":
        _decode_converted(job, pieces, model)
        return

    @torch.inference_mode()
    def translate(texts: list[str]) -> list[str]:
        translations = []
        for batch in job.batches(texts):
            source = pieces.padded(pieces.encode(batch))
            rows = model.generate(
                input_ids=source,
                attention_mask=(source != pieces.pad).long(),
                num_beams=job.beam,
                min_new_tokens=job.steps,
                max_new_tokens=job.steps,
            )
            names = [[pieces.names[index] for index in row[1:]] for row in rows.tolist()]
            translations += [pieces.processor.decode_pieces(row) for row in names]
        return translations

    Clocks(job, transformers, torch).decoded(translate)


def _decode_converted(job: Job, pieces: Pieces, model: Any) -> None:
    loader, path = MarianMTLoader(), str(job.path / "ctranslate2")
    spec = loader.get_model_spec(model)
    loader.set_vocabulary(spec, pieces.names[:-1])  # without padding
    spec.config.eos_token = spec.config.decoder_start_token = "</s>"
    spec.config.unk_token = "<unk>"
    spec.validate()
    spec.optimize()
    (job.path / "ctranslate2").mkdir(exist_ok=True)
    spec.save(path)
    translator = ctranslate2.Translator(path, compute_type=job.precision, intra_threads=job.threads)

    def translate(texts: list[str]) -> list[str]:
        results = translator.translate_batch(
            pieces.tokenize(texts),
            max_batch_size=job.batch,
            beam_size=job.beam,
            min_decoding_length=job.steps,
            max_decoding_length=job.steps,
        )
        return [pieces.processor.decode_pieces(result.hypotheses[0]) for result in results]

    Clocks(job, ctranslate2).decoded(translate)


if __name__ == "__main__":
    run(train, decode)
