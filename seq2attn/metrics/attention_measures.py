"""What attention to given targets says of systems: its entropy, its links, and their error rate.

Letters: R runs, N inputs.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from seq2attn.alignment.word_alignment import AlignmentError, Gold, Link
from seq2attn.metrics.alignments import alignment_scores
from seq2attn.metrics.base import Chosen, Statistic


class LookedAt(NamedTuple):
    """Where a run looked as it read the targets of a corpus, of each of the N inputs."""

    entropy: Sequence[float]  # in bits, summed over the words of the target
    words: Sequence[int]  # of the target
    links: Sequence[Collection[Link]]


class AttentionMeasure(NamedTuple):
    """A measure of the attention of all runs, one run after another."""

    name: str
    statistic: Statistic
    digits: int  # behind the point


def attention_measures(
    runs: Sequence[LookedAt], gold: Sequence[Gold] | None, first: str
) -> list[AttentionMeasure]:
    """Return entropy, links that are shared with the first run, and AER if there are gold links.

    first: the name of the first run's system. AlignmentError for another number of gold links.
    """
    count = len(runs[0].words)
    entropy = np.array([run.entropy for run in runs]).reshape(-1)
    sizes = np.array([run.words for run in runs]).reshape(-1)
    shared = np.array(
        [
            (len(own & other), len(own | other))
            for run in runs
            for own, other in zip(map(set, run.links), map(set, runs[0].links), strict=True)
        ]
    ).reshape(-1, 2)

    def mean_entropy(chosen: Chosen) -> float:
        return float(entropy[chosen].sum()) / max(1, int(sizes[chosen].sum()))

    def agreement(chosen: Chosen) -> float:
        both, either = shared[chosen].sum(0).tolist()
        return 100 * both / either if either else 100.0

    measures = [
        AttentionMeasure("entropy of a word's weights, in bits", mean_entropy, 2),
        AttentionMeasure(f"links shared with {first}, in percent of those of either", agreement, 1),
    ]
    if gold is None:
        return measures
    if len(gold) != count:
        raise AlignmentError(f"expected gold links for each of the {count:,} inputs, got {len(gold):,} lines")
    links = [links for run in runs for links in run.links]
    error_rate = alignment_scores(links, [*gold] * len(runs), bootstrap=0)[0].statistic
    if error_rate is not None:
        measures.append(AttentionMeasure("alignment error rate (AER), in percent", error_rate, 1))
    return measures
