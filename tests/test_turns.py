"""An update of two players: each moves in its own turn, by its own loss, learning rate and optimizer."""

import math
from typing import Any

import pytest
import torch
from tiny_adversarial import batch, pair, part_of, trainer
from torch import Tensor, nn
from torch.testing import assert_close

from seq2attn.layers.spectral_norm import power_iterations
from seq2attn.models.vision.discriminators import AdversarialPair
from seq2attn.training.adversarial import ADVERSARIAL_LOSSES, AdversarialObjective, gradient_penalty
from seq2attn.training.run_folder import tensors_of, weights_of
from seq2attn.training.turns import turns_of


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in model.named_parameters()}


def movers(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The players of which a parameter has moved."""
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def is_direction(name: str) -> bool:
    """Whether a tensor is a singular vector of a spectral norm."""
    return name.endswith(("._u", "._v"))


def test_the_generator_has_its_turn_in_every_nth_update() -> None:
    model = pair()
    # With a rate of 0.3 all ReLUs of the discriminator are dead after six updates, and nothing has a gradient.
    one = trainer(model, discriminator_steps=3, discriminator_learning_rate=0.03)
    for step in range(1, 7):
        before = parameters(model)
        stats = one.update([batch(seed=step)], step)
        expected = {"discriminator", "generator"} if step % 3 == 0 else {"discriminator"}
        assert movers(before, parameters(model)) == expected, step
        assert ("generator" in stats.parts) == (step % 3 == 0)
        assert all(one.requires_grad and one.grad is None for one in model.parameters())


def test_only_who_has_the_turn_moves() -> None:
    """Though the loss of the generator goes through the discriminator, which an optimizer of all would move, too."""
    model = pair()
    one = trainer(model)
    _, turn = turns_of(one.objective, 1)
    one.objective.turns = lambda step: [turn]  # type: ignore[attr-defined]
    before = parameters(model)
    one.update([batch()], 1)
    assert movers(before, parameters(model)) == {"generator"}


def test_each_player_has_its_learning_rate() -> None:
    one = trainer(pair(), schedule={"name": "linear", "warmup": 0})
    stats = one.update([batch()], 3)
    rates = {name: {group["lr"] for group in own.param_groups} for name, own in one.optimizers.items()}
    factor = 1 - 3 / 9
    assert rates == {"generator": {0.1 * factor}, "discriminator": {0.3 * factor}}
    assert stats.learning_rate == 0.1 * factor


@pytest.mark.parametrize("loss", sorted(ADVERSARIAL_LOSSES))
def test_an_update_does_not_depend_on_how_it_is_cut(loss: str) -> None:
    """Also not of networks with spectral norms, and with a penalty that goes through attention."""
    whole, ends, stats = batch(dtype=torch.float64), [], []
    for batches in ([whole], [part_of(whole, slice(2)), part_of(whole, slice(2, None))]):
        model = pair().double()
        one = trainer(model, loss=loss)
        stats += [one.update(batches, step) for step in (1, 2)]
        ends.append(weights_of(model))
    assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-12)
    for one, other in zip(stats[:2], stats[2:], strict=True):
        assert (one.loss, one.norm, one.tokens) == pytest.approx((other.loss, other.norm, other.tokens))
        assert one.parts == pytest.approx(other.parts)


def test_the_gradient_of_each_turn_is_that_of_its_loss() -> None:
    model, whole = pair(), batch()
    one, before = trainer(model, loss="non_saturating"), parameters(model)
    twin = pair().train()
    real, fakes = whole.images, twin.generator(whole.latents[:, 0], whole.labels)
    scores = twin.discriminator(real, whole.labels), twin.discriminator(fakes.detach(), whole.labels)
    loss = -(scores[0].sigmoid().log() + (1 - scores[1].sigmoid()).log()).mean()
    own = [*twin.discriminator.parameters()]
    gradients = torch.autograd.grad(loss, own)
    stats = one.update([whole], 1)
    for (name, moved), gradient in zip(model.discriminator.named_parameters(), gradients, strict=True):
        assert_close(before[f"discriminator.{name}"] - 0.3 * gradient, moved.detach())
    assert stats.loss == pytest.approx(loss.item(), rel=1e-5)
    with torch.no_grad():  # then the generator learns from the discriminator that has moved
        for parameter, gradient in zip(own, gradients, strict=True):
            parameter -= 0.3 * gradient
    scores_of_new = twin.discriminator(twin.generator(whole.latents[:, 1], whole.labels), whole.labels)
    loss = -scores_of_new.sigmoid().log().mean()
    gradients = torch.autograd.grad(loss, [*twin.generator.parameters()])
    for (name, moved), gradient in zip(model.generator.named_parameters(), gradients, strict=True):
        assert_close(before[f"generator.{name}"] - 0.1 * gradient, moved.detach(), rtol=1e-4, atol=1e-6)
    assert stats.parts["generator"] == pytest.approx(loss.item(), rel=1e-5)


def test_losses_are_what_a_hand_computes() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    by_hand: dict[str, tuple[list[float], list[float]]] = {
        "hinge": ([0.0, 1.5, 4.0], [3.0, 0.0, -1.0]),
        "wgan_gp": ([-5.0, -0.5, 2.0], [3.0, 0.0, -1.0]),
        "non_saturating": (
            [math.log1p(math.exp(-r)) + math.log1p(math.exp(f)) for r, f in [(2, -3), (0.5, 0), (-1, 1)]],
            [math.log1p(math.exp(-f)) for f in (-3, 0, 1)],
        ),
    }
    assert by_hand.keys() == ADVERSARIAL_LOSSES.keys()
    for name, (discriminator, generator) in by_hand.items():
        losses = ADVERSARIAL_LOSSES[name]
        assert_close(losses.discriminator(real, fake), torch.tensor(discriminator))
        assert_close(losses.generator(fake), torch.tensor(generator))


def test_the_penalty_of_a_linear_discriminator_is_that_of_its_weights() -> None:
    class Linear(nn.Module):
        weight = nn.Parameter(torch.full((64,), 0.5))

        def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
            return images.flatten(1) @ self.weight

    model: Any = AdversarialPair(pair().generator, Linear())  # type: ignore[arg-type]
    penalty = gradient_penalty(model, batch(), torch.zeros(6, 1, 8, 8))
    assert_close(penalty, torch.full((6,), (0.5 * 8 - 1) ** 2))  # |w| = 0.5 sqrt(64)
    (gradient,) = torch.autograd.grad(penalty.mean(), model.discriminator.weight)
    assert_close(gradient, torch.full((64,), 2 * (4 - 1) / 8))  # 2 (|w| - 1) w / |w|


def test_validation_has_no_penalty_and_no_gradient() -> None:
    model, whole = pair().eval(), batch()
    validating = AdversarialObjective(model, "wgan_gp", training=False)
    with torch.inference_mode():
        losses = validating.loss(validating.forward(model, whole), whole)
    assert "penalty" not in losses.parts
    assert losses.nll is None  # it is no likelihood
    assert_close(losses.whole, losses.parts["fake"] - losses.parts["real"])


# ---- moving average and spectral norms -------------------------------------------------------------------


def test_the_moving_average_is_that_of_the_generator_alone() -> None:
    model = pair()
    one = trainer(model, ema=0.5, discriminator_steps=2)
    by_hand = weights_of(model)
    for step in range(1, 5):
        one.update([batch(seed=step)], step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, tensor in weights_of(model).items() if step % 2 == 0 else ():
            by_hand[name] = decay * by_hand[name] + (1 - decay) * tensor
    own = weights_of(model)
    with one.averaged() as weights:
        for name, tensor in weights.items():
            assert torch.equal(tensor, tensors_of(model)[name])
            if not is_direction(name):
                expected = by_hand[name] if name.startswith("generator") else own[name]
                assert_close(tensor, expected, rtol=1e-5, atol=1e-6)
            else:  # made to fit the averaged weights
                assert_close(tensor.norm(), torch.tensor(1.0))
    assert all(torch.equal(tensor, own[name]) for name, tensor in weights_of(model).items())
    assert any(not torch.equal(weights[name], own[name]) for name in own)


def test_spectral_norms_bound_all_weights_but_those_of_latent_vectors() -> None:
    model = pair()
    power_iterations(model, 300)
    count = 0
    for part in model.modules():
        if "parametrizations" in dict(part.named_children()):
            weight = part.weight.flatten(1)
            assert_close(torch.linalg.matrix_norm(weight, 2), torch.tensor(1.0), rtol=0, atol=2e-3)
            count += 1
    assert count > 20
    free = {
        name for name, part in model.named_modules() if type(part) in (nn.Linear, nn.Conv2d, nn.Embedding)
    }
    assert free == {"generator.project", *(name for name in free if name.endswith(".gains"))}


def test_features_are_channels_last_as_those_of_images_are() -> None:
    """Convolutions on a CPU are faster so; also those that read one channel, of which torch sees it by strides.
    Pooling forgets them before the first shortcut, which is small."""
    model, seen = pair().eval(), list[bool]()

    def note(module: nn.Module, inputs: object, features: Tensor) -> None:
        seen.append(features.is_contiguous(memory_format=torch.channels_last))

    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d) and name != "discriminator.units.0.shortcut":
            part.register_forward_hook(note)
    size = batch()
    model.discriminator(model.generator(size.latents[:, 0], size.labels), size.labels)
    assert len(seen) > 10 and all(seen)


def test_a_power_iteration_is_made_between_updates_and_in_no_batch() -> None:
    model = pair().train()
    before = weights_of(model)
    model.discriminator(batch().images, batch().labels)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(model).items())
    AdversarialObjective(model, "hinge").updated()
    changed = {name for name, tensor in weights_of(model).items() if not torch.equal(tensor, before[name])}
    assert changed and all(is_direction(name) for name in changed)
