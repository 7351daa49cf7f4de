"""All laws, over attentions that weight sentences, too."""

import pytest

import laws.masks
import laws.past
import laws.precision
import laws.weights  # noqa: F401 - writes them, as those above
from laws.law import REGISTRY, check, over
from laws.mechanisms import HIERARCHICAL

FLOORS = {  # all others are checked on all
    "weights_sum_to_one": 9,
    "an_empty_source_changes_no_gradient_of_others_in_training": 9,
    "a_single_position_has_all_the_weight": 9,
    "the_past_matters_to_stateful_parts": 4,
    "each_two_queries_have_different_weights": 9,
    "some_queries_have_different_weights": 3,
    "permuting_positions_permutes_weights": 7,
    "equal_positions_have_equal_weights": 7,
    "weights_in_training_are_those_before_dropout": 9,
    "autocast_changes_little": 9,
    "weights_of_huge_scores_sum_to_one": 9,
}


@over(HIERARCHICAL)
def test_law(mechanism):
    check(list(REGISTRY.values()), mechanism)


@pytest.mark.parametrize("law", REGISTRY.values(), ids=REGISTRY)
def test_a_law_is_checked_on_as_many_attentions_as_before(law):
    assert len(law.mechanisms(HIERARCHICAL)) >= FLOORS.get(law.name, len(HIERARCHICAL))
