"""The alignment as a latent variable: every slot predicts by itself, and the weights mix the predictions.

Soft attention predicts from the mean of the slots, log p(y | E_a v_a); here the alignment a is summed out,
log sum_a w_a p(y | v_a) (Deng et al. 2018, "Latent Alignment and Variational Attention"; Wu, Shapiro and
Cotterell 2018, "Hard Non-Monotonic Attention"). Once y is known, it says which slot was meant: the posterior
w_a p(y | v_a) / sum (Shankar and Sarawagi 2019, "Posterior Attention Models").
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class PositionPredictions(NamedTuple):
    """What a step has predicted, slot by slot, until the token is known. Batch first."""

    word: Tensor  # (B, 1, E), what the step had read
    reads: Tensor  # (B, K, R), what the output layer read at each of K slots
    normalizers: Tensor  # (B, K), log sum_y exp(logit) at each slot
    log_weights: Tensor  # (B, K)
    places: Tensor  # (B, K), where the slots stand in the memory


def top_k(weights: Float[Tensor, "B S"], top: int | None) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"]]:
    """The log-weights of the `top` likeliest slots (all, if None), renormalised, and their places.

    A weight of 0 becomes -inf, without a gradient of nan. Where there is no weight at all, shares are equal.
    """
    slots = weights.shape[-1]
    if top is None or top >= slots:
        kept, places = weights, torch.arange(slots, device=weights.device).expand_as(weights)
    else:
        kept, places = weights.topk(top)
    total = kept.sum(-1, keepdim=True)
    shares = torch.where(total > 0, kept / (total + (total == 0)), 1 / kept.shape[-1])
    logs = shares.clamp(min=torch.finfo(shares.dtype).tiny).log()
    return logs.masked_fill(shares == 0, float("-inf")), places


def mixture(
    reads: Float[Tensor, "B K R"], log_weights: Float[Tensor, "B K"], output: nn.Linear
) -> tuple[Float[Tensor, "B V"], Float[Tensor, "B K"]]:
    """log sum_a w_a softmax(output(read_a)), and each slot's normalizer; float32 at least."""
    logits = output(reads)
    logits = logits.to(log_weights.dtype)
    normalizers = logits.logsumexp(-1)
    return (logits + (log_weights - normalizers)[..., None]).logsumexp(1), normalizers


def posterior(
    predictions: PositionPredictions, token: Int[Tensor, " B"], output: nn.Linear, slots: int
) -> Float[Tensor, "B S"]:
    """Which slot was meant, now that the token is known: w_a p(token | a) / sum."""
    vectors = output.weight[token].unsqueeze(-1)
    logits = (predictions.reads @ vectors).squeeze(-1).to(predictions.normalizers.dtype)
    if output.bias is not None:
        logits = logits + output.bias[token].unsqueeze(-1)
    shares = (predictions.log_weights + logits - predictions.normalizers).softmax(-1)
    return shares.new_zeros(len(shares), slots).scatter(1, predictions.places, shares)
