"""Sizes, random inputs and parameters as arrays, for the tests of scorers."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seq2attn.attention import Attention, Past, Scorer
from seq2attn.attention.normalizers import Softmax

B, T, S, Q, K, A = 3, 5, 7, 11, 13, 17
LENGTHS = (7, 4, 1)
MASK = (torch.arange(S) < torch.tensor(LENGTHS)[:, None])[:, None]
NO_PAST = Past(None, None, 0)
Array = np.ndarray[Any, Any]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def scores(scorer: Scorer, query: Tensor, states: Tensor) -> Tensor:
    scorer = scorer.double()
    return scorer(query, scorer.keys(states), NO_PAST)


def weights(scorer: Scorer, query: Tensor, states: Tensor, mask: Tensor = MASK) -> Tensor:
    attention = Attention(scorer, Softmax()).double()
    return attention(query, attention.remember(states, mask)).weights


def arrays(scorer: Scorer) -> dict[str, Array]:
    """The parameters by name, without the endings that torch gives them."""
    named = scorer.double().named_parameters()
    return {name.removesuffix(".weight"): part.detach().numpy() for name, part in named}


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


class Sizes(TorchDispatchMode):
    """Sees how many numbers each operation returns."""

    def __enter__(self) -> Any:
        self.seen: list[int] = []
        return super().__enter__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen += [
            part.numel() for part in torch.utils._pytree.tree_leaves(result) if torch.is_tensor(part)
        ]
        return result
