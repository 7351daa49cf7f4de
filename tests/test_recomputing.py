"""Gradient checkpointing: the same gradients, and less that is kept for them."""

import pytest
import torch
import torch._dynamo  # what FSDP imports when it runs: once here, and not in each process
from processes import in_processes
from tiny_reversal import PIECES
from tiny_training import batch, loader, trainer
from torch.autograd.graph import saved_tensors_hooks

from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Dropout
from seq2attn.runtime.distributed import joined

KIND = "transformer-post-sinusoidal"


def gradients(recomputing: bool, **options):
    """The gradients of an update, and the number of values that are kept for the backward pass."""
    made = trainer(KIND, gradient_checkpointing=recomputing, optimizer="sgd", clip=None, **options)
    for module in made.model.modules():
        if isinstance(module, Dropout):
            module.rate = 0.3
    made.optimizers[""].step = lambda *args, **options: None
    made.optimizers[""].zero_grad = lambda *args, **options: None
    kept = []

    def count(tensor):
        kept.append(tensor.numel())
        return tensor

    batches = loader()
    batch = batches.batch(batches.epoch(0)[0])
    with saved_tensors_hooks(count, lambda tensor: tensor):
        stats = made.update([batch], 1)
    return stats, [parameter.grad for parameter in made.model.parameters()], sum(kept)


def test_gradients_are_the_same_and_less_is_kept():
    plain, ours = gradients(False), gradients(True)
    assert plain[0] == ours[0]
    assert all(torch.equal(one, other) for one, other in zip(plain[1], ours[1], strict=True))
    assert ours[2] < 0.7 * plain[2]


def test_validation_and_state_are_as_without():
    one, other = (trainer(KIND, gradient_checkpointing=flag) for flag in (False, True))
    assert one.model.state_dict().keys() == other.model.state_dict().keys()
    batches = loader()
    batch = batches.batch(batches.epoch(0)[0])
    one.model.eval(), other.model.eval()
    with torch.inference_mode():
        outputs = [made.objective.forward(made.model, batch).logits for made in (one, other)]
    assert torch.equal(*outputs)


def test_a_model_without_transformer_layers_is_refused():
    with pytest.raises(
        Seq2attnError, match="gradient_checkpointing: expected a model with Transformer layers"
    ):
        trainer(gradient_checkpointing=True)


def test_layers_of_a_sharded_model_are_recomputed_as_well():
    """Their parameters are gathered again for it."""
    options = {"sharded": True, "optimizer": "sgd", "clip": None}

    def work():
        with joined() as group:
            states = []
            for recomputing in (False, True):
                one = trainer(
                    KIND, 9, torch.float64, group=group, gradient_checkpointing=recomputing, **options
                )
                one.update([batch(rows) for _, rows in group.share(PIECES[:4])], 1)
                states.append({name: tensor.numpy() for name, tensor in one.state()["model"].items()})
            return states

    for plain, recomputed in in_processes(2, work):
        assert plain.keys() == recomputed.keys()
        assert all((plain[name] == recomputed[name]).all() for name in plain)
