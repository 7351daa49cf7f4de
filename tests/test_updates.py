"""One update: its gradient, its learning rate, its moving average, and half precision."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_training import KINDS, batch, moved, norm, sgd, trainer

from seq2attn.data.batches import Batch
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Dropout
from seq2attn.runtime.devices import autocast
from seq2attn.training.run_folder import tensors_of, weights_of


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_does_not_depend_on_how_an_update_is_cut(
    kind: str, dtype: torch.dtype, tolerance: float
) -> None:
    pieces = [range(1), range(1, 4), range(4, 11), range(11, 16)]
    one, whole = moved(sgd(kind, dtype), [batch(range(16))])
    four, parts = moved(sgd(kind, dtype), [batch(rows) for rows in pieces])
    assert len({int(batch(rows).target_mask.sum()) for rows in pieces}) == 4  # unequal token counts
    assert (whole.tokens, whole.loss, whole.norm) == pytest.approx((parts.tokens, parts.loss, parts.norm))
    for name, gradient in one.items():
        torch.testing.assert_close(four[name], gradient, rtol=0, atol=tolerance)


def test_dropout_is_named_by_seed_step_and_batch() -> None:
    """Whatever was drawn before: so a batch has the same gradient in any process, and after any resumption."""
    batches = [batch(range(8)), batch(range(8))]

    def gradients(seed: int, step: int, noise: int, chosen: list[Batch]) -> dict[str, torch.Tensor]:
        one = sgd(dtype=torch.float64)
        one.seed = seed
        for part in one.model.modules():
            if isinstance(part, Dropout):
                part.rate = 0.3
        torch.manual_seed(noise)
        before = {name: tensor.clone() for name, tensor in one.model.named_parameters()}
        one.update(chosen, step)
        return {name: tensor - before[name] for name, tensor in one.model.named_parameters()}

    def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(one[name], other[name]) for name in one)

    first = gradients(1, 1, 0, batches[:1])
    assert equal(first, gradients(1, 1, 9, batches[:1]))
    assert not equal(first, gradients(2, 1, 0, batches[:1]))
    assert not equal(first, gradients(1, 2, 0, batches[:1]))
    # twice the same batch in an update: each has its own dropout, so their mean is not that of one
    assert not torch.allclose(
        first["decoder.output.weight"], gradients(1, 1, 0, batches)["decoder.output.weight"]
    )


def test_the_gradient_is_that_of_the_mean_over_all_tokens() -> None:
    one, some = sgd(dtype=torch.float64), batch(range(16))
    logits = one.model.train()(some.source, some.target_input).logits
    gold = some.target.masked_fill(~some.target_mask, -100)
    loss = F.cross_entropy(logits.flatten(0, 1), gold.flatten(), label_smoothing=0.1)
    gradients = dict(
        zip(
            dict(one.model.named_parameters()),
            torch.autograd.grad(loss, [*one.model.parameters()]),
            strict=True,
        )
    )
    steps, updated = moved(one, [some])
    assert updated.loss == pytest.approx(loss.item())
    assert updated.norm == pytest.approx(norm(gradients.values()))
    for name, gradient in gradients.items():
        torch.testing.assert_close(steps[name], gradient, rtol=0, atol=1e-13)


def test_clipping_shortens_the_gradient_and_reports_its_length() -> None:
    free, updated = moved(sgd(), [batch(range(9))])
    short, clipped = moved(sgd(clip=0.01), [batch(range(9))])
    assert clipped.norm == updated.norm == pytest.approx(norm(free.values()), rel=1e-4)
    assert norm(short.values()) == pytest.approx(0.01, rel=1e-3)
    loose, _ = moved(sgd(clip=1000.0), [batch(range(9))])
    assert norm(loose.values()) == pytest.approx(norm(free.values()), rel=1e-6)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ({"name": "constant", "warmup": 2}, [1 / 2, 1, 1, 1]),
        ({"name": "inverse_sqrt", "warmup": 2}, [1 / 2, 1, (2 / 3) ** 0.5, (2 / 4) ** 0.5]),
        ("linear", [3 / 4, 1 / 2, 1 / 4, 0]),
        ("cosine", [(1 + math.cos(math.pi * step / 4)) / 2 for step in (1, 2, 3, 4)]),
    ],
)
def test_the_schedule_makes_the_learning_rate(schedule: Any, factors: list[float]) -> None:
    one = trainer(total=4, max_steps=4, learning_rate=0.25, schedule=schedule)
    for step, factor in enumerate(factors, 1):
        updated = one.update([batch(range(3))], step)
        used = [group["lr"] for group in one.optimizers[""].param_groups]
        assert [updated.learning_rate, *used] == pytest.approx([0.25 * factor] * 3)


def test_ema_is_what_a_hand_computes() -> None:
    one = trainer(ema=0.3)
    by_hand = {name: tensor.double() for name, tensor in weights_of(one.model).items()}
    for step in range(1, 6):
        one.update([batch(range(step, step + 5))], step)
        for name, tensor in weights_of(one.model).items():
            decay = min(0.3, (1 + step) / (10 + step))  # as TensorFlow's ExponentialMovingAverage
            by_hand[name] = decay * by_hand[name] + (1 - decay) * tensor.double()
    own = weights_of(one.model)
    with one.averaged() as weights:
        for name, tensor in tensors_of(one.model).items():
            torch.testing.assert_close(tensor.double(), by_hand[name], rtol=1e-5, atol=1e-7)
            assert torch.equal(tensor, weights[name])
    assert all(torch.equal(tensor, own[name]) for name, tensor in tensors_of(one.model).items())
    assert any(not torch.equal(weights[name], own[name]) for name in own)


def test_averaged_weights_leave_when_validation_fails() -> None:
    one = trainer(ema=0.5)
    one.update([batch(range(5))], 1)
    own = weights_of(one.model)
    with pytest.raises(KeyError), one.averaged():
        raise KeyError
    assert all(torch.equal(tensor, own[name]) for name, tensor in tensors_of(one.model).items())


HALVES = [("bf16", "cpu"), ("bf16", "cuda"), ("fp16", "cuda")]


@pytest.mark.parametrize(("precision", "device"), HALVES)
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_learns_nearly_the_same(kind: str, precision: str, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    _, whole = moved(sgd(kind), [batch(range(16))])
    one = sgd(kind, device=device, precision=precision)
    steps, half = moved(one, [batch(range(16))])
    while not math.isfinite(half.norm):  # fp16 finds the scale at which nothing overflows
        assert not norm(steps.values())
        steps, half = moved(one, [batch(range(16))])
    assert 0 < abs(half.loss - whole.loss) < 0.02 * whole.loss
    assert half.norm == pytest.approx(whole.norm, rel=0.05)
    assert norm(steps.values()) == pytest.approx(whole.norm, rel=0.05)
    assert {parameter.dtype for parameter in one.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_half_precision_computes_with_the_weights_of_each_update(device: str) -> None:
    """Narrow copies of weights end with their batch, also within another autocast, as that of a training."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    one, other = (sgd(device=device, precision="bf16") for _ in range(2))
    alone = [one.update([batch(range(16))], step).loss for step in (1, 2, 3)]
    with autocast(torch.device(device), "fp32"):
        within = [other.update([batch(range(16))], step).loss for step in (1, 2, 3)]
    assert within == alone and len({*alone}) == 3


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(
        Seq2attnError, match="precision fp16 needs a GPU, and this is a CPU: use bf16 or fp32"
    ):
        sgd(precision="fp16").update([batch(range(2))], 1)
