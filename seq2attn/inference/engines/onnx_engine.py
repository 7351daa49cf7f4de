"""The engine onnx: torch's own search, with the encoder of texts and the decoder in ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seq2attn.attention.state import PerSource
from seq2attn.data.image_texts import ImageSource
from seq2attn.data.sources import AnySource
from seq2attn.inference.engines.engine import Answer, EngineError, Request
from seq2attn.inference.engines.exported_folder import notes_of
from seq2attn.inference.engines.onnx_graph import import_onnx
from seq2attn.inference.engines.onnx_model import STEP, first_graph
from seq2attn.inference.engines.onnx_support import unsupported_search
from seq2attn.inference.generator import Generator
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.recipe import DecodingRecipe

ROUNDING = 1e-4  # of a log-probability
BLANK = "blank texts"


class OnnxState(NamedTuple):
    """The leaves of a decoder's state (`onnx_state`): B sources with K hypotheses each, N = B K."""

    own: tuple[Tensor, ...]  # (N, ...) each
    memory: PerSource[tuple[Tensor, ...]]  # (B, K, ...) each; before the first step K is 1


class OnnxModel(Seq2Seq):
    """A model whose first state and whose steps are computed by ONNX Runtime."""

    def __init__(self, model: Seq2Seq, folder: Path) -> None:
        super().__init__(model.encoder, model.decoder)
        notes = notes_of(folder)
        self._state, self._memory = notes["state"], notes["memory"]
        self._first, self._step = (onnx_session(folder / name) for name in (first_graph(model), STEP))

    def start(self, source: AnySource) -> OnnxState:
        """See the base class."""
        if isinstance(source, ImageSource):
            encoded = self.encode(source)
            inputs = {"states": encoded.states, "mask": encoded.mask, "summary": encoded.summary}
        else:
            inputs = {"tokens": source.inputs[0], "mask": source.mask}
        found = _run(self._first, inputs, [*self._state, *self._memory])
        own, memory = found[: len(self._state)], found[len(self._state) :]
        return OnnxState(tuple(own), PerSource(tuple(tensor.unsqueeze(1) for tensor in memory)))

    def step(self, token: Tensor, state: OnnxState) -> tuple[Tensor, OnnxState]:
        """See the base class."""
        memory, rows = state.memory.value, len(token)
        if memory and memory[0].shape[0] * memory[0].shape[1] != rows:
            width, own = rows // len(memory[0]), (tensor[:, :1] for tensor in memory)
            memory = tuple(tensor.expand(-1, width, *tensor.shape[2:]).contiguous() for tensor in own)
        inputs = {"token": token}
        inputs |= zip(self._state, state.own, strict=True)
        inputs |= {name: tensor.flatten(0, 1) for name, tensor in zip(self._memory, memory, strict=True)}
        logits, *after = _run(self._step, inputs, ["logits", *(f"next.{name}" for name in self._state)])
        return logits, OnnxState(tuple(after), PerSource(memory))


class OnnxEngine:
    """A model in ONNX Runtime, on a CPU."""

    def __init__(self, folder: Path, generator: Generator[Any], quantize: str | None = None) -> None:
        if generator.device.type != "cpu":
            raise EngineError(f"the engine onnx runs on cpu, not on {generator.device.type}: use cpu")
        self.name = f"onnx {quantize or 'float32'}"
        self.rounding = 0.0 if quantize else ROUNDING
        model = OnnxModel(generator.model, folder)
        self._generator = Generator(model, generator.tokenizer, generator.device)

    def unsupported(self, decoding: DecodingRecipe) -> str | None:
        """See Engine."""
        return unsupported_search(decoding)

    def search(self, requests: Sequence[Request], decoding: DecodingRecipe) -> list[Answer]:
        """See Engine. Requests are computed together."""
        answers: list[Answer] = [BLANK] * len(requests)
        lengths = self._generator.tokenizer.lengths([request.source for request in requests])
        rows = [row for row, length in enumerate(lengths.tolist()) if length]
        sources, prefixes = ([getattr(requests[row], name) for row in rows] for name in ("source", "prefix"))
        found = self._generator.search(sources, decoding, prefixes)
        for row, nbest in zip(rows, found, strict=True):
            answers[row] = nbest
        return answers


def onnx_session(model: Path | bytes) -> Any:
    """Return a session of ONNX Runtime with as many threads as torch, of a file or of its content.

    EngineError for what is no model.
    """
    import_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3  # errors
    try:
        given = model if isinstance(model, bytes) else str(model)
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise EngineError(f"onnxruntime cannot load {model!s:.200} ({error})") from error


def _run(session: Any, inputs: dict[str, Tensor], outputs: list[str]) -> list[Tensor]:
    arrays = {name: tensor.contiguous().numpy() for name, tensor in inputs.items()}
    return [torch.from_numpy(array) for array in session.run(outputs, arrays)]
