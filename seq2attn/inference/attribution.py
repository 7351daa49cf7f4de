"""What each target token owes to each source token, by attention and by other methods.

Attention says where a model looks. How much the probability of a token depends on a source token is another
question (Jain and Wallace 2019; Wiegreffe and Pinter 2019), which gradients and occlusion answer. Each method
is a function of a batch of pairs, and a line of ATTRIBUTIONS.

A source token is taken away by giving its position the mean of all tokens' vectors
(`Embedding.without_tokens`); encoder and decoder still see that there is a position. With zeros in its place,
layer normalization would have nothing to read, and integrated gradients of Transformers would miss their sum.

Letters: B pairs, T target tokens and S source tokens, </s> included; E width of a vector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seq2attn.data.batches import Batch
from seq2attn.data.sources import Source
from seq2attn.errors import Seq2attnError
from seq2attn.inference.activations import recorded
from seq2attn.inference.attention_maps import self_attentions
from seq2attn.inference.attention_norms import recorded_vectors
from seq2attn.inference.forced import of_head
from seq2attn.layers.basic import Embedding
from seq2attn.models.encoders import Encoder
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.registry import Registry

STEPS = 32  # of the path of integrated gradients
ROWS = 128  # pairs that are computed at once, changed ones included


class Pairs(NamedTuple):
    """A batch of sources and targets, on the device of a model that is in evaluation mode."""

    model: Seq2Seq
    batch: Batch
    words: Int[Tensor, "B S"]  # the word of each source position, from 0; </s> is a word; -1 at padding
    layer: int  # of the cross-attention, for the methods of attention
    head: int | None  # None: the mean of all heads

    @property
    def source(self) -> Source:
        """The sources. Seq2attnError for images, whose positions are no tokens."""
        if not isinstance(self.batch.source, Source):
            raise Seq2attnError("attribution is for sources that are texts")
        return self.batch.source

    @property
    def encoder(self) -> Encoder:
        """The encoder, of texts."""
        encoder = self.model.encoder
        if not isinstance(encoder, Encoder):
            raise Seq2attnError("attribution is for models whose sources are texts")
        return encoder

    @property
    def vectors(self) -> Float[Tensor, "B S E"]:
        """The vectors that the encoder reads."""
        return self.encoder.embedding(self.source.tokens).detach()

    @property
    def empty(self) -> Float[Tensor, "B S E"]:
        """The vectors of positions where no token is known."""
        embedding = self.encoder.embedding
        if not isinstance(embedding, Embedding):
            return torch.zeros_like(self.vectors)
        return embedding.without_tokens(self.source.tokens).detach()

    @property
    def both(self) -> Bool[Tensor, "B T S"]:
        """Where there is a token on both sides."""
        both: Tensor = self.batch.target_mask.unsqueeze(2) & self.source.mask.unsqueeze(1)
        return both

    def repeated(self, times: int) -> "Pairs":
        """Return the pairs with each row so many times, one after another."""
        rest = self.batch[1:4]
        parts = [None if part is None else part.repeat_interleave(times, 0) for part in self.source]
        target_input, target, target_mask = (part.repeat_interleave(times, 0) for part in rest)
        batch = Batch(Source(*parts), target_input, target, target_mask)  # type: ignore[arg-type]
        return self._replace(batch=batch, words=self.words.repeat_interleave(times, 0))

    def log_probabilities(self, vectors: Float[Tensor, "B S E"]) -> Float[Tensor, "B T"]:
        """Return the log-probabilities of the target tokens, if the encoder reads these vectors."""
        source = self.source
        encoded = self.encoder.encode(vectors, source.mask)
        encoded = encoded._replace(copy_ids=source.copy_ids, sentence_ids=source.sentence_ids)
        logits = self.model.decoder(self.batch.target_input, encoded).logits.float()
        chosen: Tensor = logits.log_softmax(-1).gather(-1, self.batch.target.unsqueeze(-1)).squeeze(-1)
        return chosen

    def without(self, removed: Bool[Tensor, "B S"]) -> Float[Tensor, "B S E"]:
        """Return the vectors, without the tokens at these positions."""
        return torch.where(removed.unsqueeze(-1), self.empty, self.vectors)


@dataclass(frozen=True)
class Attribution:
    """An entry of ATTRIBUTIONS: its function, and what its numbers are.

    function: (pairs) -> (B, T, S), zero at padding. of_probability: the numbers are shares of the
    log-probability of a token, in nats, and may be negative; otherwise weights.
    """

    function: Callable[[Pairs], Tensor]
    of_probability: bool

    def __call__(self, pairs: Pairs) -> Float[Tensor, "B T S"]:
        """Return what each target token owes to each source token."""
        with torch.inference_mode(False):
            return self.function(pairs).masked_fill(~pairs.both, 0.0)


# ---- where the decoder looks -------------------------------------------------------------------------------


@torch.no_grad()
def attention(pairs: Pairs) -> Float[Tensor, "B T S"]:
    """The weights of the cross-attention."""
    return of_head(_weights(pairs), pairs.head)


@torch.no_grad()
def norms(pairs: Pairs) -> Float[Tensor, "B T S"]:
    """The norms of the weighted vectors (Kobayashi et al. 2020), see `vector_norms`."""
    with recorded_vectors(pairs.model.decoder, [pairs.layer]) as vectors:
        weights = _weights(pairs)
    return of_head(weights, pairs.head, vectors[pairs.layer])


@torch.no_grad()
def rollout(pairs: Pairs) -> Float[Tensor, "B T S"]:
    """Attention rollout (Abnar and Zuidema 2020): the cross-attention, through the self-attention of all
    layers of the encoder, each A / 2 + I / 2 for its residual. Seq2attnError unless it is a Transformer."""
    with recorded(self_attentions(pairs.model)) as recordings:
        reached = of_head(_weights(pairs), pairs.head)
    identity = torch.eye(reached.shape[-1], device=reached.device)
    for layer in reversed(recordings):  # (B, H, S, S), from the last layer to the tokens
        reached = reached @ (layer.to(reached.device).mean(1) + identity) / 2
    return reached


def _weights(pairs: Pairs) -> Float[Tensor, "B H T S"]:
    """Return the weights of the layer of pairs."""
    decoded = pairs.model(pairs.batch.source, pairs.batch.target_input, [pairs.layer])
    if decoded.weights is None:
        raise Seq2attnError("this model's decoder has no attention to the source")
    weights: Tensor = decoded.weights[:, 0]
    return weights


# ---- what the probability depends on -----------------------------------------------------------------------


def gradient(pairs: Pairs) -> Float[Tensor, "B T S"]:
    """Input times gradient (Simonyan et al. 2014; Shrikumar et al. 2017) of the log-probability: to the first
    order, the difference that the token makes."""
    return _gradients(pairs, pairs.vectors, pairs.vectors - pairs.empty)


def integrated(pairs: Pairs) -> Float[Tensor, "B T S"]:
    """Integrated gradients (Sundararajan et al. 2017), on the straight path from positions without tokens.

    Their sum over the source is log p(tokens) - log p(no tokens), but for the error of Gauss-Legendre
    quadrature with STEPS nodes, which is small where the model is smooth, and larger with ReLU and maxout.
    """
    nodes, weights = np.polynomial.legendre.leggauss(STEPS)
    places, factors = (nodes + 1) / 2, weights / 2
    vectors, empty = pairs.vectors, pairs.empty
    difference = vectors - empty
    at_once = max(1, ROWS // len(vectors))
    total = difference.new_zeros(pairs.both.shape)
    for start in range(0, STEPS, at_once):
        chosen = slice(start, start + at_once)
        along, factor = (vectors.new_tensor(part[chosen]) for part in (places, factors))  # (n,)
        points = empty.unsqueeze(1) + along[:, None, None] * difference.unsqueeze(1)  # (B, n, S, E)
        times = len(along)
        found = _gradients(
            pairs.repeated(times), points.flatten(0, 1), difference.repeat_interleave(times, 0)
        )
        total += (found.unflatten(0, (-1, times)) * factor[:, None, None]).sum(1)
    return total


def _gradients(
    pairs: Pairs, vectors: Float[Tensor, "B S E"], direction: Float[Tensor, "B S E"]
) -> Float[Tensor, "B T S"]:
    """Return the derivatives of the log-probabilities at these vectors, in a direction for each position."""
    leaf = vectors.detach().requires_grad_()
    found = []
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # its LSTM has none in evaluation
        log_p = pairs.log_probabilities(leaf)  # (B, T)
        steps = log_p.shape[1]
        for step in range(steps):
            (slope,) = torch.autograd.grad(log_p[:, step].sum(), leaf, retain_graph=step < steps - 1)
            found.append((slope * direction).sum(-1))
    return torch.stack(found, 1)


@torch.no_grad()
def occlusion(pairs: Pairs) -> Float[Tensor, "B T S"]:
    """Occlusion (Zeiler and Fergus 2014): by how much the log-probability falls without a word of the source,
    divided evenly among its pieces. </s> is a word."""
    words = pairs.words
    count = int(words.max()) + 1
    removed = words.unsqueeze(1) == torch.arange(count, device=words.device)[:, None]  # (B, W, S)
    falls = pairs.log_probabilities(pairs.vectors).unsqueeze(1) - log_p_without(pairs, removed)  # (B, W, T)
    shares = removed / removed.sum(-1, keepdim=True).clamp(min=1)
    return falls.mT @ shares.to(falls.dtype)


@torch.no_grad()
def log_p_without(pairs: Pairs, removed: Bool[Tensor, "B W S"]) -> Float[Tensor, "B W T"]:
    """Return the log-probabilities of the target tokens without the tokens at each of W sets of positions."""
    times = removed.shape[1]
    at_once = max(1, ROWS // len(removed))
    parts = []
    for start in range(0, times, at_once):
        chosen = removed[:, start : start + at_once]
        repeated = pairs.repeated(chosen.shape[1])
        log_p = repeated.log_probabilities(repeated.without(chosen.flatten(0, 1)))
        parts.append(log_p.unflatten(0, (-1, chosen.shape[1])))
    return torch.cat(parts, 1)


def completeness(pairs: Pairs, found: Float[Tensor, "B T S"]) -> Float[Tensor, "B T"]:
    """Return by how much the sums of attributions miss log p(tokens) - log p(no tokens)."""
    with torch.no_grad():
        whole, none = (pairs.log_probabilities(vectors) for vectors in (pairs.vectors, pairs.empty))
    missed: Tensor = found.sum(-1) - (whole - none)
    return missed.masked_fill(~pairs.batch.target_mask, 0.0)


ATTRIBUTIONS: Registry[Attribution] = Registry("ATTRIBUTIONS", Attribution, instances=True)
ATTRIBUTIONS |= {
    "attention": Attribution(attention, of_probability=False),
    "norms": Attribution(norms, of_probability=False),
    "rollout": Attribution(rollout, of_probability=False),
    "gradient": Attribution(gradient, of_probability=True),
    "integrated": Attribution(integrated, of_probability=True),
    "occlusion": Attribution(occlusion, of_probability=True),
}


def word_numbers(words: Sequence[Sequence[int]]) -> Int[Tensor, "B S"]:
    """Return the words of `Pairs` from those of the pieces of each source, without </s>."""
    rows = [torch.tensor([*row, max(row, default=-1) + 1], device="cpu") for row in words]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
