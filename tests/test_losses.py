"""The token loss, against torch's own; and of logits that are made in blocks."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

import seq2attn.layers.token_loss
from seq2attn.errors import Seq2attnError
from seq2attn.layers.token_loss import CrossEntropy, TokenLoss, cross_entropy
from seq2attn.models.decoders import Projection

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


class Squared(TokenLoss):
    """A loss of single tokens."""

    def per_token(self, logits, target):
        return (logits.softmax(-1) - F.one_hot(target, logits.shape[-1])).square().sum(-1)


class Whole(CrossEntropy):
    """A loss that defines its sums alone."""

    def sums(self, predicted, target, mask, num_copied):
        loss = super().sums(predicted, target, mask, num_copied)
        return loss._replace(smoothed=2 * loss.smoothed)


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(0.3), Squared(), Whole(0.1)])
def test_losses_of_each_token_are_those_of_the_tokens_alone(loss):
    logits, target = torch.randn(5, 7, requires_grad=True), torch.tensor([0, 6, 3, 3, 1])
    weights, seen = torch.rand(5), torch.ones(1, 1, dtype=torch.bool)
    alone = [loss(logits[None, n : n + 1], target[None, n : n + 1], seen) for n in range(5)]
    each = loss.each(logits, target)
    assert_close(each.smoothed, torch.stack([one.smoothed for one in alone]))
    assert_close(each.nll, F.cross_entropy(logits, target, reduction="none").detach())
    assert not each.nll.requires_grad
    expected = sum(weight * one.smoothed for weight, one in zip(weights, alone, strict=True))
    gradients = [
        torch.autograd.grad(value, logits)[0] for value in ((weights * each.smoothed).sum(), expected)
    ]
    assert_close(*gradients)


def test_labels_that_there_are_not_are_refused_in_each():
    with pytest.raises(Seq2attnError, match=r"token 1 of sentence 0 has label 7: expected one of 0 ... 6"):
        CrossEntropy().each(torch.randn(2, 7), torch.tensor([0, 7]))


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


# ---- of logits that are still to be made ------------------------------------------------------------


def projected(bias: bool = True, dtype: torch.dtype = torch.float64) -> tuple[Tensor, nn.Linear, Tensor]:
    torch.manual_seed(4)
    states = torch.randn(B, T, 7, dtype=dtype, requires_grad=True)
    return states, nn.Linear(7, V, bias, dtype=dtype), torch.randint(0, V, (B, T))


def gradients(loss: Tensor, states: Tensor, layer: nn.Linear) -> tuple[Tensor, ...]:
    return torch.autograd.grad(7 * loss, (states, *layer.parameters()))


@pytest.mark.parametrize("rows", [1, 3, 512])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_made_piece_by_piece_is_the_same(monkeypatch, smoothing, bias, rows):
    monkeypatch.setattr(seq2attn.layers.token_loss, "ROWS", rows)
    states, layer, gold = projected(bias)
    ours = cross_entropy(Projection(states, layer), gold, MASK, smoothing)
    theirs = cross_entropy(layer(states), gold, MASK, smoothing)
    assert_close(tuple(ours), tuple(theirs))
    assert_close(gradients(ours.smoothed, states, layer), gradients(theirs.smoothed, states, layer))


def test_no_more_rows_are_made_at_once_than_said_and_none_for_padding(monkeypatch):
    monkeypatch.setattr(seq2attn.layers.token_loss, "ROWS", 3)
    states, layer, gold = projected()
    made, linear = [], F.linear
    monkeypatch.setattr(F, "linear", lambda x, *rest: made.append(len(x)) or linear(x, *rest))
    cross_entropy(Projection(states, layer), gold, MASK)
    assert made == [3, 3, 1]  # of 5 + 2 tokens


def test_without_gradients_none_are_made():
    states, layer, gold = projected()
    with torch.no_grad():
        loss = cross_entropy(Projection(states, layer), gold, MASK, 0.1)
    assert not loss.smoothed.requires_grad
    assert_close(tuple(loss), tuple(cross_entropy(layer(states).detach(), gold, MASK, 0.1)))


def test_a_matrix_that_is_shared_has_both_gradients():
    states, layer, gold = projected()
    table = nn.Embedding(V, 7, _weight=layer.weight)
    found = [
        torch.autograd.grad(cross_entropy(predicted, gold, MASK, 0.1).smoothed, layer.weight)[0]
        for read in (table(gold) + states.detach(),)
        for predicted in (Projection(read, layer), layer(table(gold) + states.detach()))
    ]
    assert_close(*found)


def test_narrow_states_are_multiplied_narrow_and_summed_wide():
    states, layer, gold = projected(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = Projection.of(states, layer)
        expected = layer(states)
    assert narrow.states.dtype == torch.bfloat16 and torch.equal(narrow.whole(), expected)
    ours, theirs = cross_entropy(narrow, gold, MASK, 0.1), cross_entropy(expected, gold, MASK, 0.1)
    assert ours.smoothed.dtype == torch.float32
    assert_close(tuple(ours), tuple(theirs))
    for one, other in zip(
        gradients(ours.smoothed, states, layer), gradients(theirs.smoothed, states, layer), strict=True
    ):
        assert one.dtype == torch.float32
        assert_close(one, other, atol=0.1, rtol=0.02)


def test_no_tokens_at_all_cost_nothing():
    states, layer, gold = projected()
    loss = cross_entropy(Projection(states, layer), gold, MASK & False, 0.1)
    assert loss == (0, 0) and all((one == 0).all() for one in gradients(loss.smoothed, states, layer))


def test_under_autocast_the_loss_of_a_projection_is_the_same():
    states, layer, gold = projected()
    states, layer = states.float().detach().requires_grad_(), layer.float()
    plain = cross_entropy(Projection(states, layer), gold, MASK)
    expected = gradients(plain.smoothed, states, layer)
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(Projection(states, layer), gold, MASK)
    assert_close(tuple(loss), tuple(plain), rtol=0, atol=0)
    for one, other in zip(gradients(loss.smoothed, states, layer), expected, strict=True):
        assert_close(one, other, rtol=0, atol=0)


def test_targets_at_padding_may_be_anything():
    logits, gold = data()
    loss = cross_entropy(logits, gold.masked_fill(~MASK, -100), MASK, 0.1)
    assert_close(tuple(loss), tuple(cross_entropy(logits, gold, MASK, 0.1)), rtol=0, atol=0)
