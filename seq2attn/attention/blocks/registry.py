"""Fills BLOCKS: all attention blocks for images, by the names that they have in recipes."""

from seq2attn.attention.blocks.both import BAM, CBAM, SCSE, Polarized
from seq2attn.attention.blocks.branches import SK
from seq2attn.attention.blocks.channel import CSE, ECA, SE, CBAMChannel
from seq2attn.attention.blocks.context import GC, GatherExcite
from seq2attn.attention.blocks.coordinate import EMA, Coordinate, Strip, Triplet
from seq2attn.attention.blocks.heads import ASPP, DANet
from seq2attn.attention.blocks.large_kernels import LKA
from seq2attn.attention.blocks.looks import CAM, PAM, NonLocal
from seq2attn.attention.blocks.spatial import SSE, CBAMSpatial, SimAM
from seq2attn.attention.blocks.table import BLOCKS
from seq2attn.attention.blocks.windows import MHSA, CrissCross, WindowAttention

__all__ = ["BLOCKS"]

BLOCKS |= {
    "se": SE,
    "eca": ECA,
    "gc": GC,
    "cbam": CBAM,
    "cbam_channel": CBAMChannel,
    "cbam_spatial": CBAMSpatial,
    "scse": SCSE,
    "cse": CSE,
    "sse": SSE,
    "coord": Coordinate,
    "bam": BAM,
    "ge": GatherExcite,
    "simam": SimAM,
    "triplet": Triplet,
    "polarized": Polarized,
    "ema": EMA,
    "lka": LKA,
    "strip": Strip,
    "sk": SK,
    "nonlocal": NonLocal,
    "criss_cross": CrissCross,
    "pam": PAM,
    "cam": CAM,
    "window": WindowAttention,
    "mhsa": MHSA,
    "aspp": ASPP,
    "danet": DANet,
}
