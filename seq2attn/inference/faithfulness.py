"""Does the model need the words that an attribution names? Comprehensiveness and sufficiency.

For each token of the model's own output, the words of the source are ordered by what the token owes to them.
Without the first k words its log-probability should fall much (comprehensiveness), with only these it should
fall little (sufficiency; DeYoung et al. 2020). Both are means over the shares SHARES of the words, the area
over the perturbation curve (Samek et al. 2017), in nats; beside orders at random, which show what removing
any words does.

Letters: T target tokens, S source tokens, </s> included; W words of the source, without </s>; K numbers of
words; O orders.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seq2attn.data.batches import PairIds
from seq2attn.errors import Seq2attnError
from seq2attn.inference.attributed_text import pairs_of
from seq2attn.inference.attribution import ATTRIBUTIONS, Pairs, log_p_without
from seq2attn.inference.translator import TextPredictor

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)  # of the words of a source
RANDOM = "random"
RANDOM_ORDERS = 5  # for each token


class Faithfulness(NamedTuple):
    """How much a model needs the words that an order puts first; means over tokens, in nats."""

    comprehensiveness: float  # the more, the more faithful
    sufficiency: float  # the less, the more faithful


class Faithful(NamedTuple):
    """The faithfulness of methods, and their agreement."""

    methods: dict[str, Faithfulness]  # `random` included
    agreement: dict[tuple[str, str], float]  # Kendall's tau-b of the orders of two methods, mean over tokens
    tokens: int  # that the means are over


def faithfulness(
    predictor: TextPredictor, sources: Sequence[str], methods: Sequence[str], seed: int = 1
) -> Faithful:
    """Measure methods of ATTRIBUTIONS on the model's outputs for these sources.

    Of a source of one word, its pieces count as words; if it has one, and for empty outputs, it is left out.
    Seq2attnError if nothing is left.
    """
    sums: dict[str, list[Tensor]] = {method: [] for method in (*methods, RANDOM)}
    agreement: dict[tuple[str, str], list[Tensor]] = {}
    random = torch.Generator().manual_seed(seed)
    for pairs in _pairs(predictor, sources):
        words = int(pairs.words.max())  # without </s>, which is not removed
        tokens = pairs.batch.target.shape[1] - 1  # without </s>
        scores = {method: _of_words(ATTRIBUTIONS[method](pairs), pairs.words, words) for method in methods}
        orders = {name: _order(found) for name, found in scores.items()}
        shape = RANDOM_ORDERS, tokens, words
        orders[RANDOM] = torch.rand(shape, generator=random, device="cpu").argsort(-1).to(pairs.words.device)
        for name, falls in zip(orders, _falls(pairs, [*orders.values()]), strict=True):
            sums[name].append(falls.cpu())
        for number, name in enumerate(methods):
            for other in methods[number + 1 :]:
                tau = _tau(scores[name], scores[other])
                agreement.setdefault((name, other), []).append(tau.cpu())
    if not sums[RANDOM]:
        raise Seq2attnError(
            "expected sources of at least two words or pieces, for which the model writes a text"
        )
    means = {name: Faithfulness(*torch.cat(parts, 1).mean(1).tolist()) for name, parts in sums.items()}
    taus = {pair: torch.cat(parts).nanmean().item() for pair, parts in agreement.items()}
    return Faithful(means, taus, sum(part.shape[1] for part in sums[RANDOM]))


def _pairs(predictor: TextPredictor, sources: Sequence[str]) -> Iterator[Pairs]:
    """Yield each source with the model's output as a batch of one."""
    for text, result in zip(sources, predictor.stream(sources), strict=True):
        if len(result.source.ids) < 2 or not result.target.ids:
            continue
        ids = predictor.generator.tokenizer.source_ids(result.source.ids, partial(str, text))
        pair = PairIds(ids, result.target.ids)
        yield pairs_of(predictor.generator, [pair], [result.source], predictor.alignment)


def _of_words(found: Float[Tensor, "1 T S"], words: Int[Tensor, "1 S"], count: int) -> Float[Tensor, "T1 W"]:
    """Return what each token owes to each word, both without </s>: the sum over the word's pieces."""
    rows = found[0, :-1]
    summed = rows.new_zeros(len(rows), count + 1).index_add_(1, words[0], rows)
    return summed[:, :count]


def _order(scores: Float[Tensor, "T1 W"]) -> Int[Tensor, "1 T1 W"]:
    """Return the words from the largest score on."""
    order: Tensor = scores.argsort(dim=-1, descending=True, stable=True).unsqueeze(0)
    return order


def _falls(pairs: Pairs, orders: Sequence[Int[Tensor, "_ T1 W"]]) -> list[Float[Tensor, "2 T1"]]:
    """Return comprehensiveness and sufficiency of each token by orders of the words; means over the orders of
    an entry."""
    every = torch.cat([*orders])  # (O, T, W)
    count, tokens, words = every.shape
    counts = [max(1, math.ceil(share * words - 1e-9)) for share in SHARES]
    different = sorted({*counts})
    place = every.argsort(-1)  # of each word in its order
    first = torch.stack([place < number for number in different])  # (K, O, T, W)
    of_words = torch.stack([first, ~first]).flatten(0, 3)  # (2 K O T, W)
    with_end = torch.nn.functional.pad(of_words, (0, 1))  # </s> stays
    removed = with_end[:, pairs.words[0]].unsqueeze(0)  # (1, 2 K O T, S)
    log_p = log_p_without(pairs, removed)[0].unflatten(0, (2, len(different), count, tokens))
    with torch.no_grad():
        whole = pairs.log_probabilities(pairs.vectors)[0, :tokens]  # (T,)
    own = log_p[..., :tokens].diagonal(dim1=3, dim2=4)  # (2, K, O, T): of the token that the order is for
    weights = own.new_tensor([counts.count(number) / len(counts) for number in different])
    falls = ((whole - own) * weights[:, None, None]).sum(1)  # (2, O, T)
    sizes = [len(order) for order in orders]
    return [part.mean(1) for part in falls.split(sizes, dim=1)]


def _tau(scores: Float[Tensor, "T1 W"], others: Float[Tensor, "T1 W"]) -> Float[Tensor, " T1"]:
    """Return Kendall's tau-b (Kendall 1945) of the words by two methods; nan where one has only ties."""
    signs = [(part.unsqueeze(2) - part.unsqueeze(1)).sign().flatten(1) for part in (scores, others)]
    product = (signs[0] * signs[1]).sum(1)
    norm = (signs[0].abs().sum(1) * signs[1].abs().sum(1)).sqrt()
    tau: Tensor = product / norm  # 0 / 0 = nan
    return tau
