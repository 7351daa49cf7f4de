"""What was read, what was left out, and why: bad lines by file and line, counted by reason."""

from dataclasses import asdict, dataclass, field
from typing import Any

from seq2attn.errors import Seq2attnError

EXAMPLES = 3  # of each reason are kept


class DataError(Seq2attnError):
    """Data that cannot be read as the recipe says."""


@dataclass
class Reason:
    """One reason for which examples were left out (or noticed)."""

    count: int = 0
    examples: list[str] = field(default_factory=list)  # "file:line: what came"


@dataclass
class Report:
    """Counts of a reading of data. `str(report)` is a readable table.

    Args:
        stop: a bad line ends the reading with DataError; otherwise it is skipped and counted.
    """

    stop: bool = True
    read: int = 0  # examples that could be read
    kept: int = 0  # examples that can be used
    schemes: list[str] = field(default_factory=list)  # that tags of words were written in
    reasons: dict[str, Reason] = field(default_factory=dict)

    def bad(self, reason: str, where: str, message: str, count: int = 1) -> None:
        """A line that cannot be read. DataError if such a line is to stop the run."""
        if self.stop:
            raise DataError(f"{where}: {message}; fix it, or set data.bad_lines: skip")
        self.note(reason, f"{where}: {message}", count)

    def note(self, reason: str, example: str, count: int = 1) -> None:
        """A pair that a filter leaves out, or that is worth a notice."""
        entry = self.reasons.setdefault(reason, Reason())
        entry.count += count
        if len(entry.examples) < EXAMPLES:
            entry.examples.append(example)

    def add(self, other: "Report") -> None:
        """Count what another report counted, too."""
        self.read += other.read
        self.kept += other.kept
        self.schemes = sorted({*self.schemes, *other.schemes})
        for reason, found in other.reasons.items():
            entry = self.reasons.setdefault(reason, Reason())
            entry.count += found.count
            entry.examples += found.examples[: EXAMPLES - len(entry.examples)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Report":
        """The inverse of `to_dict`."""
        reasons = {reason: Reason(**entry) for reason, entry in values["reasons"].items()}
        return cls(**{**values, "reasons": reasons})

    def __str__(self) -> str:
        lines = [f"{self.read:,} examples read, {self.kept:,} kept"]
        width = max((len(reason) for reason in self.reasons), default=0)
        for reason, entry in sorted(self.reasons.items(), key=lambda item: -item[1].count):
            first, *rest = entry.examples
            lines.append(f"{entry.count:>9,}  {reason:<{width}}  {first}")
            lines += [f"{'':9}  {'':{width}}  {example}" for example in rest]
        return "\n".join(lines)
