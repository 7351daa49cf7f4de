"""The engine ctranslate2: search with a model that `ctranslate2_model` has written."""

from collections.abc import Sequence
from pathlib import Path

import torch

from seq2attn.inference.engines.ctranslate2_model import import_ctranslate2
from seq2attn.inference.engines.ctranslate2_support import unsupported_search
from seq2attn.inference.engines.engine import Answer, EngineError, Request
from seq2attn.inference.search import Hypothesis
from seq2attn.recipe import DecodingRecipe
from seq2attn.text.vocabulary import Vocabulary

# It ends when this many times as many hypotheses have ended as the beam is wide, where torch goes on until no
# open one can win. Of 300 sentences torch had a better one in 13 with 1, its default, and in none with 2 and
# greedy search beside it (docs/engines.md).
PATIENCE = 2.0
BLANK = "blank texts"
PREFIX = "prefixes"
LONG_SOURCE = "sources that are longer than the engine's positions"
LONG_TARGET = "outputs with the largest length allowed"


class CTranslate2Engine:
    """A model in CTranslate2, on a CPU or a GPU.

    In float32 its searches find what torch's find: they go on for as long as it needs, and the hypothesis of
    greedy search takes part. In int8, where other texts are found in any case, they end as CTranslate2 ends
    them, which takes less time.

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
        self._eos, self._lengths, self._as_torch = target.eos, lengths, not quantize
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

        It does not know the limits of single requests: those with a hypothesis that has reached its limit are
        torch's.
        """
        answers: list[Answer] = [self._refusal(request) for request in requests]
        accepted = [row for row, answer in enumerate(answers) if not answer]
        if not accepted:
            return answers
        chosen, as_torch = [requests[row] for row in accepted], self._as_torch and decoding.beam > 1
        found = self._found(chosen, decoding.beam, PATIENCE if as_torch else 1.0)
        if as_torch:
            for hypotheses, (greedy,) in zip(found, self._found(chosen, 1), strict=True):
                if greedy.tokens not in [one.tokens for one in hypotheses]:
                    hypotheses.append(greedy)
        for row, hypotheses in zip(accepted, found, strict=True):
            whole = all(not one.truncated and len(one.tokens) < requests[row].limit for one in hypotheses)
            answers[row] = hypotheses if whole else LONG_TARGET
        return answers

    def _found(self, requests: Sequence[Request], beam: int, patience: float = 1.0) -> list[list[Hypothesis]]:
        """Return the hypotheses of each request, with scores of its own; truncated if they have not ended."""
        results = self.translator.translate_batch(
            [[self._source[number] for number in request.source.ids] for request in requests],
            beam_size=beam,
            patience=patience,
            num_hypotheses=round(beam * patience),
            length_penalty=1,  # with 0 it ends too early; its scores are log-probabilities divided by lengths
            max_input_length=0,
            max_decoding_length=self._longest([request.limit for request in requests]),
            min_decoding_length=0,
            return_scores=True,
            return_end_token=True,
        )
        found = []
        for result in results:
            hypotheses = []
            for names, score in zip(result.hypotheses, result.scores, strict=True):
                ids = [self._ids[name] for name in names]
                ended = bool(ids) and ids[-1] == self._eos
                tokens = ids[:-1] if ended else ids
                hypotheses.append(Hypothesis(tokens, score * len(ids), score, truncated=not ended))
            found.append(hypotheses)
        return found

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
