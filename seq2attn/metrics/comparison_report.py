"""What a comparison of systems found: whole corpora, parts of them, and the inputs that differ most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from seq2attn.metrics.ngrams import NGrams
from seq2attn.metrics.significance import Comparison, Resampling, SystemDifference, SystemValue


class Measured(NamedTuple):
    """A comparison by a metric, on all inputs or on a part of them."""

    name: str  # of the metric, or of the part
    size: int  # the number of inputs, or of words
    comparison: Comparison
    signature: str = ""
    digits: int = 1  # behind the point


class Section(NamedTuple):
    """Comparisons on the parts of a corpus."""

    key: str  # for JSON
    title: str
    unit: str  # what is counted
    parts: list[Measured]


class Differing(NamedTuple):
    """An input whose outputs differ much."""

    row: int
    source: str
    reference: str
    outputs: list[str]  # of the first run of each system
    scores: list[float]  # of each system, the mean of its runs


class DifferingNGrams(NamedTuple):
    """The n-grams that one of two systems has right more often."""

    system: str  # that is compared with the first
    ngrams: NGrams


@dataclass(frozen=True)
class ComparisonReport:
    """A comparison of systems with the first of them. `str` is for people."""

    systems: list[str]
    runs: list[list[str]]  # paths of the runs of each
    count: int  # of the inputs
    resampling: Resampling
    metrics: list[Measured]
    sections: list[Section]
    ranked_by: str  # the metric that `differing` is ranked by
    differing: list[Differing]
    undefined: Mapping[str, str]  # metrics without a value on these data, with the reasons
    ngrams: Sequence[DifferingNGrams] = ()

    def __str__(self) -> str:
        undefined = [f"{name}: no value ({reason})" for name, reason in self.undefined.items()]
        whole = self._lines(self.metrics, "")
        return "\n".join(
            [
                *self._header(),
                *whole,
                *undefined,
                *self._section_lines(),
                *self._ngram_lines(),
                *self._inputs(),
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps."""
        return {
            "systems": [
                {"name": name, "runs": runs} for name, runs in zip(self.systems, self.runs, strict=True)
            ],
            "inputs": self.count,
            **self.resampling._asdict(),
            "metrics": [self._to_json(measured) for measured in self.metrics],
            "undefined": dict(self.undefined),
            **{section.key: [self._to_json(part) for part in section.parts] for section in self.sections},
            **({"ngrams": [self._ngrams_to_json(one) for one in self.ngrams]} if self.ngrams else {}),
            "differing": [differing._asdict() for differing in self.differing],
        }

    def _ngrams_to_json(self, differing: DifferingNGrams) -> dict[str, Any]:
        return {"systems": [self.systems[0], differing.system], **differing.ngrams.to_json()}

    def _to_json(self, measured: Measured) -> dict[str, Any]:
        name, size, (values, differences), signature, _ = measured
        return {
            "name": name,
            "count": size,
            **({"signature": signature} if signature else {}),
            "values": [{**value._asdict(), "deviation": value.deviation} for value in values],
            "differences": [difference._asdict() for difference in differences],
        }

    def _header(self) -> list[str]:
        """Return how the numbers came about."""
        return [
            f"{self.count:,} inputs; differences from {self.systems[0]}, 95 % intervals; {self.described}"
        ]

    @property
    def described(self) -> str:
        """The resampling in words."""
        samples, trials, seed = self.resampling
        seeds = " of inputs and runs" if any(len(runs) > 1 for runs in self.runs) else ""
        tests = [f"paired bootstrap{seeds} ({samples:,} samples)"] if samples else ["no resampling"]
        if samples and trials and any(len(runs) == 1 for runs in self.runs[1:]) and len(self.runs[0]) == 1:
            tests.append(f"randomization ({trials:,} trials)")
        return f"{', '.join(tests)}, seed {seed}"

    def _lines(self, measured: Sequence[Measured], unit: str) -> list[str]:
        """Return a block for each metric or part: a line for each system."""
        width = max(map(len, self.systems))
        lines = []
        for name, size, (values, differences), signature, digits in measured:
            heading = f"{name} ({size:,} {unit})" if unit else f"{name} |{signature}|"
            lines.append(heading)
            beside = ["", *(f"  {difference_text(difference, digits)}" for difference in differences)]
            for system, value, text in zip(self.systems, values, beside, strict=True):
                lines.append(f"  {system:{width}}  {value_text(value, digits)}{text}")
        return lines

    def _section_lines(self) -> list[str]:
        lines = []
        for section in self.sections:
            lines += ["", section.title, *self._lines(section.parts, section.unit)]
        return lines

    def _ngram_lines(self) -> list[str]:
        """Return a line for each n-gram."""
        lines = []
        for system, (first, other) in self.ngrams:
            for ngrams, better in ((first, self.systems[0]), (other, system)):
                if ngrams:
                    heading = ngram_title(better, self.systems[0], system)
                    lines += ["", heading, *(f"  {ngram}" for ngram in ngrams)]
        return lines

    def _inputs(self) -> list[str]:
        """Return the inputs that differ most, one line for each text."""
        if not self.differing:
            return []
        names = "source", "reference", *self.systems
        width = max(map(len, names))
        lines = ["", f"inputs that differ most, by {self.ranked_by}"]
        for differing in self.differing:
            scores = ["", "", *(f"{score:5.1f}  " for score in differing.scores)]
            texts = differing.source, differing.reference, *differing.outputs
            lines.append(f"number {differing.row + 1:,}")
            for name, score, text in zip(names, scores, texts, strict=True):
                if text or name in self.systems:
                    lines.append(f"  {name:{width}}  {score}{text}".rstrip())
        return lines


def ngram_title(better: str, first: str, other: str) -> str:
    """Return the heading of the n-grams that the better of two systems has right more often."""
    return f"n-grams that {better} has right more often: matches of {first} and of {other}"


def value_text(value: SystemValue, digits: int = 1) -> str:
    """Return a value as `34.8 [32.9, 36.8]`, with the standard deviation of several runs."""
    interval = "" if value.low is None else f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
    runs = "" if value.deviation is None else f" (sd {value.deviation:.2f} of {len(value.runs)} runs)"
    return f"{value.value:5.{digits}f}{interval}{runs}"


def difference_text(difference: SystemDifference, digits: int = 1) -> str:
    """Return a difference as `-3.6 [-4.9, -2.3], p = 0.001, 0.0001`: bootstrap, then randomization."""
    low, high = difference.low, difference.high
    interval = "" if low is None else f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    tests = ("bootstrap", difference.p_bootstrap), ("randomization", difference.p_randomization)
    p_values = [f"{p:.4f} {name}" for name, p in tests if p is not None]
    return f"{difference.value:+.{digits}f}{interval}{', p ' if p_values else ''}{', '.join(p_values)}"
