"""METRICS by name, and the scores of a corpus by some of them."""

import difflib
import functools
from collections.abc import Sequence

from seq2attn.metrics.base import SEED, Metric, References, Score, ScoringError
from seq2attn.metrics.edits import exact, sentence_errors, word_errors
from seq2attn.metrics.entities import accuracy, f1, macro_f1, precision, recall, tag_accuracy
from seq2attn.metrics.rouge import rouge
from seq2attn.metrics.translation import bleu, chrf, ter

DEFAULT = ("bleu", "chrf", "ter")  # of METRICS

METRICS: dict[str, Metric] = {
    "bleu": bleu,
    "bleu-zh": functools.partial(bleu, tokenize="zh"),
    "bleu-char": functools.partial(bleu, tokenize="char"),
    "chrf": chrf,
    "chrf++": functools.partial(chrf, word_order=2),
    "ter": ter,
    "exact": exact,
    "wer": word_errors,
    "per": functools.partial(word_errors, name="PER"),
    "g2p-wer": functools.partial(sentence_errors, name="g2p-WER"),
    "rouge-1": functools.partial(rouge, variant="1"),
    "rouge-2": functools.partial(rouge, variant="2"),
    "rouge-l": functools.partial(rouge, variant="L"),
    "rouge-lsum": functools.partial(rouge, variant="Lsum"),
    "f1": f1,
    "precision": precision,
    "recall": recall,
    "tag-accuracy": tag_accuracy,
    "accuracy": accuracy,
    "macro-f1": macro_f1,
}
LOWER_IS_BETTER = {"ter", "wer", "per", "g2p-wer"}
SLOW = {"ter"}  # minutes for a large corpus; the others take seconds


def score(
    hypotheses: Sequence[str],
    references: References,
    metrics: Sequence[str] = DEFAULT,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> list[Score]:
    """The scores of a corpus by the named METRICS.

    `references` is one sentence for each hypothesis or, as in sacreBLEU, several lists (one a translator;
    None where a hypothesis has fewer than another: `transposed` makes such lists).
    `bootstrap` resampled corpora give the confidence interval; 0 gives none and is fast; a corpus of one
    sentence has none. Raises ScoringError for lists that do not fit together and for unknown names.
    """
    for name in metrics:
        if name not in METRICS:
            guess = difflib.get_close_matches(name, METRICS, n=1)
            meant = f"did you mean {guess[0]}? " if guess else ""
            raise ScoringError(f"unknown metric {name!r} ({meant}one of {', '.join(METRICS)})")
    return [METRICS[name](hypotheses, references, bootstrap, seed) for name in metrics]
