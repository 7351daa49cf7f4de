"""Sections of a recipe: an attention, and copying by its weights."""

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from seq2attn.attention import Normalizer, Scorer, incompatibilities
from seq2attn.attention.heads import talking_incompatibility
from seq2attn.attention.hierarchy import sentence_incompatibility
from seq2attn.attention.normalizers import NORMALIZERS
from seq2attn.attention.scorers import SCORERS
from seq2attn.recipe.sections import Choice, Count, Fault, Part, Rate, Section, Size, fault
from seq2attn.recipe.wording import shown


class SentencesRecipe(Section):
    """Hierarchical attention: the weights of words are scaled by attention weights of their sentences
    (Nallapati et al. 2016)."""

    score: Annotated[Part, Choice(SCORERS)] = Field(
        "additive", validate_default=True, description="Scoring function of queries and sentences."
    )

    def faults(self) -> Iterator[Fault]:
        """Find a scorer that cannot score sentences."""
        if (why := sentence_incompatibility(SCORERS[self.score.name])) is not None:
            yield Fault("score", why)


class AttentionRecipe(Section):
    """An attention mechanism: scoring function, normalization and heads."""

    score: Annotated[Part, Choice(SCORERS)] = Field(
        "scaled_dot", validate_default=True, description="Scoring function of queries and keys."
    )
    normalize: Annotated[Part, Choice(NORMALIZERS)] = Field(
        "softmax", validate_default=True, description="Function that turns scores into weights."
    )
    heads: Size = Field(
        1, description="Number of heads. In recurrent models, a single head has no projections."
    )
    dropout: Rate = Field(0.0, description="Dropout rate of the attention weights.")
    key_heads: Size | None = Field(
        None,
        description="Number of key and value heads (grouped-query attention); 1 = multi-query attention; "
        "null = as many as `heads`.",
    )
    query_key_norm: bool = Field(
        False, description="Apply layer normalization to the queries and keys of each head."
    )
    talking: bool = Field(
        False, description="Talking heads: mix scores and weights across heads (Shazeer et al. 2020)."
    )
    window: Size | None = Field(
        None,
        description="Sliding window: self-attention attends to this many tokens in each direction, "
        "counting the token itself; null = all tokens.",
    )
    sinks: int = Field(
        0, ge=0, description="Number of first tokens that stay visible outside the window (attention sinks)."
    )
    sentences: SentencesRecipe | None = Field(
        None,
        description="Hierarchical attention over the sentences of the source, which line feeds separate; "
        "null = none.",
    )

    def faults(self) -> Iterator[Fault]:
        """Find numbers of heads that do not fit, and settings that need a window."""
        if self.heads % (self.key_heads or 1):
            yield Fault("key_heads", f"{self.key_heads} key heads do not divide {self.heads} heads")
        if self.talking and self.heads == 1:
            yield Fault("talking", "talking heads need at least two heads: set heads")
        elif self.talking:
            for part in self._parts():
                if (why := talking_incompatibility(part)) is not None:
                    yield Fault("talking", why)
        if self.sinks and self.window is None:
            yield Fault("sinks", "without a window every token stays visible: set window, or sinks to 0")

    def head_size_faults(self, path: str, size: int, rotary: bool = False) -> Iterator[Fault]:
        """Find faults of dividing a size among the heads."""
        if size % self.heads:
            yield Fault(f"{path}.heads", f"{self.heads} heads do not divide the size {size}")
        elif rotary and (size // self.heads) % 2:
            yield Fault(f"{path}.heads", f"rotary positions need an even head size, got {size // self.heads}")

    def incompatibilities(self, path: str, role: str) -> Iterator[Fault]:
        """Find parts that cannot be combined, or cannot be used in this role."""
        names = self.score.name, self.normalize.name
        for field, why in incompatibilities(
            *self._parts(), role, hierarchy=self.sentences is not None, names=names
        ):
            yield Fault(f"{path}.{field}", why)
        if self.window is not None and role != "self-attention":
            yield Fault(
                f"{path}.window",
                "only self-attention can have a window, which moves with its query: set it to null",
            )

    def window_faults(self, path: str) -> Iterator[Fault]:
        """Find parts that depend on key positions where a decoder keeps only the keys of its window."""
        score, normalize = self._parts()
        dependent = [
            name
            for name, part in ((self.score.name, score), (self.normalize.name, normalize))
            if part.position_dependent
        ]
        if self.window is not None and dependent:
            yield Fault(
                f"{path}.window",
                f"a decoder keeps only the keys of its window, so {' and '.join(dependent)} would see other "
                "positions in decoding than in training: set it to null",
            )

    def _parts(self) -> tuple[type[Scorer], type[Normalizer]]:
        return SCORERS[self.score.name], NORMALIZERS[self.normalize.name]

    def scorers(self) -> Iterator[tuple[str, Part]]:
        """Return its scorers, each with its path."""
        yield "score", self.score
        if self.sentences is not None:
            yield "sentences.score", self.sentences.score

    def copying_incompatibility(self) -> str | None:
        """Return why its weights cannot be copy probabilities; None if they can."""
        with torch.random.fork_rng(devices=()):  # its options decide whether weights sum to 1
            normalize = self.normalize.make(NORMALIZERS)
        if self.talking:
            return "needs weights that sum to 1, and those of talking heads may sum to less or more"
        if not normalize.sums_to_one:
            return f"needs weights that sum to 1, and those of {self.normalize.name} may sum to less or more"
        return None

    def source_faults(self, path: str, size: int) -> Iterator[Fault]:
        """Find faults of attention to the source by queries of this size, where a single head has no
        projections."""
        yield from self.incompatibilities(path, "target to source")
        if self.heads > 1:
            yield from self.head_size_faults(path, size)
        elif self.query_key_norm:
            yield Fault(
                f"{path}.query_key_norm",
                "a single head has no projections to normalize: set heads, or use cosine",
            )


def _one_or_each(value: Any) -> Any:
    if isinstance(value, list):
        return TypeAdapter(list[AttentionRecipe]).validate_python(value)
    return AttentionRecipe.model_validate(value)


PerLayer = Annotated[AttentionRecipe | list[AttentionRecipe], BeforeValidator(_one_or_each)]


class CopyingRecipe(Section):
    """Pointer-generator copying: the attention whose weights are the copy distribution (See et al. 2017)."""

    layer: int = Field(-1, description="Layer of a Transformer, from 0; -1 = the last.")
    head: Count | None = Field(None, description="Head, from 0; null = the mean of all heads.")

    def incompatibilities(self, attentions: list[AttentionRecipe]) -> Iterator[Fault]:
        """Find faults of copying by one of these layers of attention."""
        count, heads = len(attentions), attentions[0].heads
        if self.head is not None and self.head >= heads:
            yield Fault("copying.head", f"the heads are 0 to {heads - 1}, got {self.head}")
        if not -count <= self.layer < count:
            yield Fault(
                "copying.layer",
                f"the decoder's layers with attention are 0 to {count - 1}, got {self.layer}",
            )
        elif (why := attentions[self.layer].copying_incompatibility()) is not None:
            yield Fault("copying", why)


class ShiftHeadRecipe(Section):
    """A further attention to the source, for alignments only: nothing that the model writes depends on it.
    The weights of a word are those of the step that has read it (Chen et al. 2020)."""

    layer: int | None = Field(
        None,
        description="Layer of a Transformer whose states are the queries, from 0; -1 = the last; null = the "
        "middle one (the third of six).",
    )
    score: Annotated[Part, Choice(SCORERS)] = Field(
        "scaled_dot", validate_default=True, description="Scoring function of queries and keys."
    )

    def faults_beside(self, attentions: list[AttentionRecipe]) -> Iterator[Fault]:
        """Find faults of a head beside these layers of attention."""
        count = len(attentions)
        if not count:
            yield Fault(
                "shift_head", "needs a decoder with attention to the source: give it one, or null here"
            )
        elif self.layer is not None and not -count <= self.layer < count:
            yield Fault("shift_head.layer", f"the decoder's layers are 0 to {count - 1}, got {self.layer}")
        yield from AttentionRecipe(score=self.score).incompatibilities("shift_head", "target to source")


class _Switch:
    """Marks a section that may also be true (the section with its defaults) or false (null)."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.switched, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "boolean"}, handler(schema)]}

    def switched(self, value: Any) -> Any:
        """Return the section that a value stands for, or None."""
        if isinstance(value, bool):
            return CopyingRecipe() if value else None
        if value is None or isinstance(value, dict | CopyingRecipe):
            return value
        raise fault(f"expected true, false, or {{layer: ..., head: ...}}, got {shown(value)}")


Copying = Annotated[CopyingRecipe | None, _Switch()]
COPYING = (
    "Copy pieces of the source, also those that the vocabulary lacks (pointer-generator): true, or a section "
    "that says by which attention."
)


class AttendingDecoderRecipe(Section):
    """What decoders with attention to the source may have beside it."""

    copying: Copying = Field(None, description=COPYING)
    shift_head: ShiftHeadRecipe | None = Field(
        None,
        description="A head for alignments alone, which training.attention_losses.guided trains (Chen et al. "
        "2020): {} or {layer: ...}; null = none.",
    )

    def shift_head_faults(self, attentions: list[AttentionRecipe]) -> Iterator[Fault]:
        """Find faults of the shift head beside these layers of attention, if there is one."""
        if self.shift_head is not None:
            yield from self.shift_head.faults_beside(attentions)
