"""Small generators and discriminators, and batches for them."""

from typing import Any

import torch

from seq2attn.data.latent_batches import LatentBatch
from seq2attn.models.vision.discriminators import AdversarialPair
from seq2attn.models.vision.factory import build_adversarial
from seq2attn.recipe.image_generation import GenerationModelRecipe, GenerationTrainingRecipe
from seq2attn.training.adversarial import AdversarialObjective
from seq2attn.training.trainer import Trainer

CLASSES = ("ant", "bee", "cat")
SAGAN = {"block": "nonlocal", "form": "sagan", "grid": 4}


def pair(
    classes: bool = True, blocks: bool = True, seed: int = 3, latent: int = 5, **norms: str
) -> AdversarialPair:
    """For grey images of 8 x 8."""
    torch.manual_seed(seed)
    players: dict[str, Any] = {
        "generator": {"sizes": [6, 4], "norm": norms.get("generator", "group")},
        "discriminator": {"sizes": [4, 6], "norm": norms.get("discriminator", "none")},
    }
    for player in players.values():
        player["blocks"] = [SAGAN] if blocks else []
    recipe = GenerationModelRecipe.model_validate({"latent": latent, "conditional": classes, **players})
    model = build_adversarial(recipe, 1, (8, 8), CLASSES if classes else ())
    for part in model.modules():  # attention that does something
        if hasattr(part, "gamma"):
            torch.nn.init.constant_(part.gamma, 0.7)
    return model


def batch(count: int = 6, seed: int = 4, latent: int = 5, dtype: torch.dtype = torch.float32) -> LatentBatch:
    torch.manual_seed(seed)
    images, latents = torch.rand(count, 1, 8, 8) * 2 - 1, torch.randn(count, 2, latent)
    return LatentBatch(
        images.to(dtype), torch.arange(count) % 3, latents.to(dtype), torch.rand(count).to(dtype)
    )


def part_of(whole: LatentBatch, rows: slice) -> LatentBatch:
    return LatentBatch(*(None if part is None else part[rows] for part in whole))


def settings(**options: Any) -> GenerationTrainingRecipe:
    plain = {
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "discriminator_learning_rate": 0.3,
        "ema": 0.0,
        "max_steps": 9,
    }
    return GenerationTrainingRecipe.model_validate(plain | options)


def trainer(model: AdversarialPair, **options: Any) -> Trainer:
    recipe = settings(**options)
    objective = AdversarialObjective(model, recipe.loss, recipe.gradient_penalty, recipe.discriminator_steps)
    return Trainer(model, objective, recipe, torch.device("cpu"), 9)
