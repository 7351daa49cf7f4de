"""Metrics of formulas: their normalisation, expression rates and the token error rate."""

import pytest

from seq2attn.metrics import score
from seq2attn.metrics.formulas import normalized

SAME = [
    ("x ^ 2", "x ^ { 2 }"),
    ("x _ 1 ^ 2", "x ^ { 2 } _ { 1 }"),
    ("( a )", r"\left ( a \right )"),
    ("( a )", r"\left( { { a } } \right)"),
    (r"\frac { a b } c", r"\frac { a b } { c }"),
    (r"\sqrt { x _ 1 ^ 2 }", r"\sqrt { x ^ { 2 } _ { { 1 } } }"),
]
DIFFERENT = [
    ("x ^ 2 3", "x ^ { 2 3 }"),
    ("x ^ 2 ^ 3", "x ^ 3 ^ 2"),
    (r"\leftarrow a", "arrow a"),
    ("{ a", "a"),
    ("a }", "a"),
    ("X", "x"),
]


@pytest.mark.parametrize(("plain", "other"), SAME)
def test_spellings_of_one_formula_are_equal(plain: str, other: str) -> None:
    assert normalized(other) == plain.split() == normalized(plain)


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_other_formulas_stay_different(first: str, second: str) -> None:
    assert normalized(first) != normalized(second)


@pytest.mark.parametrize("text", ["", "_", "^ _", "x _", "{ }", "{ } ^", "_ ^ _ ^", "} {", "{ { x"])
def test_any_text_is_normalised_once_and_for_all(text: str) -> None:
    assert normalized(" ".join(normalized(text))) == normalized(text)


def test_rates_count_edits_of_tokens() -> None:
    predicted = ["x ^ { 2 }", "a + b", "a", r"\frac a b", "z"]
    gold = ["x ^ 2", "a - b", "a b c", r"\frac { a } { b }", "x y z w"]
    names = ["exprate", "exprate-1", "exprate-2", "token-er"]
    values = [result.value for result in score(predicted, gold, names)]
    assert values == pytest.approx([40, 60, 80, 100 * (0 + 1 + 2 + 0 + 3) / (3 + 3 + 3 + 3 + 4)])
    assert "norm.v1" in score(predicted, gold, ["exprate"])[0].signature


def test_the_nearest_of_several_references_counts() -> None:
    assert score(["a b"], [["a c"], ["a b"]], ["exprate", "token-er"], bootstrap=0)[0].value == 100
