"""The laws of inputs, over every scorer and normalizer of the registries."""

import laws.inputs  # noqa: F401 - writes them
from laws.law import check, laws_of, over
from laws.mechanisms import PRODUCT


@over(PRODUCT)
def test_law(mechanism):
    check(laws_of("inputs"), mechanism)
