"""The small parts: what each computes, written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from seq2attn.attention.positions import Sinusoidal
from seq2attn.layers.basic import ACTIVATIONS, Dropout, Embedding, FeedForward, Maxout, Residual, dropped, tie

B, L, D = 101, 53, 37
ONES = torch.ones(B, L, D)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


def gone_of(dropout: Dropout) -> torch.Tensor:
    """Where ones were dropped; the others are scaled up so that the mean stays."""
    y = dropout.train()(ONES)
    assert (y[y != 0] == y.max()).all()
    assert_close(y.mean(), torch.tensor(1.0), atol=0.05, rtol=0)
    return y == 0


def test_dropout_drops_single_values():
    gone = gone_of(Dropout(0.3))
    assert_close(gone.float().mean(), torch.tensor(0.3), atol=0.02, rtol=0)
    assert not (gone == gone[:, :1]).all() and not (gone == gone[..., :1]).all()


def test_variational_dropout_has_one_mask_for_all_positions():
    gone = gone_of(Dropout(0.3, variational=True))
    assert (gone == gone[:, :1]).all() and not (gone == gone[:1]).all()
    assert_close(gone[:, 0].float().mean(), torch.tensor(0.3), atol=0.05, rtol=0)


def test_word_dropout_drops_whole_positions():
    gone = gone_of(Dropout(0.0, word=0.2))
    assert (gone == gone[..., :1]).all() and not (gone == gone[:, :1]).all()
    assert_close(gone[..., 0].float().mean(), torch.tensor(0.2), atol=0.03, rtol=0)


def test_kinds_of_dropout_add_up():
    gone = gone_of(Dropout(0.3, variational=True, word=0.2))
    words, values = gone.all(-1, keepdim=True), gone.all(1, keepdim=True)
    assert torch.equal(gone, words | values) and words.any() and values.any()


@pytest.mark.parametrize("dropout", [Dropout(0.0), Dropout(0.3, variational=True, word=0.2).eval()])
def test_dropout_leaves_evaluation_alone(dropout):
    assert torch.equal(dropout(ONES), ONES)


def test_embedding_scales_places_and_drops():
    tokens, start = torch.randint(0, 19, (3, 5)), 7
    plain = Embedding(19, 11, Dropout(0.0))
    assert_close(plain(tokens), plain.table.weight[tokens])
    placed = Embedding(19, 11, Dropout(0.3).eval(), Sinusoidal(11), scaled=True)
    expected = Sinusoidal(11)(placed.table.weight[tokens] * 11**0.5, start)
    assert_close(placed(tokens, start), expected)
    placed.dropout.train()
    assert (placed(tokens, start) == 0).any()


def test_scaled_embeddings_have_unit_variance():
    vectors = Embedding(997, 101, Dropout(0.0), scaled=True)(torch.arange(997)[None])
    assert_close(vectors.std(), torch.tensor(1.0), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("name", "function"), [("relu", torch.relu), ("gelu", F.gelu), ("silu", lambda x: x * x.sigmoid())]
)
def test_feed_forward_is_its_equation(name, function):
    layer, x = FeedForward(11, 17, name), torch.randn(3, 5, 11)
    inner = function(x @ layer.inner.weight.T + layer.inner.bias)
    assert_close(layer(x), inner @ layer.outer.weight.T + layer.outer.bias)
    assert set(ACTIVATIONS) == {"relu", "gelu", "silu"}


def test_feed_forward_drops_its_hidden_values():
    layer = FeedForward(11, 17, dropout=1 - 1e-7)
    assert_close(layer(torch.randn(3, 5, 11)), layer.outer.bias.expand(3, 5, 11))


def test_residual_normalises_before_the_step_or_after_the_sum():
    x, double = torch.randn(3, 5, 11), lambda y: 2 * y
    pre, post = Residual(11, "pre", 0.0), Residual(11, "post", 0.0)
    for residual in (pre, post):
        nn.init.normal_(residual.norm.weight)
    assert_close(pre.leave(x, double(pre.enter(x))), x + 2 * pre.norm(x))
    assert_close(post.leave(x, double(post.enter(x))), post.norm(3 * x))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_residual_drops_the_step_and_not_what_passes_beside_it(norm):
    residual, x = Residual(11, norm, 1 - 1e-7), torch.randn(3, 5, 11)
    left = residual.leave(x, torch.randn(3, 5, 11))
    assert_close(left, x if norm == "pre" else residual.norm(x))


def test_maxout_takes_the_larger_of_each_pair():
    assert Maxout()(torch.tensor([[3.0, 5.0, -1.0, -2.0, 0.0, 7.0]])).tolist() == [[5.0, -1.0, 7.0]]


def test_tied_matrices_are_one():
    output = nn.Linear(11, 19)
    embeddings = [Embedding(19, 11, Dropout(0.0)) for _ in range(2)]
    started = embeddings[0].table.weight.detach().clone()
    tie(output, *embeddings)
    assert all(embedding.table.weight is output.weight for embedding in embeddings)
    assert_close(output.weight.detach(), started)
    model = nn.ModuleList([output, *embeddings])
    assert sum(p.numel() for p in model.parameters()) == 11 * 19 + 19


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_sixteen_bits_drop_at_the_rate_and_keep_the_mean(dtype):
    torch.manual_seed(7)
    x = torch.ones(401, 1009, dtype=dtype)
    for rate in (0.1, 0.5, 0.9):
        found = dropped(x, rate)
        gone = (found == 0).double().mean()
        assert found.dtype == dtype and abs(gone - rate) < 5 * (rate * (1 - rate) / x.numel()) ** 0.5
        assert_close(
            found[found != 0].unique(), torch.tensor([1 / (1 - rate)], dtype=dtype), rtol=1e-4, atol=0
        )


def test_each_value_is_dropped_by_itself_and_by_the_seed():
    torch.manual_seed(7)
    first, second = ((dropped(torch.ones(4001), 0.5) != 0).double() for _ in range(2))
    torch.manual_seed(7)
    assert torch.equal((dropped(torch.ones(4001), 0.5) != 0).double(), first)
    for other in (second, first.roll(1), first.roll(2), first.roll(3), first.roll(4)):
        assert abs((first * other).mean() - 0.25) < 0.03


@pytest.mark.parametrize("rate", [0.0, 1e-6, 1.0])
def test_what_sixteen_bits_cannot_say_is_torchs(rate):
    x = torch.randn(31, 7)
    assert_close(dropped(x, rate), x * (rate < 1))


def test_the_gradient_is_dropped_as_the_value_is():
    x = torch.ones(997, requires_grad=True)
    found = dropped(x, 0.3)
    found.sum().backward()
    assert torch.equal(x.grad, found.detach())
