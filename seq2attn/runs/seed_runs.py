"""Trainings of a recipe that differ by their seeds only."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from seq2attn.recipe import read
from seq2attn.runs.training_run import Trained, train


def train_seeds(
    recipe: str | Path,
    seeds: Sequence[int],
    run: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool | Literal["auto"] = False,
    device: str = "auto",
) -> Iterator[Trained]:
    """Train a recipe with each seed, one after another, and yield the results.

    run: what the folders are called before `-seed1`, ...; runs/NAME if not given; all others: see `train`.
    With resume "auto", a run that is there is resumed, and if it is finished only scored.
    """
    base = Path("runs") / read(recipe, overrides).name if run is None else Path(run)
    for seed in seeds:
        folder = base.with_name(f"{base.name}-seed{seed}")
        yield train(recipe, folder, [*overrides, f"seed={seed}"], resume, device)


class SeedRuns(NamedTuple):
    """Finished trainings with several seeds; `str` has mean and standard deviation of each score."""

    seeds: Sequence[int]
    trained: Sequence[Trained]

    @property
    def values(self) -> dict[str, list[float]]:
        """The value of each run by the name of the score."""
        scores = [{score.name: score.value for score in trained.scores} for trained in self.trained]
        return {name: [own[name] for own in scores] for name in (scores[0] if scores else {})}

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.seeds))
        lines = [f"seeds {listed}" if self.values else f"seeds {listed}: no test set, no scores"]
        for name, values in self.values.items():
            each = ", ".join(f"{value:.1f}" for value in values)
            lines.append(f"{name} = {fmean(values):.1f}{_deviation(values)} ({each})")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps."""
        return {
            "runs": [
                {
                    "run": str(trained.run),
                    "seed": seed,
                    "updates": trained.progress.step,
                    "scores": [score.to_json() for score in trained.scores],
                }
                for seed, trained in zip(self.seeds, self.trained, strict=True)
            ],
            "summary": {
                name: {"mean": fmean(values), "deviation": stdev(values) if len(values) > 1 else None}
                for name, values in self.values.items()
            },
        }


def _deviation(values: Sequence[float]) -> str:
    """Return the standard deviation as text; nothing for a single value."""
    return f", standard deviation {stdev(values):.2f}" if len(values) > 1 else ""
