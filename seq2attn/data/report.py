"""Reports of reading data: examples read and left out, counted by reason, with file and line."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from seq2attn.errors import Seq2attnError

EXAMPLES = 3  # number of examples that are kept for each reason
NOTED = 1000  # lines of one reason between two reports of progress


class DataError(Seq2attnError):
    """Data that do not exist, or cannot be read as the recipe says."""


class UnreachableError(DataError):
    """Data that cannot be reached: the network or the server fails. They may be there at the next start."""


@dataclass
class Reason:
    """A reason why examples were left out, or are worth a notice."""

    count: int = 0
    examples: list[str] = field(default_factory=list)  # "file:line: message"


def silent(_: "Report") -> None:
    """Report no progress."""


@dataclass
class Report:
    """Counts of examples while data are read. `str(report)` is a table.

    Args:
        stop: a bad line raises DataError; otherwise it is skipped and counted.
        progress: called with the report now and then while data are read, also where no line is kept.
    """

    stop: bool = True
    read: int = 0  # number of examples that were read
    kept: int = 0  # number of them that were not left out
    schemes: list[str] = field(default_factory=list)  # tag schemes of the data
    reasons: dict[str, Reason] = field(default_factory=dict)
    share: float = field(default=0.0, compare=False)  # of the data that has been read; 0 = unknown
    progress: Callable[["Report"], object] = field(default=silent, repr=False, compare=False)

    def bad(self, reason: str, where: str, message: str, count: int = 1) -> None:
        """Count a line that cannot be read. Raises DataError if `stop`."""
        if self.stop:
            raise DataError(f"{where}: {message}; fix it, or set data.bad_lines: skip")
        self.note(reason, f"{where}: {message}", count)

    def note(self, reason: str, example: str, count: int = 1) -> None:
        """Count an example that a filter leaves out, or that is worth a notice."""
        entry = self.reasons.setdefault(reason, Reason())
        entry.count += count
        if len(entry.examples) < EXAMPLES:
            entry.examples.append(example)
        if entry.count % NOTED == 0:
            self.progress(self)

    def copy(self) -> "Report":
        """Return the report as it is now; it reports no progress."""
        made = Report.from_dict(self.to_dict())
        made.share = self.share
        return made

    def add(self, other: "Report") -> None:
        """Add the counts of another report."""
        self.read += other.read
        self.kept += other.kept
        self.schemes = sorted({*self.schemes, *other.schemes})
        for reason, theirs in other.reasons.items():
            entry = self.reasons.setdefault(reason, Reason())
            entry.count += theirs.count
            entry.examples += theirs.examples[: EXAMPLES - len(entry.examples)]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON; `from_dict` reads it."""
        reasons = {reason: asdict(entry) for reason, entry in self.reasons.items()}
        values = {"stop": self.stop, "read": self.read, "kept": self.kept, "schemes": self.schemes}
        return {**values, "reasons": reasons}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Report":
        """Make a report from the result of `to_dict`."""
        reasons = {
            reason: Reason(entry["count"], [*entry["examples"]])
            for reason, entry in values["reasons"].items()
        }
        return cls(**{**values, "reasons": reasons})

    @property
    def so_far(self) -> str:
        """The number of examples, and the most frequent reason, in a line."""
        reasons = sorted(self.reasons.items(), key=lambda item: -item[1].count)
        return ", ".join(
            [f"{self.read:,} examples read", *(f"{entry.count:,} {reason}" for reason, entry in reasons[:1])]
        )

    def __str__(self) -> str:
        lines = [f"{self.read:,} examples read, {self.kept:,} kept"]
        width = max((len(reason) for reason in self.reasons), default=0)
        for reason, entry in sorted(self.reasons.items(), key=lambda item: -item[1].count):
            first, *rest = entry.examples
            lines.append(f"{entry.count:>9,}  {reason:<{width}}  {first}")
            lines += [f"{'':9}  {'':{width}}  {example}" for example in rest]
        return "\n".join(lines)
