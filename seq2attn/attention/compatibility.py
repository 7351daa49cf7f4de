"""Which scorers and normalizers can be combined, and in which role an attention can use them."""

from collections.abc import Iterator

from seq2attn.attention.interfaces import Normalizer, Scorer

ROLES = ("target to source", "self-attention", "pooling")


def incompatibilities(
    score: Scorer | type[Scorer],
    normalize: Normalizer | type[Normalizer],
    role: str,
    relative: bool = False,
    hierarchy: bool = False,
    names: tuple[str, str] | None = None,
) -> Iterator[tuple[str, str]]:
    """Yield the reasons why two parts cannot be combined or used in a role, each with the field at fault:
    ("score", "normalize" or "sentences", reason).

    relative: whether relative positions are added to the scores; hierarchy: whether sentences are scored,
    too; names: the names of the two parts in the reasons; None: those of their classes.
    """
    scorer, normalizer = names or (_class_name(score), _class_name(normalize))
    if role != "target to source":
        why = f"needs a target that is generated step by step; {role} has none"
        if score.stateful:
            yield "score", f"{scorer} {why}"
        if normalize.stateful or normalize.ordered:
            yield "normalize", f"{normalizer} {why}"
    if hierarchy and role != "target to source":
        yield "sentences", f"weight the sentences of a source: no use in {role}, set them to null"
    if hierarchy and normalize.needs_positive:
        why = f"add log-weights to the scores, and {normalizer} needs scores that are never negative"
        yield "sentences", f"{why}: use another normalizer, or set them to null"
    if normalize.needs_positive and (relative or not score.positive):
        yield (
            "normalize",
            f"{normalizer} divides by the scores' sum, so none may be negative: use the scorer linear, and "
            "no positions that are added to scores",
        )


def _class_name(part: Scorer | Normalizer | type) -> str:
    return part.__name__ if isinstance(part, type) else type(part).__name__
