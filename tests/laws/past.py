"""Laws of the past: what is carried from query to query, and how it is reordered and shared."""

import torch
from torch.testing import assert_close

from laws.law import law
from laws.masks import BOTH, MASKS, masked
from laws.mechanisms import Case, outputs
from seq2attn.attention import Past
from seq2attn.attention.state import reorder


@law(floor=328, check_shapes=True, **MASKS)
def many_queries_at_once_are_one_by_one(case: Case, masks: str) -> None:
    case = masked(case, masks)
    whole, past, answers = case.attend(), None, []
    for query, mask in zip(case.query.split(1, 1), case.mask.expand(-1, 5, -1).split(1, 1), strict=True):
        answers.append(case.module(query, case._replace(mask=mask).remember(), past))
        past = answers[-1].past
    assert_close(whole.context, torch.cat([answer.context for answer in answers], -2))
    assert_close(whole.weights, torch.cat([answer.weights for answer in answers], -2))
    assert_close(outputs(whole)[2:], outputs(answers[-1])[2:])


@law(floor=328, index=[(1, 1, 0), (2,), (2, 0, 0, 1, 2)])
def reordering_commutes_with_attending(case: Case, index: tuple[int, ...]) -> None:
    rows = torch.tensor(index)
    memory = case.remember()
    past = case.module(case.query[:, :2], memory).past
    after = reorder(case.module(case.query[:, 2:], memory, past), rows)
    before = case.module(case.query[rows, 2:], reorder(memory, rows), reorder(past, rows))
    assert_close(outputs(before), outputs(after))


@law(floor=328, check_shapes=True, need_weights=BOTH)
def hypotheses_of_a_source_share_its_memory(case: Case, need_weights: bool) -> None:
    """Two for each source, with pasts of their own: the same as if each had a copy of the memory."""
    source = torch.arange(3).repeat_interleave(2)
    query = case.query[source] + torch.linspace(-1, 1, 6)[:, None, None]
    memory = case.remember()
    copies = reorder(memory, source)
    past = case.module(query[:, :2], copies).past
    shared, copied = (case.module(query[:, 2:3], held, past, need_weights) for held in (memory, copies))
    assert_close(shared.context, copied.context)
    assert shared.past.step == copied.past.step
    assert (shared.weights is None) <= (not need_weights)
    if need_weights:
        assert_close(outputs(shared), outputs(copied))


@law(floor=328)
def the_past_holds_last_weights_coverage_and_step(case: Case) -> None:
    weights, past = case.plain().weights, case.plain().past
    assert_close(past.weights, weights[..., -1, :])
    assert_close(past.coverage, weights.sum(-2))
    assert past.step == 5


@law(floor=165, holds=lambda mechanism: mechanism.stateful)
@torch.no_grad()
def the_past_matters_to_stateful_parts(case: Case) -> None:
    """With the initial state in the place of any field of the past that a part reads, weights differ.

    The first queries may not attend to the first positions, and the last one may: so a scan has moved on even
    where it stops at once.
    """
    case = case.many_sources()
    memory, rest = case.remember(), case._replace(mask=case.mask & (torch.arange(7) > 2)).remember()
    past, begun = case.module(case.query[:, :3], rest).past, case.module.initial_state(memory)
    last = case.module(case.query[:, 3:], memory, past).weights

    def change(other: Past) -> float:
        return float((case.module(case.query[:, 3:], memory, other).weights - last).abs().max())

    assert change(begun._replace(step=past.step)) > 1e-6
    if case.attention.normalize.stateful:
        assert change(past._replace(alignment_state=begun.alignment_state)) > 1e-6
    if past.trace is not None:
        assert change(past._replace(trace=begun.trace)) > 1e-6
