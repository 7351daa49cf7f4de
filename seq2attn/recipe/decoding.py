"""Section of a recipe: decoding."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import Self

from seq2attn.recipe.sections import Count, Fault, Section, Size

MARGIN = 10  # pieces by which an output may exceed max_length_ratio times the length of its source
RATIO = 3.0  # max_length_ratio where there are no training data
LOWEST_RATIO = 0.01  # that training data give; they are written with two digits, and 0 is no ratio
# max_length_ratio from training data: enough for this share of the pairs, with some to spare; and twice the
# mean ratio, because short pairs need none (MARGIN suffices), but sources to come may be longer
ENOUGH, SPARE, TIMES_MEAN = 0.999, 1.25, 2.0

IntArray = NDArray[np.integer[Any]]


class DecodingRecipe(Section):
    """Decoding: beam search or sampling. These are the defaults of `translate` and `score`, whose options
    change all but length_normalization, max_source, renormalize, search_end and validation_beam."""

    beam: Annotated[int, Field(ge=1, le=500)] = Field(5, description="Beam size; 1 = greedy search.")
    length_normalization: Literal["gnmt", "simple", "none"] = Field(
        "simple",
        description="Divisor of the log-probability of n tokens. gnmt: ((5 + n) / 6)^penalty (Wu et al. "
        "2016); simple: n^penalty.",
    )
    length_penalty: float = Field(
        1.0, ge=0, le=10, description="The exponent `penalty` in length_normalization."
    )
    coverage_penalty: float = Field(
        0.0,
        ge=0,
        description="Factor of the sum of log min(1, attention) over the source pieces (Wu et al. 2016); 0 = "
        "none. With `sample` it only ranks the samples of a sentence.",
    )
    min_length: Count = Field(0, description="Shortest output, in pieces.")
    max_length: Size = Field(256, description="Longest output, in pieces.")
    max_length_ratio: float | None = Field(
        None,
        gt=0,
        description="Longest output as a multiple of the source length, plus 10 pieces; null = from the "
        "training data: 1.25 times what suffices for 99.9 % of the pairs, at least twice the mean ratio.",
    )
    max_source: Size = Field(
        1024, description="Longest source, in pieces; longer ones are truncated, with a warning."
    )
    no_repeat_ngram: Count = Field(
        0, description="Forbid n-grams of this many pieces to occur twice in an output; 0 = allow all."
    )
    replace_unknown: bool = Field(
        False, description="Replace unknown pieces by the source word with the largest attention weight."
    )
    batch_tokens: Size = Field(
        4096, description="Largest number of tokens in a batch: source tokens times beam."
    )
    validation_beam: Size = Field(1, description="Beam size of validation.")
    renormalize: bool = Field(
        False,
        description="Divide probabilities by the sum of those of the pieces that are allowed: without "
        "padding, repeated n-grams and too early ends. Otherwise scores are those of the model.",
    )
    search_end: Literal["exact", "estimated"] = Field(
        "exact",
        description="When a beam search ends. exact: when no open output can still be the best, and never "
        "with a worse one than greedy search; estimated: as in the library Transformers, when `beam` outputs "
        "have ended and no open one is better at its present length.",
    )
    nbest: Size = Field(
        1,
        description="Number of outputs for each source; in beam search, at most the beam size. As an option "
        "of a command or method it raises the recipe's beam, where that is smaller.",
    )
    sample: bool = Field(False, description="Sample outputs instead of searching for the most probable.")
    temperature: float = Field(
        1.0, ge=1e-6, le=1e6, description="Sampling temperature: logits are divided by it."
    )
    top_k: Count = Field(0, description="Sample from the k most probable pieces; 0 = from all.")
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Nucleus sampling: sample from the most probable pieces with this total probability.",
    )
    seed: Count = Field(
        1,
        description="Random seed of sampling; sentence n of an input always gets the same sample.",
    )

    @property
    def signature(self) -> str:
        """The settings, for the signature of scores."""
        search = f"sample:{self.temperature}" if self.sample else f"beam:{self.beam}"
        length = f"{self.length_normalization}^{self.length_penalty:g}"
        coverage = f"|coverage:{self.coverage_penalty:g}" if self.coverage_penalty else ""
        renormalized, end = (
            "|renormalized" * self.renormalize,
            "|end:estimated" * (self.search_end != "exact"),
        )
        return f"{search}|length:{length}{coverage}{renormalized}{end}"

    def limits(self, source_lengths: IntArray) -> IntArray:
        """Return the largest number of pieces of the output of each source, given the sources' lengths with
        </s>."""
        ratio = RATIO if self.max_length_ratio is None else self.max_length_ratio
        longest = np.minimum(ratio * source_lengths + MARGIN, self.max_length)
        limits: IntArray = np.maximum(longest, self.min_length).astype(np.int64)
        return limits

    def fitted(self, source_lengths: IntArray, target_lengths: IntArray) -> Self:
        """Return these settings with the max_length_ratio of training data, if it is null: for the lengths of
        sources with </s>, and of targets without it."""
        if self.max_length_ratio is not None:
            return self
        needed = float(np.quantile((target_lengths - MARGIN) / source_lengths, ENOUGH))
        mean = float(target_lengths.sum() / source_lengths.sum())
        ratio = max(round(max(TIMES_MEAN * mean, SPARE * needed), 2), LOWEST_RATIO)
        return self.model_copy(update={"max_length_ratio": ratio})

    def faults(self) -> Iterator[Fault]:
        """Find lengths and numbers of outputs that contradict each other."""
        if self.min_length > self.max_length:
            yield Fault("min_length", f"{self.min_length} is more than max_length {self.max_length}")
        if not self.sample and self.nbest > self.beam:
            yield Fault(
                "nbest", f"{self.nbest} outputs need a beam of at least {self.nbest}, got {self.beam}"
            )
