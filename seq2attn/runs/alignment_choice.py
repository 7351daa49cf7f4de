"""Choice of the layer, the head, the shift and the method that align best, from one forced pass.

With gold links, those with the lowest alignment error rate. Without, those whose links agree most with the
links of the model of the other direction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from seq2attn.alignment.symmetrize import reversed_links
from seq2attn.alignment.word_alignment import AlignmentError, Gold, Link, error_rate, links
from seq2attn.inference.attention_norms import multi_head
from seq2attn.inference.generator import DEFAULT_HEAD, AlignmentHead, Method
from seq2attn.inference.translator import TextPredictor
from seq2attn.metrics import Score
from seq2attn.metrics.alignments import alignment_scores
from seq2attn.models.decoders.base import Decoder
from seq2attn.runtime.locks import locked
from seq2attn.training.run_folder import LOCK, RunFolder
from seq2attn.training.version_file import ChosenHead

CHUNK = 100  # pairs of which the weights of all heads are kept at once
Pairs = Sequence[tuple[str, str]]
_READINGS = [(method, shift) for method in get_args(Method) for shift in (0, 1)]


@dataclass(frozen=True)
class Choice:
    """The heads that were tried on the odd lines, and the best of them, measured on the even lines."""

    scores: dict[AlignmentHead, float]  # in percent, on the odd lines
    best: AlignmentHead
    measure: str  # aer, the lower the better; or agreement, the higher the better
    pairs: int  # how many odd lines
    report: Score  # of the best head, on the even lines

    def table(self) -> list[str]:
        """Return a line of text for each layer and head, with a column for each method and shift."""
        names = [f"{method} {shift}" for method, shift in _READINGS]
        lines = ["  ".join(["layer", "head", *names])]
        for layer, head in dict.fromkeys((head.layer, head.head) for head in self.scores):
            tried = [
                self.scores.get(AlignmentHead(layer, head, shift, method)) for method, shift in _READINGS
            ]
            cells = [
                f"{'-':>{len(name)}}" if score is None else f"{score:{len(name)}.1f}"
                for name, score in zip(names, tried, strict=True)
            ]
            lines.append("  ".join([f"{layer:5}", f"{'mean' if head is None else head:>4}", *cells]))
        return lines

    def summary(self) -> str:
        """Return a line of text with the best head and its scores."""
        layer, head, shift, method = self.best
        return (
            f"layer {layer}, {'mean of heads' if head is None else f'head {head}'}, shift {shift}, {method}: "
            f"{self.report.name} = {self.scores[self.best]:.1f} on the {self.pairs:,} odd lines, which "
            f"chose; on the even lines {self.report}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as values for json.dumps, with a list of the heads that were tried."""
        tried = [{**head._asdict(), "score": round(score, 4)} for head, score in self.scores.items()]
        best = {**self.best._asdict(), "score": round(self.scores[self.best], 4), "pairs": self.pairs}
        return {"measure": self.measure, "best": best, "report": self.report.to_json(), "tried": tried}

    def write(self, run: Path, gold: str = "") -> None:
        """Write the best head into version.json of a run; gold: the SHA-256 of the gold links."""
        RunFolder.open(run)  # or a lock would be left in a folder that is no run
        with locked(run / LOCK, lambda _: None):
            folder = RunFolder.open(run)
            chosen: Any = {**self.best._asdict(), "measure": self.measure, "pairs": self.pairs, "gold": gold}
            folder.version.alignment = ChosenHead(score=round(self.report.value, 4), **chosen)
            folder.commit()


def candidates(decoder: Decoder) -> list[AlignmentHead]:
    """Return every layer, head (and the mean of several), shift and method of a decoder; of a shift head,
    which has no norms, only attention."""
    heads: list[AlignmentHead] = []
    for layer in range(decoder.attention_layers):
        of_shift_head = decoder.is_shift_head(layer)
        owner = decoder.shift_head if of_shift_head else multi_head(decoder, layer)
        count = 1 if owner is None else owner.heads
        numbers: list[int | None] = [None, *(range(count) if count > 1 else ())]
        heads += [
            AlignmentHead(layer, head, shift, method)
            for head, (method, shift) in product(numbers, _READINGS)
            if not (of_shift_head and method == "norms")
        ]
    return heads


def choose_by_gold(
    predictor: TextPredictor, pairs: Pairs, gold: Sequence[Gold], threshold: float | None = None
) -> Choice:
    """Return the head with the lowest AER on the odd lines, with its AER on the even lines.

    Of equal ones the first is taken: lower layers, the mean of heads, attention. AlignmentError with fewer
    than two pairs, or if the numbers of lines differ. Seq2attnError without attention.
    """
    if len(pairs) != len(gold) or len(gold) < 2:
        raise AlignmentError(
            f"expected gold links for each of the {len(pairs):,} pairs, and at least two, as half of them "
            f"choose and the others report; got {len(gold):,} lines of links"
        )
    found = _links_of_heads(predictor, pairs, threshold)
    scores = {head: 100 * error_rate(of_head[::2], gold[::2]) for head, of_head in found.items()}
    best = min(scores, key=scores.__getitem__)
    report = alignment_scores(found[best][1::2], gold[1::2])[0]
    return Choice(scores, best, "aer", len(gold[::2]), report)


def choose_by_agreement(
    predictor: TextPredictor, backward: TextPredictor, pairs: Pairs, threshold: float | None = None
) -> tuple[Choice, Choice]:
    """Return the heads of two models of opposite directions whose links on the odd lines agree most, with
    their agreement on the even lines: the links of both as a percentage of those of either.

    The scores of a head are those with the best head of the other model. See also `choose_by_gold`.
    """
    if len(pairs) < 2:
        raise AlignmentError(f"expected at least two pairs: half of them choose; got {len(pairs)}")
    found = _links_of_heads(predictor, pairs, threshold)
    turned = [(target, source) for source, target in pairs]
    opposite = {
        head: [reversed_links(row) for row in rows]
        for head, rows in _links_of_heads(backward, turned, threshold).items()
    }
    chosen = _agreement([*found.values()], [*opposite.values()], slice(0, None, 2))
    row, column = np.unravel_index(chosen.argmax(), chosen.shape)
    bests = [*found][row], [*opposite][column]
    value = _agreement([found[bests[0]]], [opposite[bests[1]]], slice(1, None, 2)).item()
    report = Score("agreement", value, f"pairs:{len(pairs[1::2])}")
    odd = len(pairs[::2])
    columns = [
        dict(zip(heads, matrix.tolist(), strict=True))
        for heads, matrix in ((found, chosen.max(1)), (opposite, chosen.max(0)))
    ]
    forward, reverse = (
        Choice(scores, best, "agreement", odd, report) for scores, best in zip(columns, bests, strict=True)
    )
    return forward, reverse


def _links_of_heads(
    predictor: TextPredictor, pairs: Pairs, threshold: float | None
) -> dict[AlignmentHead, list[list[Link]]]:
    """Return the links of every pair, by head."""
    predictor.generator.alignment_head(DEFAULT_HEAD)  # raises without attention
    heads = candidates(predictor.model.decoder)
    found: dict[AlignmentHead, list[list[Link]]] = {head: [] for head in heads}
    for pair in predictor.align_pairs(pairs, heads, CHUNK):
        for head, alignment in zip(heads, (pair.alignment, *pair.others), strict=True):
            found[head].append(links(alignment, threshold))
    return found


def _agreement(
    forward: Sequence[list[list[Link]]], backward: Sequence[list[list[Link]]], lines: slice
) -> NDArray[np.float64]:
    """Return the links that both heads have as a percentage of those that either has, for each two heads."""
    both = np.zeros((len(forward), len(backward)))
    counts = [np.array([sum(map(len, rows[lines])) for rows in side]) for side in (forward, backward)]
    for line in range(len(forward[0]))[lines]:
        cells = sorted({link for side in (forward, backward) for rows in side for link in rows[line]})
        sides = [
            np.array(
                [[link in own for link in cells] for own in (set(rows[line]) for rows in side)], dtype=float
            )
            for side in (forward, backward)
        ]
        both += sides[0] @ sides[1].T
    either = counts[0][:, None] + counts[1] - both
    percentages: NDArray[np.float64] = 100 * both / np.maximum(either, 1)
    return percentages
