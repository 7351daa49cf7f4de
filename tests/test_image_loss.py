"""The loss of image classification: a sum over the images, however an update is divided."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from seq2attn.attention.pooling import penalty
from seq2attn.data.image_batches import ImageBatch, Mixed
from seq2attn.errors import Seq2attnError
from seq2attn.layers.token_loss import CrossEntropy
from seq2attn.models.vision.classifier import ImageClassifier, ImageScores
from seq2attn.models.vision.factory import build_image_classifier
from seq2attn.recipe.image_training import ImageTrainingRecipe
from seq2attn.recipe.vision_model import ImageClassifierRecipe
from seq2attn.training.image_objective import ImageObjective
from seq2attn.training.loop import Trainer

POOLING = {"kind": "attention", "queries": 2, "penalty": 0.25}
STEPS = {"optimizer": "sgd", "learning_rate": 0.02, "schedule": "constant", "max_steps": 1, "clip": None}


def network(**options: Any) -> ImageClassifier:
    torch.manual_seed(5)
    sections = {"backbone": {"kind": "convolutional", "sizes": [4], "norm": "group"}, **options}
    return build_image_classifier(ImageClassifierRecipe.model_validate(sections), 3, ["blue", "green", "red"])


def batch(mixed: bool = False) -> ImageBatch:
    torch.manual_seed(6)
    labels = torch.arange(6) % 3
    pair = Mixed(labels.roll(1), torch.rand(6)) if mixed else None
    return ImageBatch(torch.randn(6, 3, 8, 8), None, labels, pair)


def parts_of(whole: ImageBatch) -> list[ImageBatch]:
    """Its first two images, and the others."""
    parts = []
    for rows in (slice(2), slice(2, None)):
        pair = whole.mixed and Mixed(*(part[rows] for part in whole.mixed))
        parts.append(ImageBatch(whole.images[rows], None, whole.labels[rows], pair))
    return parts


@pytest.mark.parametrize("mixed", [False, True])
def test_losses_are_sums_over_the_images(mixed: bool) -> None:
    classifier, objective = network(pooling=POOLING), ImageObjective(CrossEntropy(0.1), 0.25)
    whole = batch(mixed=mixed)
    parts = [objective.loss(objective.forward(classifier, part), part) for part in parts_of(whole)]
    losses = objective.loss(objective.forward(classifier, whole), whole)
    for name in ("whole", "loss", "nll"):
        assert_close(getattr(losses, name), sum(getattr(part, name) for part in parts))
    assert_close(losses.parts["penalty"], sum(part.parts["penalty"] for part in parts))
    assert whole.num_targets == 6


@pytest.mark.parametrize("mixed", [False, True])
def test_an_update_does_not_depend_on_how_it_is_divided(mixed: bool) -> None:
    settings = ImageTrainingRecipe.model_validate(STEPS)
    ends = []
    for batches in ([batch(mixed=mixed)], parts_of(batch(mixed=mixed))):
        classifier = network(pooling=POOLING)
        trainer = Trainer(classifier, ImageObjective(None, 0.25), settings, torch.device("cpu"), 1)
        stats = trainer.update(batches, 1)
        assert stats.tokens == 6
        ends.append([*classifier.parameters()])
    assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_mixed_images_are_labelled_by_their_shares(smoothing: float) -> None:
    """share * loss(label) + (1 - share) * loss(other): the cross-entropy with the mixed one-hot labels."""
    whole = batch(mixed=True)
    assert whole.mixed is not None
    scores, share = torch.randn(6, 3), whole.mixed.share[:, None]
    targets = share * F.one_hot(whole.labels, 3) + (1 - share) * F.one_hot(whole.mixed.labels, 3)
    losses = ImageObjective(CrossEntropy(smoothing)).loss(ImageScores(scores), whole)
    smoothed = F.cross_entropy(scores, targets, label_smoothing=smoothing, reduction="sum")
    assert_close(losses.whole, smoothed)
    assert_close(losses.nll, F.cross_entropy(scores, targets, reduction="sum"))


def test_the_penalty_makes_the_queries_of_the_pooling_differ() -> None:
    classifier, whole = network(pooling=POOLING), batch()
    objective = ImageObjective(None, 0.25)
    losses = objective.loss(output := objective.forward(classifier, whole), whole)
    assert output.weights is not None and output.weights.shape == (6, 2, 64)
    assert_close(output.weights.sum(-1), torch.ones(6, 2))
    assert_close(losses.parts["penalty"], penalty(output.weights).sum())
    assert_close(losses.whole, losses.loss + 0.25 * losses.parts["penalty"])
    with pytest.raises(Seq2attnError, match="for a pooling with queries"):
        objective.loss(objective.forward(network(), whole), whole)
