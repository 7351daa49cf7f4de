"""No law passes because it is checked on nothing."""

import ast
import inspect
from collections.abc import Iterator

import pytest

import laws.inputs
import laws.masks
import laws.past
import laws.precision
import laws.weights  # noqa: F401 - writes them, as those above
from laws.law import REGISTRY
from laws.mechanisms import PRODUCT

every_law = pytest.mark.parametrize("law", REGISTRY.values(), ids=REGISTRY)


def test_no_law_is_lost():
    assert len(REGISTRY) >= 27 and len(PRODUCT) >= 328


@every_law
def test_a_law_is_checked_on_as_many_mechanisms_as_it_says(law):
    assert len(law.mechanisms(PRODUCT)) >= law.floor > 0


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All of a function, without those of the functions in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.Lambda)):
            yield child
            yield from statements(child)


@every_law
def test_a_law_does_not_return_or_skip(law):
    (function,) = ast.parse(inspect.getsource(law.check)).body
    for node in statements(function):
        assert not isinstance(node, ast.Return)
        assert not (isinstance(node, ast.Attribute) and node.attr in ("skip", "xfail"))
