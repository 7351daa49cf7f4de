"""Metrics of formulas in LaTeX: expression rates and the token error rate.

Formulas are compared as tokens, separated by white space, after a normalisation (`normalized`, norm.v1):
`x ^ 2` and `x ^ { 2 }` are the same. The official CROHME metric compares symbol layout trees (LgEval); it
forgives more, so that its rates are higher.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from seq2attn.metrics.base import SEED, Numbers, References, Score, by_hypothesis
from seq2attn.metrics.edits import corpus_mean, fewest_edits
from seq2attn.text.words import words

UNIT = "unit:formula|tokens|norm.v1"
_SCRIPTS = ("_", "^")
_SIZE = re.compile(r"^\\(left|right)(?![a-zA-Z])")  # only says how tall the bracket behind it is


def expression_rate(
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int = 1000,
    seed: int = SEED,
    errors: int = 0,
) -> Score:
    """ExpRate: the percentage of formulas whose normalised tokens equal the reference; with `errors`, those
    with at most so many insertions, deletions and substitutions of tokens."""
    golds = by_hypothesis(hypotheses, references)
    edits, _ = _edits(hypotheses, golds)
    right = (edits <= errors).astype(np.int64)
    name = f"ExpRate<={errors}" if errors else "ExpRate"
    return corpus_mean(name, right, np.ones_like(right), golds, bootstrap, seed, UNIT)


def token_errors(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """Token error rate: 100 * edits / tokens of the references, over the corpus, after normalisation."""
    golds = by_hypothesis(hypotheses, references)
    return corpus_mean("TokenER", *_edits(hypotheses, golds), golds, bootstrap, seed, UNIT)


def normalized(formula: str) -> list[str]:
    """Return the tokens of a formula in one of its spellings.

    A group of a single token has no braces, a subscript comes before its superscript, and `\\left` and
    `\\right` are left out. A formula with unbalanced braces keeps them all, and the order of its scripts.
    """
    tokens = [bare for token in words(formula) if (bare := _SIZE.sub("", token))]
    root: list[Item] = []
    open_groups = [root]
    for token in tokens:
        if token == "{":
            group: list[Item] = []
            open_groups[-1].append(group)
            open_groups.append(group)
        elif token != "}":
            open_groups[-1].append(token)
        elif len(open_groups) > 1:
            open_groups.pop()
        else:
            return tokens
    return list(_flat(root)) if len(open_groups) == 1 else tokens


Item = str | list["Item"]  # a token, or a group of items


def _flat(items: Sequence[Item]) -> Iterator[str]:
    """Yield the tokens of items, with sorted scripts."""
    index = 0
    while index < len(items):
        scripts = list[tuple[str, Item]]()
        while index + 1 < len(items) and (sign := items[index]) in _SCRIPTS:
            scripts.append((str(sign), items[index + 1]))
            index += 2
        for sign, argument in sorted(scripts, key=lambda script: _SCRIPTS.index(script[0])):
            yield sign
            yield from _argument(argument)
        if index < len(items) and not (items[index] in _SCRIPTS and index + 1 < len(items)):
            yield from _argument(items[index])
            index += 1


def _argument(item: Item) -> Iterator[str]:
    """Yield the tokens of a token or a group."""
    if isinstance(item, str):
        yield item
        return
    inner = list(_flat(item))
    yield from inner if len(inner) == 1 else ["{", *inner, "}"]


def _edits(hypotheses: Sequence[str], golds: Sequence[Sequence[str]]) -> tuple[Numbers, Numbers]:
    return fewest_edits(
        list(map(normalized, hypotheses)), [list(map(normalized, references)) for references in golds]
    )
