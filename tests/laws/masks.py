"""Laws of masks, padding and batches."""

import torch
import torch.nn.functional as F
from shapes import unchecked
from torch import Tensor
from torch.testing import assert_close

from laws.law import law
from laws.mechanisms import Case, outputs

MASKS = {"masks": ["one mask", "a mask each"]}
BOTH = [True, False]


def masked(case: Case, masks: str) -> Case:
    return case.scattered() if masks == "a mask each" else case


@law(floor=328, **MASKS)
def masked_positions_have_no_weight_and_no_weight_is_negative(case: Case, masks: str) -> None:
    case = masked(case, masks)
    weights = case.attend().weights
    assert (weights >= 0).all() and (weights[~case.allowed(weights)] == 0).all()


@law(floor=271, holds=lambda mechanism: mechanism.sums_to_one, **MASKS)
def weights_sum_to_one(case: Case, masks: str) -> None:
    case = masked(case, masks)
    weights = case.attend().weights
    sums, expected = weights.sum(-1), case.allowed(weights).any(-1).double()
    if case.mechanism.normalizes_by("local_m", "local_p") and masks == "a mask each":
        expected = expected * (sums > 0.5)  # all of a window may be masked
    assert_close(sums, expected)


def blind(case: Case) -> Tensor:
    """Queries that may attend to nothing: one of the first sentence, all of the last."""
    return ~case.mask.any(-1)


def gradients(case: Case, need_weights: bool) -> tuple[Tensor, Tensor]:
    """Of queries and states; those of all parameters are finite."""
    query, states = case.query.detach().requires_grad_(), case.states.detach().requires_grad_()
    context = case._replace(query=query, states=states).attend(need_weights).context
    inputs = query, states, *case.module.parameters()
    of_query, of_states, *others = torch.autograd.grad(context.square().sum(), inputs, materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in (of_query, of_states, *others))
    return of_query, of_states


@law(floor=328, check_shapes=True, training=BOTH, need_weights=BOTH)
def a_query_that_may_attend_to_nothing_has_context_and_gradient_zero(
    case: Case, training: bool, need_weights: bool
) -> None:
    case = case.scattered()
    case.module.train(training)
    context = case.attend(need_weights).context[blind(case)]
    assert_close(context, case.nothing().expand_as(context), rtol=0, atol=0)
    with unchecked():  # the same call again
        of_query, of_states = gradients(case, need_weights)
    assert (of_query[blind(case)] == 0).all() and (of_states[2] == 0).all()


def check_gradients_without_the_empty_source(case: Case, need_weights: bool) -> None:
    case = case.scattered()
    of_query, of_states = gradients(case, need_weights)
    assert_close((of_query[:2], of_states[:2]), gradients(case.rows(slice(2)), need_weights))


@law(floor=328, need_weights=BOTH)
def an_empty_source_changes_no_gradient_of_others(case: Case, need_weights: bool) -> None:
    check_gradients_without_the_empty_source(case, need_weights)


@law(floor=226, holds=lambda mechanism: not mechanism.noisy, need_weights=BOTH)
def an_empty_source_changes_no_gradient_of_others_in_training(case: Case, need_weights: bool) -> None:
    case.module.train()
    check_gradients_without_the_empty_source(case, need_weights)


@law(floor=328, check_shapes=True)
def padding_changes_nothing(case: Case) -> None:
    garbage = case.states.masked_fill(~case.mask.mT, 1e3)
    padded = case.with_(states=F.pad(garbage, (0, 0, 0, 2), value=-9.0), mask=F.pad(case.mask, (0, 2)))
    assert_close(padded.context, case.plain().context)
    assert_close(padded.weights, F.pad(case.plain().weights, (0, 2)))


@law(floor=328)
def a_batch_is_a_list_of_sentences(case: Case) -> None:
    for row in range(3):
        alone = case.rows(slice(row, row + 1)).attend()
        for part, expected in zip(outputs(alone), outputs(case.plain()), strict=True):
            assert_close(part, expected[row : row + 1])


@law(floor=328)
def a_sentence_does_not_depend_on_the_others_of_its_batch(case: Case) -> None:
    before = case.plain().context
    changed = case.with_(states=case.states.index_fill(0, torch.tensor([1]), 5.0)).context
    assert torch.equal(changed[[0, 2]], before[[0, 2]]) and not torch.allclose(changed[1], before[1])


@law(floor=328)
def a_source_of_padding_has_no_weight(case: Case) -> None:
    only = case.with_(states=case.states[:, :1], mask=case.mask[..., :1])
    assert (only.weights[2] == 0).all()


@law(floor=271, holds=lambda mechanism: mechanism.sums_to_one)
def a_single_position_has_all_the_weight(case: Case) -> None:
    only = case.with_(states=case.states[:, :1], mask=case.mask[..., :1])
    assert_close(only.weights[:2], torch.ones_like(only.weights[:2]))
