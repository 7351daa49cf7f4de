"""Hierarchical attention: the paper's equation, the laws of attention and of decoders, and where sentences are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from pydantic import ValidationError
from test_laws import (  # noqa: F401 - collected again, with the cases of this file
    Case,
    build,
    test_a_batch_is_a_list_of_sentences,
    test_a_single_slot_has_all_the_weight,
    test_context_is_the_same_when_nobody_asks_for_weights,
    test_different_queries_look_differently,
    test_equal_slots_are_looked_at_equally,
    test_gradients_are_those_of_the_formula,
    test_huge_scores_are_no_nan,
    test_many_queries_are_one_by_one,
    test_nothing_under_the_mask_is_seen_and_rows_sum_to_one,
    test_padding_changes_nothing,
    test_permuting_slots_permutes_weights,
    test_reordering_commutes_with_attending,
    test_sentences_do_not_touch_each_other,
    test_the_past_is_what_happened,
    test_weights_are_those_before_dropout,
    test_weights_are_wide_under_autocast,
    test_who_sees_nothing_gets_nothing_and_disturbs_nobody,
)
from tiny_runs import silent
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

import seq2attn
from seq2attn.attention.attention import Attention
from seq2attn.attention.heads import MultiHead, TalkingScorer
from seq2attn.attention.hierarchy import SentenceAttention
from seq2attn.attention.normalizers import NORMALIZERS, Softmax, Sum
from seq2attn.attention.positions import POSITIONS
from seq2attn.attention.scorers import SCORERS, Additive, Coverage, General, Linear, Location, ScaledDot
from seq2attn.data.batches import BatchLoader, in_sentences, numbered_slots
from seq2attn.errors import Seq2attnError
from seq2attn.recipe import AttentionRecipe, ModelRecipe, SamplingRecipe, TruncateRecipe
from seq2attn.text.sentence_splitter import numbered
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.vocabulary_training import train_vocabulary

# ---- the equation ------------------------------------------------------------------------------------

OF = torch.tensor([[0, 0, 1, 2, 2, 2, 2], [0, 1, 1, 1, -1, -1, -1], [-1] * 7])
MASK = (OF >= 0).unsqueeze(1)


def attention(normalize: str = "softmax", hierarchical: bool = True, score: str = "additive") -> Attention:
    """For queries of 5 and states of 3."""
    torch.manual_seed(1)
    above = SentenceAttention(Additive(5, 3, size=11)) if hierarchical else None
    torch.manual_seed(2)
    return Attention(SCORERS[score](5, 3), NORMALIZERS[normalize](5), hierarchy=above).double().eval()


def asked() -> tuple[Tensor, Tensor]:
    """Queries (3, 2, 5) and states (3, 7, 3), garbage on padding."""
    torch.manual_seed(3)
    query, states = torch.randn(3, 2, 5), torch.randn(3, 7, 3)
    return query.double() * 2, states.masked_fill(OF.unsqueeze(-1) < 0, 100.0).double() * 2


def equation(one: Attention, query: Any, states: Any) -> np.ndarray:
    """P(j) = P_w(j) P_s(s(j)) / sum_k P_w(k) P_s(s(k)) (Nallapati et al. 2016, section 2.4), word by word."""

    def softmax(score: Any, q: np.ndarray, keys: list[np.ndarray]) -> np.ndarray:
        W, U, v = (part.weight.detach().numpy() for part in (score.query, score.key, score.energy))
        odds = np.exp([v[0] @ np.tanh(W @ q + U @ key) for key in keys])
        return odds / odds.sum()

    found = np.zeros((3, 2, 7))
    for b, t in np.ndindex(3, 2):
        places = [j for j in range(7) if OF[b, j] >= 0]
        if not places:
            continue
        sentences = sorted({int(OF[b, j]) for j in places})
        means = [np.mean([states[b, j] for j in places if OF[b, j] == s], 0) for s in sentences]
        words = softmax(one.score, query[b, t], [states[b, j] for j in places])
        above = softmax(one.hierarchy.score, query[b, t], means)
        both = np.array([w * above[OF[b, j]] for w, j in zip(words, places, strict=True)])
        found[b, t, places] = both / both.sum()
    return found


def test_it_is_the_papers_equation():
    one, (query, states) = attention(), asked()
    expected = equation(one, query.numpy(), states.numpy())
    found = one(query, one.remember(states, MASK, sentences=OF))
    np.testing.assert_allclose(found.weights.detach(), expected, atol=1e-12)
    np.testing.assert_allclose(found.context.detach(), expected @ states.numpy(), atol=1e-12)
    plain = attention(hierarchical=False)
    assert (found.weights - plain(query, plain.remember(states, MASK)).weights).abs().amax() > 0.05


@pytest.mark.parametrize("heads", [0, 2])
@pytest.mark.parametrize("normalize", [name for name, part in NORMALIZERS.items() if not part.needs_positive])
def test_one_sentence_is_plain_attention_to_the_bit(normalize, heads):
    """Also where a constant would not cancel, as in sigmoid."""
    above, plain = (attention(normalize, hierarchical) for hierarchical in (True, False))
    query, states = asked()
    if above.normalize.n_scores > 1:
        pytest.skip("two scorers, which the builder of models makes")
    of = OF.clamp(max=0)
    if heads:
        torch.manual_seed(4)
        above, plain = (  # heads of 5, whose keys are of 5
            MultiHead(2, 10, 3, Attention(General(5, 5), NORMALIZERS[normalize](5, 2), hierarchy=h)).double()
            for h in (SentenceAttention(Additive(5, 5)), None)
        )
        above.load_state_dict(plain.state_dict(), strict=False)
        above.eval(), plain.eval()
        query = torch.cat([query, -query], -1)
    ours = above(query, above.remember(states, MASK, sentences=of))
    theirs = plain(query, plain.remember(states, MASK))
    assert torch.equal(ours.weights, theirs.weights) and torch.equal(ours.context, theirs.context)


def test_weights_of_sentences_can_be_had():
    one, (query, states) = attention(), asked()
    memory = one.remember(states, MASK, sentences=OF)
    shares = one.hierarchy.log_weights(query, memory.sentences).exp()
    assert shares.shape == (3, 2, 3)  # as many as the source with the most has
    assert_close(shares[:2].sum(-1), torch.ones(2, 2).double())
    assert (shares[1, :, 2] == 0).all() and shares.isfinite().all()


def test_numbers_with_gaps_and_other_names_are_the_same_sentences():
    one, (query, states) = attention(), asked()
    renamed = torch.tensor([5, 1, 3, -1])[OF]
    expected = one(query, one.remember(states, MASK, sentences=OF)).weights
    assert_close(one(query, one.remember(states, MASK, sentences=renamed)).weights, expected)


# ---- the laws of attention ---------------------------------------------------------------------------


def numbers(states: Tensor) -> Tensor:
    """By what a slot holds, so that numbers go wherever slots go: one of four; of none if all is the same."""
    of = (states[..., 0] > 0).long() + 2 * (states[..., 1] > 0)
    return of.masked_fill((states == states[..., :1]).all(-1), -1)


class Told(Attention):
    """An attention that is told the numbers."""

    def remember(self, states: Tensor, mask: Tensor, values: Tensor | None = None) -> Any:
        return super().remember(states, mask, values, numbers(states))


class ToldHeads(MultiHead):
    """The same."""

    def remember(self, states: Tensor, mask: Tensor, start: int = 0) -> Any:
        return super().remember(states, mask, start, numbers(states))


CASES = [
    ("additive", "softmax", "additive", 0),
    ("additive", "softmax", "general", 2),
    ("scaled_dot", "softmax", "scaled_dot", 1),
    ("general", "softmax_sink", "additive", 2),
    ("cosine", "sparsemax", "gaussian", 2),
    ("general", "sigmoid", "additive", 0),
    ("coverage", "entmax", "additive", 0),
    ("additive", "local_p", "trilinear", 1),
    ("location", "hard", "additive", 2),
    ("additive", "monotonic", "general", 0),
    ("general", "mocha", "additive", 2),
    ("location_sensitive", "ntm", "perceptron", 0),
]


@pytest.fixture(params=CASES, ids=lambda p: "-".join(map(str, p)))
def case(request: pytest.FixtureRequest) -> Case:
    score, normalize, above, heads = request.param
    made = build(score, normalize, heads)
    size = 11 if heads else made.states.shape[-1]
    made.attention.hierarchy = SentenceAttention(SCORERS[above](11, size)).double().eval()
    made.module.__class__ = ToldHeads if heads else Told
    return made._replace(states=made.states.masked_fill(~made.mask.mT, 7.0))


# ---- where sentences are -----------------------------------------------------------------------------

TEXT = "Ann:  hello you\r\n\n  Bob: ﬁne … ok\nzorkzork blub\n\n Cy:　bye bye\n"
LINES = ["Ann: hello you", "Bob: fine ... ok", "zorkzork blub", "Cy: bye bye"]
FOX = "the quick brown fox jumps over lazy dogs in every sunny yard of old york town"
KINDS: dict[str, dict[str, Any]] = {
    "bpe": {"model": "bpe", "size": 330},
    "unigram": {"model": "unigram", "size": 50, "byte_fallback": False},
    "word": {"model": "word", "size": 11},
    "char": {"model": "char", "size": 300},
}


def learnt(kind: str) -> Vocabulary:
    return train_vocabulary([*LINES, FOX] * 20, **KINDS[kind])


@pytest.fixture(params=KINDS)
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    return learnt(request.param)


def said(pieces: list[str], of: list[int]) -> list[str]:
    """The pieces of each sentence, put together."""
    texts: dict[int, str] = {}
    for piece, number in zip(pieces, of, strict=True):
        texts[number] = texts.get(number, "") + piece
    return [text.replace("▁", " ").strip() for text in texts.values()]


def test_pieces_know_the_lines_that_they_stand_in(vocabulary):
    pieces = vocabulary.surfaces(TEXT)
    of = numbered(pieces, TEXT, vocabulary.normalize)
    assert of == sorted(of) and {*of} == {0, 2, 3, 5}  # blank lines have none
    assert said(pieces, of) == [vocabulary.normalize(line) for line in LINES]
    assert numbered(pieces, TEXT.replace("\n", " "), vocabulary.normalize) == [0] * len(pieces)


@pytest.mark.parametrize("seed", range(5))
def test_sampled_pieces_know_them_too(seed):
    for kind in ("bpe", "unigram"):
        one = learnt(kind)
        (drawn,) = one.sample([TEXT], seed)
        pieces = one.pieces(drawn, TEXT)
        of = numbered(pieces, TEXT, one.normalize)
        assert said(pieces, of) == [one.normalize(line) for line in LINES]


def test_a_vocabulary_that_keeps_line_feeds_is_refused():
    with pytest.raises(Seq2attnError, match="takes for letters: expected one that reads them as spaces"):
        numbered(["a"], "a\nb", lambda text: text)


def test_truncation_keeps_the_numbers_of_what_is_read():
    text = "a b c\nd e\nf\ng h i"
    one = train_vocabulary([text] * 20, model="word", size=30)
    (ids,) = one.encode([text])
    assert len(ids) == 9

    def of(**window: Any) -> list[int]:
        truncate = TruncateRecipe.model_validate(window)
        return in_sentences(text, truncate.cut(0, ids), None, one, truncate)

    assert of() == [0, 0, 0, 1, 1, 2, 3, 3, 3]
    assert of(source=4) == [0, 0, 0, 1]
    assert of(source={"head": 2, "tail": 4}) == [0, 0, 2, 3, 3, 3]
    truncate = TruncateRecipe()
    assert in_sentences(text, ids[:4], None, one, truncate) == [0, 0, 0, 1]  # decoding.max_source
    assert in_sentences("a b", [7, 8], None, one, truncate) == [0, 0]


def test_slots_have_numbers_without_gaps_and_ends_are_of_the_last_sentence():
    found = numbered_slots([[0, 0, 2, 5], [], [3]])
    assert found.tolist() == [[0, 0, 1, 2, 2], [0, -1, -1, -1, -1], [0, 0, -1, -1, -1]]


class Texts:
    """A corpus of texts as they are, both sides the same; as far as they are read."""

    def __init__(self, texts: list[str], vocabulary: Vocabulary, truncate: TruncateRecipe) -> None:
        self.texts, self.ids = texts, [truncate.cut(0, ids) for ids in vocabulary.encode(texts)]
        self.source_lengths = self.target_lengths = np.array([len(ids) for ids in self.ids], dtype=np.int32)

    def source(self, number: int) -> Any:
        return np.array(self.ids[number], dtype=np.int32)

    def source_text(self, number: int) -> str:
        return self.texts[number]

    def epoch(self, epoch: int, seed: int) -> Any:
        return np.arange(len(self.texts))

    target, target_text = source, source_text


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("window", [{}, {"source": {"head": 9, "tail": 7}}])
def test_batches_know_their_sentences(sampled, window):
    one = learnt("bpe")
    truncate = TruncateRecipe.model_validate(window)
    corpus = Texts([TEXT, "hello", "", "ok\nbye"], one, truncate)
    loader = BatchLoader(corpus, one, one, 999, 1, SamplingRecipe(alpha=0.5) if sampled else None, truncate)
    assert loader.batch(np.arange(4), 0).sentences is None
    loader.hierarchical = True
    found = loader.batch(np.arange(4), 0)
    assert found.sentences is not None and found.to(torch.device("cpu")).sentences is not None
    assert ((found.sentences >= 0) == found.source_mask).all()
    for row, text in enumerate([LINES, ["hello"], [], ["ok", "bye"]]):
        length = int(found.source_mask[row].sum())
        pieces = one.pieces(found.source[row, : length - 1].tolist(), corpus.texts[row])
        of = found.sentences[row, :length].tolist()
        assert of[-1] == max(of) and {*of} == {*range(max(of) + 1)}
        if not (window and row == 0):
            assert said(pieces, of[:-1]) == [one.normalize(line) for line in text]
            continue
        assert said(pieces[:9], of[:9])[0] in one.normalize(LINES[0])
        assert one.normalize(LINES[-1]).endswith(said(pieces[9:], of[9:-1])[-1])
        assert sampled or {*of} == {0, 1, 2} or {*of} == {0, 1, 2, 3}


# ---- from end to end ---------------------------------------------------------------------------------


def tasks(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three turns, each with who speaks (0 to 2) and two words (3 to 8); who is asked for, and which of the
    two words; that word."""
    draw = np.random.default_rng(seed)
    who, words = (draw.permuted(np.tile(np.arange(*ids), (count, 1)), axis=1) for ids in ((0, 3), (3, 9)))
    turns = np.concatenate([who[:, :, None], words.reshape(count, 3, 2)], 2)
    chosen, place, rows = draw.integers(3, size=count), draw.integers(1, 3, size=count), np.arange(count)
    asked, answer = who[rows, chosen], turns[rows, chosen, place]
    source, *rest = map(torch.from_numpy, (turns.reshape(count, 9), asked, place, answer))
    return source, *rest


@pytest.mark.parametrize("hierarchical", [True, False])
def test_it_learns_the_word_of_the_turn_that_is_asked_for(hierarchical):
    """Nothing but the mean of a turn tells whose its words are, so that plain attention can only guess."""
    torch.manual_seed(1)
    above = SentenceAttention(Additive(32, 32)) if hierarchical else None
    looks, tokens, places, out = (
        Attention(Additive(32, 32), Softmax(), hierarchy=above),
        nn.Embedding(9, 32),
        nn.Embedding(3, 32),
        nn.Linear(32, 9),
    )
    parameters = [part for one in (looks, tokens, places, out) for part in one.parameters()]
    optimizer, mask = torch.optim.Adam(parameters, 0.02), torch.ones(1, 1, 9, dtype=torch.bool)

    def answers(source: Tensor, asked: Tensor, place: Tensor) -> Tensor:
        states = tokens(source) + places(torch.arange(9) % 3)
        memory = looks.remember(
            states, mask.expand(len(source), -1, -1), None, torch.arange(9) // 3 + 0 * source
        )
        return out(looks((tokens(asked) + places(place)).unsqueeze(1), memory).context.squeeze(1))

    for step in range(200):
        *given, word = tasks(64, step)
        optimizer.zero_grad()
        F.cross_entropy(answers(*given), word).backward()
        optimizer.step()
    *given, word = tasks(500, 10_000)
    right = float((answers(*given).argmax(-1) == word).float().mean())
    assert right > 0.9 if hierarchical else right < 0.6


RECIPE = """
task: summarization
data:
  languages: [turns, word]
  train: {{table: {0}/train.jsonl, columns: [turns, word]}}
  dev: {{table: {0}/dev.jsonl, columns: [turns, word]}}
  truncate: {{source: {{head: 9, tail: 3}}}}
text: {{model: word, size: 100, joint: true}}
model:
  encoder: {{kind: recurrent, embedding: 16, size: 16}}
  decoder: {1}
training: {{optimizer: adam, learning_rate: 0.01, max_steps: 3, batch_tokens: 99, validate_every: 1000}}
decoding: {{beam: 2, max_length: 6}}
"""
DECODERS = {
    "recurrent": "{kind: recurrent, order: bahdanau, embedding: 8, size: 24, attention: "
    "{score: additive, sentences: {score: additive}}, copying: true}",
    "transformer": "{kind: transformer, size: 16, layers: 2, feed_forward: 20, self_attention: {heads: 2}, "
    "cross_attention: [{heads: 2}, {heads: 2, sentences: {score: scaled_dot}}]}",
}


TURNS = [
    ["Ann", "Bob: we see", "Ann: you do not"],
    ["Bob", "Ann: hello you", "Bob: we do not see you", "Cy: bye"],
    ["Cy", "Cy: bye bye"],
    ["hello"] * 13,  # of which the head and the tail are read
] * 9  # fmt: skip


def run(path: Path, decoder: str) -> None:
    for name in ("train", "dev"):
        rows = [json.dumps({"turns": turns, "word": turns[-1].split()[-1]}) for turns in TURNS]
        (path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    recipe = path / "recipe.yaml"
    recipe.write_text(RECIPE.format(path, DECODERS[decoder]), encoding="utf-8")
    return seq2attn.train(recipe, path / "run", display=silent())


@pytest.mark.parametrize("decoder", DECODERS)
def test_from_lists_of_turns_to_answers(tmp_path, decoder):
    run(tmp_path, decoder)
    predictor = seq2attn.load(tmp_path / "run", device="cpu")
    assert predictor.model.decoder.hierarchical
    text, *others = ("\n".join(turns) for turns in TURNS)
    word = "see"
    found = predictor.summarize(text, nbest=2)
    assert found.alignment is not None and found.alignment.shape[1] == len(text.split())
    assert_close(found.weights.sum(-1), torch.ones(len(found.weights)))
    together = predictor.summarize([*others, text], nbest=2)[-1]
    assert together.text == found.text
    assert together.log_probability == pytest.approx(found.log_probability, abs=1e-5)
    ids, told_copies = [found.source.ids], predictor.copies([found.source.ids], [found.source])
    (forced,) = predictor.forced_decoding(
        ids, [found.target.ids], copies=told_copies, sentences=predictor.sentences(ids, [text])
    )  # what is searched is what is forced
    assert forced.log_probability == pytest.approx(found.log_probability, abs=1e-4)
    one = predictor.align(text, word)
    (known,) = predictor.log_probabilities([text], [word])
    assert known == pytest.approx(one.log_probability, abs=1e-5)
    (looked,) = predictor.looks([text], [word])
    assert_close(looked[:1, : one.weights.shape[1]], one.weights[:1], atol=1e-5, rtol=1e-5)
    flat = predictor.align(text.replace("\n", " "), word)  # the same ids, but one sentence
    assert flat.source.ids == one.source.ids and abs(flat.log_probability - one.log_probability) > 1e-7


# ---- recipes -----------------------------------------------------------------------------------------

ABOVE: dict[str, Any] = {"sentences": {"score": {"name": "additive", "size": 7}}}


def recurrent(above: Any = None, attention: Any = None) -> Any:
    decoder = tiny.recurrent_decoder("luong")
    decoder["attention"] = {"score": "additive", **(attention or {}), "sentences": above or {}}
    return {"encoder": tiny.recurrent_encoder(), "decoder": decoder}


def faults(model: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        ModelRecipe.model_validate(model)
    return str(caught.value)


def test_a_recipe_says_where_it_makes_no_sense():
    own = {
        "encoder": tiny.transformer(self_attention={"heads": 2, **ABOVE}),
        "decoder": recurrent()["decoder"],
    }
    assert "scale what a target looks at in its source: no sense in self-attention" in faults(own)
    linear = {"score": "linear", "normalize": "sum", "heads": 2}
    assert "add log-weights to the scores, and sum needs scores that are never negative" in faults(
        recurrent(attention=linear)
    )
    assert "Coverage follows where it has looked slot by slot" in faults(
        recurrent(above={"score": "coverage"})
    )
    assert "Location knows the places of slots" in faults(recurrent(above={"score": "location"}))
    sizes = "Dot needs queries and keys of one size, got 14 and 10"
    assert sizes in faults(recurrent(above={"score": "dot"}))
    assert AttentionRecipe().sentences is None


def test_parts_that_make_no_sense_are_refused_in_python_too():
    above = SentenceAttention(ScaledDot(4, 4))
    with pytest.raises(Seq2attnError, match="Sum needs scores that are never negative"):
        Attention(Linear(4, 4), Sum(), hierarchy=above)
    with pytest.raises(Seq2attnError, match="no sense in self-attention, set them to null"):
        Attention(ScaledDot(4, 4), Softmax(), 0.0, POSITIONS["alibi"](2, 4, False), above)
    cases = ((Coverage(4, 4), "slot by slot"), (Location(4, 4), "not of sentences"))
    for scorer, why in (*cases, (TalkingScorer(Coverage(4, 4), 2), "TalkingScorer .* slot by slot")):
        with pytest.raises(Seq2attnError, match=why):
            SentenceAttention(scorer)
