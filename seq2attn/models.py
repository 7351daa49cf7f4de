"""Models, and `build`: the one place that knows both recipes and parts."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seq2attn.attention import Attention, Relative
from seq2attn.decoders import (
    Cell,
    Copier,
    Decoded,
    Decoder,
    DecoderLayer,
    Readout,
    RecurrentDecoder,
    TransformerDecoder,
)
from seq2attn.encoders import Encoder, EncoderLayer, RecurrentEncoder, TransformerEncoder
from seq2attn.errors import Seq2attnError
from seq2attn.heads import MultiHead, TalkingNormalizer, TalkingScorer, Window, head_size
from seq2attn.hierarchy import SentenceAttention
from seq2attn.layers import Dropout, Embedding, Embeds, FeedForward, tie
from seq2attn.normalizers import NORMALIZERS
from seq2attn.positions import POSITIONS, Distance, Position
from seq2attn.recipe import (
    AttentionRecipe,
    ModelRecipe,
    RecurrentDecoderRecipe,
    RecurrentEncoderRecipe,
    TransformerDecoderRecipe,
    TransformerEncoderRecipe,
)
from seq2attn.scorers import SCORERS, Several


class Seq2Seq(nn.Module):
    """An encoder and a decoder of any two kinds."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(
        self,
        source: Int[Tensor, "B S"],
        source_mask: Bool[Tensor, "B S"],
        reads: Int[Tensor, "B T"],
        look: Sequence[int] = (),
        copies: Int[Tensor, "B S"] | None = None,
        sentences: Int[Tensor, "B S"] | None = None,
    ) -> Decoded:
        """Logits (B, T, V) of what follows each token that the decoder reads, and the weights of the
        layers named by `look`. copies: what the slots of the source stand for, if the decoder copies;
        sentences: the number of each slot's sentence, -1 = of none, if it looks at them."""
        encoded = self.encoder(source, source_mask)._replace(copies=copies, sentences=sentences)
        decoded: Decoded = self.decoder(reads, encoded, look)
        return decoded

    def start(
        self,
        source: Int[Tensor, "B S"],
        source_mask: Bool[Tensor, "B S"],
        copies: Int[Tensor, "B S"] | None = None,
        sentences: Int[Tensor, "B S"] | None = None,
    ) -> Any:
        """The decoder's state before the first token."""
        encoded = self.encoder(source, source_mask)._replace(copies=copies, sentences=sentences)
        return self.decoder.start(encoded)

    def step(self, token: Int[Tensor, " B"], state: Any) -> tuple[Float[Tensor, "B V"], Any]:
        """Read one token; logits of the next, and the state after it."""
        return self.decoder.step(token, state)


def pick_device(name: str = "auto") -> torch.device:
    """cpu, cuda, cuda:1, mps, ...; auto = the best there is."""
    if name == "auto":
        accelerated = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
        return torch.device(accelerated)
    try:
        device = torch.device(name)
    except RuntimeError as error:  # whose list has what no one has
        raise Seq2attnError(f"unknown device '{name}': expected cpu, cuda, cuda:1, mps or auto") from error
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = re.split(r"[.\n]", str(error))[0][:100]
        raise Seq2attnError(f"device '{name}' cannot be used here ({why}); try auto or cpu") from error
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a model computes in fp32, bf16 or fp16; weights stay float32."""
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in types:
        raise Seq2attnError(f"unknown precision '{precision}': expected fp32, bf16 or fp16")
    if precision == "fp16" and device.type == "cpu":
        raise Seq2attnError("precision fp16 needs a GPU, and this is a CPU: use bf16 or fp32")
    enabled = precision != "fp32"
    return torch.autocast(device.type, types[precision] if enabled else None, enabled)


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory has run out: torch has no type of its own for that on a CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)


@contextlib.contextmanager
def fitting() -> Iterator[None]:
    """Say what to lower where a model that is being built does not fit into memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise Seq2attnError(
            "the model does not fit into memory: lower model.*.size, layers or text.size"
        ) from error


def build(recipe: ModelRecipe, source_size: int, target_size: int) -> Seq2Seq:
    """The model that a recipe describes, for vocabularies of these sizes, freshly initialised.

    Seed torch before: initial weights are random.
    """
    with fitting():
        embedding = _embedding(recipe.encoder, source_size)
        encoder = build_encoder(recipe.encoder, embedding)
        decoder = _decoder(recipe.decoder, target_size, encoder.size)
    for module in (encoder, decoder):
        if isinstance(module, (TransformerEncoder, TransformerDecoder)):
            initialise(module)
    if recipe.tied != "none":
        tie(decoder.output, decoder.embedding)
    if recipe.tied == "all":
        tie(decoder.output, embedding)
    return Seq2Seq(encoder, decoder)


def attention(
    recipe: AttentionRecipe, query_size: int, key_size: int, heads: int = 1, relative: Relative | None = None
) -> Attention:
    """One attention for queries and keys of these sizes, for one head or for several side by side."""
    energies = NORMALIZERS[recipe.normalize.name].energies
    scores = [recipe.score.make(SCORERS, query_size, key_size) for _ in range(energies)]
    score = scores[0] if energies == 1 else Several(scores)
    normalize = recipe.normalize.make(NORMALIZERS, query_size, heads)
    if recipe.talking:
        score, normalize = TalkingScorer(score, heads), TalkingNormalizer(normalize, heads)
    hierarchy = None
    if recipe.sentences is not None:
        hierarchy = SentenceAttention(recipe.sentences.score.make(SCORERS, query_size, key_size))
    return Attention(score, normalize, recipe.dropout, relative, hierarchy)


def multi_head(
    recipe: AttentionRecipe,
    query_size: int,
    key_size: int,
    rotary: Position | None = None,
    relative: Relative | None = None,
) -> MultiHead:
    """Heads of that attention, each in its own projection."""
    head = head_size(query_size, recipe.heads)
    looks = attention(recipe, head, head, recipe.heads, relative)
    return MultiHead(
        recipe.heads, query_size, key_size, looks, rotary, recipe.key_heads, recipe.query_key_norm
    )


def _embedding(recipe: Any, vocabulary: int) -> Embedding:
    if recipe.kind == "recurrent":
        dropout = Dropout(recipe.embedding_dropout, variational=recipe.variational, word=recipe.word_dropout)
        return Embedding(vocabulary, recipe.embedding, dropout)
    dropout = Dropout(recipe.dropout, word=recipe.word_dropout)
    added = POSITIONS[recipe.positions.name].where == "embedding"
    positions = recipe.positions.make(POSITIONS, recipe.size) if added else None
    return Embedding(vocabulary, recipe.size, dropout, positions, scaled=True)


def _own(
    recipe: TransformerEncoderRecipe | TransformerDecoderRecipe, causal: bool
) -> Iterator[tuple[MultiHead, Window | None]]:
    """The self-attention of each layer, with its positions, and its window."""
    kind, relative = POSITIONS[recipe.positions.name], None
    for section in recipe.own_attentions:
        head, rotary = head_size(recipe.size, section.heads), None
        if issubclass(kind, Distance):
            if relative is None or not kind.shared:
                relative = recipe.positions.make(POSITIONS, section.heads, head, causal)
        elif kind.where == "rotation":
            rotary = recipe.positions.make(POSITIONS, head)
        looks = multi_head(section, recipe.size, recipe.size, rotary, relative)
        yield looks, None if section.window is None else Window(section.window, section.sinks)


def _feed_forward(recipe: TransformerEncoderRecipe | TransformerDecoderRecipe) -> FeedForward:
    return FeedForward(recipe.size, recipe.feed_forward, recipe.activation, recipe.feed_forward_dropout)


def build_encoder(
    recipe: RecurrentEncoderRecipe | TransformerEncoderRecipe, embedding: Embeds
) -> RecurrentEncoder | TransformerEncoder:
    """The encoder of a recipe upon that embedding; a Transformer is still to be initialised."""
    if isinstance(recipe, RecurrentEncoderRecipe):
        dropout = Dropout(recipe.dropout, variational=recipe.variational)
        return RecurrentEncoder(
            embedding, recipe.cell, recipe.size, recipe.layers, recipe.bidirectional, dropout
        )
    layers = [
        EncoderLayer(own, _feed_forward(recipe), recipe.norm, recipe.dropout, window)
        for own, window in _own(recipe, causal=False)
    ]
    return TransformerEncoder(embedding, layers, recipe.norm)


def _decoder(
    recipe: RecurrentDecoderRecipe | TransformerDecoderRecipe, vocabulary: int, source: int
) -> RecurrentDecoder | TransformerDecoder:
    embedding, output = _embedding(recipe, vocabulary), nn.Linear(recipe.output_size, vocabulary)
    if isinstance(recipe, RecurrentDecoderRecipe):
        return _recurrent_decoder(recipe, embedding, output, source)
    layers = [
        DecoderLayer(
            own,
            multi_head(section, recipe.size, source),
            _feed_forward(recipe),
            recipe.norm,
            recipe.dropout,
            window,
        )
        for (own, window), section in zip(_own(recipe, causal=True), recipe.source_attentions, strict=True)
    ]
    decoder = TransformerDecoder(embedding, layers, recipe.norm, output)
    if recipe.copying is not None:
        layer = recipe.copying.layer % recipe.layers
        decoder.copying(Copier(3 * recipe.size, layer, recipe.copying.head))
    return decoder


def _recurrent_decoder(
    recipe: RecurrentDecoderRecipe, embedding: Embedding, output: nn.Linear, source: int
) -> RecurrentDecoder:
    looks: Attention | MultiHead | None = None
    context = 0 if recipe.order == "sutskever" else source
    if recipe.attention is not None and recipe.attention.heads == 1:
        looks = attention(recipe.attention, recipe.size, source)
    elif recipe.attention is not None:
        looks, context = multi_head(recipe.attention, recipe.size, source), recipe.size
    entering = {"bahdanau": context, "cho": context, "sutskever": 0, "luong": 0}[recipe.order]
    if recipe.input_feeding:
        entering = recipe.output_size
    cell = Cell(recipe.cell, recipe.embedding + entering, recipe.size, source, recipe.layers, recipe.dropout)
    sizes = recipe.size, context, recipe.embedding, recipe.output_size
    readout = Readout(recipe.readout, *sizes, recipe.latent, recipe.top)
    dropout = Dropout(recipe.dropout, variational=recipe.variational)
    decoder = RecurrentDecoder(embedding, cell, recipe.order, looks, readout, output, dropout)
    if recipe.copying is not None:
        decoder.copying(Copier(context + recipe.size + recipe.embedding, head=recipe.copying.head))
    return decoder


def initialise(module: nn.Module) -> None:
    """Xavier for matrices, zero for biases (as in Vaswani et al. 2017); embeddings keep their own."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
