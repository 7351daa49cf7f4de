"""Poolings and random states.

Sizes are different primes: 3 sentences of 7 positions (the second shorter, the last empty), 5 queries of 11,
states of 13, values of 17.
"""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from seq2attn.attention import Attention, incompatibilities
from seq2attn.attention.normalizers import NORMALIZERS, Softmax
from seq2attn.attention.pooling import Pooling
from seq2attn.attention.scorers import SCORERS, Perceptron
from seq2attn.errors import Seq2attnError

B, R, S, Q, D, V = 3, 5, 7, 11, 13, 17
MASK = torch.arange(S) < torch.tensor([7, 4, 0])[:, None]
CHOICES = ("hardmax", "hard")  # one slot of several: neither even nor differentiable


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def array(x: Tensor) -> np.ndarray:
    return x.detach().numpy()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def perceptron(queries: int, size: int = D, *, bias: bool = True, zeros: bool = False) -> Pooling:
    return Pooling(Attention(Perceptron(Q, size, bias=bias), Softmax()), queries, Q, zeros=zeros).double()


def may_pool(holds: Callable[[Attention], bool] = lambda part: True) -> list[tuple[str, str]]:
    """Every scorer with every normalizer that may pool, and for which something holds."""
    return [
        (score, normalize)
        for score, normalize in itertools.product(SCORERS, NORMALIZERS)
        if not list(incompatibilities(SCORERS[score], NORMALIZERS[normalize], "pooling"))
        and holds(attention(score, normalize)[0])
    ]


def position_dependent(part: Attention) -> bool:
    return part.score.position_dependent or part.normalize.position_dependent


def attention(score: str, normalize: str) -> tuple[Attention, int]:
    """And the size of the states: that of the queries where only things of one size can be compared."""
    try:
        scorer, size = SCORERS[score](Q, D), D
    except Seq2attnError:
        scorer, size = SCORERS[score](Q, Q), Q
    return Attention(scorer, NORMALIZERS[normalize](Q)).eval(), size


SPANS = torch.tensor([[[0, 2], [4, 4], [1, 5], [6, 6]], [[2, 3], [0, 3], [-1, -1], [9, 2]]])
REAL = torch.tensor([[True, True, True, True], [True, True, False, False]])
