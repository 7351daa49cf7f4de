"""Statistical aligners for the command line: trained on a corpus, in one direction or in both."""

from collections.abc import Callable, Sequence

from seq2attn.alignment.statistical import ITERATIONS, Kind, StatisticalAligner
from seq2attn.runs.corpus_alignment import Aligner, Pair


def learnt_aligners(
    kind: Kind,
    pairs: Sequence[Pair],
    both: bool = True,
    iterations: int = ITERATIONS,
    report: Callable[[str], object] = lambda _: None,
) -> list[Aligner]:
    """Return aligners that learn from these pairs: from source to target and, if both, the other way."""
    directions = [("", pairs)]
    if both:
        directions.append(("reverse, ", [(target, source) for source, target in pairs]))
    aligners: list[Aligner] = []
    for name, own in directions:
        aligner = StatisticalAligner(kind, iterations)
        aligner.train(own, lambda line, name=name: report(f"{name}{line}"))  # type: ignore[misc]
        aligners.append(aligner.align_pairs)
    return aligners
