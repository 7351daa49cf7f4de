"""A recurrent decoder as two ONNX graphs: its first state, and its step.

The first graph begins with the encoder of texts: it is written with ONNX's own LSTM and GRU, which read
padded rows by their lengths in both directions. All else is traced. Images are encoded by torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from seq2attn.inference.engines.onnx_graph import Attributes, OnnxGraph, Value, import_onnx
from seq2attn.inference.engines.onnx_state import Leaf, leaves, with_leaves
from seq2attn.inference.engines.onnx_trace import Traced
from seq2attn.layers.basic import Embedding
from seq2attn.models.decoders import Decoder
from seq2attn.models.encoders import Encoded, Encoder, RecurrentEncoder
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.models.vision.encoder import ImageEncoder

ENCODER, START, STEP = "encoder.onnx", "start.onnx", "step.onnx"
# torch's gates are i f g o, and r z n; ONNX's are i o f c, and z r h.
GATES = {nn.LSTM: (0, 3, 1, 2), nn.GRU: (1, 0, 2)}
SIZES = (3, 7), (2, 5)  # rows and source positions of two examples: what differs between them varies


class Names(NamedTuple):
    """The names of the inputs and outputs of the graphs."""

    state: list[str]  # of each hypothesis: the step returns the next one as next.NAME
    memory: list[str]  # of each source: no step changes it


class _Start(nn.Module):
    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The first state of the decoder from states (B, S, D), a mask (B, 1, S) and a summary (B, D)."""
        return tuple(
            leaf.tensor for leaf in leaves(self.decoder.start(Encoded(given[0], given[1], given[2])))
        )


class _Step(nn.Module):
    def __init__(self, decoder: Decoder, state: Any) -> None:
        super().__init__()
        self.decoder, self.state = decoder, state

    def forward(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The logits, and the next state, from a token (N,) and the leaves of a state."""
        token, *tensors = given
        logits, after = self.decoder.step(token, with_leaves(self.state, iter(tensors)))
        return logits, *(leaf.tensor for leaf in leaves(after))


def save_model(model: Seq2Seq, folder: Path) -> Names:
    """Write a model to an existing folder. EngineError if it has a part that has no form in ONNX."""
    onnx, decoder, encoder = import_onnx(), model.decoder, model.encoder
    examples = [_example(encoder, decoder, *sizes) for sizes in SIZES]
    found = examples[0]
    varying = [_varying(*pair) for pair in zip(*(one.tensors for one in examples), strict=True)]
    traced = Traced(_Step(decoder, found.state), [found.token, *found.tensors], [{0: "rows"}, *varying])
    kept = _kept(traced, found.leaves)
    graph = OnnxGraph()
    described = [("token", found.token, {0: "rows"})]
    described += [(leaf.name, leaf.tensor, axes) for leaf, axes in zip(found.leaves, varying, strict=True)]
    inputs = []
    for place, (name, tensor, axes) in enumerate(described):
        used = not place or place - 1 in kept
        inputs.append(graph.input(name, tensor.dtype, _shape(tensor, axes)) if used else name)
    changed = [place for place in kept if not found.leaves[place].of_source]
    logits, *after = traced.write(graph, inputs, [0, *(place + 1 for place in changed)])
    graph.output("logits", logits, torch.float32, ["rows", decoder.output.out_features])
    for place, value in zip(changed, after, strict=True):
        leaf = found.leaves[place]
        graph.output(f"next.{leaf.name}", value, leaf.tensor.dtype, _shape(leaf.tensor, varying[place]))
    onnx.save(graph.model("step"), str(folder / STEP))
    graph = OnnxGraph()
    first = _first_state(graph, encoder, decoder, found)
    for place in kept:
        leaf = found.leaves[place]
        graph.output(leaf.name, first[place], leaf.tensor.dtype, _shape(leaf.tensor, varying[place]))
    onnx.save(graph.model("start"), str(folder / first_graph(model)))
    names = [found.leaves[place].name for place in kept]
    state = [found.leaves[place].name for place in changed]
    return Names(state, [name for name in names if name not in state])


def first_graph(model: Seq2Seq) -> str:
    """Return the file of the graph of a decoder's first state: it reads tokens, or the states of an image."""
    return START if isinstance(model.encoder, ImageEncoder) else ENCODER


class _Example(NamedTuple):
    """What the decoder reads at its first step."""

    encoded: tuple[Tensor, Tensor, Tensor]  # states, mask and summary
    token: Tensor  # (B,)
    state: Any
    leaves: list[Leaf]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors of the state."""
        return [leaf.tensor for leaf in self.leaves]


@torch.no_grad()
def _example(encoder: Encoder | ImageEncoder, decoder: Decoder, rows: int, positions: int) -> _Example:
    mask = torch.ones(rows, positions, dtype=torch.bool, device=decoder.output.weight.device)
    token = torch.ones_like(mask[:, 0], dtype=torch.long)
    if isinstance(encoder, ImageEncoder):
        states = torch.ones(rows, positions, encoder.size, device=mask.device)
        encoded = Encoded(states, mask.unsqueeze(1), states[:, 0])
    else:
        encoded = encoder(token[:, None].expand(mask.shape), mask)
    state = decoder.start(encoded)
    # Copies: a tensor that is two leaves would be one input of a trace.
    found = [leaf._replace(tensor=leaf.tensor.clone()) for leaf in leaves(state)]
    return _Example((encoded.states, encoded.mask, encoded.summary), token, state, found)


def _varying(one: Tensor, other: Tensor) -> dict[int, str]:
    """Return the axes whose sizes differ: the first is that of rows, and others are of source positions."""
    sizes = enumerate(zip(one.shape, other.shape, strict=True))
    return {axis: "positions" if axis else "rows" for axis, (size, others) in sizes if size != others}


def _shape(tensor: Tensor, varying: dict[int, str]) -> list[str | int]:
    return [varying.get(axis, size) for axis, size in enumerate(tensor.shape)]


def _kept(traced: Traced, state: Sequence[Leaf]) -> list[int]:
    """Return the leaves that logits depend on, now or through later steps."""
    kept, before = [-1], list[int]()
    while kept != before:
        before = kept
        outputs = [place + 1 for place in kept if place < 0 or not state[place].of_source]
        kept = sorted({-1, *(place - 1 for place in traced.read_by(outputs))})
    return kept[1:]


def _first_state(
    graph: OnnxGraph, encoder: Encoder | ImageEncoder, decoder: Decoder, example: _Example
) -> list[Value]:
    """Write the encoder of texts, and the leaves of the decoder's first state."""
    if isinstance(encoder, ImageEncoder):
        states = graph.input("states", torch.float32, ["rows", "positions", encoder.size])
        by_query = graph.input("mask", torch.bool, ["rows", 1, "positions"])
        summary = graph.input("summary", torch.float32, ["rows", encoder.size])
    else:
        tokens = graph.input("tokens", torch.int64, ["rows", "positions"])
        mask = graph.input("mask", torch.bool, ["rows", "positions"])
        states, summary = _encoded(graph, cast(RecurrentEncoder, encoder), tokens, mask)
        by_query = graph.node("Unsqueeze", mask, graph.constant([1]))
    axes = {0: "rows", 1: "positions"}, {0: "rows", 2: "positions"}, {0: "rows"}
    start = Traced(_Start(decoder), example.encoded, axes)
    return start.write(graph, [states, by_query, summary], range(len(example.leaves)))


def _encoded(graph: OnnxGraph, encoder: RecurrentEncoder, tokens: Value, mask: Value) -> tuple[Value, Value]:
    """Write an encoder: its states (B, S, D), zero at padding, and its summary (B, D)."""
    embedding = cast(Embedding, encoder.embedding)
    table = graph.weight(embedding.table.weight * embedding.scale)
    lengths = graph.node(
        "ReduceSum", graph.cast(mask, torch.int32), graph.constant([1]), attributes={"keepdims": 0}
    )
    x = graph.node(
        "Transpose", graph.node("Gather", table, tokens), attributes={"perm": [1, 0, 2]}
    )  # (S, B, E)
    last = ""
    for layer in encoder.rnn.layers:
        directions = cast("list[nn.LSTM | nn.GRU]", list(layer.children()))
        weights = [graph.weight(_gates(directions, names)) for names in (("weight_ih",), ("weight_hh",))]
        bias = graph.weight(_gates(directions, ("bias_ih", "bias_hh")))
        cell = type(directions[0])
        options: Attributes = {"linear_before_reset": 1} if cell is nn.GRU else {}
        outputs, last = graph.nodes(
            cell.__name__,
            2,
            *(x, *weights, bias, lengths),
            attributes={
                "hidden_size": directions[0].hidden_size,
                "direction": "bidirectional" if len(directions) > 1 else "forward",
                **options,
            },
        )  # (S, directions, B, H), (directions, B, H)
        by_row = graph.node("Transpose", outputs, attributes={"perm": [0, 2, 1, 3]})
        x = graph.node("Reshape", by_row, graph.constant([0, 0, -1]))
    real = graph.node("Unsqueeze", graph.cast(mask, torch.float32), graph.constant([2]))
    states = graph.node("Mul", graph.node("Transpose", x, attributes={"perm": [1, 0, 2]}), real)
    by_row = graph.node("Transpose", last, attributes={"perm": [1, 0, 2]})
    return states, graph.node("Reshape", by_row, graph.constant([0, -1]))


def _gates(directions: Sequence[nn.LSTM | nn.GRU], names: Sequence[str]) -> Tensor:
    """Return weights of all directions, with the gates in the order of ONNX; several are joined."""
    order = GATES[type(directions[0])]
    parts = [[getattr(one, f"{name}_l0").chunk(len(order)) for name in names] for one in directions]
    return torch.stack([torch.cat([chunks[place] for chunks in one for place in order]) for one in parts])
