"""Batches of images: pure functions of seed, epoch and index, whoever makes them, and wherever training resumes."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seq2attn.data import images as store
from seq2attn.data.image_batches import ImageBatchLoader, beside_training
from seq2attn.data.image_plan import BatchLimits, fill_images, image_plan
from seq2attn.data.images import ImageExamples, prepare_images
from seq2attn.data.prefetching import PrefetchingLoader
from seq2attn.errors import Seq2attnError
from seq2attn.recipe import ImageDataRecipe
from seq2attn.runtime.distributed import Group
from seq2attn.text.word_vocabulary import Labels

LABELS = Labels(["a", "b", "c"])
ALL_CHANGES = ["crop", "flip", "affine", "color_jitter", "erase"]
NORMALIZE = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of 37 images: of one size (same.jsonl), and of many (many.jsonl)."""
    folder, random = tmp_path_factory.mktemp("tables"), np.random.default_rng(3)
    for name in ("same", "many"):
        rows = []
        for number in range(37):
            height, width = (9, 7) if name == "same" else random.integers(4, 24, size=2)
            column = random.integers(0, 256, (height, 1, 3), dtype=np.uint8)
            pixels = np.repeat(column, width, axis=1)  # a PNG file has less bytes than that
            Image.fromarray(pixels).save(folder / f"{name}{number}.png")
            rows.append({"image": f"{name}{number}.png", "label": "abc"[number % 3]})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def section(table: Path, **options: object) -> ImageDataRecipe:
    corpus = {"table": str(table)}
    return ImageDataRecipe.model_validate(
        {"train": corpus, "dev": corpus, "normalize": NORMALIZE, "workers": 0} | options
    )


def prepared(table: Path, **options: object) -> tuple[ImageExamples, ImageDataRecipe]:
    data = section(table, **options)
    return prepare_images(data.train, data, "train"), data


EIGHT = BatchLimits(8)


def loader(table: Path, limits: BatchLimits = EIGHT, **options: object) -> ImageBatchLoader:
    examples, data = prepared(table, **options)
    return ImageBatchLoader(examples, LABELS, data, limits, seed=5)


def flat(batch: object) -> list[bytes]:
    """All tensors of a batch, as bytes."""
    parts = [batch.images, batch.mask, batch.labels, *(batch.mixed or ())]
    return [b"" if part is None else str(part.shape).encode() + part.numpy().tobytes() for part in parts]


# ---- normalisation and padding ---------------------------------------------------------------------------


def test_pixels_are_normalised_channel_by_channel(tables):
    images = loader(tables / "same.jsonl")
    batch = images.batch(np.array([4, 1]))
    assert batch.images.shape == (2, 3, 9, 7) and batch.images.dtype == torch.float32 and batch.mask is None
    assert batch.labels.tolist() == [1, 1] and batch.num_targets == 2
    pixels = images.examples.image(4).astype(float) / 255
    expected = (pixels - NORMALIZE["mean"]) / NORMALIZE["std"]
    assert np.abs(batch.images[0].permute(1, 2, 0).numpy() - expected).max() < 1e-5


def test_training_images_have_mean_0_and_deviation_1(tables):
    examples, data = prepared(tables / "many.jsonl", normalize=None)
    pixels = np.concatenate([examples.image(number).reshape(-1, 3) for number in range(len(examples))]) / 255
    mean, std = examples.mean_and_std()
    assert np.abs(mean - pixels.mean(0)).max() < 1e-6 and np.abs(std - pixels.std(0)).max() < 1e-6
    fitted = data.fitted(mean, std, 40)
    assert (fitted.normalize.mean, fitted.normalize.std) == (mean, std)
    assert fitted.fitted([0.0] * 3, [1.0] * 3, 10**9) == fitted
    with pytest.raises(Seq2attnError, match=r"expected data\.normalize with mean and std"):
        ImageBatchLoader(examples, LABELS, data, BatchLimits(4))


def test_a_black_image_can_be_normalised(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "black.png")
    (tmp_path / "t.jsonl").write_text('{"image": "black.png", "label": "a"}\n')
    examples, _ = prepared(tmp_path / "t.jsonl", normalize=None, channels="grey")
    assert examples.mean_and_std() == ([0.0], [pytest.approx(1 / 255, abs=1e-6)])


def test_smaller_images_are_padded_and_masked(tables):
    images = loader(tables / "many.jsonl")
    rows = np.array([0, 5, 9])
    batch = images.batch(rows)
    assert batch.mask is not None and batch.mask.shape == (3, 1, *batch.images.shape[2:])
    for number, row in enumerate(rows):
        height, width = images.examples.image(row).shape[:2]
        assert batch.mask[number, 0, :height, :width].all() and batch.mask[number].sum() == height * width
        alone = images.batch(np.array([row])).images[0]
        assert torch.equal(batch.images[number, :, :height, :width], alone)
    assert (batch.images.masked_select(~batch.mask) == 0).all()
    assert str(tuple(batch.images.shape)) in batch.shape
    moved = batch.to(torch.device("cpu"))
    assert flat(moved) == flat(batch)


# ---- augmentation ----------------------------------------------------------------------------------------


def test_an_image_is_changed_by_seed_epoch_and_index_alone(tables):
    images = loader(tables / "same.jsonl", augment=ALL_CHANGES)
    together = images.batch(np.array([3, 11, 30]), epoch=2).images
    for number, row in enumerate((3, 11, 30)):
        for others in ([row], [row, 7], [0, row, 1]):
            batch = images.batch(np.array(others), epoch=2)
            assert torch.equal(batch.images[others.index(row)], together[number])
    assert not torch.equal(images.batch(np.array([3, 11, 30]), epoch=3).images, together)
    plain = loader(tables / "same.jsonl").batch(np.array([3, 11, 30])).images
    assert torch.equal(images.batch(np.array([3, 11, 30])).images, plain)  # not in an epoch of training
    other_seed = ImageBatchLoader(
        images.examples, LABELS, section(tables / "same.jsonl", augment=ALL_CHANGES), BatchLimits(8), 6
    )
    assert not torch.equal(other_seed.batch(np.array([3, 11, 30]), epoch=2).images, together)


def test_mixup_mixes_images_as_they_are_in_the_epoch(tables):
    mixing = loader(tables / "same.jsonl", augment=["flip", {"name": "mixup", "alpha": 1.0}])
    flipping = loader(tables / "same.jsonl", augment=["flip"])
    rows = np.arange(12)
    batch = mixing.batch(rows, epoch=1)
    everything = flipping.batch(np.arange(37), epoch=1)
    assert batch.mixed is not None and batch.labels.tolist() == [row % 3 for row in range(12)]
    for number in rows:
        share = batch.mixed.share[number]
        rest = (batch.images[number] - share * everything.images[number]) / (1 - share)
        distances = (everything.images - rest).abs().amax((1, 2, 3))
        partner = int(distances.argmin())
        assert distances[partner] < 1e-3 and partner % 3 == batch.mixed.labels[number]
    alone = mixing.batch(np.array([7]), epoch=1)
    assert torch.equal(alone.images[0], batch.images[7]) and alone.mixed.share[0] == batch.mixed.share[7]
    assert mixing.batch(rows).mixed is None
    with pytest.raises(Seq2attnError, match="mixup needs images of one size"):
        loader(tables / "many.jsonl", augment="mixup")


# ---- threads and resuming --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["same", "many"])
def test_any_number_of_workers_gives_the_same_batches(tables, name):
    changes = [*ALL_CHANGES, "mixup"] if name == "same" else ALL_CHANGES
    results = []
    for workers in (0, 1, 4):
        examples, data = prepared(tables / f"{name}.jsonl", augment=changes, workers=workers)
        made = beside_training(ImageBatchLoader(examples, LABELS, data, BatchLimits(5), seed=5), data.workers)
        assert isinstance(made, PrefetchingLoader) == (workers > 0)
        results.append(
            [flat(made.batch(indices, epoch)) for epoch in range(2) for indices in made.epoch(epoch)]
        )
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_resuming_in_mid_epoch_gives_the_same_batches(tables, workers):
    examples, data = prepared(tables / "same.jsonl", augment=[*ALL_CHANGES, "mixup"], workers=workers)
    first, second = (
        beside_training(ImageBatchLoader(examples, LABELS, data, BatchLimits(5), seed=5), data.workers)
        for _ in range(2)
    )
    whole = [flat(first.batch(indices, 1)) for indices in first.epoch(1)]
    assert [flat(second.batch(indices, 1)) for indices in second.epoch(1)[3:]] == whole[3:]


def test_prefetched_batches_may_be_asked_for_in_any_order(tables):
    examples, data = prepared(tables / "same.jsonl", augment=ALL_CHANGES, workers=2)
    plain = ImageBatchLoader(examples, LABELS, data, BatchLimits(5), 5)
    ahead = PrefetchingLoader(plain, 2)
    plan = ahead.epoch(0)
    for position in (4, 0, 1, 1, 6, 2, 7):
        assert flat(ahead.batch(plan[position], 0)) == flat(plain.batch(plan[position], 0))
    ahead.batch(plan[2], 0)  # the next one is prepared for epoch 0, and asked for in one without a plan
    assert flat(ahead.batch(plan[3], 9)) == flat(plain.batch(plan[3], 9))
    assert flat(ahead.batch(np.array([36, 1]), 0)) == flat(plain.batch(np.array([36, 1]), 0))
    assert ahead.epoch_size(0) == len(plan) and len(ahead.evaluation_batches()) == len(plan)


def test_an_error_of_a_worker_is_raised_where_its_batch_is_asked_for():
    class Failing:
        def epoch(self, epoch: int) -> list[np.ndarray]:
            return [np.array([number]) for number in range(4)]

        def batch(self, indices: np.ndarray, epoch: int | None = None) -> int:
            if indices[0] == 2:
                raise Seq2attnError("the third")
            return int(indices[0])

    ahead = PrefetchingLoader(Failing(), 2)  # type: ignore[arg-type]
    plan = ahead.epoch(0)
    assert [ahead.batch(indices, 0) for indices in plan[:2]] == [0, 1]
    with pytest.raises(Seq2attnError, match="the third"):
        ahead.batch(plan[2], 0)
    assert ahead.batch(plan[3], 0) == 3


@pytest.mark.parametrize(
    ("size", "accumulate", "workers"), [(1, 1, 1), (2, 2, 1), (2, 4, 3), (4, 4, 2), (2, 3, 1)]
)
def test_a_process_prepares_its_own_batches_only(size, accumulate, workers):
    class Counting:
        def epoch(self, epoch):
            return [np.array([number]) for number in range(24)]

        def batch(self, indices, epoch=None):
            made.append((int(indices[0]), threading.current_thread() is threading.main_thread()))
            return int(indices[0])

    for rank in range(size):
        made, group = [], Group()
        group.rank, group.size = rank, size
        ahead = PrefetchingLoader(Counting(), workers, group, accumulate)  # type: ignore[arg-type]
        plan, own = ahead.epoch(0), list[int]()
        for begin in range(0, len(plan), accumulate):
            share = group.share(plan[begin : begin + accumulate])
            own += [ahead.batch(indices, 0) for _, indices in share]  # type: ignore[misc]
        assert sorted(number for number, _ in made) == own == sorted(own)
        assert [number for number, waited in made if waited] == own[:1]


# ---- the plan --------------------------------------------------------------------------------------------

RANDOM = np.random.default_rng(2)
SIZES = RANDOM.integers(8, 200, 300, dtype=np.int32), RANDOM.integers(8, 400, 300, dtype=np.int32)
LIMITS = [
    BatchLimits(16),
    BatchLimits(16, 100_000),
    BatchLimits(1000, 60_000),
    BatchLimits(1),
    BatchLimits(999),
]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_an_epoch_has_every_image_once_within_the_limits(limits):
    heights, widths = SIZES
    batches = image_plan(heights, widths, np.arange(300), limits, (1, 0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(300))
    for batch in batches:
        assert 1 <= len(batch) <= limits.images
        padded = len(batch) * int(heights[batch].max()) * int(widths[batch].max())
        assert limits.pixels is None or padded <= limits.pixels or len(batch) == 1
    again = image_plan(heights, widths, np.arange(300), limits, (1, 0))
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in again]
    other = image_plan(heights, widths, np.arange(300), limits, (1, 1))
    assert [batch.tolist() for batch in batches] != [batch.tolist() for batch in other]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_the_size_of_an_epoch_is_known(tables, limits):
    images = loader(tables / "many.jsonl", limits._replace(pixels=limits.pixels and 1500))
    assert [images.epoch_size(epoch) for epoch in range(3)] == [
        len(images.epoch(epoch)) for epoch in range(3)
    ]
    held_out = images.evaluation_batches()
    assert sorted(np.concatenate(held_out).tolist()) == list(range(37))


def test_batches_have_little_padding_and_differ_between_epochs():
    count, limits = 3000, BatchLimits(1000, 300_000)
    heights, widths = (RANDOM.integers(8, most, count, dtype=np.int32) for most in (200, 400))
    epochs = [image_plan(heights, widths, np.arange(count), limits, (1, epoch)) for epoch in range(2)]
    for batches in epochs:
        padded = sum(len(batch) * int(heights[batch].max()) * int(widths[batch].max()) for batch in batches)
        assert padded < 1.25 * (heights.astype(int) * widths).sum()  # in random order it would be 2.6
    first, second = ({frozenset(batch.tolist()) for batch in batches} for batches in epochs)
    assert len(first & second) < 0.1 * len(first)


def test_no_batch_of_a_single_image_is_left_over():
    sizes = np.full(33, 8, np.int32), np.full(33, 8, np.int32)
    lengths = [len(batch) for batch in fill_images(np.arange(33), *sizes, BatchLimits(16))]
    assert lengths == [11, 11, 11]
    assert fill_images(np.arange(0), *sizes, BatchLimits(16)) == []


# ---- the store -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"size": 8}, {"size": [9, 7], "resize": "fit"}, {"channels": "grey"}]
)
def test_large_images_are_decoded_from_their_files_to_the_same_pixels(
    tables, own_cache, monkeypatch, options
):
    options = options | {"normalize": None}
    small, _ = prepared(tables / "many.jsonl", **options)
    expected = [small.image(number) for number in range(37)]
    monkeypatch.setattr(store, "SMALL", 0)
    monkeypatch.setattr(store, "FORMAT", -1)  # so that it is made again
    monkeypatch.setattr(store, "BYTES", 2000)  # and in several pieces
    large, _ = prepared(tables / "many.jsonl", **options)
    decoded = [row for columns in large._columns for row in columns["decoded"].to_pylist()]
    assert not all(decoded) and len(large._columns) > 1
    assert all((large.image(number) == expected[number]).all() for number in range(37))
    assert large.fingerprint == small.fingerprint and large.mean_and_std() == small.mean_and_std()


def test_the_cache_is_used_until_an_image_changes(tmp_path, own_cache):
    for number, label in enumerate("ab"):
        Image.new("RGB", (5, 5), (number, 0, 0)).save(tmp_path / f"{label}.png")
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"image": f"{label}.png", "label": label}) + "\n" for label in "ab"))
    counts: list[int] = []

    def prepare(**options: object) -> ImageExamples:
        data = section(path, **options)
        return prepare_images(data.train, data, "train", lambda report: counts.append(report.read))

    first = prepare()
    assert counts == [2] and prepare().fingerprint == first.fingerprint and counts == [2]
    assert prepare(augment=["flip"], workers=3).fingerprint == first.fingerprint and counts == [2]
    assert prepare(size=3).fingerprint != first.fingerprint and counts == [2, 2]
    Image.new("RGB", (5, 6), (9, 0, 0)).save(tmp_path / "b.png")
    changed = prepare()
    assert (
        counts == [2, 2, 2]
        and changed.fingerprint != first.fingerprint
        and changed.heights.tolist() == [5, 6]
    )


def test_a_damaged_store_is_made_again(tables, own_cache):
    before, _ = prepared(tables / "same.jsonl")
    path = next(own_cache.glob("*.arrow"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    del before
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged: it is made again from the data"):
        again, _ = prepared(tables / "same.jsonl")
    assert len(again) == 37


def test_images_of_several_corpora_follow_each_other(tables):
    corpora = [
        {"table": str(tables / "same.jsonl"), "limit": 3},
        {"table": str(tables / "many.jsonl"), "weight": 2},
    ]
    data = section(tables / "same.jsonl", train=corpora)
    examples = prepare_images(data.train, data, "train")
    assert len(examples) == 40 and examples.name(3) == str(tables / "many0.png")
    assert sorted(examples.epoch(0, 1).tolist()) == sorted([*range(3), *range(3, 40), *range(3, 40)])
    with pytest.raises(IndexError, match="example 40 of 40"):
        examples.image(40)
