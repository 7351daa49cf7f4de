"""Laws of numbers: half precision, and scores that are huge."""

import torch
from torch.testing import assert_close

from laws.law import law
from laws.masks import BOTH
from laws.mechanisms import Case


@law(floor=328, check_shapes=True)
def weights_are_float32_under_autocast(case: Case) -> None:
    case = case.single()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = case.attend()
    assert narrow.weights.dtype == narrow.past.coverage.dtype == torch.float32


@law(floor=226, holds=lambda mechanism: not mechanism.chooses)  # rounding may choose another position
def autocast_changes_little(case: Case) -> None:
    case = case.single()
    exact = case.attend()
    with torch.autocast("cpu", torch.bfloat16):
        narrow, fused = case.attend(), case.attend(need_weights=False)
    assert_close(narrow.weights, exact.weights, atol=0.03, rtol=0)
    for context in (narrow.context, fused.context):
        assert_close(context.float(), exact.context, atol=0.1, rtol=0.1)


def huge(case: Case) -> Case:
    case = case.single()
    return case._replace(states=(1e4 * case.states).float().requires_grad_())


@law(floor=328, need_weights=BOTH)
def huge_scores_give_no_nan(case: Case, need_weights: bool) -> None:
    case = huge(case)
    context = case.attend(need_weights).context
    assert context.isfinite().all()
    assert torch.autograd.grad(context.sum(), case.states)[0].isfinite().all()


@law(floor=271, holds=lambda mechanism: mechanism.sums_to_one)
def weights_of_huge_scores_sum_to_one(case: Case) -> None:
    weights = huge(case).attend().weights
    assert_close(weights[:2].sum(-1), torch.ones_like(weights[:2, ..., 0]))
