"""The objective of a generator and a discriminator that are trained against each other."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from seq2attn.attention.precision import full_precision
from seq2attn.data.latent_batches import LatentBatch
from seq2attn.errors import Seq2attnError
from seq2attn.layers.spectral_norm import power_iterations
from seq2attn.models.vision.discriminators import AdversarialPair
from seq2attn.runtime.distributed import ALONE, Group
from seq2attn.training.objectives import Losses
from seq2attn.training.turns import Turn, TurnTaking


class Verdict(NamedTuple):
    """Scores of a discriminator, and its gradient."""

    real: Tensor  # (B,), of images
    fake: Tensor  # (B,), of generated ones
    penalty: Tensor | None = None  # (B,), (|gradient| - 1)^2 between the two


class AdversarialLoss(NamedTuple):
    """The losses of both players for each image, by scores (B,)."""

    discriminator: Callable[[Tensor, Tensor], Tensor]  # of real and of generated images
    generator: Callable[[Tensor], Tensor]  # of generated images
    penalized: bool = False  # whether the discriminator's gradient is penalised


def _hinge(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real) + F.relu(1 + fake)


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real) + F.softplus(fake)


def _difference(real: Tensor, fake: Tensor) -> Tensor:
    return fake - real


ADVERSARIAL_LOSSES = {
    "hinge": AdversarialLoss(_hinge, torch.neg),
    "non_saturating": AdversarialLoss(_cross_entropy, lambda fake: F.softplus(-fake)),
    "wgan_gp": AdversarialLoss(_difference, torch.neg, penalized=True),
}


class AdversarialObjective(TurnTaking):
    """In each update the discriminator has its turn; in every n-th the generator has one after it.

    In a turn all losses are sums over the images of the update. Each turn has latent vectors of its own,
    which are in the batches. The generated images have the classes of the real ones.

    model: whose spectral norms make a power iteration after each update; loss: one of ADVERSARIAL_LOSSES;
    penalty: the factor of the gradient's penalty, which only training has; every: n.
    """

    players = ("discriminator", "generator")
    averaged = "generator"

    def __init__(
        self, model: AdversarialPair, loss: str, penalty: float = 10.0, every: int = 1, training: bool = True
    ) -> None:
        if loss not in ADVERSARIAL_LOSSES:
            raise Seq2attnError(f"unknown loss {loss!r}: expected one of {', '.join(ADVERSARIAL_LOSSES)}")
        self.model, self.losses, self.every = model, ADVERSARIAL_LOSSES[loss], every
        self.penalty = penalty if self.losses.penalized and training else 0.0

    def turns(self, step: int) -> Sequence[Turn]:
        """See the base class."""
        turns = [Turn("discriminator", self.forward, self.loss)]
        if step % self.every == 0:
            turns.append(Turn("generator", self.imitate, self.imitation_loss))
        return turns

    def forward(self, model: AdversarialPair, batch: LatentBatch) -> Verdict:
        """Return the discriminator's scores; see Objective."""
        with torch.no_grad():
            images = model.generator(batch.latents[:, 0], batch.labels)
        judge = model.discriminator
        real, fake = (judge(pixels, batch.labels) for pixels in (batch.images, images))
        return Verdict(real, fake, gradient_penalty(model, batch, images) if self.penalty else None)

    def loss(self, output: Verdict, batch: LatentBatch) -> Losses:
        """Return the losses of the discriminator; see Objective. `real` and `fake` are its scores."""
        loss = self.losses.discriminator(output.real, output.fake).sum()
        whole, parts = loss, {"real": output.real.detach().sum(), "fake": output.fake.detach().sum()}
        if output.penalty is not None:
            parts["penalty"] = output.penalty.sum()
            whole = whole + self.penalty * parts["penalty"]
        return Losses(whole, loss, None, parts)

    def imitate(self, model: AdversarialPair, batch: LatentBatch) -> Tensor:
        """Return the discriminator's scores (B,) of new images, from which the generator learns."""
        images = model.generator(batch.latents[:, 1], batch.labels)
        scores: Tensor = model.discriminator(images, batch.labels)
        return scores

    def imitation_loss(self, output: Tensor, batch: LatentBatch) -> Losses:
        """Return the losses of the generator: as a part, beside the discriminator's."""
        loss = self.losses.generator(output).sum()
        return Losses(loss, torch.zeros_like(loss), None, {"generator": loss.detach()})

    def updated(self, group: Group = ALONE) -> None:
        """See Objective."""
        power_iterations(self.model)

    def state(self) -> None:
        """See Objective: nothing; directions of spectral norms are tensors of the model."""

    def restore(self, state: None) -> None:
        """See Objective."""


def gradient_penalty(model: AdversarialPair, batch: LatentBatch, images: Tensor) -> Tensor:
    """Return (|gradient of the discriminator's score| - 1)^2 (B,), between images and generated ones, in
    float32 (Gulrajani et al. 2017, eq. 3).

    The penalty is differentiated again, which torch's fused attention cannot be: here it is computed in
    parts.
    """
    shares = batch.shares[:, None, None, None]
    with full_precision(images.device), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        mixed = (shares * batch.images + (1 - shares) * images).detach().requires_grad_()
        scores = model.discriminator(mixed, batch.labels)
        (gradient,) = torch.autograd.grad(scores.sum(), mixed, create_graph=True)
    lengths: Tensor = gradient.flatten(1).norm(dim=1)
    return (lengths - 1).square()
