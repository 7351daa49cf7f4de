"""Every part that takes a mask refuses one of another shape or type; T = B = S shows where it would broadcast."""

from functools import partial

import pytest
import torch
from shapes import unchecked
from tiny import transformer
from torch import nn

from seq2attn.attention import Attention, MultiHead
from seq2attn.attention.bidirectional import BidirectionalFlow
from seq2attn.attention.normalizers import Softmax
from seq2attn.attention.pooling import Hierarchical, Pooling, SpanPooling
from seq2attn.attention.scorers import SCORERS, ScaledDot
from seq2attn.errors import Seq2attnError
from seq2attn.layers.basic import Dropout, Embedding, Projection
from seq2attn.layers.crf import CRF
from seq2attn.layers.token_loss import CrossEntropy, cross_entropy
from seq2attn.models.encoders import RecurrentEncoder
from seq2attn.models.seq2seq_factory import build
from seq2attn.models.tagger_layers import AttentivePooling, LabelAttention, PlainPooling, SelfAttention
from seq2attn.recipe import ModelRecipe
from seq2attn.training.objectives import coverage, doubly_stochastic, entropy, guided, reinforce

N, D = 3, 8
STATES, WEIGHTS, IDS = torch.randn(N, N, D), torch.rand(N, N, N), torch.zeros(N, N, dtype=torch.long)
REAL = torch.ones(N, N, dtype=torch.bool)


def attention() -> Attention:
    return Attention(ScaledDot(D, D), Softmax())


def pooling() -> Pooling:
    return Pooling(attention(), 1, D)


def embedding() -> Embedding:
    return Embedding(5, D, Dropout(0.0))


def transformer_encoder() -> torch.nn.Module:
    sections = {"encoder": transformer(), "decoder": transformer(decoder=True)}
    return build(ModelRecipe.model_validate(sections), 5, 5).encoder


TAKES = {
    "attention": lambda mask: attention().remember(STATES, mask),
    "heads": lambda mask: MultiHead(2, D, D, Attention(ScaledDot(4, 4), Softmax())).remember(STATES, mask),
    "pooling": lambda mask: pooling()(STATES, mask),
    "hierarchical": lambda mask: Hierarchical(pooling(), pooling())(STATES[None], mask[None]),
    "spans": lambda mask: SpanPooling(attention(), D)(STATES, torch.zeros(N, N, 2, dtype=torch.long), mask),
    "flow, context": lambda mask: BidirectionalFlow(D)(STATES, STATES, mask, REAL),
    "flow, query": lambda mask: BidirectionalFlow(D)(STATES, STATES, REAL, mask),
    "recurrent encoder": lambda mask: RecurrentEncoder(embedding(), "gru", D, 1, True, Dropout(0.0))(
        IDS, mask
    ),
    "transformer encoder": lambda mask: transformer_encoder()(IDS, mask),
    "self-attention": lambda mask: SelfAttention(attention(), D)(STATES, mask),
    "label attention": lambda mask: LabelAttention(attention(), 4, D, D)(STATES, mask),
    "attentive pooling": lambda mask: AttentivePooling(pooling(), D)(STATES, mask),
    "plain pooling": lambda mask: PlainPooling("mean", D)(STATES, mask),
    "crf": lambda mask: CRF(D).decode(STATES, mask),
    "crf, loss": lambda mask: CRF(D)(STATES, IDS, mask),
    "crf, score": lambda mask: CRF(D).score(STATES, IDS, mask),
    "cross-entropy": lambda mask: cross_entropy(STATES, IDS, mask),
    "coverage": lambda mask: coverage(WEIGHTS, mask),
    "doubly stochastic": lambda mask: doubly_stochastic(WEIGHTS, mask, REAL),
    "doubly stochastic, source": partial(doubly_stochastic, WEIGHTS, REAL),
    "guided": lambda mask: guided(WEIGHTS, WEIGHTS > 0.5, mask),
    "entropy": lambda mask: entropy(WEIGHTS, mask),
    "reinforce": lambda mask: reinforce(WEIGHTS, WEIGHTS, torch.ones(N), mask),
}


@pytest.mark.parametrize("name", TAKES)
def test_a_mask_must_be_boolean_and_of_one_shape(name):
    take = TAKES[name]
    with unchecked():
        take(REAL)
        for wrong in (REAL.float(), REAL.long()):
            with pytest.raises(Seq2attnError, match="expected a boolean mask"):
                take(wrong)
        for wrong in (REAL[0], REAL[:2], REAL[:, :2], REAL[:1], REAL[:, :1], REAL[None, None]):
            with pytest.raises(Seq2attnError, match="expected a mask"):
                take(wrong)


@pytest.mark.parametrize("name", sorted(TAKES.keys() - {"attention", "heads"}))
def test_where_queries_have_no_masks_a_third_axis_is_refused(name):
    with unchecked(), pytest.raises(Seq2attnError, match="expected a mask"):
        TAKES[name](REAL[:, None])


@pytest.mark.parametrize("module", [attention, lambda: MultiHead(2, D, D, attention())], ids=["one", "heads"])
def test_other_inputs_of_an_attention_must_fit_its_states(module):
    module = module()
    with pytest.raises(Seq2attnError, match=r"expected states \(B, S, K\)"):
        module.remember(STATES[0], REAL[0])
    if isinstance(module, Attention):
        with pytest.raises(Seq2attnError, match="expected a value for each of the states"):
            module.remember(STATES, REAL, STATES[:, :2])


LOSSES = {
    "crf": lambda labels: CRF(D)(STATES, labels, REAL),
    "crf, score": lambda labels: CRF(D).score(STATES, labels, REAL),
    "cross-entropy": lambda labels: cross_entropy(STATES, labels, REAL),
    "projected": lambda labels: cross_entropy(Projection(STATES, nn.Linear(D, D)), labels, REAL),
    "token loss": lambda labels: CrossEntropy()(STATES, labels, REAL),
}


@pytest.mark.parametrize("name", LOSSES)
def test_labels_must_be_ids_of_one_shape(name):
    loss = LOSSES[name]
    with unchecked():
        for right in (IDS, IDS.int(), IDS.byte(), IDS + D - 1):
            loss(right)
        for wrong in (IDS[:2], IDS[:, :2], IDS[0], IDS.float(), IDS.bool(), None, IDS.tolist(), IDS.numpy()):
            with pytest.raises(Seq2attnError, match=r"^expected label ids \(B, T\)"):
                loss(wrong)
        for beyond in (-1, D):
            labels = IDS.clone()
            labels[1, 2] = beyond
            with pytest.raises(Seq2attnError, match=rf"token 2 of sentence 1 has label {beyond}: .* 0 ... 7"):
                loss(labels)


def test_emissions_of_a_crf_have_a_score_for_each_label():
    for wrong in (STATES[..., :3], STATES[0], None):
        with unchecked(), pytest.raises(Seq2attnError, match=r"^expected emissions \(B, T, 8\)"):
            CRF(D)(wrong, IDS, REAL)
    with unchecked(), pytest.raises(Seq2attnError, match="expected a mask"):
        CRF(D).probability(STATES, REAL, STATES[..., :3] > 0)


TENSORS = {"none": None, "a list": [[1.0]], "whole numbers": torch.ones(N, N, D, dtype=torch.long)}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("kind", ["attention", "heads"])
def test_states_and_queries_are_tensors_of_floats(kind: str, name: str) -> None:
    inner = Attention(ScaledDot(4, 4), Softmax())
    made = attention() if kind == "attention" else MultiHead(2, D, D, inner)
    with unchecked(), pytest.raises(Seq2attnError, match="expected queries as a tensor of floating-point n"):
        made(TENSORS[name], made.remember(STATES, REAL))
    with unchecked(), pytest.raises(Seq2attnError, match="expected states as a tensor of floating-point n"):
        made.remember(TENSORS[name], REAL)


def test_queries_of_another_width_are_no_fault_of_a_class_of_seq2attn() -> None:
    made = attention()
    with unchecked(), pytest.raises(Seq2attnError, match=r"give queries and states of the sizes that it was"):
        made(STATES[..., 1:], made.remember(STATES, REAL))


@pytest.mark.parametrize("score", ["additive", "coverage"])
@pytest.mark.parametrize("kind", ["attention", "heads"])
def test_no_queries_have_no_context_and_change_nothing(kind: str, score: str) -> None:
    inner = Attention(SCORERS[score](*((D, D) if kind == "attention" else (4, 4))), Softmax())
    made = inner if kind == "attention" else MultiHead(2, D, D, inner)
    memory = made.remember(STATES, REAL)
    past = made(STATES[:, :1], memory).past
    attended = made(STATES[:, :0], memory, past)
    assert attended.context.shape == (N, 0, D) and attended.past is past
