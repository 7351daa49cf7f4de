"""Comparison of trained systems on the same inputs: tests, parts of the corpus, inputs that differ most."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from seq2attn.alignment.word_alignment import Gold
from seq2attn.metrics import METRICS, defined_scores
from seq2attn.metrics.attention_measures import attention_measures
from seq2attn.metrics.base import Score, Statistic
from seq2attn.metrics.buckets import (
    WordKind,
    by_length,
    copied_or_not,
    frequencies,
    kinds_by_frequency,
    word_scores,
)
from seq2attn.metrics.comparison_report import (
    ComparisonReport,
    Differing,
    DifferingNGrams,
    Measured,
    Section,
)
from seq2attn.metrics.ngrams import differing_ngrams, matched_ngrams
from seq2attn.metrics.significance import Resampling, compare, joint_statistic
from seq2attn.runs.system_outputs import Collected, ComparisonError, System
from seq2attn.text.words import words

PARTS = ("length", "frequency", "copied", "ngrams", "attention")
NGRAMS = 10  # that one of two systems has right more often
MOST = 10  # inputs that differ most


def compare_systems(
    systems: Sequence[System],
    collected: Collected,
    parts: Sequence[str] = PARTS,
    training: Iterable[str] | None = None,
    resampling: Resampling | None = None,
    most: int = MOST,
    gold: Sequence[Gold] | None = None,
) -> ComparisonReport:
    """Compare systems by their outputs. The first system is the one that the others are compared with.

    parts: of the corpus, see PARTS; those that the data have not are left out: length needs sources, copied
        needs sources and texts, frequency needs texts and training text, ngrams needs texts, attention needs
        runs that write texts by attention, for all systems.
    training: target texts of training data, by whose words frequencies are counted; None: the first run's.
    most: the number of inputs that differ most.
    gold: links between sources and first references, for the error rate of the links of attention.
    """
    comparison = _Comparison(systems, collected, resampling or Resampling(), gold)
    return comparison.report(parts, training, most)


class _Comparison:
    """The systems, and the statistics of their outputs by metric."""

    def __init__(
        self,
        systems: Sequence[System],
        collected: Collected,
        resampling: Resampling,
        gold: Sequence[Gold] | None = None,
    ) -> None:
        if len(systems) < 2:
            raise ComparisonError(f"expected at least two systems to compare, got {len(systems)}")
        self.systems, self.collected, self.resampling, self.gold = systems, collected, resampling, gold
        self.looks = [looked for looked in collected.attention if looked is not None]
        if len(self.looks) < len(collected.outputs):
            self.looks = []
        if gold is not None and not self.looks:
            raise ComparisonError(
                "gold links measure attention: expected runs that write texts by attention, and the part "
                "attention; leave out the gold links"
            )
        self.runs = [len(system.paths) for system in systems]
        self.count = len(collected.outputs[0])
        given = collected.outputs[0], collected.references, list(dict.fromkeys(collected.metrics))
        self.scores, self.undefined = defined_scores(*given, 0)  # of the first run
        if not self.scores:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.undefined.items())
            raise ComparisonError(f"no metric has a value on these data: {reasons}")
        self.statistics = {name: self._statistic(name) for name in self.scores}

    def report(self, parts: Sequence[str], training: Iterable[str] | None, most: int) -> ComparisonReport:
        """See `compare_systems`."""
        collected = self.collected
        ranking = "chrf" if collected.measures == "texts" else collected.metrics[0]
        shown = self._differing(ranking, most) if most else []
        return ComparisonReport(
            [system.name for system in self.systems],
            [[str(path) for path in system.paths] for system in self.systems],
            self.count,
            self.resampling,
            [self._of_metric(name) for name in self.statistics],
            [*self._sections(parts, collected.training if training is None else training)],
            (self.scores.get(ranking) or self._score(ranking)).name if shown else "",
            shown,
            self.undefined,
            self._ngrams() if "ngrams" in parts and collected.measures == "texts" else [],
        )

    def _statistic(self, metric: str) -> Statistic:
        return joint_statistic(metric, self.collected.outputs, self.collected.references)

    def _score(self, metric: str) -> Score:
        """Return the score of the first run, for its name and signature."""
        return METRICS[metric](self.collected.outputs[0], self.collected.references, 0)

    def _of_metric(self, name: str) -> Measured:
        """Compare the systems by a metric on all inputs."""
        comparison = compare(self.statistics[name], self.count, self.runs, self.resampling)
        return Measured(self.scores[name].name, self.count, comparison, self.scores[name].signature)

    def _sections(self, parts: Sequence[str], training: Iterable[str] | None) -> Iterable[Section]:
        """Compare the systems on the parts of the corpus that the data have."""
        sources, texts = self.collected.sources, self.collected.measures == "texts"
        if "length" in parts and sources is not None and self.count:
            yield self._by_length([len(words(text)) for text in sources])
        if "frequency" in parts and texts and training is not None:
            kinds = kinds_by_frequency(frequencies(training))
            title = "F1 of words by their count in the training text (0: unknown)"
            yield self._of_words("words_by_frequency", title, kinds)
        if "copied" in parts and texts and sources is not None:
            title = "F1 of words that are copied from the source, and of the others"
            yield self._of_words("copied_words", title, copied_or_not())
        if "attention" in parts and self.looks:
            yield self._of_attention()

    def _of_attention(self) -> Section:
        """Compare where the systems look as they read the references."""
        without_trials = self.resampling._replace(trials=0)
        measured = [
            Measured(
                name,
                sum(self.looks[0].words),
                compare(statistic, self.count, self.runs, without_trials),
                digits=digits,
            )
            for name, statistic, digits in attention_measures(self.looks, self.gold, self.systems[0].name)
        ]
        return Section("attention", "attention to the source, for given references", "words", measured)

    def _ngrams(self) -> list[DifferingNGrams]:
        """Compare the n-grams of the first references that the systems have right."""
        references = [text or "" for text in self.collected.references[0]]
        matched = [matched_ngrams(outputs, references) for outputs in self.collected.outputs]
        starts = np.cumsum([0, *self.runs])
        first, *others = [matched[start:end] for start, end in pairwise(starts)]
        return [
            DifferingNGrams(system.name, differing_ngrams((first, other), references, NGRAMS))
            for system, other in zip(self.systems[1:], others, strict=True)
        ]

    def _by_length(self, lengths: Sequence[int]) -> Section:
        """Compare the systems by the first metric on parts by length."""
        name, statistic = next(iter(self.statistics.items()))
        without_trials = self.resampling._replace(trials=0)
        measured = [
            Measured(
                part.name,
                len(part.rows),
                compare(statistic, self.count, self.runs, without_trials, part.rows),
            )
            for part in by_length(lengths)
        ]
        title = f"{self.scores[name].name} by the length of the source in words"
        return Section("by_length", title, "inputs", measured)

    def _of_words(self, key: str, title: str, kinds: Sequence[WordKind]) -> Section:
        """Compare how well the systems hit kinds of words, of the first references."""
        references = [text or "" for text in self.collected.references[0]]
        scores = word_scores(self.collected.outputs, references, self.collected.sources, kinds)
        without_trials = self.resampling._replace(trials=0)
        measured = [
            Measured(found.name, found.size, compare(found.statistic, self.count, self.runs, without_trials))
            for found in scores
        ]
        return Section(key, title, "words", measured)

    def _differing(self, metric: str, most: int) -> list[Differing]:
        """Return the inputs with the largest differences between any two systems, the largest first."""
        scores = self._scores_of_inputs(self.statistics.get(metric) or self._statistic(metric))
        spread = np.nan_to_num(scores.max(0) - scores.min(0))
        rows = [int(row) for row in np.argsort(-spread, kind="stable")[:most] if spread[row] > 0]
        texts = [self._text(row) for row in rows]
        return [Differing(row, *text, scores[:, row].tolist()) for row, text in zip(rows, texts, strict=True)]

    def _scores_of_inputs(self, statistic: Statistic) -> NDArray[np.float64]:
        """Return the score of each input (systems, N), the mean over runs."""
        every = np.arange(sum(self.runs) * self.count)
        of_runs = np.array([statistic(every[row : row + 1]) for row in every]).reshape(-1, self.count)
        return np.stack([part.mean(0) for part in np.split(of_runs, np.cumsum(self.runs)[:-1])])

    def _text(self, row: int) -> tuple[str, str, list[str]]:
        """Return source, reference and outputs of an input, where they are texts."""
        collected = self.collected
        source = collected.sources[row] if collected.sources is not None else ""
        starts = np.cumsum([0, *self.runs[:-1]])
        outputs = [collected.outputs[start][row] for start in starts]
        if not isinstance(outputs[0], str):
            return source, "", ["" for _ in outputs]
        references = collected.references
        reference = references[0][row] if isinstance(references[0], list) else references[row]
        return source, reference or "", outputs
