"""The laws of precision, over every scorer and normalizer of the registries."""

import laws.precision  # noqa: F401 - writes them
from laws.law import check, laws_of, over
from laws.mechanisms import PRODUCT


@over(PRODUCT)
def test_law(mechanism):
    check(laws_of("precision"), mechanism)
