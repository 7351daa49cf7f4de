"""The mixture of generating and copying: the paper's equation, and its gradients."""

import numpy as np
import torch
from tiny_copying import mixture_equation
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from seq2attn.layers.token_loss import cross_entropy
from seq2attn.models.decoders import CopySource, PointerGenerator


def given(kind: torch.dtype = torch.float64) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """Logits, inputs of the gate, weights, ids: repeated, beyond the vocabulary, and all-mgate_inputs rows."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 5, 11, generator=generator, dtype=kind) * 3
    gate_inputs = [torch.randn(3, 5, size, generator=generator, dtype=kind) for size in (2, 7)]
    weights = torch.randn(3, 5, 7, generator=generator, dtype=kind).softmax(-1)
    ids = torch.tensor([[4, 5, 4, 4, 11 + 4, 11 + 4, 3], [11, 11, 11, 11, 11, 11, 11], [1, 2, 3, 4, 5, 6, 0]])
    weights[0, 1:3] = 0
    weights[1, 2] = torch.eye(7)[3]
    return logits, gate_inputs, weights, ids


ALL = torch.ones(3, 7, dtype=torch.bool)


def pointer_generator(kind: torch.dtype = torch.float64) -> PointerGenerator:
    torch.manual_seed(2)
    return PointerGenerator(9).to(kind)


def test_the_mixture_is_the_papers_equation():
    logits, gate_inputs, weights, ids = given()
    part = pointer_generator()
    mixed, gate = part(logits, gate_inputs, weights, CopySource.of(ids, ALL))
    gate_logit = part.gate(torch.cat(gate_inputs, -1)).squeeze(-1).detach()
    expected = mixture_equation(
        *(x.numpy() for x in (logits, gate_logit.sigmoid(), weights, ids)),
    )
    np.testing.assert_allclose(expected.sum(-1), 1)
    np.testing.assert_allclose(mixed.softmax(-1).detach().numpy(), expected, atol=1e-12)
    attends = weights.sum(-1) > 0
    assert_close(gate, torch.where(attends, gate_logit.sigmoid(), 1.0))
    assert torch.equal(mixed[0, 1:3, :11], logits[0, 1:3])  # all-masked rows generate


def test_the_usual_mistake_loses_repeated_pieces():
    """`p[ids] += weights` adds only one of equal ids; the masses of a row must sum to 1."""
    logits, gate_inputs, weights, ids = given()
    mixed, gate = pointer_generator()(logits, gate_inputs, weights, CopySource.of(ids, ALL))
    p = gate[0, 0] * F.pad(logits[0, 0].softmax(-1), (0, 7))
    p[ids[0]] += (1 - gate[0, 0]) * weights[0, 0]
    assert p.sum() < 0.99
    assert not torch.allclose(p, mixed[0, 0].softmax(-1), atol=0.01)


def test_gradients_are_those_of_the_equation():
    part, (logits, gate_inputs, weights, ids) = pointer_generator(), given()

    def finite(scores: Tensor, state: Tensor, word: Tensor, energies: Tensor) -> Tensor:
        shares = energies.softmax(-1) * (weights.sum(-1, keepdim=True) > 0)
        mixed, gate = part(scores, [state, word], shares, CopySource.of(ids, ALL))
        return torch.cat([mixed[mixed.isfinite()], gate.flatten()])

    leaves = [x.clone().requires_grad_() for x in (logits, *gate_inputs, weights.clamp(min=0.01).log())]
    assert torch.autograd.gradcheck(finite, leaves)


def test_the_loss_and_its_gradient_are_those_of_the_plain_formula():
    """Smoothing spreads over the vocabulary alone; ids at no position cost nothing, and make no nan."""
    part, (logits, gate_inputs, weights, ids) = pointer_generator(), given()
    target = torch.tensor([[4, 5, 7, 11 + 4, 3], [11, 2, 11, 11, 3], [6, 7, 8, 0, 3]])
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[2, 3:] = False
    leaves = [x.clone().requires_grad_() for x in (logits, *gate_inputs, weights.clamp(min=0.01).log())]
    shares = leaves[3].softmax(-1) * (weights.sum(-1, keepdim=True) > 0)
    mixed, _ = part(leaves[0], leaves[1:3], shares, CopySource.of(ids, ALL))
    loss = cross_entropy(mixed, target, mask, 0.1, num_copied=7).smoothed
    ours = torch.autograd.grad(loss, [*leaves, *part.parameters()], retain_graph=True)

    gate = part.gate(torch.cat(leaves[1:3], -1)).sigmoid()
    gate = torch.where(shares.sum(-1, keepdim=True) > 0, gate, 1.0)
    p = F.pad(gate * leaves[0].softmax(-1), (0, 7))
    p = p.scatter_add(-1, ids[:, None].expand(-1, 5, -1), (1 - gate) * shares)
    log_p = p.clamp(min=1e-300).log()
    nll = -log_p.gather(-1, target[..., None]).squeeze(-1)
    expected = ((0.9 * nll - 0.1 * log_p[..., :11].mean(-1)) * mask).sum()
    assert_close(loss, expected)
    for our, their in zip(ours, torch.autograd.grad(expected, [*leaves, *part.parameters()]), strict=True):
        assert_close(our, their)


def test_nothing_is_lost_at_the_ends_of_float32():
    part = PointerGenerator(3)
    ids = torch.tensor([[4, 11 + 1, 12]])
    for gate_logit, scale in ((-1e4, 1.0), (1e4, 1.0), (0.0, 1e-38), (-90.0, 1e-38)):
        with torch.no_grad():
            part.gate.weight.zero_()
            part.gate.bias.fill_(gate_logit)
        part.zero_grad()
        logits = (torch.randn(1, 2, 11) * 50).requires_grad_()
        weights = torch.tensor([[[1 - scale, scale, 0.0], [0.0, 1.0, 0.0]]]).requires_grad_()
        mixed, gate = part(logits, [torch.randn(1, 2, 3)], weights, CopySource.of(ids, ids > 0))
        assert not mixed.isnan().any() and gate.isfinite().all()
        assert_close(mixed.exp().isnan().any(), torch.tensor(False))
        assert_close(mixed.softmax(-1).sum(-1), torch.ones(1, 2))
        loss = cross_entropy(mixed, torch.tensor([[12, 4]]), torch.ones(1, 2, dtype=torch.bool), 0.1, 3)
        loss.smoothed.backward()
        assert loss.nll.isfinite()
        for tensor in (logits, weights, *part.parameters()):
            assert tensor.grad.isfinite().all()
