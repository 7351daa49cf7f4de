"""Laws of weights: what they depend on, their gradients, and the fused path that makes none."""

import torch
from torch import Tensor
from torch.testing import assert_close

from laws.law import law
from laws.masks import BOTH, MASKS, masked
from laws.mechanisms import Case, Mechanism


@law(floor=310, holds=lambda mechanism: not mechanism.normalizes_by("hardmax"))  # straight through
def gradients_are_those_of_the_formula(case: Case) -> None:
    query, states = (part[:2, :3, :].detach().requires_grad_() for part in (case.query, case.states))
    mask = torch.tensor([[[True, True, True]], [[True, False, False]]])

    def context(query: Tensor, states: Tensor) -> Tensor:
        return case.with_(query=query, states=states, mask=mask).context

    assert torch.autograd.gradcheck(context, (query, states), fast_mode=True)


def sharp(mechanism: Mechanism) -> bool:
    """Two queries may well attend to the same position alone."""
    scan = mechanism.positive and not mechanism.normalizes_by("softmax", "sum")
    return mechanism.chooses or scan


@law(floor=218, holds=lambda mechanism: not sharp(mechanism))
def each_two_queries_have_different_weights(case: Case) -> None:
    weights = case.plain().weights[:2]  # of sentences that are not empty
    first, second = weights[..., 0, :], weights[..., 3, :]
    assert ((first - second).abs().amax(-1) > 1e-6).all()


@law(floor=110, holds=sharp)
def some_queries_have_different_weights(case: Case) -> None:
    weights = case.many_sources().attend().weights
    assert (weights[..., :1, :] - weights[..., 1:, :]).abs().max() > 1e-6


@law(floor=167, holds=lambda mechanism: not mechanism.position_dependent)
def permuting_positions_permutes_weights(case: Case) -> None:
    order = torch.tensor([4, 0, 6, 2, 1, 5, 3])
    permuted = case.with_(states=case.states[:, order], mask=case.mask[..., order])
    assert_close(permuted.weights, case.plain().weights[..., order])
    assert_close(permuted.context, case.plain().context)


def even(mechanism: Mechanism) -> bool:
    """Equal positions have equal weights; of equal ones, hardmax takes the first."""
    return not (mechanism.position_dependent or mechanism.normalizes_by("hardmax"))


@law(floor=151, holds=even, size=[1, 1e4])
def equal_positions_have_equal_weights(case: Case, size: float) -> None:
    weights = case.with_(states=size * case.states[:, :1].expand(-1, 7, -1)).weights
    allowed = case.allowed(weights).double()
    expected = allowed / allowed.sum(-1, keepdim=True).clamp(min=1)
    assert_close(weights, expected * weights.sum(-1, keepdim=True))


@law(floor=226, holds=lambda mechanism: not mechanism.noisy)
def weights_in_training_are_those_before_dropout(case: Case) -> None:
    case.attention.dropout = 0.5
    case.module.train()
    assert_close(case.attend().weights, case.plain().weights)


@law(floor=328, need_weights=BOTH)
def dropout_changes_the_context_in_training_alone(case: Case, need_weights: bool) -> None:
    case.attention.dropout = 0.5
    case.module.train()
    assert not torch.allclose(case.attend(need_weights).context[:2], case.plain().context[:2])
    case.module.eval()
    assert_close(case.attend(need_weights).context, case.plain().context)


@law(floor=328, check_shapes=True, **MASKS)
def the_context_is_the_same_when_no_weights_are_needed(case: Case, masks: str) -> None:
    case = masked(case, masks).single()
    inputs = case.query.requires_grad_(), case.states.requires_grad_(), *case.module.parameters()
    contexts = [case.attend(need_weights).context for need_weights in (True, False)]
    assert_close(*contexts, atol=1e-5, rtol=0)
    towards = torch.randn_like(contexts[0])
    gradients = [torch.autograd.grad(c, inputs, towards, materialize_grads=True) for c in contexts]
    assert_close(*gradients, atol=1e-4, rtol=1e-4)
