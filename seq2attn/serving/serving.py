"""The state of a server: its models, its limits, who may ask, and whether it is being stopped."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

from seq2attn.inference.captioner import Captioner
from seq2attn.inference.image_generator import ImageGenerator
from seq2attn.inference.image_predictor import ImagePredictor
from seq2attn.inference.predictor import Predictor
from seq2attn.serving.counters import Counters
from seq2attn.serving.languages import code_of
from seq2attn.serving.limits import Limits
from seq2attn.serving.pairs import Pair
from seq2attn.serving.refusals import INVALID, TOO_LARGE, RefusedError
from seq2attn.serving.served_model import ServedModel

_LISTED = 4  # pairs of a model in a message
P = TypeVar("P", bound=Predictor)


@dataclass
class Serving:
    """What all routes share."""

    models: Mapping[str, ServedModel[Predictor]]
    limits: Limits
    counters: Counters
    token: str = ""  # empty: anybody may ask
    cors: Sequence[str] = ()  # origins of other pages that may ask
    draining: bool = False  # whether it is being stopped: nothing more is accepted
    accepted: int = field(default=0, init=False)  # requests that are not answered yet

    def start(self) -> None:
        """Start the threads of the models."""
        for model in self.models.values():
            model.thread.start()

    def give_up(self) -> None:
        """Refuse what still waits."""
        for model in self.models.values():
            model.waiting.close(abandon=True)

    def stop(self) -> None:
        """Refuse what still waits, and end the threads."""
        self.give_up()
        for model in self.models.values():
            model.thread.join()

    @property
    def alive(self) -> bool:
        """Whether all models compute."""
        return all(model.thread.is_alive() for model in self.models.values())

    def permits(self, token: str) -> bool:
        """Return whether a token is the right one."""
        return not self.token or hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())

    def model(
        self,
        kind: type[P],
        name: str | None,
        source: str | None = None,
        target: str | None = None,
        first: bool = False,
    ) -> ServedModel[P]:
        """Return the model of a kind: by its name, or by its languages, if they are given. RefusedError if
        there is none, or more than one, unless the first is wanted."""
        every = [model for model in self.models.values() if isinstance(model.predictor, kind)]
        able = [model for model in every if model.fits(name, source, target)]
        if len(able) == 1 or (able and first):
            return cast("ServedModel[P]", able[0])
        others = [model for model in self.models.values() if model not in every]
        for model in others:
            if model.name == name or (name is None and model.predictor.command == kind.command and not every):
                raise RefusedError(INVALID, f"{model.name} {_reads(model.predictor)}")
        if not every:
            raise RefusedError(404, f"no model that is served can {kind.command} this")
        if able:
            raise RefusedError(
                INVALID, f"several models can {kind.command} this: give model, one of {_listed(every)}"
            )
        raise RefusedError(404, f"no such model: expected one of {_listed(every)}")

    def pairs(self) -> dict[Pair, list[str]]:
        """Return the pairs of languages of all models, by their codes, with the names of the models: the
        first is taken where a client cannot name one."""
        named = dict[Pair, list[str]]()
        for model in self.models.values():
            for pair in dict.fromkeys(Pair(code_of(own.source), code_of(own.target)) for own in model.pairs):
                named.setdefault(pair, []).append(model.name)
        return named

    def check(self, texts: Sequence[str], kind: str = "texts") -> None:
        """RefusedError for more texts, or longer ones, than are accepted. kind: what they are called."""
        if len(texts) > self.limits.lines:
            raise RefusedError(
                TOO_LARGE, f"expected at most {self.limits.lines:,} {kind}, got {len(texts):,}"
            )
        longest = max(map(len, texts), default=0)
        if longest > self.limits.characters:
            raise RefusedError(
                TOO_LARGE,
                f"expected {kind} of at most {self.limits.characters:,} characters, got one of {longest:,}",
            )


def _reads(predictor: Predictor) -> str:
    """Return what a model reads, and its route."""
    images = isinstance(predictor, Captioner | ImagePredictor)
    what = "images" if images else "a number of images" if isinstance(predictor, ImageGenerator) else "texts"
    return f"reads {what}, and its route is /v1/{predictor.command}"


def _listed(models: Sequence[ServedModel[Predictor]]) -> str:
    """Return the names of models, with their languages."""
    pairs = {
        model.name: ", ".join(f"{pair.source} to {pair.target}" for pair in model.pairs[:_LISTED])
        for model in models
    }
    return ", ".join(f"{name} ({of})" if of else name for name, of in pairs.items())
