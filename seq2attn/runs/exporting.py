"""Export of a run for an engine, with a report on how its search compares with torch's."""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from seq2attn.data.examples import ExampleSet
from seq2attn.errors import for_caller
from seq2attn.inference.engines.engine import Engine, EngineError
from seq2attn.inference.engines.ranking import Found, exactly_ranked, search_with
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

GOOD = 0.995  # the least share of best hypotheses that are as good as torch's, of an export in float32
CLOSE = 1e-4  # scores, which are for each token, that differ by no more are equally good
SINGLE = 20  # sentences that are translated one by one, for the time of one


class Side(NamedTuple):
    """The results of torch or of an engine on the sentences of a report."""

    bleu: float | None  # None: there are no references
    per_second: float  # sentences, computed together
    milliseconds: float  # of one sentence by itself


class Parity(NamedTuple):
    """How an engine compares with torch.

    All scores here are those of forced decoding in torch, whatever searched.
    """

    engine: str
    sentences: int
    compared: int  # those that the engine searched for, and that torch ends by itself
    same: int  # of those: with the same best hypothesis
    better: int  # of the others: the engine's has a higher score
    worse: int  # of the others: torch's has a higher score
    largest_difference: float  # of the log-probabilities of a hypothesis, engine and torch, in nats
    sides: dict[str, Side]  # by name: torch, and the engine
    left: Mapping[str, int] = MappingProxyType({})  # how many were not compared, by why

    @property
    def sufficient(self) -> bool:
        """Whether enough best hypotheses are as good as torch's, of those that were compared."""
        return self.compared > 0 and self.compared - self.worse >= GOOD * self.compared

    def lines(self) -> list[str]:
        """Return the report for the terminal."""
        lines = [f"{self.engine}: {self.compared:,} of {self.sentences:,} sentences compared"]
        lines += [f"not compared: {count:,} for {reason}" for reason, count in self.left.items()]
        if not self.compared:
            lines.append("so parity was not shown: give other sentences")
        if self.compared:
            same, good = (100 * count / self.compared for count in (self.same, self.compared - self.worse))
            lines += [
                f"same best hypothesis: {same:.2f} % ({self.same:,} of {self.compared:,})",
                f"same or as good, by torch's scores: {good:.2f} % ({self.better:,} better, {self.worse:,} "
                "worse)",
                f"largest difference of log-probabilities: {self.largest_difference:.1e}",
            ]
        for name, (bleu, per_second, milliseconds) in self.sides.items():
            scored = "" if bleu is None else f"BLEU {bleu:.2f}, "
            lines.append(f"{name}: {scored}{per_second:,.1f} sentences/s, {milliseconds:,.1f} ms for one")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        sides = {name: side._asdict() for name, side in self.sides.items()}
        return {**self._asdict(), "sides": sides, "left": {**self.left}, "sufficient": self.sufficient}


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
        raise RunError(
            f"{out} exists and is not overwritten: choose another folder with {for_caller('--out', 'out=')}"
        )
    if given is not None and not given.sources:
        raise RunError("expected sentences to compare the engine with torch on, got none")
    task, predictor = load_with_task(run, checkpoint, "cpu")
    if not isinstance(predictor, TextPredictor):
        raise EngineError(f"task: exports are of texts from texts, and this is {task.recipe.task}")
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
    reasons = Counter[str]()
    pairs = _pairs(predictor, engine, results[0], reasons)
    same = [own.tokens == other.tokens for own, other, _ in pairs]
    gains = [other.score - own.score for own, other, _ in pairs]
    better, worse = (
        sum(not equal and sign * gain > CLOSE for equal, gain in zip(same, gains, strict=True))
        for sign in (1, -1)
    )
    largest = max((off for _, _, off in pairs), default=0.0)
    counts = len(sentences.sources), len(pairs), sum(same), better, worse
    return Parity(engine.name, *counts, largest, sides, reasons)


def _outputs(predictor: TextPredictor, chunks: list[list[str]]) -> tuple[list[Translation], float]:
    """Return the translations of chunks of lines, each computed together, and the seconds that they took."""
    start = time.perf_counter()
    outputs = list(predictor.stream_chunks(chunks, exact=False))
    return outputs, time.perf_counter() - start


def _pairs(
    predictor: TextPredictor, engine: Engine, results: list[Translation], reasons: Counter[str]
) -> list[tuple[Hypothesis, Hypothesis, float]]:
    """Return torch's and the engine's best hypothesis of each result that the engine searches for and torch
    ends by itself, with exact scores; and how far off the engine's log-probability is. Count the others, by
    why."""
    generator, decoding = predictor.generator, predictor.decoding
    rules, whole = generator.rules(decoding), [row for row, one in enumerate(results) if not one.truncated]
    sources = [generator.tokenizer.source_ids(results[row].source.ids, lambda: "") for row in whole]
    batches = generator.tokenizer.plan(sources, max(1, decoding.batch_tokens // decoding.beam))
    found = search_with(engine, generator.requests(sources, decoding), batches, decoding, rules, reasons)
    if len(whole) < len(results):
        reasons["outputs of torch with the largest length allowed"] = len(results) - len(whole)
    pairs = []
    for index, hypotheses in found.items():
        result, targets = results[whole[index]], [one.tokens for one in hypotheses]
        own = Hypothesis(result.target.ids, result.log_probability, result.score)
        forced = generator.forced_decoding(
            [sources[index]] * len(targets), targets, decoding.batch_tokens, None
        )
        off = abs(hypotheses[0].log_probability - forced[0].log_probability)
        exact = exactly_ranked([Found(*pair) for pair in zip(hypotheses, forced, strict=True)], rules)
        pairs.append((own, exact[0].hypothesis, off))
    return pairs
