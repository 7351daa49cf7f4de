"""The engine ctranslate2: search with a model that `ctranslate2_model` has written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from seq2attn.inference.engines.ctranslate2_model import import_ctranslate2
from seq2attn.inference.engines.ctranslate2_support import unsupported_search
from seq2attn.inference.engines.engine import Answer, EngineError, Request
from seq2attn.inference.search import Hypothesis
from seq2attn.recipe import DecodingRecipe
from seq2attn.text.vocabulary import Vocabulary

BLANK = "blank texts"
PREFIX = "prefixes"
LONG_SOURCE = "sources that are longer than the engine's positions"
LONG_TARGET = "outputs with the largest length allowed"


class CTranslate2Engine:
    """A model in CTranslate2, on a CPU or a GPU.

    folder: of the model; lengths: the numbers of positions of its encoder and its decoder, None: any;
    quantize: int8, or None for float32.
    """

    def __init__(
        self,
        folder: Path,
        source: Vocabulary,
        target: Vocabulary,
        lengths: tuple[int | None, int | None],
        device: torch.device,
        quantize: str | None = None,
    ) -> None:
        ctranslate2 = import_ctranslate2()
        if device.type not in ("cpu", "cuda"):
            raise EngineError(f"the engine ctranslate2 runs on cpu and cuda, not on {device.type}: use cpu")
        self.name = f"ctranslate2 {quantize or 'float32'}"
        self._source, self._target = source.names, target.names
        self._ids = {name: number for number, name in enumerate(self._target)}
        self._eos, self._lengths = target.eos, lengths
        try:
            self.translator = ctranslate2.Translator(
                str(folder),
                device.type,
                device_index=device.index or 0,
                compute_type=quantize or "float32",
                intra_threads=torch.get_num_threads(),
            )
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"ctranslate2 cannot load {folder} on {device} ({error})") from error

    def unsupported(self, decoding: DecodingRecipe) -> str | None:
        """See Engine."""
        return unsupported_search(decoding, len(self._target))

    def search(self, requests: Sequence[Request], decoding: DecodingRecipe) -> list[Answer]:
        """See Engine. Requests are computed together.

        It ends when `beam` hypotheses have ended, and does not know the limits of single requests: those
        with a hypothesis that has reached its limit are torch's.
        """
        answers: list[Answer] = [self._refusal(request) for request in requests]
        accepted = [row for row, answer in enumerate(answers) if not answer]
        if not accepted:
            return answers
        results = self.translator.translate_batch(
            [[self._source[number] for number in requests[row].source.ids] for row in accepted],
            beam_size=decoding.beam,
            num_hypotheses=decoding.beam,
            length_penalty=1,  # with 0 it ends too early; its scores are log-probabilities divided by lengths
            max_input_length=0,
            max_decoding_length=self._longest([requests[row].limit for row in accepted]),
            min_decoding_length=0,
            return_scores=True,
            return_end_token=True,
        )
        for row, result in zip(accepted, results, strict=True):
            answers[row] = self._answer(result, requests[row].limit)
        return answers

    def _refusal(self, request: Request) -> str:
        """Return the reason why a request is torch's; empty if it is not."""
        length, longest = len(request.source.ids), self._lengths[0]
        if not length:
            return BLANK
        if len(request.prefix):
            return PREFIX
        return LONG_SOURCE if longest is not None and length >= longest else ""

    def _longest(self, limits: list[int]) -> int:
        """Return the number of steps after which no request needs more."""
        positions = self._lengths[1]
        return max(limits) + 1 if positions is None else min(max(limits) + 1, positions)

    def _answer(self, result: Any, limit: int) -> Answer:
        hypotheses = []
        for names, score in zip(result.hypotheses, result.scores, strict=True):
            ids = [self._ids[name] for name in names]
            if not ids or ids[-1] != self._eos or len(ids) > limit:
                return LONG_TARGET
            hypotheses.append(Hypothesis(ids[:-1], score * len(ids), score))
        return hypotheses
