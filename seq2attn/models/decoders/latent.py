"""The alignment as a latent variable: there is a prediction from each source position, and the weights mix
them.

Soft attention predicts from the mean of the positions, log p(y | E_a v_a); here the alignment a is summed
out, log sum_a w_a p(y | v_a) (Deng et al. 2018, "Latent Alignment and Variational Attention"; Wu, Shapiro and
Cotterell 2018, "Hard Non-Monotonic Attention"). Once y is known, the posterior of the alignment is
w_a p(y | v_a) / sum (Shankar and Sarawagi 2019, "Posterior Attention Models").

Letters: B batch, T steps, S source positions, K of them with the largest weights, V vocabulary, R readout.
"""

from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seq2attn.attention.attention import Attention
from seq2attn.attention.memory import Past
from seq2attn.errors import Seq2attnError
from seq2attn.models.decoders.readout import OutputLayers


class PositionPredictions(NamedTuple):
    """The predictions of a step from each source position, kept until the token is known. Batch first."""

    word: Tensor  # (B, 1, E), the embedding of the token that the step read
    readouts: Tensor  # (B, K, R), the input of the output layer at each of K positions
    log_normalizers: Tensor  # (B, K), log sum_y exp(logit) at each position
    log_weights: Tensor  # (B, K)
    positions: Tensor  # (B, K), in the source


class LatentAlignment:
    """Predicts the next token from single source positions, not from the context (soft attention).

    kind is one of:

    - marginal: a prediction from each position separately, mixed by the weights; with `top`, only from the
      positions with the largest weights. The next state gets the mean context. In the order luong without
      input feeding no state depends on attention, and the likelihood is exactly that of a model that samples
      each alignment independently (Wu et al. 2018); else states depend on mean contexts, as in Deng et al.
      2018;
    - posterior: likewise, and once a token is known, the posterior of the alignment replaces the weights: in
      the past, in the alignment state of a normalizer that has one (if that state is the weights, this is
      exact filtering in a hidden Markov model, Wu and Cotterell 2019), and in the context of the attentional
      vector that enters the next step. In the order bahdanau the cell has already read the mean context.

    The logits of a mixture are log-probabilities. The output layer runs for every position. In training
    the (B, S, V) logits of a step are recomputed in the backward pass: they are never kept for all T steps.
    """

    def __init__(self, kind: Literal["marginal", "posterior"], top: int | None = None) -> None:
        self.kind, self.top = kind, top

    @staticmethod
    def check(attention: nn.Module) -> None:
        """Raise Seq2attnError if the weights of an attention are not probabilities of source positions."""
        if not isinstance(attention, Attention):
            raise Seq2attnError(
                "a latent alignment is to one position at a time: give the decoder an attention of one head, "
                "without projections"
            )
        if not attention.normalize.sums_to_one:
            raise Seq2attnError(
                "a latent alignment needs weights that are probabilities, and those of "
                f"{type(attention.normalize).__name__} need not sum to 1"
            )

    @staticmethod
    def dropout_mask(tokens: Int[Tensor, "B T"], layers: OutputLayers) -> Float[Tensor, "B T R"]:
        """Return the factors of dropout on the readouts of T steps, the same at every source position."""
        return layers.dropout(layers.output.weight.new_ones(*tokens.shape, layers.readout.size))  # type: ignore[no-any-return]

    def predict(
        self,
        layers: OutputLayers,
        values: Float[Tensor, "B S D"],
        steps: tuple[Float[Tensor, "B T _"], ...],
    ) -> tuple[Float[Tensor, "B T V"], PositionPredictions | None]:
        """Return the log-probabilities of the mixture and, for a posterior, the last step's predictions.

        steps: words (B, T, E), hidden states (B, T, H), weights (B, T, S) and factors of dropout (B, T, R).
        """
        mixed, predictions = [], None
        for step in zip(*(part.split(1, 1) for part in steps), strict=True):
            if torch.is_grad_enabled():
                log_p, predictions = checkpoint(
                    self._predict_step, layers, values, *step, use_reentrant=False, preserve_rng_state=False
                )
            else:
                log_p, predictions = self._predict_step(layers, values, *step)
            mixed.append(log_p)
        return torch.stack(mixed, 1), predictions if self.kind == "posterior" else None

    def _predict_step(
        self,
        layers: OutputLayers,
        values: Float[Tensor, "B S D"],
        word: Float[Tensor, "B 1 E"],
        hidden: Float[Tensor, "B 1 H"],
        weights: Float[Tensor, "B 1 S"],
        dropout_mask: Float[Tensor, "B 1 R"],
    ) -> tuple[Float[Tensor, "B V"], PositionPredictions]:
        """Predict one token from all positions."""
        weights = weights.squeeze(1)  # (B, S)
        log_weights, positions = top_k(weights, self.top)  # (B, K) each
        if positions.shape[1] < values.shape[1]:
            values = values.gather(1, positions.unsqueeze(-1).expand(-1, -1, values.shape[-1]))  # (B, K, D)
        values = values * (weights.sum(-1) > 0)[:, None, None]  # all-masked rows have a context of 0
        shape = (-1, positions.shape[1], -1)
        readouts = layers.readout(hidden.expand(shape), values, word.expand(shape))  # (B, K, R)
        readouts = readouts * dropout_mask
        log_p, log_normalizers = mixture(readouts, log_weights, layers.output)  # (B, V), (B, K)
        return log_p, PositionPredictions(word, readouts, log_normalizers, log_weights, positions)

    @staticmethod
    def condition(
        past: Past, predictions: PositionPredictions, token: Int[Tensor, " B"], output: nn.Linear
    ) -> Past:
        """Return the past once the predicted token is known: the posterior replaces the weights."""
        prior, coverage = cast(Tensor, past.weights), cast(Tensor, past.coverage)  # (B, S) each
        attends = prior.sum(-1, keepdim=True) > 0  # (B, 1)
        weights = posterior(predictions, token, output, prior.shape[-1]) * attends  # (B, S)
        alignment_state = None if past.alignment_state is None else weights
        return past._replace(
            weights=weights, coverage=coverage - prior + weights, alignment_state=alignment_state
        )


def top_k(weights: Float[Tensor, "B S"], top: int | None) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"]]:
    """Return the log-weights of the `top` positions with the largest weights (all, if None), renormalised,
    and these positions.

    A weight of 0 becomes -inf, and its gradient is 0, not nan. If all weights are 0, all shares are equal.
    """
    positions = weights.shape[-1]
    if top is None or top >= positions:
        largest, indices = weights, torch.arange(positions, device=weights.device).expand_as(weights)
    else:
        largest, indices = weights.topk(top)  # (B, K) each
    total = largest.sum(-1, keepdim=True)  # (B, 1)
    shares = torch.where(total > 0, largest / (total + (total == 0)), 1 / largest.shape[-1])  # (B, K)
    logs = shares.clamp(min=torch.finfo(shares.dtype).tiny).log()
    return logs.masked_fill(shares == 0, float("-inf")), indices


def mixture(
    readouts: Float[Tensor, "B K R"], log_weights: Float[Tensor, "B K"], output: nn.Linear
) -> tuple[Float[Tensor, "B V"], Float[Tensor, "B K"]]:
    """Return log sum_a w_a softmax(output(readout_a)), and the log-normalizer of each position; float32 or
    wider."""
    logits = output(readouts)  # (B, K, V)
    logits = logits.to(log_weights.dtype)
    log_normalizers = logits.logsumexp(-1)  # (B, K)
    return (logits + (log_weights - log_normalizers)[..., None]).logsumexp(1), log_normalizers


def posterior(
    predictions: PositionPredictions, token: Int[Tensor, " B"], output: nn.Linear, positions: int
) -> Float[Tensor, "B S"]:
    """Return the posterior of the alignment, given the token: w_a p(token | a) / sum, of S positions."""
    vectors = output.weight[token].unsqueeze(-1)  # (B, R, 1)
    logits = (predictions.readouts @ vectors).squeeze(-1).to(predictions.log_normalizers.dtype)  # (B, K)
    if output.bias is not None:
        logits = logits + output.bias[token].unsqueeze(-1)
    shares = (predictions.log_weights + logits - predictions.log_normalizers).softmax(-1)  # (B, K)
    return shares.new_zeros(len(shares), positions).scatter(1, predictions.positions, shares)
