"""Images become 8-bit pixels: upright, without transparency, in the size that is asked for; or an error says why not."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from seq2attn.images import ImageError, ImageReader

GREY, RGB = ImageReader("grey"), ImageReader("rgb")


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG file of grey pixels as its chunks say, true or not."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def test_pixels_are_those_of_the_file():
    pixels = noise(5, 7)
    assert (RGB.read(saved(Image.fromarray(pixels))) == pixels).all()
    assert (RGB.read(pixels) == pixels).all() and (RGB.read(Image.fromarray(pixels)) == pixels).all()
    grey = noise(5, 7, 1)
    assert (GREY.read(saved(Image.fromarray(grey)))[:, :, 0] == grey).all()
    assert (RGB.read(grey) == grey[:, :, None]).all()  # grey in each channel
    assert (GREY.read(grey[:, :, None]) == grey[:, :, None]).all()


def test_grey_is_the_luma_of_bt_601():
    pixels = noise(6, 4)
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(GREY.read(pixels)[:, :, 0] - luma).max() <= 0.51


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = 255  # the corner at the top left is white
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
        6: np.rot90(upright), 7: upright[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(np.ascontiguousarray(turned)), "JPEG", quality=95, exif=exif)
    assert np.abs(RGB.read(content).astype(int) - upright).max() < 40


def test_sixteen_bits_become_eight_by_their_range():
    wide = np.array([[0, 128, 129, 257], [32768, 65535, 65406, 65407]], np.uint16)
    assert GREY.read(saved(Image.fromarray(wide)))[:, :, 0].tolist() == [[0, 0, 1, 1], [128, 255, 254, 255]]


def test_transparency_is_white():
    pixels = noise(3, 4, 4)
    alpha = pixels[:, :, 3:] / 255
    on_white = pixels[:, :, :3] * alpha + 255 * (1 - alpha)
    assert np.abs(RGB.read(saved(Image.fromarray(pixels))) - on_white).max() <= 1
    clear = Image.new("LA", (2, 2), (0, 0))
    assert (GREY.read(saved(clear)) == 255).all()


def test_palettes_are_resolved_also_transparent_ones():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert RGB.read(saved(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert RGB.read(saved(image, transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert RGB.read(saved(image, "GIF")).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_other_modes_are_read():
    assert RGB.read(saved(Image.new("1", (2, 2), 1))).tolist() == [[[255] * 3] * 2] * 2
    cmyk = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert RGB.read(saved(cmyk, "JPEG", quality=100))[0, 0, 0] > 200


def test_of_several_frames_the_first_is_read():
    frames = [Image.new("L", (3, 2), grey) for grey in (50, 200)]
    assert (GREY.read(saved(frames[0], "TIFF", save_all=True, append_images=frames[1:])) == 50).all()


@pytest.mark.parametrize(
    ("size", "resize", "shape"),
    [
        ((10, 10), "crop", (10, 10)), ((10, 10), "stretch", (10, 10)), ((10, 10), "fit", (5, 10)),
        ((10, 10), "shrink", (5, 10)), ((100, 100), "fit", (50, 100)), ((100, 100), "shrink", (20, 40)),
        ((20, 40), "crop", (20, 40)), ((1, 1), "fit", (1, 1)), (None, "crop", (20, 40)),
    ],
)  # fmt: skip
def test_images_come_to_a_size(size, resize, shape):
    assert ImageReader("rgb", size, resize).read(noise(20, 40)).shape == (*shape, 3)


@pytest.mark.parametrize("resize", ["crop", "stretch", "fit", "shrink"])
def test_an_image_of_the_right_size_stays_as_it_is(resize):
    pixels = noise(9, 13)
    assert (ImageReader("rgb", (9, 13), resize).read(pixels) == pixels).all()


def test_crop_takes_the_middle_and_stretch_takes_all():
    stripes = np.zeros((10, 30), np.uint8)
    stripes[:, 10:20] = 255
    assert (ImageReader("grey", (10, 10), "crop").read(stripes) == 255).all()
    stretched = ImageReader("grey", (10, 10), "stretch").read(stripes)[:, :, 0]
    assert (
        (stretched[:, :3] == 0).all() and (stretched[:, 4:6] == 255).all() and (stretched[:, 7:] == 0).all()
    )


def test_shrinking_averages():
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.abs(ImageReader("grey", (8, 8), "stretch").read(checkers).astype(int) - 127).max() <= 3


GOOD = saved(Image.fromarray(noise(40, 40)))
HOSTILE = {
    "truncated PNG": (GOOD[: len(GOOD) // 2], "damaged image"),
    "truncated JPEG": (saved(Image.fromarray(noise(40, 40)), "JPEG")[:900], "damaged image"),
    "empty file": (b"", "not an image"),
    "a text": (b"Not an image at all.\n" * 20, "not an image"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "a bomb": (png(60_000, 60_000, b"\0" * 99), "too large image"),
    "a smaller bomb": (png(10_000, 10_000, b"\0" * 99), "too large image"),
    "pixels that are missing": (png(100, 100, b"\0" * 99), "damaged image"),
    "no pixels": (png(0, 5, b""), "not an image"),
    "a broken checksum": (GOOD.replace(b"IDAT", b"IDAT\x01", 1), "damaged image"),
    "floating point": (saved(Image.new("F", (2, 2), 0.5), "TIFF"), "not 8 or 16 bits"),
    "an empty array": (np.zeros((0, 4), np.uint8), "empty image"),
    "numbers": (np.zeros((4, 4)), "not an image"),
    "five channels": (np.zeros((4, 4, 5), np.uint8), "not an image"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", HOSTILE)
def test_what_cannot_be_read_is_an_error_with_its_reason(kind):
    content, reason = HOSTILE[kind]
    with pytest.raises(ImageError) as caught:
        RGB.read(content)
    assert caught.value.reason == reason, caught.value


@pytest.mark.parametrize("seed", range(40))
def test_a_file_with_changed_bytes_is_an_image_or_an_error(seed):
    random = np.random.default_rng(seed)
    kind = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"][seed % 7]
    content = bytearray(saved(Image.fromarray(noise(12, 9, seed=seed)), kind))
    for place in random.integers(len(content), size=5):
        content[place] = random.integers(256)
    try:
        pixels = RGB.read(bytes(content))
    except ImageError:
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3


@pytest.mark.parametrize("shape", [(3, 8, 9), (8, 9, 5), (2, 8, 9, 3), (8,)])
def test_arrays_that_are_no_image_are_not_called_damaged(shape):
    with pytest.raises(
        ImageError, match=r"expected 8-bit pixels \(H, W\) or \(H, W, 1, 3 or 4\), got uint8"
    ) as error:
        RGB.read(np.zeros(shape, np.uint8))
    assert str(error.value).endswith("channels come last") == (shape[0] == 3)
