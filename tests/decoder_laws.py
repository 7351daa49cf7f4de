"""Laws of decoders, each a function of a model: other files of tests run them over models of their own.

A source of three sentences, the last empty, has the copy ids and the sentence ids that the model needs.
"""

from typing import Any

import tiny
import torch
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention.state import reorder
from seq2attn.models.decoders import Decoder
from seq2attn.models.encoders import Encoded
from seq2attn.models.seq2seq import Seq2Seq

LENGTHS = (7, 3, 0)


def attends(recipe: dict[str, Any]) -> bool:
    """Whether the recipe of a model has cross-attention."""
    return recipe["decoder"].get("attention") is not None or "cross_attention" in recipe["decoder"]


def has_posterior(recipe: dict[str, Any]) -> bool:
    """Whether the weights of a step change once its token is known."""
    return bool(recipe["decoder"].get("latent") == "posterior")


def all_layers(model: Seq2Seq) -> list[int]:
    return list(range(model.decoder.attention_layers))


def encode(model: Seq2Seq) -> Encoded:
    return model.encode(tiny.sources(*LENGTHS, model=model))


def step_by_step(decoder: Decoder, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Logits (B, T, V) and the state behind them."""
    logits = []
    for token in tokens.unbind(1):
        step_logits, state = decoder.step(token, state)
        logits.append(step_logits)
    return torch.stack(logits, 1), state


def changed(tokens: Tensor, step: int) -> Tensor:
    """The tokens with others at a step."""
    other = tokens.clone()
    other[:, step] = (tokens[:, step] - tiny.SPECIALS + 1) % (tiny.TARGET - tiny.SPECIALS) + tiny.SPECIALS
    return other


def steps_and_forward_agree(model: Seq2Seq) -> None:
    encoded, tokens = encode(model), tiny.reads(3, 5)
    stepped, _ = step_by_step(model.decoder, tokens, model.decoder.start(encoded))
    assert_close(stepped, model.decoder(tokens, encoded).logits, atol=1e-5, rtol=1e-5)


def weights_are_a_distribution_over_the_source(model: Seq2Seq) -> None:
    encoded, tokens = encode(model), tiny.reads(3, 5)
    layers = all_layers(model)
    decoded = model.decoder(tokens, encoded, layers)
    logits, weights = decoded.logits, decoded.weights
    assert weights.shape[:2] == (3, len(layers)) and weights.shape[3:] == (5, 7)
    assert weights.dtype == torch.float32 and (weights >= 0).all()
    real = encoded.mask[:, None, None].expand_as(weights)
    assert (weights[~real] == 0).all()
    assert_close(weights.sum(-1), real.any(-1).float())
    assert_close(logits, model.decoder(tokens, encoded).logits, atol=1e-5, rtol=1e-5)


def only_past_tokens_matter(model: Seq2Seq) -> None:
    encoded, tokens = encode(model), tiny.reads(3, 5)
    before = model.decoder(tokens, encoded).logits
    after = model.decoder(changed(tokens, 3), encoded).logits
    assert_close(after[:, :3], before[:, :3], atol=1e-6, rtol=0)
    assert ((after[:, 3:] - before[:, 3:]).abs().amax(-1) > 1e-4).all()


def reordering_commutes(decoder: Decoder, start: Any) -> None:
    """To step and then reorder three sentences, or to reorder them first, is the same."""
    tokens, index = tiny.reads(3, 3), torch.tensor([2, 0, 0, 1, 1])
    _, state = step_by_step(decoder, tokens[:, :2], start)
    logits, after = decoder.step(tokens[:, 2], state)
    reordered, after_reordering = decoder.step(tokens[index, 2], reorder(state, index))
    assert_close(reordered, logits[index], atol=1e-5, rtol=1e-5)
    pairs = zip(tiny.tensors(after_reordering), tiny.tensors(reorder(after, index)), strict=True)
    for ours, theirs in pairs:
        assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def reordering_commutes_with_stepping(model: Seq2Seq, coverage: bool) -> None:
    start = model.decoder.start(encode(model))
    reordering_commutes(model.decoder, model.decoder.track_coverage(start) if coverage else start)


def hypotheses_step_as_sentences_do(model: Seq2Seq, coverage: bool) -> None:
    """Three for each sentence, as a beam search moves them, beside rows that share nothing."""
    encoded, tokens = encode(model), tiny.reads(9, 4)
    start = model.decoder.start(encoded)
    start = model.decoder.track_coverage(start) if coverage else start
    each = torch.arange(3).repeat_interleave(3)
    sharing, alone = reorder(start, each, torch.arange(3)), reorder(start, each)
    moves = [  # of the hypotheses, and the sentences that stay
        ([2, 0, 0, 4, 4, 3, 6, 8, 7], [0, 1, 2]),
        ([1, 1, 1, 8, 8, 6], [0, 2]),
        ([0, 2, 1, 3, 3, 5], [0, 1]),
        ([5, 4, 3], [1]),
    ]
    rows = len(each)
    for token, (index, stay) in zip(tokens.T, moves, strict=True):
        ours, sharing = model.decoder.step(token[:rows], sharing)
        theirs, alone = model.decoder.step(token[:rows], alone)
        assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        rows = len(index)
        sharing = reorder(sharing, torch.tensor(index), torch.tensor(stay))
        alone = reorder(alone, torch.tensor(index))


def tracking_coverage_changes_no_step(model: Seq2Seq) -> Tensor:
    """Padding and empty sources have 1. Returns the coverage after five steps."""
    decoder, encoded, tokens = model.decoder, encode(model), tiny.reads(3, 5)
    state = decoder.track_coverage(decoder.start(encoded))
    assert (decoder.coverage(state) == (~encoded.mask[:, 0]).float()).all()  # no step so far
    logits, state = step_by_step(decoder, tokens, state)
    decoded = decoder(tokens, encoded, all_layers(model)[-1:])
    assert_close(logits, decoded.logits, atol=1e-5, rtol=1e-5)
    coverage = decoder.coverage(state)
    assert coverage.dtype == torch.float32
    assert (coverage[~encoded.mask[:, 0]] == 1).all() and (coverage[2] == 1).all()
    return coverage


def coverage_is_the_sum_of_weights(model: Seq2Seq) -> None:
    """In the last layer, the mean of the heads."""
    coverage, encoded = tracking_coverage_changes_no_step(model), encode(model)
    weights = model.decoder(tiny.reads(3, 5), encoded, all_layers(model)[-1:]).weights
    expected = torch.where(encoded.mask[:2, 0], weights[:2, 0].mean(1).sum(1), 1.0)
    assert_close(coverage[:2], expected, atol=1e-5, rtol=1e-5)


def padding_of_the_source_changes_nothing(model: Seq2Seq) -> tuple[Any, Any]:
    """Returns the outputs without and with more padding."""
    tokens, layers = tiny.reads(3, 5), all_layers(model)
    source, wider = tiny.sources(*LENGTHS), tiny.sources(*LENGTHS, width=11, seed=5)
    wider.tokens[:, :7] = torch.where(source.mask, source.tokens, wider.tokens[:, :7])
    plain = model(tiny.with_ids(source, model), tokens, layers)
    padded = model(tiny.with_ids(wider, model), tokens, layers)
    assert_close(padded.logits, plain.logits, atol=1e-5, rtol=1e-5)
    return plain, padded


def padding_has_no_weights(model: Seq2Seq) -> None:
    plain, padded = padding_of_the_source_changes_nothing(model)
    assert_close(padded.weights[..., :7], plain.weights, atol=1e-6, rtol=1e-5)
    assert (padded.weights[..., 7:] == 0).all()


def a_batch_is_a_list_of_sentences(model: Seq2Seq) -> None:
    source, tokens = tiny.sources(*LENGTHS, model=model), tiny.reads(3, 5)
    whole = model(source, tokens).logits
    for row, length in enumerate(LENGTHS):
        index = slice(row, row + 1)
        alone = model(tiny.rows(source, index, max(length, 1)), tokens[index]).logits
        assert_close(alone, whole[index], atol=1e-5, rtol=1e-5)


def every_parameter_learns(model: Seq2Seq) -> None:
    model.train()
    model(tiny.sources(7, 3, model=model), tiny.reads(2, 5)).logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())
