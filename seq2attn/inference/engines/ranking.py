"""An engine's hypotheses, and their order by exact log-probabilities."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from seq2attn.data.batch_plan import Indices
from seq2attn.inference.engines.engine import Engine, Request
from seq2attn.inference.forced import ForcedDecoding
from seq2attn.inference.search import Hypothesis, Rules
from seq2attn.recipe import DecodingRecipe

LOGGER = logging.getLogger(__name__)


class Found(NamedTuple):
    """A hypothesis, with its forced decoding where that was asked for."""

    hypothesis: Hypothesis
    forced: ForcedDecoding | None


def search_with(
    engine: Engine,
    requests: Sequence[Request],
    batches: Sequence[Indices],
    decoding: DecodingRecipe,
    rules: Rules,
    reasons: Counter[str] | None = None,
) -> dict[int, list[Hypothesis]]:
    """Return the hypotheses of the requests that an engine searches for, by index: the n best ones, and those
    that are as good but for rounding. Log how many there are, and why the others are torch's.

    reasons: counts those of the others, by why.
    """
    reasons = Counter() if reasons is None else reasons
    found = dict[int, list[Hypothesis]]()
    if (setting := engine.unsupported(decoding)) is not None:
        reasons[setting] = len(requests)
        batches = []
    for batch in batches:
        indices = batch.tolist()
        answers = engine.search([requests[index] for index in indices], decoding)
        for index, answer in zip(indices, answers, strict=True):
            if isinstance(answer, str):
                reasons[answer] += 1
            else:
                found[index] = _best(answer, rules, decoding.nbest, engine.rounding)
    counts = "; ".join(f"{count:,} for {reason}" for reason, count in reasons.items())
    left = f", torch for {sum(reasons.values()):,} ({counts})" if reasons else ""
    LOGGER.info("%s searched for %d of %d%s", engine.name, len(found), len(requests), left)
    return found


def _best(hypotheses: list[Hypothesis], rules: Rules, nbest: int, rounding: float) -> list[Hypothesis]:
    """Return the n best hypotheses, and those whose score may be as high but for rounding (of the
    log-probability of each token), best first."""
    pairs = [(hypothesis, len(hypothesis.tokens) + 1) for hypothesis in hypotheses]
    scored = [one._replace(score=rules.score(one.log_probability, length)) for one, length in pairs]
    ordered = sorted(scored, key=lambda hypothesis: -hypothesis.score)
    lowest = ordered[:nbest][-1]
    length = len(lowest.tokens) + 1
    needed = rules.score(lowest.log_probability - rounding * length, length)
    close = [one for one in ordered[nbest:] if rounding and one.score >= needed]
    return [*ordered[:nbest], *close]


def exactly_ranked(found: list[Found], rules: Rules) -> list[Found]:
    """Return an engine's hypotheses with the log-probabilities of forced decoding, and in their order; as
    they are if there is none."""
    exact = []
    for hypothesis, forced in found:
        if forced is not None:
            log_probability = forced.log_probability
            score = rules.score(log_probability, len(hypothesis.tokens) + 1)
            hypothesis = hypothesis._replace(log_probability=log_probability, score=score)
        exact.append(Found(hypothesis, forced))
    return sorted(exact, key=lambda one: -one.hypothesis.score)
