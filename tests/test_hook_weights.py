"""The weights that logits are computed with, and gradients with respect to them."""

import pytest
import torch
from tiny import MODELS, model, reads, sources
from torch.testing import assert_close

DECODERS = [name for name, recipe in MODELS.items() if not name.startswith(("cho", "sutskever"))]


@pytest.mark.parametrize("name", DECODERS)
def test_a_hook_gets_the_weights_of_the_graph(name, unchecked_shapes):
    built, source = model(MODELS[name]), sources(5, 3)
    last = built.decoder.attention_layers - 1
    found: list[torch.Tensor] = []
    hook = built.decoder.cross_attention(last).hook_weights
    hook.register_forward_hook(lambda module, inputs, weights: found.append(weights))
    decoded = built(source, reads(2, 4), (last,))
    weights = torch.cat(found, -2)  # (B, T, S) or (B, H, T, S)
    if not name.endswith("posterior") and "posterior" not in name:
        assert_close(weights if weights.dim() == 4 else weights.unsqueeze(1), decoded.weights[:, 0])
    towards = torch.randn_like(decoded.logits)
    gradients = torch.autograd.grad(decoded.logits, found, towards, allow_unused=True)
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
