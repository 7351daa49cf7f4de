"""seq2attn: train, score, translate with, and look into seq2seq models whose attention is pluggable.

>>> import seq2attn
>>> model = seq2attn.load("runs/quickstart")
>>> model.translate("Ich habe Hunger.").text
"I'm hungry."
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from seq2attn.attention import Attention
    from seq2attn.errors import Seq2attnError
    from seq2attn.heads import MultiHead
    from seq2attn.metrics import score
    from seq2attn.normalizers import NORMALIZERS
    from seq2attn.results import Translation
    from seq2attn.runs import train
    from seq2attn.scorers import SCORERS
    from seq2attn.tasks import load, translate
    from seq2attn.translator import Translator

# Names are imported when they are first used: `import seq2attn` and the command line start without torch.
_HOMES = {
    "Attention": "attention",
    "MultiHead": "heads",
    "NORMALIZERS": "normalizers",
    "SCORERS": "scorers",
    "Seq2attnError": "errors",
    "Translation": "results",
    "Translator": "translator",
    "load": "tasks",
    "score": "metrics",
    "train": "runs",
    "translate": "tasks",
}

__all__ = [
    "NORMALIZERS",
    "SCORERS",
    "Attention",
    "MultiHead",
    "Seq2attnError",
    "Translation",
    "Translator",
    "load",
    "score",
    "train",
    "translate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'seq2attn' has no attribute '{name}'")
    return getattr(import_module(f"seq2attn.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
