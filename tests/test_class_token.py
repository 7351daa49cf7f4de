"""Vision Transformers with a class token: what it reads, masks, heat maps, and faults of recipes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch.testing import assert_close

from seq2attn.errors import Seq2attnError
from seq2attn.inference.image_maps import ImageMaps, image_maps, rollout
from seq2attn.inference.predictor import PlotOptions
from seq2attn.models.vision.classifier import ImageClassifier
from seq2attn.models.vision.factory import build_backbone, build_image_classifier
from seq2attn.recipe.vision_model import ImageClassifierRecipe, ViTRecipe

VIT = {"kind": "vit", "size": 12, "layers": 2, "feed_forward": 8, "patch": 6, "self_attention": {"heads": 3}}
TOKEN = {"kind": "class_token"}
X = torch.randn(2, 1, 18, 24, generator=torch.Generator().manual_seed(3))  # a grid of 3 x 4


def made(**options) -> ImageClassifier:
    """A network away from where it starts."""
    torch.manual_seed(7)
    recipe = ImageClassifierRecipe.model_validate({"backbone": {**VIT, **options}, "pooling": TOKEN})
    network = build_image_classifier(recipe, 1, ["cat", "dog", "owl"]).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return network


@torch.no_grad()
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", ["sinusoidal_2d", "learned_2d", "t5", "rotary"])
def test_scores_are_those_of_the_first_state_of_the_whole_sequence(norm, positions):
    network = made(norm=norm, positions=positions)
    vit = network.backbone
    patches, _, _ = vit.embedding(X, None)
    sequence = torch.cat([vit.token.expand(2, 1, -1), patches], 1)
    states = vit.encoder.encode(sequence, torch.ones(2, 13, dtype=torch.bool)).states
    output = network(X, need_weights=True)
    assert_close(output.scores, network.output(states[:, 0]))
    assert output.weights is None and output.penalty is None and output.grid == (3, 4)
    (features,) = vit(X)
    assert_close(features.states.flatten(2).mT, states[:, 1:])


@torch.no_grad()
def test_an_image_has_the_same_scores_in_any_batch():
    network, mask = made(), torch.zeros(2, 1, 18, 24, dtype=torch.bool)
    mask[0], mask[1, :, :12, :7] = True, True
    padded = X.masked_fill(~mask, 0.0)
    alone = network(X[1:, :, :12, :7]).scores
    assert_close(
        network(padded, mask).scores, torch.cat([network(X[:1]).scores, alone]), atol=1e-5, rtol=1e-5
    )
    assert not network.backbone(padded, mask)[0].states[1, :, :, 2:].any()


@torch.no_grad()
def test_only_the_token_is_read():
    network = made()
    (features,) = network.backbone(X)
    other = features._replace(states=features.states + 1)
    assert torch.equal(network.head(other).scores, network.head(features).scores)
    assert (network(X)[0] - network(X.flip(3))[0]).abs().max() > 1e-3


def test_every_parameter_learns():
    network = made()
    network.train()(X).scores.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
    assert [name for name, _ in network.named_parameters() if "token" in name] == ["backbone.token"]


def test_maps_are_those_of_the_token():
    network, seen = made(), image_maps(made(), X[:1])
    maps = {map.name: map for map in seen.maps}
    vit, weights = network.backbone, []
    with torch.no_grad():
        patches, _, _ = vit.embedding(X[:1], None)
        x = torch.cat([vit.token.expand(1, 1, -1), patches], 1)
        for layer in vit.encoder.layers:
            y = layer.self_attention_residual.enter(x)
            query, key = (
                part(y).unflatten(-1, (3, 4)).transpose(1, 2)
                for part in (layer.self_attention.query, layer.self_attention.key)
            )
            weights.append((query @ key.mT / 2).softmax(-1))
            x = layer(x, torch.ones(1, 1, 13, dtype=torch.bool))
    for number, of_layer in enumerate(weights):
        map = maps[f"layer {number}, self-attention"].map
        assert_close(map.weights, of_layer[..., 1:, 1:])
        assert map.grid == map.keys == (3, 4) and not map.distribution
    for head in range(3):
        map = maps[f"class token, head {head}"]
        assert_close(map.map.weights.flatten(), weights[-1][0, head, 0, 1:])
        assert (map.choice, map.map.weights.shape) == ("pooling", (1, 1, 3, 4))
    assert_close(maps["rollout"].map.weights.flatten(), rollout([part[0] for part in weights])[0, 1:])
    assert maps["rollout"].map.kind == "place"


@pytest.mark.parametrize("label", [None, 0])
def test_grad_cam_is_of_what_the_last_layer_reads(label):
    network = made().double()
    image, layer, moved = X[:1].double(), network.backbone.encoder.layers[-1], {}
    seen = image_maps(network, image, label)

    def move(_, arguments):
        moved["read"] = arguments[0].clone()
        shifted = arguments[0].clone()
        shifted[:, 1:] += moved["by"]
        return (shifted, *arguments[1:])

    layer.register_forward_pre_hook(move)

    def score(by: torch.Tensor) -> float:
        moved["by"] = by
        scores = network(image).scores[0]
        return float(scores[seen.output.scores.argmax() if label is None else label])

    with torch.no_grad():
        units = 1e-5 * torch.eye(12, dtype=torch.double)
        slopes = [(score(unit) - score(-unit)) / 2e-5 for unit in units]  # all 12 patches are moved
    weights = torch.tensor(slopes, dtype=torch.double) / 12
    expected = F.relu(moved["read"][0, 1:] @ weights)
    cam = seen.maps[-1].map.weights.flatten().double()
    assert_close(cam, expected, atol=1e-6, rtol=1e-4)


def test_pictures_have_the_maps_by_default_and_by_name():
    maps = ImageMaps(np.zeros((18, 24, 1), np.uint8), "owl", image_maps(made(), X[:1]).maps, "owl")
    assert [map.name for map in maps.chosen()] == [f"class token, head {head}" for head in range(3)]
    titles = [axes.get_title(loc="left") for axes in maps.draw(PlotOptions(map="rollout")).axes]
    assert any(title.startswith("rollout\n") for title in titles)


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ({"kind": "resnet"}, "pooling.kind\n.*a class token needs a network of attention.* resnet: use"),
        ({**VIT, "positions": "swin"}, r"backbone.positions\n.*swin is for the positions of a grid"),
        ({**VIT, "positions": "axial"}, "axial is for"),
        ({**VIT, "positions": "rotary_2d"}, "rotary_2d is for .* use sinusoidal_2d or learned_2d"),
    ],
)
def test_a_class_token_needs_a_place(backbone, reason):
    with pytest.raises(ValidationError, match=reason):
        ImageClassifierRecipe.model_validate({"backbone": backbone, "pooling": TOKEN})


def test_without_pooling_and_token_there_is_no_vector():
    backbone = build_backbone(ViTRecipe.model_validate(VIT), 1)
    with pytest.raises(Seq2attnError, match="must have a class token"):
        ImageClassifier(backbone, ["cat"], None)(X)
