"""Scenes of digits: exact boxes, the same whenever they are made."""

import numpy as np

from seq2attn.data.boxes import prepare_boxes
from seq2attn.data.scenes import INK, make_scenes
from seq2attn.recipe.box_data import DetectionDataRecipe

SQUARE = np.pad(np.full((20, 12), 255, np.uint8), ((4, 4), (8, 8)))


def test_a_box_is_exact_and_scenes_are_a_pure_function():
    images, labels = [SQUARE] * 12, list(range(12))
    made, again = (list(make_scenes(images, labels, 20, seed=3)) for _ in range(2))
    assert all((one.pixels == other.pixels).all() for one, other in zip(made, again, strict=True))
    assert [scene.boxes for scene in made] != [scene.boxes for scene in make_scenes(images, labels, 20, 4)]
    for scene in made:
        assert 1 <= len(scene.boxes) == len({*scene.labels}) <= 8
        inked, boxed = scene.pixels[..., 0] >= INK, np.zeros((128, 128), bool)
        for left, top, right, bottom in scene.boxes:
            boxed[top:bottom, left:right] = True
            window = inked[top:bottom, left:right]
            assert all(side.any() for side in (window[0], window[-1], window[:, 0], window[:, -1]))
        assert not (inked & ~boxed).any()


def test_the_sample_has_scenes_of_the_digits_of_its_split():
    sample = {"sample": "digit_scenes", "limit": 6}
    data = DetectionDataRecipe.model_validate({"train": sample, "dev": sample, "channels": "grey"})
    train, dev = (
        prepare_boxes(corpora, data, role) for corpora, role in ((data.train, "train"), ([data.dev], "dev"))
    )
    assert train.image(0).shape == (128, 128, 1) and len(train) == len(dev) == 6
    assert {*train.labels} <= {*"0123456789"} and (train.image(0) != dev.image(0)).any()
