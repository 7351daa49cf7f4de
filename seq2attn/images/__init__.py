"""Images as arrays of pixels: decoding, resizing, and random changes of training images."""

from seq2attn.images.augmentation import AUGMENTATIONS, Augmentation, Geometric, Mixup
from seq2attn.images.decoding import ImageError, ImageReader, Pixels

__all__ = ["AUGMENTATIONS", "Augmentation", "Geometric", "ImageError", "ImageReader", "Mixup", "Pixels"]
