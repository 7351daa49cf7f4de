"""Samples of segmentations: the same in every process, and distributed as they should be."""

import io
import math
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sentencepiece
from tiny_text import GERMAN

from seq2attn.text.subword_sampling import Subwords, bpe, unigram
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.vocabulary_training import train_vocabulary

# Every way to cut "abc" but for a|bc.
SCORES = {"a": -1.0, "b": -2.0, "c": -1.5, "ab": -1.2, "abc": -3.0}
DRAWS = 20_000


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    return train_vocabulary(GERMAN, model=request.param, size=500)


def cuts(word: str) -> Iterator[list[str]]:
    """All segmentations."""
    if not word:
        yield []
    for end in range(1, len(word) + 1):
        if word[:end] in SCORES:
            yield from ([word[:end], *rest] for rest in cuts(word[end:]))


def near(found: Counter[tuple[str, ...]], expected: dict[tuple[str, ...], float]) -> None:
    """Frequencies that are as probable as not (five standard deviations)."""
    assert found.keys() == expected.keys()
    for one, probability in expected.items():
        spread = math.sqrt(probability * (1 - probability) * DRAWS)
        assert abs(found[one] - probability * DRAWS) < 5 * spread


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_unigram_draws_with_powers_of_probabilities(alpha: float) -> None:
    weights = {tuple(cut): math.exp(alpha * sum(SCORES[piece] for piece in cut)) for cut in cuts("abc")}
    assert len(weights) == 3
    segment, drawn = unigram(SCORES, alpha), random.Random(1).random
    found = Counter(tuple(segment("abc", drawn)) for _ in range(DRAWS))
    near(found, {cut: weight / sum(weights.values()) for cut, weight in weights.items()})


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_bpe_leaves_out_merges(alpha: float) -> None:
    segment, drawn = bpe(SCORES, alpha), random.Random(1).random
    found = Counter(tuple(segment("abc", drawn)) for _ in range(DRAWS))
    kept = 1 - alpha  # ab is merged first; then, if it was, abc
    near(found, {("abc",): kept * kept, ("ab", "c"): kept * alpha, ("a", "b", "c"): alpha})


def test_samples_are_as_sentencepieces_own(vocabulary: Vocabulary) -> None:
    subwords, drawn, text = (
        Subwords(vocabulary._processor, -1, 0.1),
        random.Random(1).random,
        "ich bin nicht 漢!",
    )
    ours = Counter(tuple(subwords.sample(text, drawn)) for _ in range(DRAWS))
    theirs = Counter(
        tuple(vocabulary._processor.encode(text, enable_sampling=True, nbest_size=-1, alpha=0.1))
        for _ in range(DRAWS)
    )
    often = [one for one in ours | theirs if ours[one] + theirs[one] > 40]
    distance = sum((ours[one] - theirs[one]) ** 2 / (ours[one] + theirs[one]) for one in often)
    assert len(often) > 5
    assert distance < len(often) + 6 * math.sqrt(2 * len(often))  # chi-squared


def test_a_sample_is_the_text(vocabulary: Vocabulary) -> None:
    texts = [*GERMAN[:200], "漢字 ☃", "", " ", "Ein\u3000Wort"]
    for nbest in (-1, 5):
        sampled = vocabulary.sample(texts, 1, nbest, 0.2)
        assert [vocabulary.decode(ids) for ids in sampled] == [vocabulary.normalize(text) for text in texts]


def test_without_bytes_the_unknown_is_one() -> None:
    vocabulary = train_vocabulary(GERMAN, size=300, byte_fallback=False)
    (sampled,) = vocabulary.sample(["漢字 ☃☃"], 1)
    assert [piece == vocabulary.unk for piece in sampled] == [False, True, False, True]
    assert sampled == vocabulary.encode(["漢字 ☃☃"])[0]


def test_pieces_may_reach_over_words() -> None:
    trained = io.BytesIO()
    options = {"model_type": "bpe", "vocab_size": 20, "split_by_whitespace": False, "minloglevel": 2}
    texts = iter(["guten Tag"] * 9)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=texts, model_writer=trained, **options)
    vocabulary = Vocabulary(trained.getvalue())
    assert vocabulary.split("guten Tag").pieces == ["▁guten▁Tag"]
    assert vocabulary.sample(["guten Tag"], 1, -1, 0.0) == vocabulary.encode(["guten Tag"])


def test_another_process_draws_the_same(vocabulary: Vocabulary, tmp_path: Path) -> None:
    (tmp_path / "one.model").write_bytes(vocabulary.model)
    code = (
        "from pathlib import Path; from seq2attn.text.vocabulary import Vocabulary; "
        f"print(Vocabulary.load(Path({str(tmp_path / 'one.model')!r})).sample({GERMAN[:5]!r}, 7, -1, 0.3))"
    )
    root = Path(__file__).parents[1]
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    assert said == f"{vocabulary.sample(GERMAN[:5], 7, -1, 0.3)}\n"
