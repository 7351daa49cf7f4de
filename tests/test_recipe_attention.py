"""What recipes check about attention, alignments and labels."""

import re
from pathlib import Path

import pytest
from tiny_recipes import KEPT, OTHERS, SHIPPED, faults

from seq2attn.recipe import RecipeError, TransformerDecoderRecipe, read, schema, write
from seq2attn.recipe.yaml_source import parse

pytestmark = pytest.mark.usefixtures("corpora")

# ---- self-attention and cross-attention ------------------------------------------------------------------

OWN, ACROSS = "model.decoder.self_attention", "model.decoder.cross_attention"


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ([f"{ACROSS}.window=3"],
         f"{ACROSS}.window: only self-attention can have a window, which moves with its query: set it to null"),
        ([f"{OWN}.key_heads=3"], f"{OWN}.key_heads: 3 key heads do not divide 8 heads"),
        ([f"{OWN}.window=4", f"{OWN}.score=location"],
         f"{OWN}.window: a decoder keeps only the keys of its window, so location would see other positions in "
         "decoding than in training: set it to null"),
        ([f"{OWN}.window=4", f"{OWN}.score=location", f"{OWN}.normalize=local_p"],
         f"{OWN}.window: a decoder keeps only the keys of its window, so location and local_p would see other "
         "positions in decoding than in training: set it to null"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, {{heads: 8, window: 4, normalize: local_p}}]"],
         f"{OWN}.1.window: a decoder keeps only the keys of its window, so local_p would see other positions in "
         "decoding than in training: set it to null"),
        ([f"{OWN}.talking=true", f"{OWN}.score=location"],
         f"{OWN}.talking: Location has a score for positions that get no weight, which mixing heads would lose: no "
         "talking"),
        ([f"{OWN}.sinks=3"], f"{OWN}.sinks: without a window every token stays visible: set window, or sinks to 0"),
        ([f"{OWN}={{talking: true}}"], f"{OWN}.talking: talking heads need at least two heads: set heads"),
        ([f"{OWN}.talking=true", f"{OWN}.normalize=sum", f"{OWN}.score=linear"],
         f"{OWN}.talking: Sum divides by the scores' sum, and mixed scores may be negative: no talking"),
        ([f"{ACROSS}.talking=true", f"{ACROSS}.normalize=monotonic"],
         f"{ACROSS}.talking: Monotonic follows the weights of its own head, which mixing heads would change: no talking"),
        (["model.decoder.positions=alibi", f"{OWN}.normalize=sum", f"{OWN}.score=linear"],
         f"{OWN}.normalize: divides by the sum of the scores, and with alibi positions scores may be negative; use others"),
        (["model.decoder.positions=t5", f"{OWN}.window=5", f"{OWN}.sinks=3"],
         f"{OWN}.sinks: a decoder keeps no keys between the sinks and the window, so t5 positions would "
         "take the sinks for near tokens: use rotary, or no sinks"),
        (["model.decoder.positions={name: t5, max_distance: 31}"],
         "model.decoder.positions: 32 buckets are more than max_distance 31 has distances: raise it to 32, or "
         "lower buckets"),
        (["model.encoder.positions={name: t5, max_distance: 15}"],
         "model.encoder.positions: 32 buckets, 16 for each direction, are more than max_distance 15 has "
         "distances: raise it to 16, or lower buckets"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}]"],
         f"{OWN}: expected a section for each of the 2 layers, got a list of 1; a section without a list is "
         "for all layers"),
        (["model.decoder.layers=2", f"{ACROSS}=[]"],
         f"{ACROSS}: expected a section for each of the 2 layers, got a list of 0; a section without a list is "
         "for all layers"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, {{heads: 7}}]"],
         f"{OWN}.1.heads: 7 heads do not divide the size 512"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, {{heads: 512}}]", "model.decoder.positions=rotary"],
         f"{OWN}.1.heads: rotary positions need an even head size, got 1"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, {{heads: 4}}]", "model.decoder.positions=t5"],
         f"{OWN}.1.heads: the layers share one table of t5 positions: all need 8 heads"),
        (["model.decoder.layers=2", f"{ACROSS}=[{{heads: 8}}, {{heads: 4}}]"],
         f"{ACROSS}.1.heads: weights of all layers are put into one tensor: all layers need 8 heads"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, {{heads: 8, normalize: monotonic}}]"],
         f"{OWN}.1.normalize: monotonic needs a target that is generated step by step; self-attention has none"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, {{haeds: 8}}]"],
         f"{OWN}.1.haeds: unknown key 'haeds' (did you mean heads? one of score, normalize, heads, dropout, "
         "key_heads, query_key_norm, talking, window, ...)"),
        (["model.decoder.layers=2", f"{OWN}=[{{heads: 8}}, 3]"],
         f"{OWN}.1: expected a section of keys and values, got 3"),
        ([f"{OWN}=3"], f"{OWN}: expected a section of keys and values, got 3"),
        (["model.encoder.positions=nowhere"],
         "model.encoder.positions: unknown 'nowhere' (one of sinusoidal, learned, rotary, alibi, t5, shaw, none"
         f"{OTHERS})"),
    ],
)  # fmt: skip
def test_faults_of_how_a_transformer_sees(overrides: list[str], fault: str) -> None:
    assert faults(SHIPPED["wmt_transformer"], *overrides) == [f"overrides: {fault}"]


def test_what_counts_places_goes_without_a_window_or_in_an_encoder() -> None:
    assert read(SHIPPED["wmt_transformer"], [f"{OWN}.score=location", f"{OWN}.normalize=local_p"])
    read_on_both_sides = [
        "model.encoder.self_attention.window=4",
        "model.encoder.self_attention.score=location",
    ]
    assert read(SHIPPED["wmt_transformer"], read_on_both_sides)


def test_an_encoder_has_half_of_t5s_buckets_for_each_direction() -> None:
    near = [f"model.{side}.positions={{name: t5, max_distance: {most}}}"
            for side, most in (("encoder", 16), ("decoder", 32))]  # fmt: skip
    assert read(SHIPPED["wmt_transformer"], near)


def test_one_head_of_a_recurrent_decoder_has_nothing_to_norm_or_share() -> None:
    attention = "model.decoder.attention"
    assert faults(KEPT["quickstart"], f"{attention}.query_key_norm=true") == [
        f"overrides: {attention}.query_key_norm: a single head has no projections to normalize: set "
        "heads, or use cosine"
    ]
    assert faults(KEPT["quickstart"], f"{attention}.window=2") == [
        f"overrides: {attention}.window: only self-attention can have a window, which moves with its "
        "query: set it to null"
    ]
    assert read(KEPT["quickstart"], [f"{attention}.query_key_norm=true", f"{attention}.heads=2"])


def test_one_section_is_for_all_layers_and_a_list_for_each(tmp_path: Path) -> None:
    several = "[{heads: 8, window: 5, sinks: 2}, {heads: 4}]"
    each = ["model.decoder.layers=2", f"{OWN}={several}", f"{ACROSS}.key_heads=2", f"{OWN}.1.heads=2"]
    recipe = read(SHIPPED["wmt_transformer"], each)
    write(recipe, tmp_path / "recipe.yaml")
    again = read(tmp_path / "recipe.yaml", [f"{ACROSS}.heads=4"], check_files=False)  # still no list
    decoder = again.model.decoder
    assert isinstance(decoder, TransformerDecoderRecipe)
    assert decoder.self_attention == recipe.model.decoder.self_attention  # type: ignore[union-attr]
    assert [section.heads for section in decoder.self_attentions] == [8, 2]
    assert [section.key_heads for section in decoder.cross_attentions] == [2, 2]
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())
    validator.validate(parse((tmp_path / "recipe.yaml").read_text(encoding="utf-8")).tree)


# ---- attention and alignments ---------------------------------------------------------------------------

ALIGNED = ["data.train.alignments=true", "training.attention_losses={guided: 0.5}"]
NONE = ["model.decoder.order=cho", "model.decoder.attention=null"]
LOSSES = "training.attention_losses"


def test_paths_are_those_of_the_recipe_as_it_is_written() -> None:
    """What may be one or a list is named by number only where it is one of a list."""
    for value, place in (("{task: kopy}", "data.train.task"), ("[{task: kopy}]", "data.train.0.task")):
        assert faults(SHIPPED["copy_additive"], f"data.train={value}")[0].startswith(f"overrides: {place}: ")
    assert faults(SHIPPED["copy_additive"], "data.train=kopy")[0].startswith("overrides: data.train: ")
    for value, place in (("blue", "training.metrics"), ("[exact, blue]", "training.metrics.1")):
        said = faults(SHIPPED["copy_additive"], f"training.metrics={value}")
        assert said[0].startswith(f"overrides: {place}: unknown 'blue'")


UNALIGNED = (
    "has no alignments, and training.attention_losses.guided needs them of every training corpus: give it "
    "alignments, which files and synthetic tasks can have"
)

NEGATIVE = (
    "needs weights that are probabilities, and those of talking heads may be negative: set talking to false"
)
LAYERS = f"model.decoder.layers=2+{ACROSS}=[{{{{heads: 8, talking: {{first}}}}}}, {{{{heads: 8, talking: {{last}}}}}}]"


@pytest.mark.parametrize(
    ("recipe", "overrides", "expected"),
    [
        ("copy_additive", [*NONE, f"{LOSSES}={{coverage: 1}}", "decoding.coverage_penalty=0.2",
                           "decoding.replace_unknown=true"],
         [f"{path}: needs attention, and the order cho has none"
          for path in ("decoding.replace_unknown", "decoding.coverage_penalty", LOSSES)]),
        ("copy_additive", [f"{LOSSES}={{coverage: 1, layer: 1, head: 1}}"],
         [f"{LOSSES}.layer: the decoder's layers with attention are 0 to 0, got 1",
          f"{LOSSES}.head: the heads are 0 to 0, got 1"]),
        ("wmt_transformer", [f"{LOSSES}={{coverage: 1, layer: -7, head: 8}}"],
         [f"{LOSSES}.layer: the decoder's layers with attention are 0 to 5, got -7",
          f"{LOSSES}.head: the heads are 0 to 7, got 8"]),
        ("copy_additive", [f"{LOSSES}={{reinforce: 1}}"],
         [f"{LOSSES}.reinforce: needs sampled positions, and softmax samples none: set "
          "model.decoder.attention.normalize to hard"]),
        ("wmt_transformer", [f"{LOSSES}={{reinforce: 1}}", "model.encoder.self_attention.normalize=hard"],
         [f"{LOSSES}.reinforce: needs sampled positions, and softmax samples none: set "
          "model.decoder.cross_attention.normalize to hard"]),
        ("wmt_transformer", [f"{LOSSES}={{coverage: 1, doubly_stochastic: 1, entropy: 1}}", f"{ACROSS}.talking=true",
                             "decoding.coverage_penalty=0.2"],
         [f"{path}: {NEGATIVE}" for path in (f"{LOSSES}.coverage", f"{LOSSES}.doubly_stochastic",
                                             f"{LOSSES}.entropy", "decoding.coverage_penalty")]),
        ("wmt_transformer", [f"{LOSSES}={{coverage: 1, guided: 1}}", "data.train=[{task: copy, alignments: true}]",
                             *LAYERS.format(first="true", last="false").split("+")],
         [f"{LOSSES}.guided: {NEGATIVE}"]),
        ("wmt_transformer", [f"{LOSSES}={{coverage: 1, guided: 1, layer: 0}}",
                             "data.train=[{task: copy, alignments: true}]",
                             *LAYERS.format(first="false", last="true").split("+"), "decoding.coverage_penalty=0.2"],
         [f"decoding.coverage_penalty: {NEGATIVE}"]),
        ("copy_additive", ALIGNED[1:], [f"data.train: {UNALIGNED}"]),
        ("copy_additive", ["data.train=[{task: copy}]", *ALIGNED[1:]], [f"data.train.0: {UNALIGNED}"]),
        ("copy_additive", [f"data.train=[{{task: copy, alignments: true}}, {{table: {__file__}}}]", *ALIGNED[1:]],
         [f"data.train.1: {UNALIGNED}"]),
        ("copy_additive", [*ALIGNED[:1], f"{LOSSES}={{coverage: 1}}"],
         ["data.train.alignments: are not used without guided attention: set training.attention_losses.guided, or "
          "remove them"]),
        ("copy_additive", [f"data.train={{files: [{__file__}, {__file__}], alignments: {__file__}}}"],
         ["data.train.alignments: are not used without guided attention: set training.attention_losses.guided, or "
          "remove them"]),
        ("copy_additive", ["data.dev.alignments=true", "data.test.alignments=true"],
         [f"data.{use}.alignments: only training corpora have alignments: leave them out"
          for use in ("dev", "test")]),
        ("copy_additive", [*ALIGNED, "text={sampling: {alpha: 0.1}}"],
         ["text.sampling: splits words anew in each epoch, but alignments need constant pieces: remove "
          "sampling, or training.attention_losses.guided"]),
        ("copy_additive", [f"data.train={{files: [{__file__}, {__file__}], alignments: /no/where}}", *ALIGNED[1:]],
         ["data.train.alignments: no such file: /no/where"]),
        ("copy_additive", ["data.train={table: x.tsv, alignments: x}"],
         ["data.train.table: no such file: HERE/x.tsv", "data.train.alignments: no such file: HERE/x",
          "data.train.alignments: unknown key 'alignments' (one of table, columns, tag, weight, limit)"]),
    ],
)  # fmt: skip
def test_faults_of_attention_and_alignments(recipe: str, overrides: list[str], expected: list[str]) -> None:
    found = [fault.removeprefix("overrides: ") for fault in faults(SHIPPED[recipe], *overrides)]
    found = [re.sub(r"^\S+yaml:[0-9]+  ", "", fault) for fault in found]
    assert sorted(found) == sorted(fault.replace("HERE", str(Path.cwd())) for fault in expected)


def test_coverage_is_of_the_layer_that_copies() -> None:
    layers = LAYERS.format(first="false", last="true").split("+")
    read("wmt_transformer", ["model.decoder.copying={layer: 0}", "decoding.coverage_penalty=0.2", *layers])


@pytest.mark.parametrize(
    ("recipe", "overrides", "expected"),
    [
        (recipe, overrides, fault)
        for recipe in ("conll2003_pooling", "languages")
        for overrides, fault in (
            (["model.embedding.frozen=true", "text.vectors=null"],
             "model.embedding.frozen: embeddings would keep their random initial values: name a file of vectors "
             "in text.vectors, or set frozen to false"),
            (["model.encoder={kind: transformer, positions: {name: learned, length: 40}}", "data.filter.max_length=41"],
             "model.encoder.positions: 40 are learned, but a sentence may have 41 words: set length to 41, or lower "
             "data.filter.max_length"),
            (["data.filter.max_ratio=3.0"],
             "data.filter.max_ratio: compares the lengths of two texts, and labels are not a text: leave it out"),
        )
    ],
)  # fmt: skip
def test_faults_of_labelling(recipe: str, overrides: list[str], expected: str, corpora: Path) -> None:
    found = [
        re.sub(r"^(overrides: |\S+yaml:[0-9]+  )", "", one) for one in faults(SHIPPED[recipe], *overrides)
    ]
    assert found == [expected] and read(recipe)


def test_what_labelling_takes(corpora: Path) -> None:
    """Positions for all words of a sentence (none for its end); and one limit leaves the others as they are."""
    near = [
        "model.encoder={kind: transformer, positions: {name: learned, length: 41}}",
        "data.filter.max_length=41",
    ]
    recipe = read("languages", near)
    assert recipe.data.filter.duplicates and not read("quickstart").data.filter.duplicates
    with pytest.raises(
        RecipeError, match=r"encoder\.positions: 200 are learned, but a sentence may have 200 pieces"
    ):
        read("wmt_transformer", ["model.encoder.positions={name: learned, length: 200}"])


def test_losses_are_taught_where_copying_looks() -> None:
    """There no head may talk, and elsewhere it may."""
    layers = [*LAYERS.format(first="false", last="true").split("+"), f"{LOSSES}={{coverage: 1}}"]
    assert read("wmt_transformer", [*layers, "model.decoder.copying={layer: 0}"])
    named = [*layers, f"{LOSSES}.layer=1", "model.decoder.copying={layer: 0}"]
    assert faults(SHIPPED["wmt_transformer"], *named) == [f"overrides: {LOSSES}.coverage: {NEGATIVE}"]


def test_attention_that_can_be_taught() -> None:
    recipe = read("copy_additive", ALIGNED)
    assert [corpus.aligned for corpus in recipe.data.train] == [True] and not recipe.data.dev.aligned
    drawn = ["model.decoder.attention.normalize=hard", f"{LOSSES}={{reinforce: 1, layer: -1, head: 0}}"]
    assert read("copy_additive", [*drawn, "decoding.coverage_penalty=0.1"])
    across = "model.decoder.cross_attention"
    drawn = [f"{across}.normalize=hard", f"{LOSSES}={{reinforce: 1, coverage: 1, layer: 5, head: 7}}"]
    assert read("wmt_transformer", [*drawn, "decoding.coverage_penalty=0.1"])


def test_heads_may_talk_where_nobody_reads_their_weights() -> None:
    layers = LAYERS.format(first="true", last="false").split("+")
    assert read("wmt_transformer", [*layers, f"{LOSSES}={{coverage: 1}}", "decoding.coverage_penalty=0.1"])


def test_alignments_lie_where_the_recipe_does(tmp_path: Path) -> None:
    for name in ("x.de", "x.en", "links.pharaoh.gz"):
        (tmp_path / name).touch()
    text = SHIPPED["copy_additive"].read_text(encoding="utf-8")
    corpus = "{files: [x.de, x.en], alignments: links.pharaoh.gz}"
    text = re.sub("train: {.*", f"train: {corpus}", text)
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    recipe = read(tmp_path / "r.yaml", ALIGNED[1:]).model_dump()
    assert recipe["data"]["train"][0]["alignments"] == str(tmp_path / "links.pharaoh.gz")
    write(read(tmp_path / "r.yaml", ALIGNED[1:]), tmp_path / "again.yaml")
    assert read(tmp_path / "again.yaml").data.train[0].aligned
