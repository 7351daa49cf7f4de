"""The mechanisms that the laws are checked on: every scorer with every normalizer, plain and with heads.

Sizes are different primes, so that two swapped sizes cannot agree by luck: 3 sentences, 5 queries, 7 source
positions, queries of 11 per head, states of 13. The second sentence is shorter, the last is empty.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from tiny import Fading
from torch import Tensor

from seq2attn.attention import Attended, Attention, MultiHead, Normalizer, Past, Scorer, incompatibilities
from seq2attn.attention.hierarchy import SentenceAttention
from seq2attn.attention.memory import Memory
from seq2attn.attention.normalizers import NORMALIZERS, Softmax
from seq2attn.attention.scorers import SCORERS, MultiScorer
from seq2attn.errors import Seq2attnError

LENGTHS = torch.tensor([7, 4, 0])


class Repeating(Softmax):
    """A normalizer that follows its past: it prefers the positions that the last query attended to."""

    stateful = True

    def initial_state(self, zeros: Tensor) -> Tensor:
        return zeros + 1

    def step(self, scores: Tensor, mask: Tensor, past: Past, query: Tensor) -> tuple[Tensor, Tensor]:
        weights = self(scores + past.alignment_state.unsqueeze(-2), mask, past, query)
        return weights, weights.squeeze(-2)


# Parts with the options that make them another mechanism; evaluation mode unless a law says otherwise.
# Windows and chunks are smaller than a sentence, or they would be none.
NARROW: dict[str, dict[str, Any]] = {"local_m": {"reach": 1}, "local_p": {"reach": 1}, "mocha": {"width": 2}}
SCORES: dict[str, tuple[type[Scorer], dict[str, Any]]] = {
    **{name: (part, {}) for name, part in SCORERS.items()},
    "fading": (Fading, {}),
}
NORMALIZES: dict[str, tuple[type[Normalizer], dict[str, Any]]] = {
    **{name: (part, NARROW.get(name, {})) for name, part in NORMALIZERS.items()},
    "monotonic expected": (NORMALIZERS["monotonic"], {"hard": False}),
    "mocha expected": (NORMALIZERS["mocha"], {"hard": False, "width": 2}),
    "milk expected": (NORMALIZERS["milk"], {"hard": False}),
    "monotonic zero": (NORMALIZERS["monotonic"], {"hard": False, "exhausted": "zero"}),
    "sigmoid normalized": (NORMALIZERS["sigmoid"], {"normalized": True}),
    "local_p renormalised": (NORMALIZERS["local_p"], {"renormalise": True, "reach": 1}),
    "entmax learned": (NORMALIZERS["entmax"], {"learned": True}),
    "repeating": (Repeating, {}),
}


class Mechanism(NamedTuple):
    """A scorer and a normalizer by their names above, and how an attention uses them."""

    score: str
    normalize: str
    heads: int  # 0 = plain
    width: int = 11  # of queries, per head
    sentence_score: str = ""  # the scorer of the sentences of a hierarchical attention; "" = none

    def __str__(self) -> str:
        return "-".join(str(field) for field in self if field not in ("", 11))

    @property
    def stateful(self) -> bool:
        return _scorer(self.score).stateful or _normalizer(self.normalize).stateful

    @property
    def position_dependent(self) -> bool:
        return _scorer(self.score).position_dependent or _normalizer(self.normalize).position_dependent

    @property
    def positive(self) -> bool:
        """Scores are never negative, and large: a sharp normalizer then gives weights of 0 and 1."""
        return _scorer(self.score).positive

    @property
    def sums_to_one(self) -> bool:
        return _normalizer(self.normalize).sums_to_one

    @property
    def chooses(self) -> bool:
        """The context is the value of one position, or hardly more."""
        return self.normalizes_by("hardmax", "hard", "monotonic", "mocha", "milk")

    @property
    def noisy(self) -> bool:
        """In training, weights or context are random."""
        return self.normalizes_by("gumbel", "hard", "monotonic", "mocha", "milk")

    def normalizes_by(self, *names: str) -> bool:
        return isinstance(_normalizer(self.normalize), tuple(NORMALIZERS[name] for name in names))


@functools.cache
def _scorer(name: str) -> Scorer:
    """For its flags alone."""
    return _made_scorer(name, 11, 11)[0]


@functools.cache
def _normalizer(name: str) -> Normalizer:
    """For its flags alone: some depend on the options."""
    part, options = NORMALIZES[name]
    return part(11, 1, **options)


def _made_scorer(name: str, width: int, key_size: int) -> tuple[Scorer, int]:
    """A scorer for queries of a width, and the size of its keys: the width, too, if sizes must be equal."""
    part, options = SCORES[name]
    try:
        return part(width, key_size, **options), key_size
    except Seq2attnError:
        return part(width, width, **options), width


class Case(NamedTuple):
    """An attention with queries and a source."""

    mechanism: Mechanism
    module: Attention | MultiHead
    query: Tensor  # (3, 5, 11 per head)
    states: Tensor  # (3, 7, 13)
    mask: Tensor  # (3, 1 or 5, 7)

    def remember(self) -> Memory:
        if not self.mechanism.sentence_score:
            return self.module.remember(self.states, self.mask)
        return self.module.remember(self.states, self.mask, sentences=sentence_ids(self.states))

    def attend(self, need_weights: bool = True) -> Attended:
        return self.module(self.query, self.remember(), need_weights=need_weights)

    def plain(self) -> Attended:
        """The answer of the case as it is built, whatever a law has changed since. It is made once."""
        return _plain(self.mechanism)

    def with_(self, **changes: Tensor) -> Attended:
        return self._replace(**changes).attend()

    def rows(self, index: Any) -> "Case":
        return self._replace(query=self.query[index], states=self.states[index], mask=self.mask[index])

    def scattered(self) -> "Case":
        """Each query may attend to other positions; one to none."""
        seed(5)
        mask = (torch.rand(3, 5, 7) < 0.6) & self.mask
        mask[0, 2] = False
        return self._replace(mask=mask)

    def many_sources(self) -> "Case":
        """128 sources without padding, each with 4 queries, for laws of the kind "somewhere, this matters": two
        queries of the same source may well choose the same position.

        Where a scan stops at positions whose score is at least 0, those are half of them.
        """
        seed(7)
        query = 3 * torch.randn(128, 4, self.query.shape[-1]).double()
        states = 2 * torch.randn(128, *self.states.shape[1:]).double()
        mask = torch.ones(128, 1, 7, dtype=torch.bool)
        case = self._replace(query=query, states=states, mask=mask)
        if self.mechanism.normalizes_by("monotonic", "mocha", "milk"):
            outputs: list[Tensor] = []
            hook = self.attention.score.register_forward_hook(lambda *call: outputs.append(call[-1]))
            case.attend()
            hook.remove()
            scores = outputs[0] if self.attention.normalize.n_scores == 1 else outputs[0][0]
            self.attention.normalize.bias.data.fill_(-scores.median())
        return case

    def single(self) -> "Case":
        """In float32."""
        return self._replace(module=self.module.float(), query=self.query.float(), states=self.states.float())

    @property
    def attention(self) -> Attention:
        return self.module.attention if self.mechanism.heads else self.module

    def nothing(self) -> Tensor:
        """The context of a query that attends to nothing: zero, then projected."""
        return self.module.out.bias if self.mechanism.heads else torch.zeros_like(self.states[0, 0])

    def allowed(self, weights: Tensor) -> Tensor:
        """Whether the position of each weight may be attended to."""
        return (self.mask.unsqueeze(1) if self.mechanism.heads else self.mask).expand_as(weights)


def seed(number: int) -> None:
    """Seed the random numbers of the CPU: torch.manual_seed takes as long as a call of an attention."""
    torch.random.default_generator.manual_seed(number)


def build(mechanism: Mechanism) -> Case:
    """In float64 and evaluation."""
    heads, width = mechanism.heads, mechanism.width
    seed(3)
    part, options = NORMALIZES[mechanism.normalize]
    made = [_made_scorer(mechanism.score, width, width if heads else 13) for _ in range(part.n_scores)]
    scorers = [scorer for scorer, _ in made]
    size = 13 if heads else made[0][1]
    score = scorers[0] if len(scorers) == 1 else MultiScorer(scorers)
    module: Any = Attention(score, part(width, heads or 1, **options))
    if heads:
        module = MultiHead(heads, width * heads, size, module)
    query, states = torch.randn(3, 5, width * (heads or 1)), torch.randn(3, 7, size)
    mask = (torch.arange(7) < LENGTHS[:, None])[:, None]
    case = Case(mechanism, module.double().eval(), query.double(), states.double(), mask)
    if not mechanism.sentence_score:
        return case
    of_sentences = SCORERS[mechanism.sentence_score](width, width if heads else size)
    case.attention.hierarchy = SentenceAttention(of_sentences).double().eval()
    return case._replace(states=case.states.masked_fill(~case.mask.mT, 7.0))


@functools.cache
def _plain(mechanism: Mechanism) -> Attended:
    return build(mechanism).attend()


def sentence_ids(states: Tensor) -> Tensor:
    """The sentence of each position, by what is there, so that it follows its position wherever that goes:
    one of four; none if all positions are the same."""
    ids = (states[..., 0] > 0).long() + 2 * (states[..., 1] > 0)
    return ids.masked_fill((states == states[..., :1]).all(-1), -1)


def outputs(attended: Attended) -> list[Tensor]:
    """Context, weights, and all tensors of the past."""
    return [attended.context, attended.weights, *(part for part in attended.past if isinstance(part, Tensor))]


def product() -> Iterator[Mechanism]:
    """Every scorer with every normalizer, in turn plain, with one head and with two; the usual ones in all,
    and with them the variants of normalizers. Linear attention also so narrow that its fused path is used."""
    yield from (Mechanism("linear", "sum", heads, 3) for heads in (0, 1, 2))
    for number, (score, normalize) in enumerate(itertools.product(SCORES, NORMALIZES)):
        usual = score == "additive" or normalize == "softmax"
        parts = SCORES[score][0], NORMALIZES[normalize][0]
        if any(True for _ in incompatibilities(*parts, "target to source")) or not (
            usual or normalize in NORMALIZERS
        ):
            continue
        for heads in (0, 1, 2) if usual else (number % 3,):
            yield Mechanism(score, normalize, heads)


PRODUCT = list(product())
HIERARCHICAL = [
    Mechanism(score, normalize, heads, sentence_score=above)
    for score, normalize, above, heads in (
        ("additive", "softmax", "additive", 0),
        ("additive", "softmax", "general", 2),
        ("scaled_dot", "softmax", "scaled_dot", 1),
        ("general", "softmax_sink", "additive", 2),
        ("cosine", "sparsemax", "gaussian", 2),
        ("general", "sigmoid", "additive", 0),
        ("coverage", "entmax", "additive", 0),
        ("additive", "local_p", "trilinear", 1),
        ("location", "hard", "additive", 2),
        ("additive", "monotonic", "general", 0),
        ("general", "mocha", "additive", 2),
        ("location_sensitive", "ntm", "perceptron", 0),
    )
]
