"""seq2attn: train, evaluate, run and inspect sequence-to-sequence models with pluggable attention.

>>> import seq2attn
>>> model = seq2attn.load("runs/quickstart")
>>> model.translate("Ich habe Hunger.").text
"I'm hungry."
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from seq2attn.version import __version__ as __version__

if TYPE_CHECKING:
    from seq2attn.attention import Attention, MultiHead
    from seq2attn.attention.blocks import BLOCKS
    from seq2attn.attention.normalizers import NORMALIZERS
    from seq2attn.attention.positions import POSITIONS
    from seq2attn.attention.scorers import SCORERS
    from seq2attn.errors import Seq2attnError
    from seq2attn.inference.captioner import Captioner
    from seq2attn.inference.captions import Caption
    from seq2attn.inference.detector import Detector
    from seq2attn.inference.found_objects import FoundObjects
    from seq2attn.inference.image_categorizer import ImageCategorizer, ImageCategory
    from seq2attn.inference.image_generator import GeneratedImage, ImageGenerator
    from seq2attn.inference.label_results import Annotation, Category
    from seq2attn.inference.recognizer import Categorizer, Recognizer
    from seq2attn.inference.results import Translation
    from seq2attn.inference.segmentations import Segmentation
    from seq2attn.inference.segmenter import Segmenter
    from seq2attn.inference.translator import Summarizer, Translator
    from seq2attn.layers.token_loss import LOSSES
    from seq2attn.metrics import score
    from seq2attn.models.decoders import DECODERS
    from seq2attn.models.encoders import ENCODERS
    from seq2attn.runs.training_run import train
    from seq2attn.tasks.loading import load, translate

# Names are imported when they are first used: `import seq2attn` and the command line start without torch.
_HOMES = {
    "Annotation": "inference.label_results",
    "Attention": "attention",
    "BLOCKS": "attention.blocks",
    "Caption": "inference.captions",
    "Captioner": "inference.captioner",
    "Categorizer": "inference.recognizer",
    "Category": "inference.label_results",
    "DECODERS": "models.decoders",
    "ENCODERS": "models.encoders",
    "Detector": "inference.detector",
    "FoundObjects": "inference.found_objects",
    "GeneratedImage": "inference.image_generator",
    "ImageCategorizer": "inference.image_categorizer",
    "ImageCategory": "inference.image_categorizer",
    "ImageGenerator": "inference.image_generator",
    "LOSSES": "layers.token_loss",
    "MultiHead": "attention",
    "NORMALIZERS": "attention.normalizers",
    "POSITIONS": "attention.positions",
    "Recognizer": "inference.recognizer",
    "SCORERS": "attention.scorers",
    "Segmentation": "inference.segmentations",
    "Segmenter": "inference.segmenter",
    "Seq2attnError": "errors",
    "Summarizer": "inference.translator",
    "Translation": "inference.results",
    "Translator": "inference.translator",
    "load": "tasks.loading",
    "score": "metrics",
    "train": "runs.training_run",
    "translate": "tasks.loading",
}
# Modules that have moved, by the names under which the documentation had them.
_MOVED = {
    "flow": "attention.bidirectional",
    "normalizers": "attention.normalizers",
    "pooling": "attention.pooling",
    "positions": "attention.positions",
    "process": "runtime.process",
    "scorers": "attention.scorers",
}

__all__ = [
    "BLOCKS",
    "DECODERS",
    "ENCODERS",
    "LOSSES",
    "NORMALIZERS",
    "POSITIONS",
    "SCORERS",
    "Annotation",
    "Attention",
    "Caption",
    "Captioner",
    "Categorizer",
    "Category",
    "Detector",
    "FoundObjects",
    "GeneratedImage",
    "ImageCategorizer",
    "ImageCategory",
    "ImageGenerator",
    "MultiHead",
    "Recognizer",
    "Segmentation",
    "Segmenter",
    "Seq2attnError",
    "Summarizer",
    "Translation",
    "Translator",
    "load",
    "score",
    "train",
    "translate",
]


class _MovedModules(MetaPathFinder, Loader):
    """Imports a module of _MOVED under its old name: the same module, not a copy."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == __name__ and name.split(".")[0] in _MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        moved, *inner = spec.name.split(".")[1:]
        module = import_module(".".join([__name__, _MOVED[moved], *inner]))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:  # the import system has set that of the old name
            module.__spec__ = module.__spec__.loader_state


sys.meta_path.insert(0, _MovedModules())  # first, or a module in a moved package would be loaded twice


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'seq2attn' has no attribute '{name}'")
    return getattr(import_module(f"seq2attn.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
