"""Encoders, decoders and losses of one's own that break their interface: what is said, and where."""

from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
from tiny_cli import fails
from torch import Tensor

import seq2attn
from seq2attn.attention.state import reorder
from seq2attn.layers.token_loss import Loss, TokenLoss
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import RecipeError, read, schema
from seq2attn.recipe.yaml_source import dump
from seq2attn.runtime.plugin_errors import blaming

Change = tuple[str, str]
ENCODER: Change = ('ENCODERS["convolution"] = ConvolutionEncoder', 'ENCODERS["convolution"] = ')
EMBEDDED: Change = ("self.embedding, self.size = embedding, size", "")


def first(change: Change, text: str) -> Change:
    """The change, with this text in its second part."""
    return change[0], change[1] + text


# ---- what the recipe check finds -------------------------------------------------------------------------

IN_RECIPES: dict[str, tuple[Change, str]] = {
    "no parameter for the embedding": (
        ("self, embedding: Embeds, *, size", "self, *, size"),
        "model.encoder.kind: ConvolutionEncoder must take the parameters (embedding), then its options behind a *; it "
        "takes (*, size=256, layers=2, kernel=5)",
    ),
    "options without a star": (
        ("embedding: Embeds, *, size", "embedding: Embeds, size"),
        "model.encoder.kind: ConvolutionEncoder must take the parameters (embedding), then its options behind a *; it "
        "takes (embedding, size=256, layers=2, kernel=5)",
    ),
    "another parameter of a decoder": (
        ("        attention: Attention | MultiHead,\n", "        attentoin: Attention | MultiHead,\n"),
        "model.decoder.kind: ForgetDecoder must take the parameters (embedding, output, source_size and, if it "
        "attends, attention or attentions), then its options behind a *; it takes (embedding, output, source_size, "
        "attentoin, *, dropout=0.1)",
    ),
    "no parameter for the attention": (
        ("        attention: Attention | MultiHead,\n", ""),
        "model.decoder.attention: unknown key 'attention' (one of kind, embedding, embedding_dropout, word_dropout, "
        "size, dropout)",
    ),
    "an attention as an option": (
        ("attention: Attention | MultiHead,\n        *,", "*,\n        attention: int,"),
        "model.decoder.kind: ForgetDecoder: every section of this kind has something named attention: give the option "
        "another name",
    ),
    "an option with the name of a key": (
        ("kernel: int = 5", "kernel: int = 5, word_dropout: float = 0.0"),
        "model.encoder.kind: ConvolutionEncoder: every section of this kind has something named word_dropout: give the "
        "option another name",
    ),
    "an option with the name of a method": (
        ("kernel: int = 5", "kernel: int = 5, faults: int = 0"),
        "model.encoder.kind: ConvolutionEncoder: every section of this kind has something named faults: give the "
        "option another name",
    ),
    "an option of a type that YAML lacks": (
        ("kernel: int = 5", "kernel: Tensor = 5"),
        "model.encoder.kind: ConvolutionEncoder: no recipe can have one of its options: Unable to generate "
        "pydantic-core schema for <class 'torch.Tensor'>",
    ),
    "an annotation that is none": (
        ("kernel: int = 5", "kernel: 'Kernel' = 5"),
        "model.encoder.kind: ConvolutionEncoder: an annotation of its constructor is wrong: name 'Kernel' is not "
        "defined",
    ),
    "a loss without a star": (
        ("self, *, gamma: float = 2.0", "self, gamma: float"),
        "training.loss: Focal: TypeError: Focal.__init__() missing 1 required positional argument: 'gamma'",
    ),
    "a loss that cannot be constructed": (
        ("self.gamma = gamma", "self.gamma = gama"),
        "training.loss: Focal: FOLDER/my_parts.py:LINE: NameError: name 'gama' is not defined",
    ),
}


@pytest.mark.parametrize("name", IN_RECIPES)
def test_the_recipe_check_names_the_key(name: str, tmp_path: Path) -> None:
    change, expected = IN_RECIPES[name]
    with tiny_parts.plugin(tmp_path, change), pytest.raises(RecipeError) as error:
        read(tiny_parts.recipe())
    code = (tmp_path / "my_parts.py").read_text().splitlines()
    line = next((str(n) for n, text in enumerate(code, 1) if change[1] and change[1] in text), "")
    expected = expected.replace("FOLDER", str(tmp_path)).replace("LINE", line)
    assert [str(fault) for fault in error.value.faults] == [f"recipe  {expected}"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first(ENCODER, "3"), r"ENCODERS\['convolution'\]: expected a class, got 3"),
        (
            ("class Focal(TokenLoss)", "class Focal"),
            r"LOSSES\['focal'\]: expected a subclass of TokenLoss \(seq2attn.layers.token_loss\), got <class",
        ),
    ],
)
def test_a_registry_takes_no_other_class(change: Change, message: str, tmp_path: Path) -> None:
    with pytest.raises(seq2attn.Seq2attnError, match=message), tiny_parts.plugin(tmp_path, change):
        pass


def test_a_built_in_kind_is_not_replaced(tmp_path: Path) -> None:
    with tiny_parts.plugin(tmp_path, first(ENCODER, 'ENCODERS["recurrent"] = ConvolutionEncoder')):
        message = "recurrent is built in: give <class 'my_parts.ConvolutionEncoder'> another name"
        with pytest.raises(RecipeError, match=rf"model\.encoder\.kind: {message}"):
            read("quickstart")
        with pytest.raises(seq2attn.Seq2attnError, match=message):
            schema()


# ---- what the trial finds --------------------------------------------------------------------------------

IN_MODELS: dict[str, tuple[Change, str]] = {
    "no encoder": (
        ("class ConvolutionEncoder(Encoder)", "class ConvolutionEncoder(nn.Module)"),
        "ConvolutionEncoder is in ENCODERS, but is no subclass of Encoder (seq2attn.models.encoders)",
    ),
    "no decoder": (
        ("class ForgetDecoder(Decoder)", "class ForgetDecoder(nn.Module)"),
        "ForgetDecoder is in DECODERS, but is no subclass of Decoder (seq2attn.models.decoders)",
    ),
    "a constructor that raises": (
        ("self.enter = nn.Linear(embedding.size, size)", "self.enter = nn.Linear(embedding.size, -3)"),
        "ConvolutionEncoder: FOLDER/my_parts.py:LINE: RuntimeError: Trying to create tensor with negative dimension "
        "-3: [-3, 11]",
    ),
    "no super().__init__()": (
        (
            "        super().__init__()\n        self.embedding, self.size",
            "        self.embedding, self.size",
        ),
        "ConvolutionEncoder: FOLDER/my_parts.py:LINE: AttributeError: cannot assign module before Module.__init__() "
        "call",
    ),
    "no size": (
        first(EMBEDDED, "self.embedding = embedding"),
        "ConvolutionEncoder must set self.size in its constructor: the width of its states, a number",
    ),
    "no embedding": (
        first(EMBEDDED, "self.size = size"),
        "ConvolutionEncoder must set self.embedding in its constructor, to the embedding that it is given",
    ),
    "an output layer of its own": (
        ("= embedding, output, attention", "= embedding, nn.Linear(14, 19), attention"),
        "ForgetDecoder must set self.output in its constructor, to the output that it is given",
    ),
    "no encode": (
        ("def encode", "def encod"),
        "ConvolutionEncoder must implement encode()",
    ),
    "a tuple": (
        ("return Encoded(states, mask.unsqueeze(1), summary)", "return states, mask.unsqueeze(1), summary"),
        "ConvolutionEncoder.encode must return Encoded(states, mask, summary), got (tensor(",
    ),
    "states of another width": (
        ("return Encoded(states,", "return Encoded(states[..., 1:],"),
        "ConvolutionEncoder.encode must return states of the shape (2, 3, 10), got (2, 3, 9)",
    ),
    "a mask without its axis": (
        ("mask.unsqueeze(1), summary", "mask, summary"),
        "ConvolutionEncoder.encode must return a mask of the shape (2, 1, 3), got (2, 3)",
    ),
    "no summary": (
        ("mask.unsqueeze(1), summary", "mask.unsqueeze(1), None"),
        "ConvolutionEncoder.encode must return a summary of the shape (2, 10), got None",
    ),
    "states at padding": (
        ("1).mT) * real", "1).mT)"),
        "ConvolutionEncoder.encode: states at padding must be zero: multiply them by mask.unsqueeze(-1)",
    ),
    "a summary of padding, too": (
        ("states.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)", "states.mean(1)"),
        "ConvolutionEncoder.encode: states or summary of a sentence change with the padding behind it: set",
    ),
    "states that read padding": (
        ("states = self.enter(vectors) * real", "states = self.enter(vectors)"),
        "ConvolutionEncoder.encode: states or summary of a sentence change with the padding behind it: set",
    ),
    "no forward": (
        ("    def forward(", "    def forwards("),
        "ForgetDecoder must implement forward()",
    ),
    "no step": (
        ("def step(", "def steps("),
        "ForgetDecoder must implement step()",
    ),
    "no cross_attention": (
        ("def cross_attention", "def attentions"),
        "ForgetDecoder must implement cross_attention()",
    ),
    "heads instead of an attention": (
        ("return self.attention.attention", "return self.attention.score"),
        "ForgetDecoder.cross_attention must return an Attention",
    ),
    "attention without a layer": (
        ("attention_layers = 1", "attention_layers = 0"),
        "ForgetDecoder was given attention to the source, and has attention_layers 0: set it to 1",
    ),
    "no Decoded": (
        ("return Decoded(predicted, weights), state", "return predicted, state"),
        "ForgetDecoder.forward must return Decoded(predicted, weights), got ",
    ),
    "no weights": (
        ("return Decoded(predicted, weights)", "return Decoded(predicted)"),
        "ForgetDecoder.forward must return the weights of the layers in weights_of, got none",
    ),
    "weights without their layers": (
        ("stack_layers([attended.weights for _ in weights_of])", "attended.weights"),
        "ForgetDecoder.forward must return weights (see stack_layers) of the shape (4, 1, 1, 3, 3), got (4, 3, 3)",
    ),
    "fewer logits": (
        ("self.dropout(joined), self", "self.dropout(joined)[:, 1:], self"),
        "ForgetDecoder.forward must return logits of the shape (4, 3, 19), got (4, 2, 19)",
    ),
    "a step that forgets": (
        ("state._replace(hidden=hidden, past", "state._replace(past"),
        "ForgetDecoder: step and forward must give the same logits for the same tokens, and differ by 0.",
    ),
    "a step of another shape": (
        ("return decoded.logits.squeeze(1), state", "return decoded.logits, state"),
        "ForgetDecoder.step must return logits of the shape (4, 19), got (4, 1, 19)",
    ),
}


@pytest.mark.parametrize("name", IN_MODELS)
def test_the_trial_of_a_part_says_what_to_fix(name: str, tmp_path: Path) -> None:
    change, expected = IN_MODELS[name]
    with tiny_parts.plugin(tmp_path, change):
        recipe = read(tiny_parts.recipe())
        with pytest.raises(seq2attn.Seq2attnError) as error:
            build(recipe.model, 17, 19)
    code = (tmp_path / "my_parts.py").read_text().splitlines()
    start = change[1].strip().splitlines()[0]
    line = next((str(number) for number, text in enumerate(code, 1) if start in text), "")
    expected = expected.replace("FOLDER", str(tmp_path)).replace("LINE", line)
    assert str(error.value).startswith(expected) and "\n" not in str(error.value)


@pytest.mark.parametrize("model", ["right", "no PerSource"])
def test_memory_may_be_copied_for_each_hypothesis(model: str, tmp_path: Path) -> None:
    """Without PerSource a search is slower, and no less right."""
    changes = [] if model == "right" else [("PerSource(memory)", "memory"), ("memory.value", "memory")]
    with tiny_parts.plugin(tmp_path, *changes):
        assert build(read(tiny_parts.recipe()).model, 17, 19).decoder.attention_layers == 1


def test_memory_that_ends_is_no_fault_of_a_class() -> None:
    """Nor is an error of seq2attn itself, which needs its traceback."""
    plugins = type("Mine", (), {"__module__": "somewhere"})
    for part, error in (
        (plugins, MemoryError()),
        (plugins, torch.OutOfMemoryError()),
        (TokenLoss, KeyError()),
    ):
        with pytest.raises(type(error)), blaming(part):
            raise error
    with pytest.raises(seq2attn.Seq2attnError, match=r"^Mine: KeyError: 'x'$"), blaming(plugins):
        raise KeyError("x")


def test_states_are_tensors_numbers_and_tuples() -> None:
    state = (1, 2.5, None, torch.arange(3), (torch.arange(3),))
    assert str(reorder(state, torch.tensor([2, 0]))) == str(
        (1, 2.5, None, torch.tensor([2, 0]), (torch.tensor([2, 0]),))
    )
    with pytest.raises(
        seq2attn.Seq2attnError, match=r"of tensors, numbers, PerSource and .* got a dict in it"
    ):
        reorder((state, {"a": state}), torch.tensor([2, 0]))


# ---- losses ----------------------------------------------------------------------------------------------


class Whole(TokenLoss):
    def __init__(self, result: Any) -> None:
        self.result = result

    def sums(self, predicted: Any, target: Any, mask: Any, num_copied: int) -> Any:
        return self.result


class Single(Whole):
    sums = TokenLoss.sums

    def per_token(self, logits: Tensor, target: Tensor) -> Any:
        return self.result(logits, target)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Whole(torch.zeros(())), r"Whole\.sums must return Loss\(smoothed, nll\) of two sums .* got tensor"),
        (Whole(Loss(torch.zeros(2), torch.zeros(()))), r"Whole\.sums must return Loss\(smoothed, nll\)"),
        (
            Single(lambda logits, target: logits),
            r"of the 4 tokens, of the shape \(4,\); got \(4, 7\): fix the",
        ),
        (Single(lambda logits, target: logits.sum()), r"Single\.per_token must .*; got \(\): fix the class"),
        (Single(lambda logits, target: {}["a"]), r"^Single: .*test_custom_faults\.py:\d+: KeyError: 'a'$"),
        (TokenLoss(), r"TokenLoss must define its loss: write per_token\(\) or sums\(\)"),
    ],
)
def test_a_loss_that_is_no_sum(loss: TokenLoss, message: str) -> None:
    kind = NotImplementedError if type(loss) is TokenLoss else seq2attn.Seq2attnError
    with pytest.raises(kind, match=message):
        loss(torch.randn(2, 3, 7), torch.ones(2, 3).long(), torch.arange(3) < torch.tensor([[3], [1]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first(EMBEDDED, "self.size = size"), "ConvolutionEncoder must set self.embedding"),
        (("(-1)).squeeze(-1)", "(-1))"), "Focal.per_token must return a loss for each of the"),
        (("* log_p\n", "* log_q\n"), "Focal: FOLDER/my_parts.py:"),
    ],
)
def test_the_command_line_has_no_traceback(change: Change, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(dump(tiny_parts.recipe()), encoding="utf-8")
    with tiny_parts.plugin(tmp_path, change):
        status, error = fails(
            "--import", "my_parts", "train", f"{tmp_path}/r.yaml", "--run", f"{tmp_path}/run"
        )
    last = error.splitlines()[-1]
    assert status == 1 and last.startswith(f"seq2attn: {message.replace('FOLDER', str(tmp_path))}"), error
