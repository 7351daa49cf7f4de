"""What a recipe may say about an attention, and about copying by its weights."""

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
    """Which sentences of a source are looked at scales which of their words are (Nallapati et al. 2016)."""

    score: Annotated[Part, Choice(SCORERS)] = Field(
        "additive", validate_default=True, description="How queries and sentences are scored."
    )

    def faults(self) -> Iterator[Fault]:
        """A scorer that can score sentences."""
        if (why := sentence_incompatibility(SCORERS[self.score.name])) is not None:
            yield Fault("score", why)


class AttentionRecipe(Section):
    """One attention: how it scores and normalizes, and with how many heads."""

    score: Annotated[Part, Choice(SCORERS)] = Field(
        "scaled_dot", validate_default=True, description="How queries and keys are scored."
    )
    normalize: Annotated[Part, Choice(NORMALIZERS)] = Field(
        "softmax", validate_default=True, description="How scores become weights."
    )
    heads: Size = Field(1, description="In a recurrent decoder, one head attends without projections.")
    dropout: Rate = Field(0.0, description="Of the weights, in training.")
    key_heads: Size | None = Field(
        None, description="Heads of keys and values, which several heads share: 1 for all; as many, if null."
    )
    query_key_norm: bool = Field(False, description="Layer normalization of each head's queries and keys.")
    talking: bool = Field(
        False, description="Heads mix their scores and their weights (Shazeer et al. 2020)."
    )
    window: Size | None = Field(
        None, description="Self-attention sees this many tokens on each side, its own included; all, if null."
    )
    sinks: int = Field(0, ge=0, description="First tokens of a sentence that stay visible beyond the window.")
    sentences: SentencesRecipe | None = Field(
        None, description="Also look at the source's sentences, which its line feeds part; not, if null."
    )

    def faults(self) -> Iterator[Fault]:
        """What several heads ask of each other, and what needs a window."""
        if self.heads % (self.key_heads or 1):
            yield Fault("key_heads", f"{self.key_heads} heads of keys do not divide {self.heads} heads")
        if self.talking and self.heads == 1:
            yield Fault("talking", "one head has nobody to talk to: set heads")
        elif self.talking:
            for part in self._parts():
                if (why := talking_incompatibility(part)) is not None:
                    yield Fault("talking", why)
        if self.sinks and self.window is None:
            yield Fault("sinks", "without a window every token stays visible: set window, or sinks to 0")

    def divided(self, path: str, size: int, rotary: bool = False) -> Iterator[Fault]:
        """Faults of dividing a size among the heads."""
        if size % self.heads:
            yield Fault(f"{path}.heads", f"{self.heads} heads do not divide the size {size}")
        elif rotary and (size // self.heads) % 2:
            yield Fault(f"{path}.heads", f"rotary positions need an even head size, got {size // self.heads}")

    def incompatibilities(self, path: str, role: str) -> Iterator[Fault]:
        """Faults of parts that make no sense together, or in this role."""
        names = self.score.name, self.normalize.name
        for field, why in incompatibilities(
            *self._parts(), role, hierarchy=self.sentences is not None, names=names
        ):
            yield Fault(f"{path}.{field}", why)
        if self.window is not None and role != "self-attention":
            yield Fault(
                f"{path}.window", "a window goes along with its query in self-attention alone; set it to null"
            )

    def uncounted(self, path: str) -> Iterator[Fault]:
        """Faults of parts that count the places of slots, where a decoder keeps its window alone."""
        score, normalize = self._parts()
        reads = {self.score.name: score.position_dependent, self.normalize.name: normalize.position_dependent}
        if self.window is not None and any(reads.values()):
            counting = " and ".join(name for name, places in reads.items() if places)
            yield Fault(
                f"{path}.window",
                f"a decoder keeps its window alone, and {counting} would count other places in decoding than "
                "in training: set it to null",
            )

    def _parts(self) -> tuple[type[Scorer], type[Normalizer]]:
        return SCORERS[self.score.name], NORMALIZERS[self.normalize.name]

    def scores(self) -> Iterator[tuple[str, Part]]:
        """Its scorers, each with its path."""
        yield "score", self.score
        if self.sentences is not None:
            yield "sentences.score", self.sentences.score

    def uncopied(self) -> str | None:
        """Why its weights cannot say what is copied; None if they can."""
        with torch.random.fork_rng(devices=()):  # its options decide whether weights sum to 1
            normalize = self.normalize.make(NORMALIZERS)
        if self.talking:
            return "needs weights that sum to 1, and those of heads that talk may sum to less or more"
        if not normalize.sums_to_one:
            return f"needs weights that sum to 1, and those of {self.normalize.name} may sum to less or more"
        return None

    def plain(self, path: str) -> Iterator[Fault]:
        """Faults of one head without projections."""
        if self.query_key_norm:
            yield Fault(
                f"{path}.query_key_norm",
                "one head of a recurrent decoder has no projections to normalize: set heads, or use cosine",
            )


def _one_or_each(value: Any) -> Any:
    if isinstance(value, list):
        return TypeAdapter(list[AttentionRecipe]).validate_python(value)
    return AttentionRecipe.model_validate(value)


PerLayer = Annotated[AttentionRecipe | list[AttentionRecipe], BeforeValidator(_one_or_each)]


class CopyingRecipe(Section):
    """Whose weights on the source say what is copied (pointer-generator, See et al. 2017)."""

    layer: int = Field(-1, description="Of a Transformer, from 0; -1 = the last.")
    head: Count | None = Field(None, description="From 0; null = the mean of all.")

    def incompatibilities(self, attentions: list[AttentionRecipe]) -> Iterator[Fault]:
        """Faults of copying by one of these layers of attention."""
        count, heads = len(attentions), attentions[0].heads
        if self.head is not None and self.head >= heads:
            yield Fault("copying.head", f"the heads are 0 to {heads - 1}, got {self.head}")
        if not -count <= self.layer < count:
            yield Fault(
                "copying.layer",
                f"the decoder's layers with attention are 0 to {count - 1}, got {self.layer}",
            )
        elif (why := attentions[self.layer].uncopied()) is not None:
            yield Fault("copying", why)


class _Switch:
    """Marks a section that true stands for as it is, and false leaves out."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.switched, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "boolean"}, handler(schema)]}

    def switched(self, value: Any) -> Any:
        """A section, or None."""
        if isinstance(value, bool):
            return CopyingRecipe() if value else None
        if value is None or isinstance(value, dict | CopyingRecipe):
            return value
        raise fault(f"expected true, false, or {{layer: ..., head: ...}}, got {shown(value)}")


Copying = Annotated[CopyingRecipe | None, _Switch()]
COPYING = "Say pieces of the source, too, also unknown ones: true, or whose weights say which."
