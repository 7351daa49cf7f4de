"""The loss against torch's own, in value and in gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from seq2attn.losses import cross_entropy

B, T, V = 3, 5, 17
MASK = torch.arange(T) < torch.tensor([5, 2, 0])[:, None]


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    return 3 * torch.randn(B, T, V, dtype=torch.float64), torch.randint(0, V, (B, T))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_value_and_gradient_are_torchs(smoothing):
    logits, gold = data()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = cross_entropy(ours, gold, MASK, smoothing)
    expected = F.cross_entropy(theirs[MASK], gold[MASK], reduction="sum", label_smoothing=smoothing)
    assert_close(loss.smoothed, expected)
    assert_close(loss.nll, F.cross_entropy(logits[MASK], gold[MASK], reduction="sum"))
    (7 * loss.smoothed).backward()  # the gradient is scaled by what stands behind
    (7 * expected).backward()
    assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_is_the_slope(smoothing):
    logits, gold = data()
    logits.requires_grad_()
    cross_entropy(logits, gold, MASK, smoothing).smoothed.backward()
    for direction in torch.randn(7, B, T, V, dtype=torch.float64):
        up, down = (
            cross_entropy(logits.detach() + h * direction, gold, MASK, smoothing).smoothed
            for h in (1e-5, -1e-5)
        )
        assert_close((logits.grad * direction).sum(), (up - down) / 2e-5, rtol=1e-6, atol=1e-6)


def test_a_second_backward_is_refused_rather_than_wrong():
    """The gradient is made in place of what the first one needed."""
    logits, gold = data()
    loss = cross_entropy(logits.requires_grad_(), gold, MASK, 0.1).smoothed
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_padding_does_not_count():
    logits, gold = data()
    garbage = logits.masked_fill(~MASK[..., None], 1e3).requires_grad_()
    loss = cross_entropy(garbage, gold.masked_fill(~MASK, 0), MASK, 0.1)
    assert_close(tuple(loss), tuple(cross_entropy(logits, gold, MASK, 0.1)))
    loss.smoothed.backward()
    assert (garbage.grad[~MASK] == 0).all() and (garbage.grad[MASK] != 0).all()


def test_sums_of_parts_are_the_sum_of_all():
    logits, gold = data()
    parts = [cross_entropy(logits[n : n + 1], gold[n : n + 1], MASK[n : n + 1], 0.1) for n in range(B)]
    whole = cross_entropy(logits, gold, MASK, 0.1)
    assert_close(sum(part.smoothed for part in parts), whole.smoothed)
    assert_close(sum(part.nll for part in parts), whole.nll)
    assert parts[2] == (0, 0)  # a sentence without tokens


def test_only_what_is_minimised_has_a_gradient():
    logits, gold = data()
    loss = cross_entropy(logits.requires_grad_(), gold, MASK, 0.1)
    assert loss.smoothed.requires_grad and not loss.nll.requires_grad
    assert loss.smoothed.shape == loss.nll.shape == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_logits_are_summed_wide(dtype):
    logits, gold = data()
    narrow = logits.to(dtype).requires_grad_()
    loss = cross_entropy(narrow, gold, MASK, 0.1)
    assert loss.smoothed.dtype == loss.nll.dtype == torch.float32
    assert_close(tuple(loss), tuple(cross_entropy(narrow.detach().float(), gold, MASK, 0.1)))
    loss.smoothed.backward()
    assert narrow.grad.dtype == dtype


def test_the_logits_are_left_as_they_were():
    logits, gold = data()
    before = logits.clone()
    cross_entropy(logits.requires_grad_(), gold, MASK, 0.1).smoothed.backward()
    assert torch.equal(logits, before)
