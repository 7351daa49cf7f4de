"""LOSSES: losses of predicted tokens or labels; cross-entropy from logits or from their projection.

Logits are the widest tensors of a model, as wide as the vocabulary. Both functions of cross-entropy here
write out their gradients, because composed operations would pass over the logits five more times. The second
function never holds all logits at once.
"""

from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seq2attn.attention.renamed import RenamedHooks
from seq2attn.errors import NotDefinedError, Seq2attnError
from seq2attn.layers.basic import Projection
from seq2attn.layers.labels import checked_labels
from seq2attn.registry import Registry
from seq2attn.runtime.chunks import blocks
from seq2attn.runtime.plugin_errors import blaming

ROWS = 512  # rows of logits that are computed at once: enough to keep a device busy


class Loss(NamedTuple):
    """Losses as sums over the tokens under the mask; of `TokenLoss.each` (N,), one for each token."""

    smoothed: Tensor  # (), minimised: for cross-entropy, that against the smoothed target, in nats
    nll: Tensor  # (), the negative log-likelihood of the target, in nats; has no gradient


class TokenLoss(RenamedHooks):
    """A loss of predicted tokens or labels. Subclass it, and add a line to LOSSES.

    The keyword-only parameters of the constructor are the options that a recipe may set. A subclass defines
    `per_token`; or, if it needs more than single tokens, `sums`. It has no weights to train.
    """

    smooths: ClassVar[bool] = False  # True: the constructor takes the recipe's label_smoothing

    def __call__(
        self,
        predicted: Tensor | Projection,
        target: Int[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
        num_copied: int = 0,
    ) -> Loss:
        """Return the loss of logits (B, T, V), or of their projection. Arguments: see `cross_entropy`.

        Seq2attnError if the class of a plugin raises an error, or returns something else than it must.
        """
        target = _checked(predicted, target, mask)
        with blaming(type(self)):
            loss = self.sums(predicted, target, mask, num_copied)
        if not isinstance(loss, Loss) or any(part.shape for part in loss):
            raise Seq2attnError(
                f"{type(self).__name__}.sums must return Loss(smoothed, nll) of two sums over all tokens, "
                f"tensors without axes; got {loss!r:.60}: fix the class"
            )
        return loss

    def per_token(self, logits: Float[Tensor, "N V"], target: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Return the loss of each of N tokens, from logits in float32; padding is left out."""
        raise NotDefinedError(f"{type(self).__name__} must define its loss: write per_token() or sums()")

    def each(self, logits: Float[Tensor, "N V"], target: Int[Tensor, " N"]) -> Loss:
        """Return the losses (N,) of N tokens. Those of a class that defines `sums` are computed one by one.

        Seq2attnError as for a call.
        """
        if type(self).sums is TokenLoss.sums or type(self) is CrossEntropy:
            whole = torch.ones_like(target[None], dtype=torch.bool)
            target = _checked(logits[None], target[None], whole)[0]
            with blaming(type(self)):
                return self._each(_at_least_float32(logits), target)
        seen = torch.ones(1, 1, dtype=torch.bool, device=target.device)
        rows = [
            self(row[None, None], label[None, None], seen) for row, label in zip(logits, target, strict=True)
        ]
        return Loss(*(torch.stack(parts) for parts in zip(*rows, strict=True)))

    def _each(self, logits: Tensor, target: Tensor) -> Loss:
        """Return the losses (N,) by `per_token`."""
        losses = self.per_token(logits, target)
        if losses.shape != target.shape:
            raise Seq2attnError(
                f"{type(self).__name__}.per_token must return a loss for each of the {len(target)} tokens, "
                f"of the shape {tuple(target.shape)}; got {tuple(losses.shape)}: fix the class"
            )
        with torch.no_grad():
            return Loss(losses, F.cross_entropy(logits, target, reduction="none"))

    def sums(
        self,
        predicted: Tensor | Projection,
        target: Int[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
        num_copied: int,
    ) -> Loss:
        """Return the sum of the losses of the tokens under the mask. Sums, not means: the training loop
        divides them once, by the number of tokens of the whole update."""
        target = target[mask]  # (N,)
        if isinstance(predicted, Projection):
            logits = predicted._replace(states=predicted.states[mask]).whole()  # (N, V)
        else:
            logits = predicted[mask]
        losses = self._each(_at_least_float32(logits), target)
        return Loss(losses.smoothed.sum(), losses.nll.sum())


class CrossEntropy(TokenLoss):
    """Cross-entropy, with label smoothing if `label_smoothing` is set (Szegedy et al. 2016)."""

    smooths = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def per_token(self, logits: Float[Tensor, "N V"], target: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """See the base class. `sums` does not use it, to save passes over the logits."""
        return F.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing)

    def sums(
        self,
        predicted: Tensor | Projection,
        target: Int[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
        num_copied: int,
    ) -> Loss:
        """See the base class."""
        return _cross_entropy(predicted, target, mask, self.label_smoothing, num_copied)


LOSSES: Registry[type[TokenLoss]] = Registry("LOSSES", TokenLoss)
LOSSES["cross_entropy"] = CrossEntropy


def cross_entropy(
    predicted: Tensor | Projection,
    target: Int[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    smoothing: float = 0.0,
    num_copied: int = 0,
) -> Loss:
    """Return the cross-entropy with label smoothing (Szegedy et al. 2016).

    The target token has probability 1 - e, and e is spread evenly over the whole vocabulary (as in
    `F.cross_entropy`). Padding does not count. Float32.

    predicted: logits (B, T, V); or their projection, which is computed for at most ROWS of the B T rows at a
    time, together with its gradient, and not at padding.
    num_copied: the number of logits at the end that belong to copied pieces (decoders/copying.py).

    Seq2attnError, with the token, for targets that the logits do not have; at padding they may be anything.
    """
    return _cross_entropy(predicted, _checked(predicted, target, mask), mask, smoothing, num_copied)


def _checked(predicted: Tensor | Projection, target: Tensor, mask: Tensor) -> Tensor:
    """Return targets of the shape of what is predicted, 0 at padding."""
    if isinstance(predicted, Projection):
        return checked_labels(target, mask, predicted.states.shape[:-1], len(predicted.layer.weight))
    return checked_labels(target, mask, predicted.shape[:-1], predicted.shape[-1])


def _cross_entropy(
    predicted: Tensor | Projection, target: Tensor, mask: Tensor, smoothing: float, num_copied: int
) -> Loss:
    if isinstance(predicted, Projection):
        states, layer = predicted.states[mask], predicted.layer  # (N, R)
        with torch.autocast(states.device.type, enabled=False):  # the states have their precision
            smoothed, nll = _ProjectedCrossEntropy.apply(  # type: ignore[no-untyped-call]
                states, layer.weight, layer.bias, target[mask], smoothing, torch.is_grad_enabled()
            )
        return Loss(smoothed, nll)
    wide = _at_least_float32(predicted)
    size = predicted.shape[-1] - num_copied
    smoothed, nll = _CrossEntropy.apply(wide, target, mask, smoothing, size)  # type: ignore[no-untyped-call]
    return Loss(smoothed, nll)


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


class _CrossEntropy(torch.autograd.Function):
    """Smoothed cross-entropy of logits. The gradient overwrites the log-probabilities."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, mask: Tensor, smoothing: float, size: int
    ) -> tuple[Tensor, Tensor]:
        log_p = logits.log_softmax(-1)  # (B, T, V)
        nll = -(log_p.gather(-1, target[..., None]).squeeze(-1) * mask).sum()
        smoothed = nll.clone()
        if smoothing:
            uniform = -(log_p[..., :size].mean(-1) * mask).sum()
            smoothed = (1 - smoothing) * nll + smoothing * uniform
        ctx.save_for_backward(log_p, target, mask)
        ctx.smoothing, ctx.size = smoothing, size
        ctx.mark_non_differentiable(nll)
        return smoothed, nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None]:
        log_p, target, mask = ctx.saved_tensors
        gradient = _logit_gradient(log_p, target, ctx.smoothing, ctx.size)  # (B, T, V)
        gradient *= (grad * mask)[..., None]
        return gradient, None, None, None, None


class _ProjectedCrossEntropy(torch.autograd.Function):
    """Smoothed cross-entropy of logits W h + b, computed in blocks of rows together with the gradients of h,
    W and b: no tensor as wide as the vocabulary outlives its block."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Float[Tensor, "N R"],
        weight: Float[Tensor, "V R"],
        bias: Float[Tensor, " V"] | None,
        target: Int[Tensor, " N"],
        smoothing: float,
        needs_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        narrow = weight.to(states.dtype)  # (V, R)
        narrow_bias = None if bias is None else bias.to(states.dtype)  # (V,)
        states_grad, weight_grad = torch.empty_like(states), torch.zeros_like(weight)  # (N, R), (V, R)
        bias_grad = None if bias is None else torch.zeros_like(bias)  # (V,)
        smoothed, nll = weight.new_zeros(()), weight.new_zeros(())
        parts = (states.split(ROWS), target.split(ROWS), states_grad.split(ROWS))
        for part, part_target, part_grad in zip(*parts, strict=True):
            logits = F.linear(part, narrow, narrow_bias)  # (ROWS, V)
            for rows in blocks(len(part), part.device):
                log_p = logits[rows].to(weight.dtype).log_softmax(-1)
                part_nll = -log_p.gather(-1, part_target[rows, None]).sum()
                nll += part_nll
                smoothed += (1 - smoothing) * part_nll
                if smoothing:
                    smoothed -= smoothing * log_p.mean(-1).sum()
                if not needs_gradient:
                    continue
                gradient = _logit_gradient(log_p, part_target[rows], smoothing, len(weight))
                logits[rows] = gradient
                if bias_grad is not None:
                    bias_grad += gradient.sum(0)
            if needs_gradient:
                torch.mm(logits, narrow, out=part_grad)
                weight_grad += logits.T @ part
        ctx.save_for_backward(states_grad, weight_grad, bias_grad)
        ctx.mark_non_differentiable(nll)
        return smoothed, nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None, None]:
        states_grad, weight_grad, bias_grad = ctx.saved_tensors
        if bias_grad is not None:
            bias_grad = bias_grad * grad
        return states_grad * grad.to(states_grad.dtype), weight_grad * grad, bias_grad, None, None, None


def _logit_gradient(log_p: Tensor, target: Tensor, smoothing: float, size: int) -> Tensor:
    """Return the gradient of the loss with respect to the logits (..., V), in place of the log-probabilities:
    softmax minus the smoothed target over the first `size`."""
    gradient = log_p.exp_()
    if smoothing:
        gradient[..., :size] -= smoothing / size
    index = target[..., None]  # (..., 1)
    return gradient.scatter_add_(-1, index, gradient.new_full((), smoothing - 1).expand(index.shape))
