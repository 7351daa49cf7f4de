"""No law passes because it is checked on nothing."""

import pytest

import laws.masks
import laws.past
import laws.precision
import laws.weights  # noqa: F401 - writes them, as those above
from laws.law import REGISTRY
from laws.mechanisms import PRODUCT


@pytest.mark.parametrize("law", REGISTRY.values(), ids=REGISTRY)
def test_a_law_is_checked_on_as_many_mechanisms_as_it_says(law):
    assert len(law.mechanisms(PRODUCT)) >= law.floor > 0
