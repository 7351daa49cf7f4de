"""Attribution: laws over all of ATTRIBUTIONS, and what each method is by definition."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny_cli import fails, run
from tiny_runs import MODEL
from torch import Tensor
from torch.testing import assert_close

import seq2attn
from seq2attn.cli.heatmap import METHODS
from seq2attn.data.batches import Batch
from seq2attn.errors import Seq2attnError
from seq2attn.inference.activations import recorded
from seq2attn.inference.attention_maps import self_attentions
from seq2attn.inference.attribution import ATTRIBUTIONS, Pairs, completeness
from seq2attn.inference.faithfulness import RANDOM, faithfulness
from seq2attn.models.decoders import Decoded
from seq2attn.models.encoders import Encoded, Encoder

OF_PROBABILITY = sorted(name for name, entry in ATTRIBUTIONS.items() if entry.of_probability)
WITH_ATTENTION = ("transformer-pre-learned", "transformer-post-sinusoidal", "transformer-rotary-sinks")
SMOOTH = {"activation": "gelu"}
KINDS: dict[str, dict[str, Any]] = {
    **{
        name: {part: {**section, **SMOOTH} for part, section in tiny.MODELS[name].items()}
        for name in WITH_ATTENTION
    },
    "bahdanau-additive-gru-1-maxout": tiny.MODELS["bahdanau-additive-gru-1-maxout"],
    "luong-heads-lstm-2-tanh": tiny.MODELS["luong-heads-lstm-2-tanh"],
}
ALL = [
    (method, kind)
    for method in sorted(ATTRIBUTIONS)
    for kind in sorted(KINDS)
    if method != "rollout" or kind in WITH_ATTENTION
]


def pairs(kind: str, lengths: list[int], targets: list[int], width: int | None = None) -> Pairs:
    """Random pairs of a tiny model, padded with garbage. Words have two pieces, </s> is one."""
    model = tiny.model(KINDS[kind])
    source = tiny.sources(*lengths, width=width, model=model)
    read = tiny.reads(len(targets), max(targets))
    target = read.roll(-1, 1)
    mask = torch.arange(read.shape[1]) < torch.tensor(targets)[:, None]
    words = (torch.arange(source.tokens.shape[1]) // 2).repeat(len(lengths), 1)
    for row, length in enumerate(lengths):
        words[row, length - 1] = words[row, length - 2] + 1
    words = words.masked_fill(~source.mask, -1)
    return Pairs(model, Batch(source, read, target, mask), words, model.decoder.attention_layers - 1, None)


def part(whole: Pairs, row: int, length: int, target: int) -> Pairs:
    """One pair of a batch, without its padding."""
    rows = slice(row, row + 1)
    batch = Batch(tiny.rows(whole.source, rows, length), *(part[rows, :target] for part in whole.batch[1:4]))
    return whole._replace(batch=batch, words=whole.words[rows, :length])


# ---- laws of all methods -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "kind"), ALL)
def test_neither_padding_nor_batch_mates_matter(method: str, kind: str) -> None:
    """Padding gets exactly zero, and a pair gets in a batch what it gets alone."""
    lengths, targets = [6, 3, 5], [4, 3, 2]
    batch = pairs(kind, lengths, targets, width=8)
    found = ATTRIBUTIONS[method](batch)
    assert found.shape == batch.both.shape and found.isfinite().all()
    assert (found[~batch.both] == 0).all() and found[batch.both].count_nonzero()
    for row, (length, target) in enumerate(zip(lengths, targets, strict=True)):
        alone = ATTRIBUTIONS[method](part(batch, row, length, target))
        assert_close(found[row, :target, :length], alone[0], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("method", sorted(ATTRIBUTIONS))
def test_a_method_changes_nothing(method: str) -> None:
    """Twice the same, with gradients on or off, and no gradient is left in the model."""
    given = pairs("transformer-pre-learned", [4, 3], [3, 2])
    with torch.inference_mode():
        first = ATTRIBUTIONS[method](given)
    assert torch.equal(ATTRIBUTIONS[method](given), first) and not first.requires_grad
    assert all(parameter.grad is None for parameter in given.model.parameters())


@pytest.mark.parametrize("method", sorted(set(ATTRIBUTIONS) - set(OF_PROBABILITY)))
def test_weights_of_a_token_sum_to_one(method: str) -> None:
    given = pairs("transformer-post-sinusoidal", [6, 3], [4, 3])
    sums = ATTRIBUTIONS[method](given).sum(-1)
    assert_close(sums[given.batch.target_mask], torch.ones(7))


# ---- what the methods of probabilities are -----------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_integrated_gradients_are_complete(kind: str) -> None:
    """They sum to log p(tokens) - log p(no tokens)."""
    given = pairs(kind, [6, 3], [4, 3])
    found = ATTRIBUTIONS["integrated"](given)
    whole, none = (given.log_probabilities(vectors) for vectors in (given.vectors, given.empty))
    difference = (whole - none).masked_fill(~given.batch.target_mask, 0)
    assert difference.abs().max() > 0.01
    maxout = "maxout" in kind  # which has corners
    assert_close(found.sum(-1), difference, rtol=0, atol=0.01 if maxout else 0.004)
    assert_close(completeness(given, found), found.sum(-1) - difference, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_occlusion_is_the_difference_of_two_forced_passes(kind: str) -> None:
    given = pairs(kind, [6, 3], [4, 3])
    found = ATTRIBUTIONS["occlusion"](given)
    with torch.no_grad():
        decoded = given.model(given.source, given.batch.target_input)
        whole = decoded.logits.log_softmax(-1).gather(-1, given.batch.target[..., None])[..., 0]
        for word in range(int(given.words.max()) + 1):
            vectors = given.vectors.clone()
            of_word = given.words == word
            vectors[of_word] = given.empty[of_word]
            without = given.log_probabilities(vectors)
            effect = (found * of_word.unsqueeze(1)).sum(-1)
            expected = (whole - without) * of_word.any(1, keepdim=True)
            assert_close(effect, expected.masked_fill(~given.batch.target_mask, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_gradient_is_that_of_finite_differences(kind: str) -> None:
    given = pairs(kind, [4], [3])
    found = ATTRIBUTIONS["gradient"](given)[0]
    direction, step = given.vectors - given.empty, 2e-3
    for position in range(4):
        moved = torch.zeros_like(direction)
        moved[:, position] = direction[:, position] * step
        with torch.no_grad():
            ends = [given.log_probabilities(given.vectors + sign * moved)[0] for sign in (1, -1)]
        assert_close(found[:, position], (ends[0] - ends[1]) / (2 * step), rtol=0.02, atol=4e-3)


class _Linear(Encoder):
    """An encoder whose states are its vectors, with the embedding of another."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.embedding = encoder.embedding

    def encode(self, vectors: Tensor, mask: Tensor) -> Encoded:
        return Encoded(vectors, mask.unsqueeze(1), vectors.sum(1))


class _Sum(torch.nn.Module):
    """A decoder whose logits make log p(target) linear in the states: the other logits are too small to count."""

    attention_layers = 0

    def forward(self, tokens: Tensor, encoded: Any, weights_of: Any = ()) -> Any:
        total = encoded.states.sum((1, 2)) * 0.01
        logits = torch.full((*tokens.shape, tiny.TARGET), 0.0)
        logits[..., 5] = (total - 30)[:, None]  # log p = total - 30 - log(16), but for 1e-13
        return Decoded(logits)


def test_all_methods_agree_on_a_linear_model() -> None:
    """Gradient, integrated gradients and occlusion are the same there: what each token adds."""
    given = pairs("bahdanau-additive-gru-1-maxout", [5], [3])
    given.model.encoder, given.model.decoder = _Linear(given.model.encoder), _Sum()
    given.batch.target.fill_(5)
    given = given._replace(words=torch.arange(5)[None])
    expected = 0.01 * (given.vectors - given.empty).sum(-1).unsqueeze(1).expand(-1, 3, -1)
    for method in OF_PROBABILITY:
        assert_close(ATTRIBUTIONS[method](given), expected, rtol=1e-3, atol=2e-5)


def test_rollout_of_uniform_self_attention_mixes_the_source() -> None:
    """With A = 1/S in all layers, a weight on s goes to all positions but for the residuals' share 2^-L."""
    given = pairs("transformer-post-sinusoidal", [4], [3])
    with torch.no_grad():
        for layer in given.model.encoder.layers:
            for projection in (layer.self_attention.query, layer.self_attention.key):
                projection.weight.zero_()
                projection.bias.zero_()
    weights, found = ATTRIBUTIONS["attention"](given), ATTRIBUTIONS["rollout"](given)
    kept = 0.5 ** len(given.model.encoder.layers)
    assert_close(found, kept * weights + (1 - kept) / 4)


def test_rollout_goes_through_the_layers_in_their_order() -> None:
    """R_0 = I, R_l = (A_l + I) / 2 R_(l-1): what the states of a layer have of the tokens."""
    given = pairs("transformer-pre-learned", [4], [3])
    with torch.no_grad(), recorded(self_attentions(given.model)) as weights:
        given.model.encode(given.source)
    reached = torch.eye(4)
    for layer in weights:
        reached = (layer[0].mean(0) + torch.eye(4)) / 2 @ reached
    assert_close(ATTRIBUTIONS["rollout"](given)[0], ATTRIBUTIONS["attention"](given)[0] @ reached)


def test_rollout_needs_a_transformer() -> None:
    with pytest.raises(Seq2attnError, match="no self-attention on its source"):
        ATTRIBUTIONS["rollout"](pairs("luong-heads-lstm-2-tanh", [4], [3]))


# ---- the predictor and the command -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> seq2attn.Translator:
    return seq2attn.load(MODEL, device="cpu", kind=seq2attn.Translator)


@pytest.mark.parametrize("method", sorted(set(ATTRIBUTIONS) - {"rollout"}))
def test_a_text_owes_its_words(model: seq2attn.Translator, method: str, tmp_path: Path) -> None:
    found = model.attribute("Wo ist Tom?", "Where is Tom?", method)
    assert found.words == ["Where", "is", "Tom?"] and found.source_words == ["Wo", "ist", "Tom?"]
    assert found.result.alignment is not None and found.result.end_of_sentence is not None
    assert_close(found.result.alignment.sum(1) + found.result.end_of_sentence, torch.ones(3))
    signs = bool((found.scores < 0).any())
    assert signs or method not in OF_PROBABILITY
    assert (found.error is None) == (method != "integrated")
    assert json.loads(json.dumps(found.to_json()))["method"] == method
    if method == "attention":
        aligned = model.align("Wo ist Tom?", "Where is Tom?").alignment
        assert aligned is not None
        assert_close(found.scores, aligned)
    assert found.plot(tmp_path / "owed.svg") and (tmp_path / "owed.svg").stat().st_size > 1000


def test_without_a_target_it_is_the_models_own(model: seq2attn.Translator) -> None:
    found = model.attribute("Wo ist Tom?", method="occlusion")
    assert str(found) == model.translate("Wo ist Tom?").text and "occlusion" in repr(found)
    with pytest.raises(Seq2attnError, match="unknown attribution 'occlusio' \\(did you mean occlusion"):
        model.attribute("Wo ist Tom?", method="occlusio")
    with pytest.raises(Seq2attnError, match="nothing to attribute"):
        model.attribute(" ")


def test_the_command_draws_a_method(tmp_path: Path) -> None:
    assert sorted(METHODS) == sorted(ATTRIBUTIONS)
    output = str(tmp_path / "owed.svg")
    words = ["heatmap", str(MODEL), "Wo ist Tom?", "-o", output]
    run(*words, "--method", "integrated")
    drawn = Path(output).read_text()
    assert "integrated, shares of log p, completeness error" in drawn
    code, message = fails(*words, "--method", "gradient", "--layer", "all")
    assert code and "one method has one heat map" in message


# ---- faithfulness ------------------------------------------------------------------------------------------


def test_what_the_model_needs_is_measured(model: seq2attn.Translator) -> None:
    """Occlusion finds the words that the model needs, better than chance."""
    found = faithfulness(model, ["Wo ist Tom?", "Ich habe keine Zeit.", "Ja"], ["attention", "occlusion"])
    assert found.tokens > 4 and set(found.methods) == {"attention", "occlusion", RANDOM}
    best, chance = found.methods["occlusion"], found.methods[RANDOM]
    assert best.comprehensiveness > chance.comprehensiveness and best.sufficiency < chance.sufficiency
    assert -1 <= found.agreement["attention", "occlusion"] <= 1
    assert found == faithfulness(
        model, ["Wo ist Tom?", "Ich habe keine Zeit.", "Ja"], ["attention", "occlusion"]
    )
    with pytest.raises(Seq2attnError, match="at least two words or pieces"):
        faithfulness(model, [" "], ["attention"])


def test_of_two_words_the_measures_are_occlusions(model: seq2attn.Translator) -> None:
    """Without the first of two words, or with only it: one forced pass each."""
    found = faithfulness(model, ["Keine Zeit."], ["occlusion"])
    owed = model.attribute("Keine Zeit.", method="occlusion")
    falls = owed.pieces[:, :-1]
    sums = torch.zeros(len(falls), 2).index_add_(1, torch.tensor(owed.result.source.word_of), falls)
    own = found.methods["occlusion"]
    assert own.comprehensiveness == pytest.approx(float(sums.max(1).values.mean()), abs=1e-5)
    assert own.sufficiency == pytest.approx(float(sums.min(1).values.mean()), abs=1e-5)
