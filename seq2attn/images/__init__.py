"""Images as arrays of pixels: decoding, resizing, random changes of training images, and boxes that move."""

from seq2attn.images.augmentation import AUGMENTATIONS, Augmentation, Changed, Geometric, Mixup, Mosaic
from seq2attn.images.decoding import ImageError, ImageReader, Pixels
from seq2attn.images.geometry import Matrix

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "Changed",
    "Geometric",
    "ImageError",
    "ImageReader",
    "Matrix",
    "Mixup",
    "Mosaic",
    "Pixels",
]
