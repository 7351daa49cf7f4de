"""What all tests share: shapes are types, one thread."""

import re
from pathlib import Path

import torch
from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[1] / "seq2attn"

# Every module that writes shapes has them checked at every call; the hook must come before their import.
install_import_hook(
    [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if re.search("^from jaxtyping import", path.read_text(encoding="utf-8"), re.MULTILINE)
    ],
    "beartype.beartype",
)
torch.set_num_threads(1)  # tensors in tests are too small to share
