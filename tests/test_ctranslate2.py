"""The engine ctranslate2: the same probabilities in all variants, and the same results as torch."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from tiny_cli import fails, run
from tiny_transformers import REFUSED, VARIANTS, load_vocabularies, make_run, random_model, task_of
from tiny_translator import SENTENCES, assert_same

import seq2attn
from seq2attn.errors import Seq2attnError
from seq2attn.inference.engines import EngineError, ctranslate2_export
from seq2attn.inference.engines.ctranslate2_support import unsupported_keys, unsupported_search
from seq2attn.inference.engines.exported_folder import require_supported
from seq2attn.inference.engines.registry import make_engine
from seq2attn.inference.translator import Translator
from seq2attn.recipe import DecodingRecipe, read
from seq2attn.text.given_ids import Numbering
from seq2attn.text.vocabulary import Vocabulary

TEXTS = [text for text in SENTENCES if text]


@pytest.fixture(scope="module")
def vocabularies() -> list[Vocabulary]:
    return load_vocabularies()


@pytest.fixture(scope="module")
def folder(vocabularies: list[Vocabulary], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a Transformer with random weights."""
    return make_run(tmp_path_factory.mktemp("exported") / "run", VARIANTS["pre"], vocabularies)


@pytest.fixture(scope="module")
def made(folder: Path) -> Translator:
    pytest.importorskip("ctranslate2")
    found: Translator = seq2attn.load(folder, device="cpu", engine="ctranslate2")
    return found


# ---- the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_the_same_probabilities_and_the_same_best_hypotheses(
    variant: str, vocabularies: list[Vocabulary], own_cache: Path
) -> None:
    """Of given targets, shorter and longer than the reach of relative positions; and as a search finds them."""
    pytest.importorskip("ctranslate2")
    task, translator = random_model(VARIANTS[variant], vocabularies)
    engine = make_engine("ctranslate2", task.recipe, translator)
    assert engine is not None
    generator, source, target = translator.generator, translator.source, translator.target
    sources = source.encode(TEXTS)
    targets = [(target.encode([text])[0] * 3)[:40] for text in reversed(TEXTS)]
    given = [generator.tokenizer.source_ids(ids, lambda: "") for ids in sources]
    expected = [one.log_probability for one in generator.forced_decoding(given, targets, 4096, None)]
    names = source.names, target.names
    scored = engine.translator.score_batch(  # type: ignore[attr-defined]
        [[names[0][number] for number in ids] for ids in sources],
        [[names[1][number] for number in ids] for ids in targets],
    )
    assert [sum(one.log_probs) for one in scored] == pytest.approx(expected, abs=2e-3, rel=2e-6)
    if variant == "tied":  # with random weights it repeats itself up to its limits
        return
    answers = engine.search(generator.requests(given, translator.decoding), translator.decoding)
    compared = 0
    for answer, nbest in zip(answers, generator.search(given, translator.decoding), strict=True):
        if not isinstance(answer, str) and not nbest[0].truncated:
            compared += 1
            best = max(answer, key=lambda one: one.score)
            assert best.tokens == nbest[0].tokens
            assert best.log_probability == pytest.approx(nbest[0].log_probability, abs=1e-4)
    assert compared >= 3


def test_given_ids_and_tags_are_the_same_there(vocabularies: list[Vocabulary], own_cache: Path) -> None:
    """Pieces in another order, and a tag that SentencePiece does not know, as in models of several languages."""
    pytest.importorskip("ctranslate2")
    tagged = []
    for vocabulary in vocabularies:
        ids = {piece: number for number, piece in enumerate([*reversed(vocabulary.names), "<2en>"])}
        tagged.append(Vocabulary(vocabulary.model, vocabulary.words, Numbering(ids, None, ("<2en>",))))
    task, translator = random_model(VARIANTS["pre"], tagged)
    engine = make_engine("ctranslate2", task.recipe, translator)
    assert engine is not None
    texts = [f"<2en> {text}" for text in TEXTS]
    generator, decoding = translator.generator, translator.decoding
    given = [generator.tokenizer.source_ids(ids, lambda: "") for ids in translator.source.encode(texts)]
    assert all(ids.ids[0] == tagged[0].size - 1 for ids in given)
    answers = engine.search(generator.requests(given, decoding), decoding)
    compared = 0
    for answer, nbest in zip(answers, generator.search(given, decoding), strict=True):
        if not isinstance(answer, str) and not nbest[0].truncated:
            compared += 1
            assert max(answer, key=lambda one: one.score).tokens == nbest[0].tokens
    assert compared >= 3


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_format_cannot_hold_is_refused_by_key(name: str, vocabularies: list[Vocabulary]) -> None:
    model, keys = REFUSED[name]
    task = task_of(model, vocabularies)
    found = [path for path, _ in unsupported_keys(task.recipe)]
    assert set(keys) <= set(found) and len(found) == len(set(found))
    with pytest.raises(EngineError) as error:
        require_supported("ctranslate2", [*unsupported_keys(task.recipe)])
    assert all(key in str(error.value) for key in keys)


def test_all_variants_are_accepted(vocabularies: list[Vocabulary]) -> None:
    for model in VARIANTS.values():
        assert not list(unsupported_keys(task_of(model, vocabularies).recipe))


# ---- the search ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, None),
        ({"beam": 1}, None),
        ({"length_penalty": 0.6, "nbest": 2, "replace_unknown": True}, None),
        ({"length_normalization": "gnmt", "max_length": 9, "max_length_ratio": 1.0}, None),
        ({"length_penalty": 1.5}, "length_penalty above 1"),
        ({"length_normalization": "none", "length_penalty": 1.5}, None),
        ({"min_length": 2}, "min_length"),
        ({"no_repeat_ngram": 3}, "no_repeat_ngram"),
        ({"coverage_penalty": 0.2}, "coverage_penalty"),
        ({"sample": True}, "sample"),
        ({"beam": 300}, "a beam that is larger than half the vocabulary"),
    ],
)
def test_searches_that_are_others_there_are_torchs(options: dict[str, Any], reason: str | None) -> None:
    assert unsupported_search(DecodingRecipe(**options), 500) == reason


@pytest.mark.parametrize("settings", [{}, {"beam": 1}, {"nbest": 4, "length_penalty": 0.7}], ids=str)
def test_results_are_those_of_torch(made: Translator, settings: dict[str, Any]) -> None:
    for found, expected in zip(
        made.translate(TEXTS, **settings), made.with_engine(None).translate(TEXTS, **settings), strict=True
    ):
        assert_same(found, expected)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_length": 1}, "outputs with the largest length allowed"),
        ({"prefix": "Tom"}, "prefixes"),
        ({"min_length": 5}, "min_length"),
        ({"no_repeat_ngram": 1}, "no_repeat_ngram"),
        ({"sample": True}, "sample"),
    ],
)
def test_rows_that_are_torchs_are_the_same_and_are_counted(
    made: Translator, settings: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "seq2attn"):
        found = made.translate(TEXTS, **settings)
    for one, expected in zip(found, made.with_engine(None).translate(TEXTS, **settings), strict=True):
        assert_same(one, expected)
    assert f"ctranslate2 float32 searched for 0 of 6, torch for 6 (6 for {reason})" in caplog.text


def test_texts_beyond_its_positions_are_torchs(
    vocabularies: list[Vocabulary],
    own_cache: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ctranslate2")
    for module in ("ctranslate2_model", "ctranslate2_export"):
        monkeypatch.setattr(f"seq2attn.inference.engines.{module}.POSITIONS", 7)
    task, translator = random_model(VARIANTS["pre"], vocabularies)
    engine = make_engine("ctranslate2", task.recipe, translator)
    with caplog.at_level(logging.INFO, "seq2attn"):
        found = translator.with_engine(engine).translate(TEXTS)
    for one, expected in zip(found, translator.translate(TEXTS), strict=True):
        assert_same(one, expected)
    assert "for sources that are longer than the engine's positions" in caplog.text


def test_int8_chooses_and_torch_scores(folder: Path, made: Translator) -> None:
    quantized: Translator = seq2attn.load(folder, device="cpu", engine="ctranslate2", quantize="int8")
    found = quantized.translate(TEXTS)
    forced = made.log_probabilities(TEXTS, [one.text for one in found])
    ended = [
        (one.log_probability, value)
        for one, value in zip(found, forced, strict=True)
        if made.target.encode([one.text])[0] == one.target.ids
    ]
    assert ended and all(a == pytest.approx(b, abs=1e-4) for a, b in ended)
    assert quantized.signature.endswith("|engine:ctranslate2 int8")


# ---- the cache, and the command --------------------------------------------------------------------


def test_a_model_is_converted_once_and_a_damaged_one_again(
    folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ctranslate2")
    written, save = list[Path](), ctranslate2_export.save_model

    def count(*arguments: Any) -> None:
        written.append(arguments[3])
        save(*arguments)

    monkeypatch.setattr(ctranslate2_export, "save_model", count)
    for _ in range(2):
        seq2attn.load(folder, device="cpu", engine="ctranslate2")
    assert len(written) == 1
    (place,) = (own_cache / "engines").iterdir()
    file = place / "model.bin"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged: it is made again"):
        seq2attn.load(folder, device="cpu", engine="ctranslate2")
    seq2attn.load(tiny_runs.MODEL, device="cpu")
    assert len(written) == 2 and [path.name for path in (own_cache / "engines").iterdir()] == [place.name]


def test_other_weights_are_another_model(vocabularies: list[Vocabulary], own_cache: Path) -> None:
    pytest.importorskip("ctranslate2")
    task, translator = random_model(VARIANTS["pre"], vocabularies)
    make_engine("ctranslate2", task.recipe, translator)
    with torch.no_grad():
        translator.model.decoder.output.bias[5] += 1
    make_engine("ctranslate2", task.recipe, translator)
    assert len(list((own_cache / "engines").iterdir())) == 2


def test_export_writes_the_same_bytes_twice_and_reports(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    folders = [tmp_path / "a", tmp_path / "deep" / "b"]
    words = "export", str(folder), "ctranslate2"
    assert run(*words, "-o", str(folders[0]), "--check", "0").output == f"exported to {folders[0]}\n"
    report = json.loads(run(*words, "-o", str(folders[1]), "--check", "5", "--format", "json").output)
    parity = report["parity"]
    assert report["folder"] == str(folders[1]) and parity["sentences"] == 5 and parity["sufficient"]
    assert set(parity["sides"]) == {"torch", "ctranslate2 float32"}
    assert parity["sides"]["torch"]["bleu"] == parity["sides"]["ctranslate2 float32"]["bleu"]
    a, b = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert a == b and {"model.bin", "export.json", "source.model", "target.model"} <= set(a)
    code, message = fails(*words, "-o", str(folders[0]))
    assert code == 1 and "exists and is not overwritten" in message


def test_export_fails_if_too_few_hypotheses_are_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ctranslate2")
    from click.testing import CliRunner

    from seq2attn.cli import cli
    from seq2attn.runs.exporting import Parity

    monkeypatch.setattr(
        "seq2attn.runs.exporting.parity", lambda *_: Parity("ctranslate2", 300, 200, 197, 1, 2, 0.0, {})
    )
    lines = tmp_path / "in.de"
    lines.write_text("\n".join(TEXTS), encoding="utf-8")
    (tmp_path / "none").write_text("", encoding="utf-8")
    error = fails("export", str(folder), "ctranslate2", "--source", str(tmp_path / "none"), "-o", "no")
    assert error == (1, "seq2attn: expected sentences to compare the engine with torch on, got none\n")
    for quantize, code in (([], 1), (["--quantize", "int8"], 0)):
        words = ["export", str(folder), "ctranslate2", "--source", str(lines), *quantize]
        result = CliRunner().invoke(cli, [*words, "-o", str(tmp_path / f"out{code}")])
        assert result.exit_code == code and "same best hypothesis: 98.50 % (197 of 200)" in result.output
        assert "same or as good, by torch's scores: 99.00 % (1 better, 2 worse)" in result.output
    sizes = [(tmp_path / f"out{code}" / "model.bin").stat().st_size for code in (1, 0)]
    assert sizes[1] < sizes[0]


def test_translate_and_score_take_the_engine(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    options = "--engine", "ctranslate2", "-v"
    for more in ([], ["--scores", "--format", "pharaoh"]):
        result = run("translate", str(folder), *options, *more, stdin="Ja.\n")
        assert "seq2attn: ctranslate2 float32 searched for" in result.stderr
        assert result.stdout == run("translate", str(folder), *more, stdin="Ja.\n").stdout
    assert "|engine:ctranslate2 float32" in run("score", str(folder), *options).stdout
    assert not logging.getLogger("seq2attn").handlers


def test_tasks_without_a_search_and_images_are_refused(corpora: Path) -> None:
    pytest.importorskip("ctranslate2")
    tagger = tiny_runs.MODEL.parents[1] / "model_0.2" / "tagger" / "run"
    with pytest.raises(
        Seq2attnError, match="task: the engine ctranslate2 searches for texts, and tagging has no"
    ):
        seq2attn.load(tagger, device="cpu", engine="ctranslate2")
    recipe = read("crohme_wap", check_files=False)
    (fault,) = unsupported_keys(recipe)
    assert fault == ("task", "it writes texts from texts, and this is image_to_text")


def test_a_folder_that_is_no_model_is_refused(vocabularies: list[Vocabulary], tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    task, translator = random_model(VARIANTS["pre"], vocabularies)
    with pytest.raises(EngineError, match="ctranslate2 cannot load"):
        make_engine("ctranslate2", task.recipe, translator, None, tmp_path)
    shutil.rmtree(tmp_path)


def test_the_hypothesis_of_greedy_search_takes_part_in_float32_alone(
    folder: Path, made: Translator, own_cache: Path
) -> None:
    """And the search goes on for longer: int8 ends as CTranslate2 does."""
    quantized: Translator = seq2attn.load(folder, device="cpu", engine="ctranslate2", quantize="int8")
    for predictor, patience, greedy in ((made, 2, 1), (quantized, 1, 0)):
        engine: Any = predictor.generator.engine
        given = [
            predictor.generator.tokenizer.source_ids(ids, lambda: "") for ids in made.source.encode(TEXTS)
        ]
        decoding = made.decoding.model_copy(update={"beam": 3})
        for answer in engine.search(predictor.generator.requests(given, decoding), decoding):
            assert isinstance(answer, str) or 3 * patience <= len(answer) <= 3 * patience + greedy
