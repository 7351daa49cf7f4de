"""Losses of predicted tokens and of attention weights (`AttentionLosses`).

All losses are sums over a batch; the training loop divides them once, by the number of tokens of the whole
update (`training/loop.py`). It uses them through an `Objective`, which runs a model on a batch and returns
the losses of the output.

Letters: B batch, T target tokens, S source positions, L layers, H heads.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seq2attn.attention import Attention
from seq2attn.attention.masks import check_mask
from seq2attn.errors import Seq2attnError
from seq2attn.layers.token_loss import CrossEntropy, TokenLoss
from seq2attn.models.decoders import Decoded, Decoder
from seq2attn.runtime.distributed import ALONE, Group

if TYPE_CHECKING:
    from seq2attn.data.batches import Batch


class Losses(NamedTuple):
    """The losses of a batch: sums over its predictions."""

    whole: Tensor  # (), minimised
    loss: Tensor  # (), the part of `whole` that is reported as the loss, in nats
    # (), the negative log-likelihood of the target, in nats, without a gradient; None: the loss is none
    nll: Tensor | None
    parts: Mapping[str, Tensor] = MappingProxyType({})  # other reported losses, by name, before their factors
    # (), what the sums of all batches of an update are divided by, without a gradient, if only the output
    # tells it; None: the batch's num_targets
    divisor: Tensor | None = None

    def divisor_in(self, batch: Any) -> float:
        """Return the batch's share in what the sums of an update are divided by."""
        return float(batch.num_targets if self.divisor is None else self.divisor)


class Objective(Protocol):
    """A training objective. It is not part of the model, so that a model can be trained with different
    ones."""

    def forward(self, model: Any, batch: Any) -> Any:
        """Return the model's output for a batch; training runs this in its precision."""

    def loss(self, output: Any, batch: Any) -> Losses:
        """Return the losses of the output."""

    def updated(self, group: Group = ALONE) -> None:
        """Adapt the state after an update; called once per update, in all processes."""

    def state(self) -> Any:
        """Return the state that changes with training, for a checkpoint."""

    def restore(self, state: Any) -> None:
        """Restore a state that `state` returned."""


# ---- losses of attention weights ---------------------------------------------------------------------


def coverage(weights: Float[Tensor, "B T S"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Return sum_ti min(a_ti, c_ti), which penalises attending to a position twice (See et al. 2017, eq. 13).

    c_t is the sum of the weights *before* t: if it included a_t, each minimum would be a_t, and the loss a
    constant. The loss is at most 1 for each token, and 0 for the first.
    """
    weights = weights * _of_tokens(mask, weights)
    return torch.minimum(weights, weights.cumsum(1) - weights).sum()


def doubly_stochastic(
    weights: Float[Tensor, "B T S"], mask: Bool[Tensor, "B T"], source_mask: Bool[Tensor, "B S"]
) -> Float[Tensor, ""]:
    """Return sum_i (1 - sum_t a_ti)^2: the weights of every source position should sum to 1 over all steps
    (Xu et al. 2015, section 4.2.1)."""
    check_mask(source_mask, (len(weights), weights.shape[-1]), "(B, S), True = a source token")
    totals = (weights * _of_tokens(mask, weights)).sum(1)  # (B, S)
    return ((1 - totals).square() * source_mask).sum()


def guided(
    weights: Float[Tensor, "B T S"],
    links: Bool[Tensor, "B T S"] | Float[Tensor, "B T S"],
    mask: Bool[Tensor, "B T"],
    shift: int = 0,
) -> Float[Tensor, ""]:
    """Return - sum_t 1/|A_t| sum_{s in A_t} log a_ts, the cross-entropy with a gold alignment A (Chen et al.
    2016; Garg et al. 2019, eq. 5). Tokens without links do not count.

    links[b, t, s]: whether the token that step t predicts is linked to source position s, or how strongly. A
    weight of 0 counts as the smallest positive number, and gets no gradient.
    shift: with 1 the weights of a token are those of the step that has read it, t + 1 (Chen et al. 2020).
    """
    if shift:
        weights, links, mask = weights[:, shift:], links[:, :-shift], mask[:, shift:]
    links = links.to(weights.dtype) * _of_tokens(mask, weights)  # (B, T, S)
    total = links.sum(-1, keepdim=True)  # (B, T, 1)
    return -(links / (total + (total == 0)) * _log(weights)).sum()


def entropy(weights: Float[Tensor, "B *l T S"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Return sum_t H(a_t) = - sum_ti a_ti log a_ti, in nats, summed over layers and heads."""
    return -((weights * _log(weights)).sum(-1) * _of_tokens(mask, weights).squeeze(-1)).sum()


def reinforce(
    weights: Float[Tensor, "B *l T S"],
    sampled: Float[Tensor, "B *l T S"],
    advantage: Float[Tensor, " B"],
    mask: Bool[Tensor, "B T"],
) -> Float[Tensor, ""]:
    """Return - sum_b advantage_b sum_t log p(sampled position).

    Its gradient is, on average over the samples, that of minus the expected reward (Williams 1992; Xu et al.
    2015, eq. 12), for any baseline that is subtracted from the reward to get the advantage.

    sampled: one-hot rows; other rows (an expectation, or all-masked) were not sampled and do not count.
    advantage: gets no gradient.
    """
    one_hot = (sampled.detach() == 1).to(weights.dtype)  # (B, ..., T, S)
    sampled_tokens = one_hot.sum(-1) * _of_tokens(mask, weights).squeeze(-1)  # (B, ..., T)
    log_p = _log((weights * one_hot).sum(-1)) * sampled_tokens
    return -(log_p.flatten(1).sum(1) * advantage.detach()).sum()


def _log(weights: Tensor) -> Tensor:
    """Return log a; where a is 0, that of the smallest positive number, without a gradient."""
    return weights.clamp(min=torch.finfo(weights.dtype).tiny).log()


def _of_tokens(mask: Tensor, weights: Tensor) -> Tensor:
    """Return a mask (B, T) so that it broadcasts to weights (B, ..., T, S)."""
    check_mask(mask, (len(weights), weights.shape[-2]), "(B, T), True = a target token")
    return mask.view(len(mask), *[1] * (weights.dim() - 3), -1, 1)


class AttentionLosses:
    """Losses of a decoder's attention weights, which are added to the loss of the tokens.

    factors: of coverage, doubly_stochastic, guided, reinforce and entropy. (Entropy is a reward, with a
    minus.)
    layer, head: the weights of the first three losses. None: the mean of the heads of the last layer; for
    guided, the first head of the second to last layer (Garg et al. 2019), so that the other heads are not
    constrained; or the shift head, if the decoder has one. In a decoder with a pointer generator, None is the
    pointer generator's layer and head, so that the losses train the weights that copy.

    The last two losses use all layers and heads. The reward is a sentence's mean log-likelihood. The
    advantage is the reward minus the `baseline`, a moving average of the rewards over the updates (0.9 old
    and 0.1 new). In the first update there is no baseline yet, and the advantage is 0.
    """

    def __init__(
        self,
        factors: Mapping[str, float],
        decoder: Decoder,
        layer: int | None = None,
        head: int | None = None,
    ) -> None:
        count = decoder.own_layers
        if not count:
            raise Seq2attnError("training.attention_losses need attention, and this decoder has none")
        if layer is not None and not -count <= layer < count:
            raise Seq2attnError(
                f"training.attention_losses.layer: the decoder has {count} attention layers, 0 to "
                f"{count - 1}; got {layer}"
            )
        if "reinforce" in factors and not _samples(decoder):
            raise Seq2attnError(
                "training.attention_losses.reinforce needs sampled positions: set the decoder's normalizer "
                "to hard"
            )
        self.factors = {**factors}
        heads = _trained_heads(decoder, layer, head)
        self.layer, self.head = heads.layer, heads.head
        self.guided_layer, self.guided_head = heads.guided_layer, heads.guided_head
        layers = {self.layer} if factors.keys() & {"coverage", "doubly_stochastic"} else set()
        layers |= {self.guided_layer} if "guided" in factors else set()
        # the layers whose weights are needed
        layers |= {*range(count)} if factors.keys() & {"reinforce", "entropy"} else set()
        self.layers, self.own_layers = sorted(layers), count
        self.guided_shift = int(decoder.is_shift_head(self.guided_layer))
        self.baseline: float | None = None
        self._rewards: list[Tensor] = []

    def terms(
        self,
        decoded: Decoded,
        target: Int[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
        source_mask: Bool[Tensor, "B S"],
        links: Bool[Tensor, "B T S"] | Float[Tensor, "B T S"] | None,
    ) -> dict[str, Tensor]:
        """Return each loss, a sum over the tokens under the mask, before its factor."""
        if decoded.weights is None:
            raise Seq2attnError(
                "the decoder returned no weights: its forward must return those of the layers weights_of"
            )
        weights, terms = decoded.weights, dict[str, Tensor]()  # (B, L, H, T, S)
        if "coverage" in self.factors:
            terms["coverage"] = coverage(self._select(weights, self.layer, self.head), mask)
        if "doubly_stochastic" in self.factors:
            selected = self._select(weights, self.layer, self.head)
            terms["doubly_stochastic"] = doubly_stochastic(selected, mask, source_mask)
        if "guided" in self.factors:
            if links is None:
                raise Seq2attnError(
                    "training.attention_losses.guided needs gold alignments, and the training data have none"
                )
            selected = self._select(weights, self.guided_layer, self.guided_head)
            terms["guided"] = guided(selected, links, mask, self.guided_shift)
        if "reinforce" in self.factors:
            terms["reinforce"] = self._reinforce(decoded, target, mask)
        if "entropy" in self.factors:
            terms["entropy"] = entropy(weights[:, : self.own_layers], mask)
        return terms

    def total(self, terms: Mapping[str, Tensor]) -> Tensor | float:
        """Return the sum of the terms times their factors, which is added to the loss."""
        signs = {"entropy": -1}
        return sum(signs.get(name, 1) * self.factors[name] * value for name, value in terms.items())

    def state(self) -> float | None:
        """Return the baseline, for a checkpoint."""
        return self.baseline

    def restore(self, state: float | None) -> None:
        """Continue from a baseline."""
        self.baseline = state

    def updated(self, group: Group = ALONE) -> None:
        """Update the baseline with the rewards of the update."""
        rewards = group.all([reward for batch in self._rewards for reward in batch.tolist()])
        if any(rewards):
            values = [reward for of_process in rewards for reward in of_process]
            mean = float(torch.tensor(values, device="cpu").mean())
            self.baseline = mean if self.baseline is None else 0.9 * self.baseline + 0.1 * mean
        self._rewards.clear()

    def _select(self, weights: Tensor, layer: int, head: int | None) -> Tensor:
        """Return the weights (B, T, S) of a layer: those of a head, or the mean of all heads."""
        layer_weights = weights[:, self.layers.index(layer)]  # (B, H, T, S)
        if head is None:
            return layer_weights.mean(1)
        if head >= layer_weights.shape[1]:
            raise Seq2attnError(
                f"training.attention_losses.head: the layer has {layer_weights.shape[1]} heads; got {head}"
            )
        return layer_weights[:, head]

    def _reinforce(self, decoded: Decoded, target: Tensor, mask: Tensor) -> Tensor:
        if decoded.weights is None or decoded.sampled is None:
            raise Seq2attnError("reinforce needs Decoded.sampled, and this decoder does not return it")
        logits = decoded.logits.detach().float()  # (B, T, V)
        log_p = logits.gather(-1, target[..., None]).squeeze(-1) - logits.logsumexp(-1)  # (B, T)
        reward = (log_p * mask).sum(1) / mask.sum(1).clamp(min=1)  # (B,)
        self._rewards.append(reward)
        advantage = reward - (reward if self.baseline is None else self.baseline)
        return reinforce(decoded.weights, decoded.sampled, advantage, mask)


class TokenObjective:
    """Predicts the next token (by default cross-entropy); adds losses of attention weights, if there are
    any."""

    def __init__(
        self, token_loss: TokenLoss | None = None, attention_losses: AttentionLosses | None = None
    ) -> None:
        self.token_loss = CrossEntropy() if token_loss is None else token_loss
        self.attention_losses = attention_losses

    def forward(self, model: Any, batch: "Batch") -> Decoded:
        """See Objective; model is a Seq2Seq."""
        weights_of = self.attention_losses.layers if self.attention_losses else ()
        decoded: Decoded = model(batch.source, batch.target_input, weights_of)
        return decoded

    def loss(self, output: Decoded, batch: "Batch") -> Losses:
        """See Objective."""
        target, mask, copy_ids = batch.target, batch.target_mask, batch.source.copy_ids
        num_copied = 0 if copy_ids is None else copy_ids.shape[1]
        loss = self.token_loss(output.predicted, target, mask, num_copied)
        losses = Losses(whole=loss.smoothed, loss=loss.smoothed, nll=loss.nll)
        if not self.attention_losses:
            return losses
        terms = self.attention_losses.terms(output, target, mask, batch.source.mask, batch.links)
        return losses._replace(whole=loss.smoothed + self.attention_losses.total(terms), parts=terms)

    def updated(self, group: Group = ALONE) -> None:
        """See Objective."""
        if self.attention_losses:
            self.attention_losses.updated(group)

    def state(self) -> float | None:
        """See Objective: the baseline of rewards."""
        return None if self.attention_losses is None else self.attention_losses.state()

    def restore(self, state: float | None) -> None:
        """See Objective."""
        if self.attention_losses is not None:
            self.attention_losses.restore(state)


def guided_head(decoder: Decoder, layer: int | None, head: int | None) -> tuple[int, int | None]:
    """Return the layer and the head that guided attention trains (`AttentionLosses`)."""
    heads = _trained_heads(decoder, layer, head)
    return heads.guided_layer, heads.guided_head


class _TrainedHeads(NamedTuple):
    """The layers and heads of the weights that the losses use."""

    layer: int  # of coverage and doubly_stochastic
    head: int | None  # None: the mean of the heads
    guided_layer: int
    guided_head: int | None


def _trained_heads(decoder: Decoder, layer: int | None, head: int | None) -> _TrainedHeads:
    count, pointer_generator = decoder.own_layers, decoder.pointer_generator
    if layer is None and decoder.shift_head is not None:
        own = count - 1 if pointer_generator is None else pointer_generator.layer
        return _TrainedHeads(own, head, decoder.attention_layers - 1, head)
    if layer is None and pointer_generator is not None:
        layer, head = pointer_generator.layer, pointer_generator.head if head is None else head
        return _TrainedHeads(layer, head, layer, head)
    guided_head = 0 if head is None else head
    if layer is None:
        return _TrainedHeads(count - 1, head, max(0, count - 2), guided_head)
    return _TrainedHeads(layer % count, head, layer % count, guided_head)


def _samples(decoder: Decoder) -> bool:
    """Whether an attention of the decoder samples positions."""
    return any(part.normalize.samples() for part in decoder.modules() if isinstance(part, Attention))
