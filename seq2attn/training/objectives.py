"""Losses as sums and counts: they are normalised once, over the whole update (`training.py`).

Of the tokens, and of where was looked for them: what attention may be taught besides (`Taught`). An
`Objective` is what training sees of them: it asks a model about a batch, and says what the answer costs.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seq2attn.attention import Attention
from seq2attn.errors import Seq2attnError
from seq2attn.models.decoders import Decoded, Decoder
from seq2attn.training.token_loss import cross_entropy

if TYPE_CHECKING:
    from seq2attn.data.batches import Batch


class Losses(NamedTuple):
    """What a batch costs: sums over what it counts (its `num_targets`), to be divided by the update's."""

    whole: Tensor  # (), what is minimised
    loss: Tensor  # (), the part of it that is reported as the loss, in nats
    nll: Tensor  # (), the negative log-likelihood of the gold, in nats; has no gradient
    parts: Mapping[str, Tensor] = MappingProxyType({})  # what else is reported, by name, before its factor


class Objective(Protocol):
    """What is learnt. Kept outside of models: the same model may learn by several."""

    def forward(self, model: Any, batch: Any) -> Any:
        """The model's answer to a batch; training runs this in its precision."""

    def loss(self, answer: Any, batch: Any) -> Losses:
        """What the answer costs."""

    def updated(self) -> None:
        """An update has been made."""

    def state(self) -> Any:
        """What changes with training, for a checkpoint."""

    def restore(self, state: Any) -> None:
        """Go on from a state."""


# ---- of weights -------------------------------------------------------------------------------------


def coverage(weights: Float[Tensor, "B T S"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """sum_ti min(a_ti, c_ti): looking again where has been looked (See et al. 2017, eq. 13).

    c_t is the sum of the weights *before* t: with a_t in it, each minimum would be a_t, and the loss a
    constant. At most 1 for each token; 0 for the first.
    """
    looked = weights * mask[..., None]
    return torch.minimum(looked, looked.cumsum(1) - looked).sum()


def doubly_stochastic(
    weights: Float[Tensor, "B T S"], mask: Bool[Tensor, "B T"], source_mask: Bool[Tensor, "B S"]
) -> Float[Tensor, ""]:
    """sum_i (1 - sum_t a_ti)^2: every slot is to be looked at once in all (Xu et al. 2015, section 4.2.1)."""
    together = (weights * mask[..., None]).sum(1)
    return ((1 - together).square() * source_mask).sum()


def guided(
    weights: Float[Tensor, "B T S"],
    links: Bool[Tensor, "B T S"] | Float[Tensor, "B T S"],
    mask: Bool[Tensor, "B T"],
) -> Float[Tensor, ""]:
    """- sum_t 1/|A_t| sum_{s in A_t} log a_ts: look where a gold alignment A links (Chen et al. 2016; Garg et
    al. 2019, eq. 5). Tokens without links do not count.

    links[b, t, s]: whether the token that step t predicts is linked to slot s; or how much. A weight of 0
    costs as much as the least number that there is, and cannot learn from that.
    """
    shares = links.to(weights.dtype) * mask[..., None]
    total = shares.sum(-1, keepdim=True)
    return -(shares / (total + (total == 0)) * _log(weights)).sum()


def entropy(weights: Float[Tensor, "B *l T S"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """sum_t H(a_t) = - sum_ti a_ti log a_ti, in nats; of all layers and heads, where there are several."""
    return -((weights * _log(weights)).sum(-1) * _like(mask, weights)).sum()


def reinforce(
    weights: Float[Tensor, "B *l T S"],
    sampled: Float[Tensor, "B *l T S"],
    advantage: Float[Tensor, " B"],
    mask: Bool[Tensor, "B T"],
) -> Float[Tensor, ""]:
    """- sum_b advantage_b sum_t log p(drawn slot), whose gradient is, on average over the draws, that of
    minus the expected reward (Williams 1992; Xu et al. 2015, eq. 12), whatever is subtracted from the reward
    to make the advantage.

    sampled is one-hot; a row that is not (an expectation, or nothing to see) was not sampled and does not
    count.
    The advantage is a number: nothing is learnt through it.
    """
    hit = (sampled.detach() == 1).to(weights.dtype)
    log_p = _log((weights * hit).sum(-1)) * hit.sum(-1) * _like(mask, weights)
    return -(log_p.flatten(1).sum(1) * advantage.detach()).sum()


def _log(weights: Tensor) -> Tensor:
    """log a, but of the least number where a is 0: finite, and without a gradient there."""
    return weights.clamp(min=torch.finfo(weights.dtype).tiny).log()


def _like(mask: Tensor, weights: Tensor) -> Tensor:
    """A mask (B, T) for (B, ..., T): the weights without their last axis."""
    return mask.view(len(mask), *[1] * (weights.dim() - 3), -1)


class AttentionLosses:
    """What a model's attention is taught besides predicting tokens.

    factors: coverage, doubly_stochastic, guided, reinforce, entropy -> by what each is multiplied. (Entropy
    is a reward, with a minus.)
    layer, head: which weights the first three mean. None: of the last layer the mean of the heads; but guided
    takes the first head of the layer before the last (Garg et al. 2019), so that others stay free. In a
    decoder that copies, None is the layer that says what, and there its head: as it looks, so it copies.
    The last two are of all layers and heads. Their reward is a sentence's mean log-likelihood, less the
    `baseline`: its moving average, 0.9 old and 0.1 new, over the updates. In the first update there is none
    yet, so nothing is reinforced.
    """

    def __init__(
        self,
        factors: Mapping[str, float],
        decoder: Decoder,
        layer: int | None = None,
        head: int | None = None,
    ) -> None:
        count = decoder.attention_layers
        if not count:
            raise Seq2attnError("training.attention_losses need attention, and this decoder has none")
        if layer is not None and not -count <= layer < count:
            raise Seq2attnError(
                f"training.attention_losses.layer: the decoder has {count} attention layers, 0 to "
                f"{count - 1}; got {layer}"
            )
        if "reinforce" in factors and not _draws(decoder):
            raise Seq2attnError(
                "training.attention_losses.reinforce needs slots that are drawn: set the decoder's "
                "normalizer to hard"
            )
        self.factors = {**factors}
        self.layer, self.guided_layer, self.head, self.guided_head = _layers_and_heads(decoder, layer, head)
        layers = {self.layer} if factors.keys() & {"coverage", "doubly_stochastic"} else set()
        layers |= {self.guided_layer} if "guided" in factors else set()
        self.look = [*range(count)] if factors.keys() & {"reinforce", "entropy"} else sorted(layers)
        self.baseline: float | None = None
        self._rewards: list[Tensor] = []

    def terms(
        self, decoded: Decoded, gold: Tensor, mask: Tensor, source_mask: Tensor, links: Tensor | None
    ) -> dict[str, Tensor]:
        """Each loss, a sum over the tokens that count (mask, (B, T)), before its factor."""
        if decoded.weights is None:
            raise Seq2attnError("the decoder gave no weights: its forward must look at the layers named")
        weights, found = decoded.weights, {}
        if "coverage" in self.factors:
            found["coverage"] = coverage(self._one(weights, self.layer, self.head), mask)
        if "doubly_stochastic" in self.factors:
            one = self._one(weights, self.layer, self.head)
            found["doubly_stochastic"] = doubly_stochastic(one, mask, source_mask)
        if "guided" in self.factors:
            if links is None:
                raise Seq2attnError(
                    "training.attention_losses.guided needs gold alignments, and the training data have none"
                )
            found["guided"] = guided(self._one(weights, self.guided_layer, self.guided_head), links, mask)
        if "reinforce" in self.factors:
            found["reinforce"] = self._reinforced(decoded, gold, mask)
        if "entropy" in self.factors:
            found["entropy"] = entropy(weights, mask)
        return found

    def total(self, terms: Mapping[str, Tensor]) -> Tensor | float:
        """What is added to the loss."""
        signs = {"entropy": -1}
        return sum(signs.get(name, 1) * self.factors[name] * value for name, value in terms.items())

    def updated(self) -> None:
        """An update has been made: its rewards enter the baseline."""
        if self._rewards:
            mean = float(torch.cat(self._rewards).mean())
            self.baseline = mean if self.baseline is None else 0.9 * self.baseline + 0.1 * mean
        self._rewards.clear()

    def _one(self, weights: Tensor, layer: int, head: int | None) -> Tensor:
        """(B, T, S) of a layer: one head's, or their mean."""
        of_layer = weights[:, self.look.index(layer)]
        if head is None:
            return of_layer.mean(1)
        if head >= of_layer.shape[1]:
            raise Seq2attnError(
                f"training.attention_losses.head: the layer has {of_layer.shape[1]} heads; got {head}"
            )
        return of_layer[:, head]

    def _reinforced(self, decoded: Decoded, gold: Tensor, mask: Tensor) -> Tensor:
        if decoded.weights is None or decoded.sampled is None:
            raise Seq2attnError("reinforce needs Decoded.drawn, and this decoder does not return it")
        logits = decoded.logits.detach().float()
        log_p = logits.gather(-1, gold[..., None]).squeeze(-1) - logits.logsumexp(-1)
        reward = (log_p * mask).sum(1) / mask.sum(1).clamp(min=1)
        self._rewards.append(reward)
        advantage = reward - (reward if self.baseline is None else self.baseline)
        return reinforce(decoded.weights, decoded.sampled, advantage, mask)


class TokenObjective:
    """To predict the next token (cross-entropy), and what attention is taught besides, if anything."""

    def __init__(self, smoothing: float = 0.0, attention_losses: AttentionLosses | None = None) -> None:
        self.smoothing, self.attention_losses = smoothing, attention_losses

    def forward(self, model: Any, batch: "Batch") -> Decoded:
        """See Objective; model is a Seq2Seq."""
        look = self.attention_losses.look if self.attention_losses else ()
        decoded: Decoded = model(batch.source, batch.target_input, look)
        return decoded

    def loss(self, answer: Decoded, batch: "Batch") -> Losses:
        """See Objective."""
        gold, mask, copy_ids = batch.target, batch.target_mask, batch.source.copy_ids
        beyond = 0 if copy_ids is None else copy_ids.shape[1]
        loss = cross_entropy(answer.predicted, gold, mask, self.smoothing, beyond)
        if not self.attention_losses:
            return Losses(loss.smoothed, *loss)
        terms = self.attention_losses.terms(answer, gold, mask, batch.source.mask, batch.links)
        return Losses(loss.smoothed + self.attention_losses.total(terms), *loss, terms)

    def updated(self) -> None:
        """See Objective."""
        if self.attention_losses:
            self.attention_losses.updated()

    def state(self) -> float | None:
        """See Objective: the baseline of rewards."""
        return None if self.attention_losses is None else self.attention_losses.baseline

    def restore(self, state: float | None) -> None:
        """See Objective."""
        if self.attention_losses is not None:
            self.attention_losses.baseline = state


def guided_head(decoder: Decoder, layer: int | None, head: int | None) -> tuple[int, int | None]:
    """Return the layer and the head that guided attention trains (`AttentionLosses`)."""
    _, guided_layer, _, guided = _layers_and_heads(decoder, layer, head)
    return guided_layer, guided


def _layers_and_heads(
    decoder: Decoder, layer: int | None, head: int | None
) -> tuple[int, int, int | None, int | None]:
    """The layers of coverage (and the doubly stochastic) and of guided, and likewise the heads."""
    count, pointer_generator = decoder.attention_layers, decoder.pointer_generator
    if layer is None and pointer_generator is not None:
        head = pointer_generator.head if head is None else head
        return pointer_generator.layer, pointer_generator.layer, head, head
    first = 0 if head is None else head
    if layer is None:
        return count - 1, max(0, count - 2), head, first
    return layer % count, layer % count, head, first


def _draws(decoder: Decoder) -> bool:
    """Whether a part of it looks at what it draws."""
    normalizers = (part.normalize for part in decoder.modules() if isinstance(part, Attention))
    return any(one.samples() for one in normalizers)
