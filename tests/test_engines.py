"""Engines: what they find is ranked and scored by torch, and what they leave is torch's."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from tiny_cli import fails
from tiny_translator import SENTENCES, assert_same

import seq2attn
from seq2attn.cli.options import ENGINES as LISTED
from seq2attn.errors import Seq2attnError
from seq2attn.inference.engines import Request
from seq2attn.inference.engines.engine import Answer, changed_keys
from seq2attn.inference.engines.registry import ENGINES, TORCH
from seq2attn.inference.search import Hypothesis
from seq2attn.inference.translator import Translator
from seq2attn.recipe import DecodingRecipe
from seq2attn.runs.exporting import Sentences, parity

TEXTS = [text for text in SENTENCES if text]
DECODING = {"beam": 5, "nbest": 3}
CLOSE = 0.01


class Told:
    """An engine that gives what it is told, from the hypotheses of torch."""

    name, rounding = "told", CLOSE

    def __init__(self, translator: Translator, refuses: Sequence[int] = (), wrong: float = 0.0) -> None:
        self.translator, self.refuses, self.wrong = translator, refuses, wrong
        self.calls = 0

    def unsupported(self, decoding: DecodingRecipe) -> str | None:
        return "min_length" if decoding.min_length else None

    def search(self, requests: Sequence[Request], decoding: DecodingRecipe) -> list[Answer]:
        """The five best hypotheses, whose log-probabilities are wrong in turns by so much for each token."""
        self.calls += 1
        decoding = decoding.model_copy(update={"nbest": decoding.beam})
        found = self.translator.generator.search([request.source for request in requests], decoding)
        answers: list[Answer] = []
        for request, nbest in zip(requests, found, strict=True):
            if len(request.source.ids) in self.refuses:
                answers.append("short sources")
                continue
            signs = [(-1) ** place * self.wrong for place in range(len(nbest))]
            rows = zip(nbest, signs, strict=True)
            answers.append([one._replace(log_probability=_off(one, by), score=0.0) for one, by in rows])
        return answers


def _off(hypothesis: Hypothesis, by: float) -> float:
    return hypothesis.log_probability + by * (len(hypothesis.tokens) + 1)


@pytest.fixture(scope="module")
def torchs(translators: dict[str, Any]) -> Translator:
    return translators["model"].configured(DECODING)


def test_results_do_not_depend_on_the_rounding_of_an_engine(torchs: Translator) -> None:
    """Their order, scores and alignments are those of forced decoding."""
    engine = Told(torchs, wrong=0.4 * CLOSE)
    for alignment in (True, False):
        found = torchs.with_engine(engine).translate(TEXTS, alignment=alignment)
        expected = torchs.translate(TEXTS, alignment=alignment)
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
    assert engine.calls == 2


def test_scores_that_are_not_shown_are_not_computed_but_decide_ties(torchs: Translator) -> None:
    """The texts are the same; a single hypothesis has the log-probability of its engine."""
    engine = Told(torchs, wrong=0.4 * CLOSE)
    one = torchs.configured({"beam": 5, "nbest": 1})
    expected = one.translate(TEXTS, alignment=False)
    found = list(one.with_engine(engine).stream_chunks([TEXTS], exact=False))
    assert [a.text for a in found] == [b.text for b in expected]
    off = [abs(a.log_probability - b.log_probability) for a, b in zip(found, expected, strict=True)]
    assert max(off) > 1e-3


class Swapped(Told):
    """An engine to which the second best hypothesis is a little better than the best one."""

    def search(self, requests: Sequence[Request], decoding: DecodingRecipe) -> list[Answer]:
        answers = list[Answer]()
        for answer in super().search(requests, decoding):
            assert not isinstance(answer, str)
            best, second = answer[0], answer[1]
            by_token = second.log_probability / (len(second.tokens) + 1) - 0.5 * CLOSE
            log_probability = by_token * (len(best.tokens) + 1)
            answers.append([best._replace(log_probability=log_probability), second])
        return answers


def test_hypotheses_that_are_as_good_but_for_rounding_are_ranked_by_torch(torchs: Translator) -> None:
    one = torchs.configured({"beam": 5, "nbest": 1, "length_penalty": 1.0})
    expected = one.translate(TEXTS, alignment=False)
    found = one.with_engine(Swapped(one)).stream_chunks([TEXTS], exact=False)
    assert [a.text for a in found] == [b.text for b in expected]


class Second(Told):
    """An engine that finds only the second best hypothesis."""

    def search(self, requests: Sequence[Request], decoding: DecodingRecipe) -> list[Answer]:
        return [answer[1:2] for answer in super().search(requests, decoding)]  # type: ignore[misc]


def test_the_report_tells_what_is_the_same_from_what_is_worse(torchs: Translator) -> None:
    one = torchs.configured({"beam": 5, "nbest": 1})
    for engine, same in ((Told(one), True), (Second(one), False)):
        report = parity(one, engine, Sentences(TEXTS, [TEXTS]))
        assert report.compared == len(TEXTS) and report.sufficient == same
        assert (report.same, report.better, report.worse) == (same * len(TEXTS), 0, (not same) * len(TEXTS))
        assert report.largest_difference == pytest.approx(0, abs=1e-4)


def test_a_report_that_compares_nothing_says_why_and_shows_no_parity(torchs: Translator) -> None:
    one, short = torchs.configured({"max_length": 1}), len(torchs.source.encode(TEXTS[:1])[0])
    refused = parity(torchs.configured({"nbest": 1}), Told(torchs, [short]), Sentences(TEXTS[:1]))
    for report, why in (
        (refused, "1 for short sources"),
        (parity(one, Told(one), Sentences(TEXTS)), "largest length"),
    ):
        assert report.compared == 0 and sum(report.left.values()) == report.sentences
        assert not report.sufficient and report.to_json()["left"] == dict(report.left)
        assert why in report.lines()[1] and report.lines()[2].startswith("so parity was not shown")


def test_an_engine_without_rounding_keeps_its_order_where_no_scores_are_shown(torchs: Translator) -> None:
    one = torchs.configured({"beam": 5, "nbest": 1, "length_penalty": 1.0})
    engine = Swapped(one)
    engine.rounding = 0.0
    expected = one.configured({"nbest": 2}).translate(TEXTS, alignment=False)
    found = one.with_engine(engine).stream_chunks([TEXTS], exact=False)
    assert [a.text for a in found] == [b.nbest[1].text for b in expected]


def test_what_an_engine_leaves_is_torchs_and_is_counted(
    torchs: Translator, caplog: pytest.LogCaptureFixture
) -> None:
    lengths = [len(torchs.source.encode([text])[0]) for text in TEXTS]
    left = lengths.count(min(lengths))
    with caplog.at_level(logging.INFO, "seq2attn"):
        found = torchs.with_engine(Told(torchs, [min(lengths)])).translate(TEXTS)
    for a, b in zip(found, torchs.translate(TEXTS), strict=True):
        assert_same(a, b)
    counts = f"{len(TEXTS) - left} of {len(TEXTS)}, torch for {left} ({left} for short sources)"
    assert [record.getMessage() for record in caplog.records] == [f"told searched for {counts}"]


def test_a_setting_that_an_engine_does_not_have_is_torchs(
    torchs: Translator, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Told(torchs)
    with caplog.at_level(logging.INFO, "seq2attn"):
        found = torchs.with_engine(engine).translate(TEXTS, min_length=4)
    for a, b in zip(found, torchs.translate(TEXTS, min_length=4), strict=True):
        assert_same(a, b)
    assert not engine.calls and caplog.records[0].getMessage().endswith("6 (6 for min_length)")


def test_the_signature_of_scores_names_the_engine(torchs: Translator) -> None:
    assert torchs.with_engine(Told(torchs)).signature == f"{torchs.signature}|engine:told"
    assert torchs.with_engine(None).signature == torchs.signature


def test_keys_that_are_not_handled_must_have_their_default() -> None:
    changed = DecodingRecipe(min_length=2, no_repeat_ngram=3, beam=7)
    assert set(changed_keys(changed, ["beam"])) == {"min_length", "no_repeat_ngram"}
    assert not list(changed_keys(DecodingRecipe(), []))


def test_the_command_line_lists_every_engine() -> None:
    assert [TORCH, *ENGINES] == LISTED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "ctranslate"}, "unknown engine 'ctranslate' (did you mean ctranslate2?"),
        ({"engine": "ctranslate2", "quantize": "int4"}, "unknown quantize 'int4'"),
        ({"quantize": "int8"}, "quantize: int8 is for the engines ctranslate2"),
        (
            {"engine": "ctranslate2", "precision": "bf16"},
            "precision: the engine ctranslate2 computes in fp32",
        ),
    ],
)
def test_engines_and_precisions_that_do_not_exist_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Seq2attnError) as error:
        seq2attn.load(tiny_runs.MODEL, device="cpu", **options)
    assert message in str(error.value)


def test_an_engine_that_is_not_installed_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    code, message = fails("translate", str(runs["transformer"]), "--engine", "ctranslate2")
    assert code == 1 and "pip install 'seq2attn[ctranslate2]'" in message
