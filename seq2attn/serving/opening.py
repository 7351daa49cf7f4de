"""Opens the runs that are served."""

from collections.abc import Callable, Mapping
from pathlib import Path

from seq2attn.errors import Seq2attnError
from seq2attn.inference.engines import Engine
from seq2attn.inference.predictor import Predictor
from seq2attn.inference.translator import Translator
from seq2attn.inference.writing_predictor import WritingPredictor
from seq2attn.recipe import AnyRecipe
from seq2attn.serving.counters import Counters
from seq2attn.serving.limits import Limits
from seq2attn.serving.pairs import pairs_of
from seq2attn.serving.served_model import ServedModel
from seq2attn.training.run_folder import RunFolder

_SHOWN = 12  # digits of a checksum


def open_models(
    runs: Mapping[str, Path],
    load: Callable[[Path], Predictor],
    engine: Callable[[AnyRecipe, Predictor], Engine | None],
    limits: Limits,
    counters: Counters,
) -> dict[str, ServedModel[Predictor]]:
    """Return the models of runs by their names.

    load: returns the predictor of a run. engine: returns what searches with a predictor that searches, in the
    place of torch; None: torch.
    """
    models = {}
    for name, run in runs.items():
        predictor, folder = load(run), RunFolder.open(run)
        if isinstance(predictor, WritingPredictor):
            predictor = predictor.with_engine(engine(folder.recipe, predictor))
        pairs = pairs_of(folder.recipe, predictor.source) if isinstance(predictor, Translator) else ()
        weights = folder.version.checksums.get(f"weights/{folder.version.best}", "")
        models[name] = ServedModel(name, predictor, limits, counters, weights[:_SHOWN], pairs)
    return models


def read_token(path: Path) -> str:
    """Return the token in a file: its only line. Seq2attnError if there is none, or it cannot be sent."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Seq2attnError(f"{path}: the token cannot be read ({error})") from error
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Seq2attnError(
            f"{path}: expected a token of letters, digits and signs in one line, without spaces"
        )
    return token
