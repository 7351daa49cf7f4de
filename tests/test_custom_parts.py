"""An encoder, a decoder and a loss of one's own: the code of docs/add_a_part.md, in everything that uses them."""

import copy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import decoder_laws
import pytest
import tiny
import tiny_parts
import tiny_taggers
import tiny_words
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from tiny_cli import fails
from torch import nn
from torch.testing import assert_close

import seq2attn
from seq2attn.cli import cli
from seq2attn.layers.basic import Projection
from seq2attn.layers.token_loss import CrossEntropy, Loss, TokenLoss, cross_entropy
from seq2attn.models.seq2seq_factory import build
from seq2attn.recipe import ModelRecipe, RecipeError, TrainingRecipe, read, schema, write
from seq2attn.runs.attention_bench import variants
from seq2attn.tasks.sequence_tasks import token_objective
from seq2attn.training.label_objectives import LabelObjective
from seq2attn.training.objectives import TokenObjective

SMALL = [
    *(
        "data.train={task: copy, count: 60}",
        "data.dev={task: copy, count: 9}",
        "data.test={task: copy, count: 9}",
    ),
    *(
        "text={model: word, size: 40, byte_fallback: false}",
        "training.max_steps=1",
        "training.max_epochs=null",
    ),
    *("model.encoder.size=16", "model.decoder.size=12", "model.decoder.embedding=12"),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The plugin, and the module of its classes."""
    with tiny_parts.plugin(tmp_path_factory.mktemp("parts")) as module:
        yield module


# ---- the document ----------------------------------------------------------------------------------------


def test_the_document_is_true(parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(tiny_parts.RECIPE, encoding="utf-8")
    for command in tiny_parts.COMMANDS:
        echo, _, words = command.rpartition("| ")
        arguments = [*shlex.split(words)[1:], *(SMALL if "mine.yaml" in words else [])]
        given = " ".join(shlex.split(echo)[1:]) or None
        result = CliRunner().invoke(cli, arguments, input=given, catch_exceptions=False)
        assert result.exit_code == 0, (command, result.output)
    assert len(tiny_parts.COMMANDS) == 4 and Path("hunger.png").read_bytes().startswith(b"\x89PNG")
    model = seq2attn.load("runs/mine", device="cpu").model
    assert isinstance(model.encoder, parts.ConvolutionEncoder) and len(model.encoder.layers) == 3
    assert isinstance(model.decoder, parts.ForgetDecoder)
    assert model.decoder.output.weight is model.decoder.embedding.table.weight  # tied
    with pytest.MonkeyPatch.context() as patch:  # as in a process that has not imported them
        for registry, name in (
            (seq2attn.ENCODERS, "convolution"), (seq2attn.DECODERS, "forget"), (seq2attn.LOSSES, "focal"),
        ):  # fmt: skip
            patch.delitem(registry, name)
        status, message = fails("translate", "runs/mine")
    others = "others by --import MODULE, SEQ2ATTN_IMPORT or an entry point"
    assert status == 1 and [line.split("  ")[1] for line in message.splitlines()] == [
        f"model.encoder.kind: unknown 'convolution' (one of recurrent, transformer; {others})",
        f"model.decoder.kind: unknown 'forget' (one of recurrent, transformer; {others})",
        f"training.loss.name: unknown 'focal' (one of cross_entropy; {others})",
    ]


# ---- encoders and decoders -------------------------------------------------------------------------------

MODELS = {
    "additive": {"encoder": tiny_parts.ENCODER, "decoder": tiny_parts.DECODER},
    "heads": {
        "encoder": tiny_parts.ENCODER,
        "decoder": {**tiny_parts.DECODER, "attention": {"heads": 2, "key_heads": 1}},
    },
    "coverage": {
        "encoder": tiny.recurrent_encoder(),
        "decoder": {**tiny_parts.DECODER, "attention": {"score": "coverage"}},
    },
    "encoder alone": {"encoder": tiny_parts.ENCODER, "decoder": tiny.transformer(decoder=True)},
}
LAWS = {
    "steps and forward agree": decoder_laws.steps_and_forward_agree,
    "weights are a distribution": decoder_laws.weights_are_a_distribution_over_the_source,
    "only past tokens matter": decoder_laws.only_past_tokens_matter,
    "padding has no weights": decoder_laws.padding_has_no_weights,
    "a batch is a list of sentences": decoder_laws.a_batch_is_a_list_of_sentences,
    "every parameter learns": decoder_laws.every_parameter_learns,
    "reordering commutes": lambda model: decoder_laws.reordering_commutes_with_stepping(model, False),
    "hypotheses step as sentences": lambda model: decoder_laws.hypotheses_step_as_sentences_do(model, False),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.usefixtures("parts")
def test_laws(model: str, law: str) -> None:
    LAWS[law](tiny.model(MODELS[model]))


def test_a_trial_changes_no_random_numbers_and_no_mode(tmp_path: Path) -> None:
    """The weights are those that the constructors draw, one after the other."""
    models = []
    with tiny_parts.plugin(tmp_path, ("        real = mask", "        torch.rand(3)\n        real = mask")):
        recipe = ModelRecipe.model_validate(MODELS["additive"])
        for tried in (True, False):
            torch.manual_seed(3)
            with pytest.MonkeyPatch.context() as patch:
                for name in ("try_encoder", "try_decoder") if not tried else ():
                    patch.setattr(f"seq2attn.models.seq2seq_factory.{name}", lambda part, *given: part)
                models.append(build(recipe, 19, 17))
    assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)
    assert all(part.training for part in models[0].modules())


@pytest.mark.parametrize("attention", [None, {"score": "additive"}])
def test_attention_may_be_optional(attention: Any, tmp_path: Path) -> None:
    changes = [
        ("attention: Attention | MultiHead,", "attention: Attention | MultiHead | None = None,"),
        ("    attention_layers = 1\n", ""),
        ("attention.context_size(source_size)", "(attention.context_size(source_size) if attention else 0)"),
        ("        self.dropout = nn.D", "        self.attention_layers = int(attention is not None)\n        self.dropout = nn.D"),
        ("        memory = self", "        if self.attention is None:\n            return ForgetState(self.enter(encoded.summary).tanh(), PerSource(None), None)\n        memory = self"),
        ("        attended = self", "        if self.attention is None:\n            predicted = Projection.of(self.join(query).tanh(), self.output)\n            return Decoded(predicted), state._replace(hidden=hidden)\n        attended = self"),
    ]  # fmt: skip
    with tiny_parts.plugin(tmp_path, *changes):
        model = {"encoder": tiny_parts.ENCODER, "decoder": {**tiny_parts.DECODER, "attention": attention}}
        recipe = read(tiny_parts.recipe(**model))
        built = build(recipe.model, 19, 17)
        assert built.decoder.attention_layers == (attention is not None)
        assert recipe.attention_path == (None if attention is None else "model.decoder.attention")
        if attention is None:
            with pytest.raises(RecipeError, match="replace_unknown: needs attention, and the decoder forget"):
                read({**tiny_parts.recipe(**model), "decoding": {"replace_unknown": True}})
        trained = seq2attn.train(tiny_parts.recipe(**model), tmp_path / "run", device="cpu")
        if attention is None:
            with pytest.raises(seq2attn.Seq2attnError, match="no attention to the source: it cannot be al"):
                trained.model.align("a b c", "a b c").plot(tmp_path / "map.png")
        else:
            trained.model.align("a b c", "a b c").plot(tmp_path / "map.png")


def test_a_decoder_may_have_a_list_of_attentions(tmp_path: Path) -> None:
    changes = [
        ("attention: Attention | MultiHead,", "attentions: list[Attention | MultiHead],"),
        ("output, attention\n", "output, attentions[0]\n        self.second = attentions[1]\n"),
        ("attention.context_size(source_size)", "2 * attentions[0].context_size(source_size)"),
        ("attention_layers = 1", "attention_layers = 2"),
        ("    memory: PerSource[Memory]", "    other: PerSource[Memory]\n    memory: PerSource[Memory]"),
        ("ForgetState(hidden,", "ForgetState(hidden, PerSource(self.second.remember(encoded.states, encoded.mask)),"),
        ("        joined =", "        more = self.second(query, state.other.value, need_weights=bool(weights_of))\n        joined ="),
        ("[query, attended.context]", "[query, attended.context, more.context]"),
        ("[attended.weights for _ in weights_of]", "[(attended.weights, more.weights)[layer] for layer in weights_of]"),
    ]  # fmt: skip
    with tiny_parts.plugin(tmp_path, *changes):
        sections = [{"score": "additive", "heads": 2}, {"heads": 2}]
        decoder = {"kind": "forget", "embedding": 13, "size": 14, "attentions": sections}
        recipe = {"encoder": tiny_parts.ENCODER, "decoder": decoder}
        model = tiny.model(recipe)
        for law in LAWS.values():
            law(tiny.model(recipe))
        weights = model(tiny.sources(5, 3), tiny.reads(2, 4), (1, 0)).weights
        assert weights.shape == (2, 2, 2, 4, 5) and not torch.allclose(weights[:, 0], weights[:, 1])
        decoder["attentions"] = [*sections[:1], {"heads": 7, "normalize": "sum"}]
        with pytest.raises(RecipeError) as error:
            read(tiny_parts.recipe(**recipe))
        assert [str(fault.path) for fault in error.value.faults] == [
            "model.decoder.attentions.1.normalize",
            "model.decoder.attentions.1.heads",
        ]


@pytest.mark.usefixtures("parts")
def test_an_encoder_works_in_taggers_and_classifiers() -> None:
    words = tiny_words.batch(*tiny_taggers.TEXT[:4])
    encoder = {"kind": "convolution", "size": 9, "kernel": 3}
    for model in (
        tiny_words.tagger(encoder=encoder, attention={"heads": 3}),
        tiny_words.classifier(encoder=encoder, pooling={"kind": "attention", "heads": 3}),
    ):
        assert model.encoder.size == 9 and model(words).scores.isfinite().all()
    with pytest.raises(ValueError, match="unknown key 'embedding_dropout'"):  # the embedding has a section
        tiny_words.tagger(encoder={**encoder, "embedding_dropout": 0.1})
    with pytest.raises(seq2attn.Seq2attnError, match="heads must divide the size: got heads=2 for size=9"):
        tiny_words.classifier(encoder=encoder, pooling={"kind": "attention", "heads": 2})


# ---- recipes ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("parts")
def test_options_are_keys_of_a_recipe(tmp_path: Path) -> None:
    recipe = read(tiny_parts.recipe(), ["training.loss={name: focal, gamma: 3}", "model.encoder.layers=1"])
    write(recipe, tmp_path / "recipe.yaml")
    assert read(tmp_path / "recipe.yaml") == recipe
    assert recipe.model_dump()["model"]["encoder"] == {
        "kind": "convolution",
        "embedding": 11,
        "embedding_dropout": 0.0,
        "word_dropout": 0.0,
        "size": 10,
        "layers": 1,
        "kernel": 3,
    }
    assert recipe.model_dump()["training"]["loss"] == {"name": "focal", "gamma": 3.0}
    assert [variant.overrides for variant in variants(recipe, ["dot"])] == [
        ("model.decoder.attention.score=dot",)
    ]


FAULTS = {
    "model.encoder.kernle=3": (
        "model.encoder.kernle: unknown key 'kernle' (did you mean kernel? one of kind, embedding, embedding_dropout, "
        "word_dropout, size, layers, kernel)"
    ),
    "model.encoder.kernel=x": "model.encoder.kernel: expected a whole number, got 'x'",
    "model.encoder.kind=convolutoin": (
        "model.encoder.kind: unknown 'convolutoin' (did you mean convolution? one of recurrent, transformer, "
        "convolution; others by importing their module, SEQ2ATTN_IMPORT or an entry point)"
    ),
    "model.decoder={kind: forget}": "model.decoder: missing key 'attention'",
    "model.decoder.attention={heads: 5}": "model.decoder.attention.heads: 5 heads do not divide the size 14",
    "model.decoder.attention={normalize: sum}": None,
    "model.tied=decoder": (
        "model.tied: the output layer reads 14 values, embeddings have 13; set decoder.readout_size to the "
        "embedding's size"
    ),
    "model.decoder.copying=true": "model.decoder.copying: unknown key 'copying' (one of kind, ",
    "training.attention_losses={coverage: 1, head: 1}": "training.attention_losses.head: the heads are 0 to 0, got 1",
    "training.label_smoothing=0.1": "training.label_smoothing: the loss focal has none: set it to 0",
    "training.loss={name: focal, gama: 1}": "training.loss.gama: unknown key 'gama' (did you mean gamma?",
}


@pytest.mark.parametrize("override", sorted(FAULTS))
@pytest.mark.usefixtures("parts")
def test_faults_are_found_as_in_any_section(override: str) -> None:
    with pytest.raises(RecipeError) as error:
        read(tiny_parts.recipe(), [override])
    (fault,) = error.value.faults
    assert str(fault).startswith(f"overrides: {FAULTS[override] or fault.path}"), fault


@pytest.mark.usefixtures("parts")
def test_the_schema_has_the_options() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    whole = schema()
    validator = jsonschema.Draft202012Validator(whole)
    recipe = tiny_parts.recipe()
    assert validator.is_valid(recipe)
    for section, key, value in (
        ("encoder", "kernle", 3),
        ("encoder", "kernel", "x"),
        ("decoder", "order", "luong"),
    ):
        changed = copy.deepcopy(recipe)
        changed["model"][section][key] = value
        assert not validator.is_valid(changed), key
    definition = whole["$defs"]["ConvolutionEncoderRecipe"]
    assert definition["description"].startswith("Layers of gated convolutions")
    assert definition["properties"]["kernel"]["default"] == 5


# ---- losses ----------------------------------------------------------------------------------------------


def token_data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    logits, target = 3 * torch.randn(3, 5, 7, dtype=torch.float64), torch.randint(0, 7, (3, 5))
    return logits, target, torch.arange(5) < torch.tensor([5, 2, 0])[:, None]


def focal(logits: torch.Tensor, target: torch.Tensor, gamma: float) -> torch.Tensor:
    """By hand, a token at a time."""
    total = logits.new_zeros(())
    for row, label in zip(logits, target.tolist(), strict=True):
        p = row.exp()[label] / row.exp().sum()
        total = total - (1 - p) ** gamma * p.log()
    return total


def test_value_and_gradient_of_a_loss(parts: Any) -> None:
    logits, target, mask = token_data()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = parts.Focal(gamma=1.5)(ours, target.masked_fill(~mask, 99), mask)
    expected = focal(theirs[mask], target[mask], 1.5)
    assert_close(loss.smoothed, expected)
    assert_close(loss.nll, F.cross_entropy(logits[mask], target[mask], reduction="sum"))
    assert not loss.nll.requires_grad
    loss.smoothed.backward()
    expected.backward()
    assert_close(ours.grad, theirs.grad)


def test_a_focal_loss_of_gamma_0_is_cross_entropy(parts: Any) -> None:
    """Also from a projection, and in bfloat16; and CrossEntropy is the function."""
    _, target, mask = token_data()
    states, layer = torch.randn(3, 5, 4), nn.Linear(4, 7)
    narrow = Projection(states.bfloat16(), layer)
    for predicted in (layer(states), Projection(states, layer), narrow):
        expected = cross_entropy(predicted, target, mask)
        tolerance = {"rtol": 1e-2, "atol": 1e-2} if predicted is narrow else {}
        assert_close(tuple(parts.Focal(gamma=0.0)(predicted, target, mask)), tuple(expected), **tolerance)
    smoothed = cross_entropy(states, target % 4, mask, 0.2, 1)
    assert_close(tuple(CrossEntropy(0.2)(states, target % 4, mask, 1)), tuple(smoothed))


def test_losses_are_sums_over_tokens(parts: Any) -> None:
    """So that an update does not depend on how it is divided into batches; no token is a sum of none."""
    logits, target, mask = token_data()
    loss = parts.Focal()
    rows = [loss(logits[n : n + 1], target[n : n + 1], mask[n : n + 1]) for n in range(3)]
    assert_close(sum(row.smoothed for row in rows), loss(logits, target, mask).smoothed)
    assert rows[2] == Loss(torch.zeros(()).double(), torch.zeros(()).double())


class Ordered(TokenLoss):
    """A loss of whole sentences: the largest loss of a token in each."""

    smooths = True

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def sums(self, predicted: Any, target: Any, mask: Any, num_copied: int) -> Loss:
        logits = predicted.whole() if isinstance(predicted, Projection) else predicted
        nll = (
            F.cross_entropy(logits.mT, target, reduction="none", label_smoothing=self.label_smoothing) * mask
        )
        return Loss(nll.amax(1).sum(), nll.detach().sum())


def test_a_loss_of_whole_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(seq2attn.LOSSES, "ordered", Ordered)
    settings = TrainingRecipe.model_validate({"max_steps": 1, "loss": "ordered", "label_smoothing": 0.3})
    logits, target, mask = token_data()
    loss = settings.token_loss()(logits, target, mask)
    assert isinstance(settings.token_loss(), Ordered) and settings.token_loss().label_smoothing == 0.3
    each = F.cross_entropy(logits.mT, target, reduction="none", label_smoothing=0.3)
    assert_close(loss.smoothed, each[0].max() + each[1, :2].max())


@pytest.mark.usefixtures("parts")
def test_a_loss_is_for_training_and_validation_reports_cross_entropy() -> None:
    recipe = read(tiny_parts.recipe())
    model = build(recipe.model, 19, 17)
    assert type(token_objective(model, recipe.training).token_loss).__name__ == "Focal"
    assert type(TokenObjective().token_loss) is CrossEntropy


def test_a_loss_of_labels(parts: Any) -> None:
    model, words = tiny_words.tagger(head={"kind": "linear"}), tiny_words.batch(*tiny_taggers.TEXT)
    batch = tiny_taggers.labelled(words, torch.randint(0, 5, words.ids.shape))
    objective = LabelObjective(model, parts.Focal(gamma=1.0))
    losses = objective.loss(objective.forward(model, batch), batch)
    scores = model(words).scores[words.mask]
    assert_close(losses.whole, focal(scores, batch.labels[words.mask], 1.0))
    recipe = {
        "task": "tagging", "data": {"train": {"conll": "x"}, "dev": {"conll": "x"}}, "training": {"max_steps": 1}
    }  # fmt: skip
    assert read(recipe, ["training.loss=focal", "model.head.kind=linear"], check_files=False)
    with pytest.raises(
        RecipeError, match=r"training\.loss: a CRF predicts all labels together, and has its own"
    ):
        read(recipe, ["training.loss=focal"], check_files=False)


def test_recipes_without_a_loss_are_read_as_before() -> None:
    settings = TrainingRecipe.model_validate({"max_steps": 1, "label_smoothing": 0.1})
    loss = settings.token_loss()
    assert settings.loss.name == "cross_entropy" and isinstance(loss, CrossEntropy)
    assert settings.label_smoothing == loss.label_smoothing == 0.1
