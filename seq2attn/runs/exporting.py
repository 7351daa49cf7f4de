"""Export of a run for an engine, with a report on how its search compares with torch's."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seq2attn.data.examples import ExampleSet
from seq2attn.inference.engines.engine import Engine, EngineError
from seq2attn.inference.engines.registry import ENGINES, check_engine, export_model, make_engine
from seq2attn.inference.results import Translation
from seq2attn.inference.search import Hypothesis
from seq2attn.inference.translator import TextPredictor
from seq2attn.metrics import References, score
from seq2attn.recipe.wording import unknown
from seq2attn.runs.evaluation import held_out
from seq2attn.runtime.drafts import draft_folder
from seq2attn.tasks.loading import load_with_task
from seq2attn.tasks.task import Task, reference_texts
from seq2attn.training.run_folder import RunError

SAME = 0.995  # the least share of equal best hypotheses of an export in float32
SINGLE = 20  # sentences that are translated one by one, for the time of one


class Side(NamedTuple):
    """The results of torch or of an engine on the sentences of a report."""

    bleu: float | None  # None: there are no references
    per_second: float  # sentences, computed together
    milliseconds: float  # of one sentence by itself


class Parity(NamedTuple):
    """How an engine compares with torch."""

    engine: str
    sentences: int
    compared: int  # those that the engine searched for, and that torch ends by itself
    same: int  # of those: with the same best hypothesis
    largest_difference: float  # of the log-probabilities of a hypothesis, engine and torch, in nats
    sides: dict[str, Side]  # by name: torch, and the engine

    @property
    def sufficient(self) -> bool:
        """Whether enough best hypotheses are the same."""
        return self.same >= SAME * self.compared

    def lines(self) -> list[str]:
        """Return the report for the terminal."""
        share = f"{100 * self.same / self.compared:.2f} %" if self.compared else "none"
        lines = [
            f"{self.engine}: {self.compared:,} of {self.sentences:,} sentences compared",
            f"same best hypothesis: {share} ({self.same:,} of {self.compared:,})",
            f"largest difference of log-probabilities: {self.largest_difference:.1e}",
        ]
        for name, (bleu, per_second, milliseconds) in self.sides.items():
            scored = "" if bleu is None else f"BLEU {bleu:.2f}, "
            lines.append(f"{name}: {scored}{per_second:,.1f} sentences/s, {milliseconds:,.1f} ms for one")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        sides = {name: side._asdict() for name, side in self.sides.items()}
        return {**self._asdict(), "sides": sides, "sufficient": self.sufficient}


class Sentences(NamedTuple):
    """The sentences of a report."""

    sources: list[str]
    references: References | None = None


def export_run(
    run: str | Path,
    engine: str,
    out: Path,
    quantize: str | None = None,
    checkpoint: str = "best",
    count: int = 200,
    given: Sentences | None = None,
) -> Parity | None:
    """Write the model of a run to a new folder for an engine, and compare its search with torch's.

    count: the number of sentences that are compared, spread over the test set, or the dev set if there is
        none; 0 = no report; given: sentences to compare instead.
    """
    if engine not in ENGINES:
        raise EngineError(unknown(engine, ENGINES, "engine "))
    check_engine(engine, quantize, "fp32")
    if out.exists():
        raise RunError(f"{out} exists and is not overwritten: choose another folder with --out")
    task, predictor = load_with_task(run, checkpoint, "cpu")
    sentences = given
    if given is None and count:
        sentences = _sampled(task, count)
    out.parent.mkdir(parents=True, exist_ok=True)
    with draft_folder(out.parent, out.name) as draft:
        folder = draft / out.name
        folder.mkdir()
        export_model(engine, task.recipe, predictor, folder, quantize)
        folder.replace(out)
    if sentences is None:
        return None
    made = make_engine(engine, task.recipe, predictor, quantize, out)
    return None if made is None else parity(predictor, made, sentences)


def _sampled(task: Task[Any], count: int) -> Sentences:
    """Return sentences spread over the test set, or the dev set if there is none."""
    examples: ExampleSet = held_out(task, "dev" if task.recipe.data.test is None else "test")
    rows = np.unique(np.linspace(0, len(examples) - 1, min(count, len(examples))).astype(int)).tolist()
    return Sentences(list(task.inputs(examples, rows)), reference_texts(examples, rows))


def parity(predictor: TextPredictor, engine: Engine, sentences: Sentences) -> Parity:
    """Compare the searches of torch and of an engine on some sentences, with the predictor's settings."""
    results, sides = list[list[Translation]](), dict[str, Side]()
    for name, searching in (("torch", None), (engine.name, engine)):
        one = predictor.with_engine(searching)
        together, seconds = _outputs(one, [sentences.sources])
        results.append(together)
        first = sentences.sources[:SINGLE]
        single = _outputs(one, [[source] for source in first])[1] / len(first)
        bleu = None
        if sentences.references is not None:
            texts = [result.text for result in together]
            bleu = score(texts, sentences.references, ["bleu"], bootstrap=0)[0].value
        sides[name] = Side(bleu, len(sentences.sources) / seconds, 1000 * single)
    differences = _differences(predictor, engine, results[0])
    compared = [row for row in differences if not results[0][row].truncated]
    same = sum(results[0][row].target.ids == results[1][row].target.ids for row in compared)
    largest = max((differences[row] for row in compared), default=0.0)
    return Parity(engine.name, len(sentences.sources), len(compared), same, largest, sides)


def _outputs(predictor: TextPredictor, chunks: list[list[str]]) -> tuple[list[Translation], float]:
    """Return the translations of chunks of lines, each computed together, and the seconds that they took."""
    start = time.perf_counter()
    outputs = list(predictor.stream_chunks(chunks, exact=False))
    return outputs, time.perf_counter() - start


def _differences(predictor: TextPredictor, engine: Engine, results: list[Translation]) -> dict[int, float]:
    """Return how far the engine's log-probability of its best hypothesis is from torch's, by the index of the
    result, where it searches."""
    generator, decoding = predictor.generator, predictor.decoding
    if engine.unsupported(decoding) is not None:
        return {}
    sources = [generator.tokenizer.source_ids(result.source.ids, lambda: "") for result in results]
    requests, found = generator.requests(sources, decoding), dict[int, Hypothesis]()
    for batch in generator.tokenizer.plan(sources, max(1, decoding.batch_tokens // decoding.beam)):
        rows = batch.tolist()
        answers = engine.search([requests[row] for row in rows], decoding)
        found |= {
            row: answer[0]
            for row, answer in zip(rows, answers, strict=True)
            if answer and not isinstance(answer, str)
        }
    targets = [hypothesis.tokens for hypothesis in found.values()]
    forced = generator.forced_decoding([sources[row] for row in found], targets, decoding.batch_tokens, None)
    exact = [one.log_probability for one in forced]
    pairs = zip(found.items(), exact, strict=True)
    return {row: abs(hypothesis.log_probability - value) for (row, hypothesis), value in pairs}
