"""Hard attention to the source: sampled positions in cross-attention, and how they are reinforced."""

import itertools
from typing import Any

import tiny
import torch
from tiny_training import loader
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention.memory import Past
from seq2attn.attention.normalizers import Hard
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.recipe import TrainingRecipe
from seq2attn.tasks.sequence_tasks import token_objective
from seq2attn.training.objectives import AttentionLosses
from seq2attn.training.trainer import Trainer


class Chosen(Hard):
    """Samples the positions in `choice`."""

    def __init__(self) -> None:
        super().__init__(soft_rate=0.0)
        self.choice = torch.zeros(1, dtype=torch.long)

    def sample(self, weights: Tensor, past: Past) -> Tensor:
        one_hot = torch.eye(weights.shape[-1], dtype=weights.dtype)[self.choice]
        return one_hot.expand(weights.shape)


def hard_transformer(*normalizers: Any, heads: int = 5) -> Seq2Seq:
    """Cross-attention of two layers, to be trained."""
    layers = [{"heads": heads, "normalize": normalize} for normalize in normalizers]
    decoder = tiny.transformer(decoder=True, cross_attention=layers)
    return tiny.model({"encoder": tiny.transformer(), "decoder": decoder}).train()


def test_samples_are_of_the_layers_asked_for_in_their_order():
    model = hard_transformer({"name": "hard", "soft_rate": 0.0}, "softmax")
    source, tokens = tiny.sources(7, 3, 0), tiny.reads(3, 5)
    decoded = model(source, tokens, [1, 0])
    sampled = decoded.sampled
    assert sampled.shape == decoded.weights.shape == (3, 2, 5, 5, 7)
    assert (sampled[:, 0] == 0).all()  # the softmax does not sample
    hard, attends = sampled[:, 1], source.mask.any(-1).float()
    assert ((hard == 0) | (hard == 1)).all() and (hard.sum(-1) == attends[:, None, None]).all()
    assert (hard.transpose(0, 3)[:, ..., 1][3:] == 0).all()  # nothing on padding
    assert (
        len({tuple(row) for row in hard[0, :, 0].argmax(-1, keepdim=True).tolist()}) > 1
    )  # heads by themselves
    assert model(source, tokens, [1]).sampled is None and model(source, tokens).sampled is None
    model.eval()
    decoded = model(source, tokens, [0])
    assert torch.equal(decoded.sampled[:2].argmax(-1), decoded.weights[:2].argmax(-1))
    model.train().decoder.layers[0].cross_attention.attention.normalize.soft_rate = 1.0
    decoded = model(source, tokens, [0])
    assert torch.equal(decoded.sampled, decoded.weights)  # an expectation


def test_self_attention_has_the_initial_state_of_its_normalizer():
    """With a soft rate of 1 nothing is ever sampled."""
    self_attention = {"self_attention": {"heads": 2, "normalize": "hard"}}
    recipe = {"encoder": tiny.recurrent_encoder(), "decoder": tiny.transformer(decoder=True) | self_attention}
    model, inputs = tiny.model(recipe).train(), (tiny.sources(7, 3), tiny.reads(2, 5))
    logits = {}
    for rate in (1.0, 0.0):
        for layer in model.decoder.layers:
            layer.self_attention.attention.normalize.soft_rate = rate
        logits[rate] = [model(*inputs).logits for _ in range(2)]
    assert torch.equal(*logits[1.0]) and not torch.equal(*logits[0.0])


def test_reinforcing_cross_attention_climbs_the_expected_log_likelihood():
    """Of a Transformer with two layers, over all samples of both: they change the queries of the next layer."""
    model = hard_transformer("hard", "hard", heads=1).double()
    chosen = [Chosen(), Chosen()]
    for layer, normalize in zip(model.decoder.layers, chosen, strict=True):
        layer.cross_attention.attention.normalize = normalize
    source, tokens, steps, positions = tiny.sources(3), tiny.reads(1, 3), 2, 3
    target, mask = tokens[:, 1:], torch.ones(1, steps, dtype=torch.bool)
    # the reward is the mean of the steps
    losses = AttentionLosses({"reinforce": float(steps)}, model.decoder)
    losses.baseline = -1.7
    parameters = list(model.parameters())
    truth, estimate = ([torch.zeros_like(parameter) for parameter in parameters] for _ in range(2))
    for samples in itertools.product(range(positions), repeat=2 * steps):
        for number, normalize in enumerate(chosen):
            normalize.choice = torch.tensor(samples[number * steps : (number + 1) * steps])
        decoded = model(source, tokens[:, :steps], losses.layers)
        log_p = decoded.logits.log_softmax(-1).gather(-1, target[..., None]).sum()
        chance = (decoded.weights * decoded.sampled).sum(-1).prod()
        loss = losses.total(losses.terms(decoded, target, mask, source.mask, None)) - log_p
        uphill = torch.autograd.grad(chance * log_p, parameters, retain_graph=True)
        downhill = torch.autograd.grad(chance.detach() * loss, parameters)
        for total, slope in zip([*truth, *estimate], [*uphill, *downhill], strict=True):
            total += slope
    for ours, theirs in zip(estimate, truth, strict=True):
        assert_close(ours, -theirs, atol=1e-6, rtol=1e-5)
    queries = [layer.cross_attention.query.weight for layer in model.decoder.layers]
    learnt = [
        slope
        for parameter, slope in zip(parameters, truth, strict=True)
        if any(parameter is q for q in queries)
    ]
    assert [bool((slope.abs() > 1e-3).any()) for slope in learnt] == [True, True]


def test_a_transformer_with_hard_attention_is_reinforced_as_it_trains():
    """No gradient goes through a sample, so the queries of the last layer learn from the reward alone."""
    moved, losses = {}, {}
    for factors in ({"reinforce": 1.0, "entropy": 1e-3}, {"coverage": 1e-9}):
        model = hard_transformer({"name": "hard", "soft_rate": 0.0}, {"name": "hard", "soft_rate": 0.0})
        recipe = TrainingRecipe.model_validate({"max_steps": 9, "attention_losses": factors})
        trainer = Trainer(model, token_objective(model, recipe), recipe, torch.device("cpu"), None)
        query, batches = model.decoder.layers[1].cross_attention.query.weight, loader()
        before = query.detach().clone()
        updates = [trainer.update([batches.batch(batches.epoch(0)[0], 0)], step) for step in range(1, 10)]
        moved["reinforce" in factors] = (query - before).abs().max().item()
        assert updates[-1].loss < updates[0].loss
        losses["reinforce" in factors] = [update.parts.get("reinforce") for update in updates]
    assert losses[True][0] == 0 and all(losses[True][1:])
    assert moved[True] > 1e-3 > 100 * moved[False]
